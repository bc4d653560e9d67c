#include "bindings/update_arrays.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bindings/update_layout.h"
#include "bindings/update_overlap.h"

namespace py = pybind11;

namespace nag {
namespace {

constexpr const char* kRoleName[kUpdateRoles] = {"params", "grads", "buffers", "ema", "master"};
constexpr const char* kTorchHint = "A torch tensor shares its memory through tensor.detach().numpy().";

// NumPy's type numbers, which never change (ndarraytypes.h); pybind11 names all but float16's.
constexpr int kNpyUint16 = 4;
constexpr int kNpyFloat32 = 11;
constexpr int kNpyFloat64 = 12;
constexpr int kNpyFloat16 = 23;
constexpr int kNpyUserTypes = 256;

// A whole argument: one array, or a list or tuple of arrays held alive.
class ArrayArgument {
 public:
  ArrayArgument(py::handle given, UpdateRole role) : role_(role) {
    if (given.is_none()) return;
    present_ = true;
    if (is_array(given)) {
      single_ = given.ptr();
      owner_ = py::reinterpret_borrow<py::object>(given);
      size_ = 1;
      return;
    }
    // A tuple of our own: it holds the arrays for as long as their pointers are in use, whatever another thread does to
    // the caller's list meanwhile.
    const bool text = PyUnicode_Check(given.ptr()) || PyBytes_Check(given.ptr());
    PyObject* const items = text ? nullptr : PySequence_Tuple(given.ptr());
    if (items == nullptr) {
      if (PyErr_Occurred() != nullptr && !PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
      PyErr_Clear();
      throw py::type_error(std::string(kRoleName[role]) + " is " + type_name(given) +
                           "; nesterov_step_ takes a NumPy array or a sequence of NumPy arrays. " + kTorchHint);
    }
    owner_ = py::reinterpret_steal<py::object>(items);
    size_ = static_cast<std::size_t>(PyTuple_GET_SIZE(items));
  }

  static bool is_array(py::handle h) { return py::isinstance<py::array>(h); }
  static std::string type_name(py::handle h) { return Py_TYPE(h.ptr())->tp_name; }

  bool present() const { return present_; }
  bool single() const { return single_ != nullptr; }
  std::size_t size() const { return size_; }
  PyObject* item(std::size_t i) const {
    return single_ != nullptr ? single_ : PyTuple_GET_ITEM(owner_.ptr(), static_cast<Py_ssize_t>(i));
  }
  UpdateRole role() const { return role_; }
  const py::object& owner() const { return owner_; }
  std::string name(std::size_t i) const {
    return single_ != nullptr ? kRoleName[role_] : std::string(kRoleName[role_]) + "[" + std::to_string(i) + "]";
  }

 private:
  UpdateRole role_;
  bool present_ = false;
  PyObject* single_ = nullptr;
  py::object owner_;
  std::size_t size_ = 0;
};

class Reader {
 public:
  Reader(py::handle params, py::handle grads, py::handle buffers, py::handle ema, py::handle master, py::handle dtype)
      : arguments_{{params, kParam}, {grads, kGrad}, {buffers, kBuffer}, {ema, kEma}, {master, kMaster}},
        array_type_(py::detail::npy_api::get().PyArray_Type_) {
    if (dtype.is_none()) return;
    // A string or an ml_dtypes type: np.dtype(...).name and str() agree on the word that matters.
    const std::string word = py::isinstance<py::str>(dtype) ? std::string(py::str(dtype))
                                                           : std::string(py::str(py::dtype::from_args(
                                                                 py::reinterpret_borrow<py::object>(dtype)).attr("name")));
    if (word != "bfloat16") {
      throw py::value_error("dtype is '" + word + "'; it is only needed for uint16 arrays that hold bfloat16: pass "
                            "dtype=\"bfloat16\", or leave it out, since other arrays carry their dtype.");
    }
    uint16_is_bfloat16_ = true;
  }

  UpdateArrays read() {
    check_lengths();
    UpdateArrays out;
    out.buffered = arguments_[kBuffer].present();
    out.averaged = arguments_[kEma].present();
    const std::size_t count = arguments_[kParam].size();
    OverlapCheck overlaps(count * kUpdateRoles);
    for (std::size_t i = 0; i < count; ++i) read_tensor(i, out.list, overlaps);
    OverlapCheck::Pair found;
    const auto object_of = [&](std::uint32_t id) {
      return py::handle(arguments_[id % kUpdateRoles].item(id / kUpdateRoles));
    };
    if (overlaps.find(&found, object_of)) fail_overlap(found);
    for (int role = 0; role < kUpdateRoles; ++role) out.owners[role] = arguments_[role].owner();
    out.list.seal();
    return out;
  }

 private:
  struct View {
    const py::detail::PyArray_Proxy* array;
    UpdateNumber number;
  };

  void check_lengths() const {
    const ArrayArgument& params = arguments_[kParam];
    if (!params.present()) throw py::type_error("params is None; nesterov_step_ takes an array or a sequence of arrays.");
    if (!arguments_[kGrad].present()) {
      throw py::type_error("grads is None; nesterov_step_ takes one gradient for each of params.");
    }
    for (const ArrayArgument& a : arguments_) {
      if (!a.present()) continue;
      if (a.single() != params.single()) {
        throw py::type_error(std::string(kRoleName[a.role()]) + " is " + (a.single() ? "one array" : "a sequence") +
                             " while params is " + (params.single() ? "one array" : "a sequence") +
                             "; pass both as arrays or both as sequences, such as params=[p], " +
                             kRoleName[a.role()] + "=[a].");
      }
      if (a.size() != params.size()) {
        throw py::value_error(std::string(kRoleName[a.role()]) + " has " + std::to_string(a.size()) +
                              " arrays and params has " + std::to_string(params.size()) +
                              "; each parameter needs its own, in the same order.");
      }
    }
  }

  void read_tensor(std::size_t i, UpdateList& list, OverlapCheck& overlaps) {
    View views[kUpdateRoles] = {};
    ArrayView layout[kUpdateRoles] = {};
    for (const ArrayArgument& a : arguments_) {
      if (!a.present()) continue;
      const View v = view(a, i);
      views[a.role()] = v;
      check_number(a.role(), i, views);
      if (a.role() != kParam) check_shape(a.role(), i, views[kParam].array, v.array);
      layout[a.role()] = {v.array->data, v.array->nd, v.array->dimensions, v.array->strides, v.number, true};
    }
    UpdateSpan span{};
    span.tensor = i;
    const int folded = lay_out(layout, span, list, overlaps);
    if (folded < 0) return;
    const std::string name = arguments_[folded].name(i);
    throw py::value_error(name + " overlaps itself: some of its elements share memory, as in a broadcast view. Use " + name +
                          ".copy() and keep that array.");
  }

  View view(const ArrayArgument& a, std::size_t i) {
    PyObject* const object = a.item(i);
    if (Py_TYPE(object) != array_type_ && !ArrayArgument::is_array(object)) {
      throw py::type_error(a.name(i) + " is " + ArrayArgument::type_name(object) +
                           "; nesterov_step_ works on NumPy arrays in place. " + kTorchHint);
    }
    const auto* array = py::detail::array_proxy(object);
    const UpdateNumber number = number_of(array, a, i);
    if ((array->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_) == 0) {
      throw py::value_error(a.name(i) + " is misaligned; its elements must lie at multiples of their size. Use " +
                            a.name(i) + ".copy() and keep that array.");
    }
    if (a.role() != kGrad && (array->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) == 0) {
      throw py::value_error(a.name(i) + " is not writable; nesterov_step_ writes it in place. Use " + a.name(i) +
                            ".copy(), or " + a.name(i) + ".setflags(write=True) where the array owns its memory.");
    }
    return {array, number};
  }

  UpdateNumber number_of(const py::detail::PyArray_Proxy* array, const ArrayArgument& a, std::size_t i) {
    // Two descriptors at most are in play in a list, so the last one is remembered.
    if (array->descr == last_descr_) return last_number_;
    const auto* descr = py::detail::array_descriptor_proxy(array->descr);
    const char order = descr->byteorder;
    const std::uint16_t one = 1;
    const char spelled = *reinterpret_cast<const unsigned char*>(&one) == 1 ? '<' : '>';  // native order, named outright
    const bool native = order == '=' || order == '|' || order == spelled;
    UpdateNumber number{};
    bool known = native;
    switch (descr->type_num) {
      case kNpyFloat32: number = UpdateNumber::f32; break;
      case kNpyFloat64: number = UpdateNumber::f64; break;
      case kNpyFloat16: number = UpdateNumber::f16; break;
      case kNpyUint16:
        number = UpdateNumber::bf16;
        known = known && uint16_is_bfloat16_;
        break;
      default:
        number = UpdateNumber::bf16;
        known = known && descr->type_num >= kNpyUserTypes && name_of(array) == "bfloat16";
    }
    if (!known) {
      const std::string name = name_of(array);
      std::string fix = " Use " + a.name(i) + ".astype(np.float32).";
      if (!native) fix = " Use " + a.name(i) + ".astype(" + a.name(i) + ".dtype.newbyteorder(\"=\")).";
      if (descr->type_num == kNpyUint16) fix = " If it holds bfloat16, pass dtype=\"bfloat16\".";
      throw py::value_error(a.name(i) + " has dtype " + (native ? name : name + " in foreign byte order") +
                            "; nesterov_step_ works on float64, float32, bfloat16 and float16." + fix);
    }
    last_descr_ = array->descr;
    last_number_ = number;
    return number;
  }

  static std::string name_of(const py::detail::PyArray_Proxy* array) {
    return py::str(py::handle(array->descr).attr("name"));
  }

  void check_number(UpdateRole role, std::size_t i, const View* views) const {
    const UpdateNumber p = views[kParam].number;
    const UpdateNumber x = views[role].number;
    const bool narrow = p == UpdateNumber::bf16 || p == UpdateNumber::f16;
    const UpdateNumber state = narrow ? UpdateNumber::f32 : p;
    if (number_fits(role, p, x)) return;
    const std::string name = arguments_[role].name(i);
    if (role == kMaster && !narrow) {
      throw py::value_error(name + " was given for a parameter of dtype " + number_name(p) +
                            "; master weights belong to bfloat16 and float16 parameters. Leave master out.");
    }
    const std::string wanted = role == kGrad && narrow ? std::string(number_name(p)) + " or float32" : number_name(state);
    throw py::value_error(name + " has dtype " + number_name(x) + "; with " + arguments_[kParam].name(i) +
                          " of dtype " + number_name(p) + " it must be " + wanted + ". Use " + name + ".astype(np." +
                          number_name(state) + ")" + (role == kGrad ? "." : " once, and keep that array."));
  }

  void check_shape(UpdateRole role, std::size_t i, const py::detail::PyArray_Proxy* p,
                   const py::detail::PyArray_Proxy* a) const {
    if (a->nd == p->nd && (p->nd == 0 || std::memcmp(a->dimensions, p->dimensions,
                                                     static_cast<std::size_t>(p->nd) * sizeof(ssize_t)) == 0)) {
      return;
    }
    throw py::value_error(arguments_[role].name(i) + " has shape " + shape_text(a) + " and " +
                          arguments_[kParam].name(i) + " has shape " + shape_text(p) +
                          "; they must be equal, since nothing is broadcast. Reshape one of them.");
  }

  static std::string shape_text(const py::detail::PyArray_Proxy* a) {
    std::string text = "(";
    for (int axis = 0; axis < a->nd; ++axis) {
      text += std::to_string(a->dimensions[axis]) + (axis + 1 < a->nd ? ", " : a->nd == 1 ? "," : "");
    }
    return text + ")";
  }

  [[noreturn]] void fail_overlap(OverlapCheck::Pair pair) const {
    const auto text = [&](std::uint32_t id) {
      return arguments_[id % kUpdateRoles].name(id / kUpdateRoles);
    };
    throw py::value_error(text(std::min(pair.first, pair.second)) + " and " + text(std::max(pair.first, pair.second)) +
                          " overlap in memory; arrays that are written must not share it. Use .copy() on one, and pass "
                          "a shared parameter once.");
  }

  ArrayArgument arguments_[kUpdateRoles];
  PyTypeObject* array_type_;
  bool uint16_is_bfloat16_ = false;
  PyObject* last_descr_ = nullptr;
  UpdateNumber last_number_ = UpdateNumber::f64;
};

}  // namespace

UpdateArrays read_update_arrays(py::handle params, py::handle grads, py::handle buffers, py::handle ema,
                                py::handle master, py::handle dtype) {
  return Reader(params, grads, buffers, ema, master, dtype).read();
}

}  // namespace nag
