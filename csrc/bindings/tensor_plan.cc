#include "bindings/tensor_plan.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "bindings/object_readers.h"

namespace py = pybind11;

namespace nag {
namespace {

constexpr UpdateRole kStateRoles[] = {kBuffer, kEma, kMaster};
constexpr unsigned role_bit(UpdateRole role) { return 1u << role; }
constexpr Py_ssize_t kBlock = 16;
constexpr std::int32_t kMaxRank = 1024;

// Asks for what a tensor object wraps. Its address is one of the two words behind the object's header, the other one a flag or
// null: to ask for the first page costs a walk through the page tables.
void prefetch_wrapped(PyObject* tensor) {
  std::uintptr_t words[2];
  std::memcpy(words, reinterpret_cast<const char*>(tensor) + sizeof(PyObject), sizeof words);
  constexpr std::uintptr_t kFirstPage = 4096;
  const auto* wrapped = reinterpret_cast<const char*>(words[0] < kFirstPage ? words[1] : words[0]);
  __builtin_prefetch(wrapped);
  __builtin_prefetch(wrapped + 64);
  __builtin_prefetch(wrapped + 128);
}

// Of a handful of numbers: less than the call of memcmp, and without a branch for each.
inline bool equal_words(const std::int64_t* a, const std::int64_t* b, std::size_t n) {
  std::int64_t differ = 0;
  for (std::size_t i = 0; i < n; ++i) differ |= a[i] ^ b[i];
  return differ == 0;
}

bool is_complex(std::uint8_t code) { return code == exchange::kComplex; }

bool number_of(std::uint8_t code, std::uint8_t bits, UpdateNumber* number) {
  if (code == exchange::kFloat && bits == 32) return *number = UpdateNumber::f32, true;
  if (code == exchange::kFloat && bits == 64) return *number = UpdateNumber::f64, true;
  if (code == exchange::kFloat && bits == 16) return *number = UpdateNumber::f16, true;
  if (code == exchange::kBfloat && bits == 16) return *number = UpdateNumber::bf16, true;
  if (code == exchange::kComplex && bits == 64) return *number = UpdateNumber::f32, true;
  if (code == exchange::kComplex && bits == 128) return *number = UpdateNumber::f64, true;
  return false;
}

}  // namespace

TensorList::TensorList(py::handle capsule, py::object describe, py::object counter)
    : torch_(exchange::table_of(capsule)), describe_(std::move(describe)), counter_(std::move(counter)) {}

void TensorList::release() {
  for (PyObject* object : held_) Py_DECREF(object);
  held_.clear();
}

void TensorList::remember(bool wanted) {
  if (remembers_ && !wanted) {
    for (Record& record : records_) record.asked = py::object();
  }
  remembers_ = wanted;
}

// False where the tensor has no memory here to be read: another device, sparse, no storage.
inline bool TensorList::read(PyObject* object, exchange::Tensor* out) {
  if (torch_ == nullptr) return read_described(object, out);
  if (torch_->tensor_from_object(object, out) != 0) {
    PyErr_Clear();
    return false;
  }
  out->data = static_cast<char*>(out->data) + out->byte_offset;
  return out->device_type == exchange::kCpu && out->lanes == 1;
}

bool TensorList::read_described(PyObject* object, exchange::Tensor* out) {
  // (address, code, bits, shape, strides), or None
  const py::object facts = describe_(py::handle(object));
  if (facts.is_none()) return false;
  const auto tuple = py::reinterpret_borrow<py::tuple>(facts);
  const auto shape = tuple[3].cast<std::vector<std::int64_t>>(), strides = tuple[4].cast<std::vector<std::int64_t>>();
  described_ = shape;
  described_.insert(described_.end(), strides.begin(), strides.end());
  out->data = reinterpret_cast<void*>(tuple[0].cast<std::uintptr_t>());
  out->code = tuple[1].cast<std::uint8_t>();
  out->bits = tuple[2].cast<std::uint8_t>();
  out->rank = static_cast<std::int32_t>(shape.size());
  out->shape = described_.data();
  out->strides = described_.data() + shape.size();
  return true;
}

inline bool TensorList::has_dims(const Reading& r, const exchange::Tensor& t) const {
  const auto rank = static_cast<std::size_t>(t.rank);
  const std::int64_t* own = dims_.data() + r.dims;
  return r.rank == rank && equal_words(own, t.shape, rank) && equal_words(own + rank, t.strides, rank);
}

void TensorList::keep_dims(Reading& r, const exchange::Tensor& t) {
  r.rank = static_cast<std::uint16_t>(t.rank);
  r.dims = static_cast<std::uint32_t>(dims_.size());
  dims_.insert(dims_.end(), t.shape, t.shape + t.rank);
  dims_.insert(dims_.end(), t.strides, t.strides + t.rank);
}

// Leaves out the dims that no reading has any more.
void TensorList::tidy_dims() {
  std::vector<std::int64_t> kept;
  for (Record& record : records_) {
    const Reading param = record.readings[kParam];
    for (Reading& r : record.readings) {
      if (!r.present()) continue;
      if (&r != &record.readings[kParam] && r.dims == param.dims && r.rank == param.rank) {
        r.dims = record.readings[kParam].dims;
        continue;
      }
      const auto begin = dims_.begin() + static_cast<std::ptrdiff_t>(r.dims);
      r.dims = static_cast<std::uint32_t>(kept.size());
      kept.insert(kept.end(), begin, begin + 2 * static_cast<std::ptrdiff_t>(r.rank));
    }
  }
  dims_ = std::move(kept);
}

// Reads one array of a record; where it differs from what is known, the layout is stale.
inline bool TensorList::take(Record& record, UpdateRole role, PyObject* object) {
  exchange::Tensor t;
  t.strides = nullptr;
  if (!read(object, &t) || (t.rank > 0 && t.strides == nullptr)) return false;
  if (role == kParam && torch_ != nullptr && record.sizes != t.shape) {
    record.sizes = t.shape;
    record.counter = py::object();
    stale_ = true;
  }
  const Reading& r = record.readings[role];
  if (r.data == t.data && r.code == t.code && r.bits == t.bits && has_dims(r, t)) return true;
  return take_anew(record, role, t);
}

bool TensorList::take_anew(Record& record, UpdateRole role, const exchange::Tensor& t) {
  if (t.rank > kMaxRank || t.code == 0) return false;
  Reading& r = record.readings[role];
  stale_ = true;
  if (role == kParam) {  // what the others were compared with goes
    for (int other = kGrad; other < kUpdateRoles; ++other) record.readings[other].code = 0;
  }
  r.data = t.data;
  r.code = t.code;
  r.bits = t.bits;
  const Reading& param = record.readings[kParam];
  if (role != kParam && has_dims(param, t)) {
    r.rank = param.rank;
    r.dims = param.dims;
  } else {
    keep_dims(r, t);
  }
  return true;
}

void TensorList::drop(Record& record, UpdateRole role) {
  if (!record.readings[role].present() && !record.state[role]) return;
  stale_ = true;
  record.kept &= static_cast<std::uint8_t>(~role_bit(role));
  record.readings[role].code = 0;
  record.state[role] = py::object();
  record.handles[role] = exchange::Handle();
}

// Two handles on the counter's tensor: autograd then tells it of a write without Python's lock, which it takes for a tensor
// that Python alone holds. A second handle on the parameter itself would make torch refuse to swap it.
py::handle TensorList::counter_of(Record& record) {
  if (torch_ == nullptr) return record.param;
  if (!record.counter) {
    record.counter = counter_(record.param);
    record.counter_handle = exchange::Handle();
    if (record.counter.ptr() != record.param.ptr()) record.counter_handle = exchange::Handle(torch_, record.counter.ptr());
  }
  return record.counter;
}

// Negation and conjugation may be a mark on a tensor, not yet carried out on its memory.
bool TensorList::holds_a_lazy_bit(PyObject* grad, std::uint8_t code) {
  for (PyObject* name : {words().is_neg, words().is_conj}) {
    if (name == words().is_conj && !is_complex(code)) break;
    const auto answer = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(grad, name));
    if (!answer) throw py::error_already_set();
    if (answer.ptr() == Py_True) return true;
  }
  return false;
}

inline const char* TensorList::visit(Record& record, PyObject* grad, StateReader& state, unsigned roles) {
  const Words& words = nag::words();
  if (!record.active) {
    record.active = true;
    stale_ = true;
  }
  if (!take(record, kParam, record.param.ptr())) return "parameter";
  if (!take(record, kGrad, grad)) return "gradient";
  // The question costs as much as all else here, and a tensor that lives on does not change its answer. A weak reference:
  // a strong one would keep the memory of gradients that zero_grad has let go.
  if (!record.asked || PyWeakref_GET_OBJECT(record.asked.ptr()) != grad) {
    if (holds_a_lazy_bit(grad, record.readings[kGrad].code)) return "lazy";
    if (remembers_) {
      record.asked = py::reinterpret_steal<py::object>(PyWeakref_NewRef(grad, nullptr));
      if (!record.asked) throw py::error_already_set();
    }
  }
  const unsigned wanted = record.readings[kParam].bits == 16 ? roles : roles & ~role_bit(kMaster);
  if ((record.kept & ~wanted) != 0) {
    for (const UpdateRole role : kStateRoles)
      if ((wanted & role_bit(role)) == 0) drop(record, role);
  }
  if (wanted == 0) return nullptr;
  PyObject* const own = state(record.param.ptr());
  if (own == nullptr || !PyDict_Check(own)) return "state";
  for (const UpdateRole role : kStateRoles) {
    if ((wanted & role_bit(role)) == 0) continue;
    PyObject* value = entry_of(own, words.roles[role]);
    if (value == nullptr || value == Py_None) return "state";
    if (!take(record, role, value)) return "state";
    if (record.state[role].ptr() != value) {
      record.kept |= static_cast<std::uint8_t>(role_bit(role));
      record.state[role] = py::reinterpret_borrow<py::object>(value);
      record.handles[role] = exchange::Handle(torch_, value);
    }
  }
  return nullptr;
}

inline TensorList::Record& TensorList::record_at(std::size_t place, PyObject* param, std::size_t group) {
  if (place < records_.size()) {
    Record& record = records_[place];
    if (record.param.ptr() == param && record.group == group) return record;
  }
  return record_anew(place, param, group);
}

TensorList::Record& TensorList::record_anew(std::size_t place, PyObject* param, std::size_t group) {
  if (place == records_.size()) records_.emplace_back();
  Record& record = records_[place];
  if (record.param.ptr() != param) {
    record = Record{};
    record.param = py::reinterpret_borrow<py::object>(param);
  }
  record.group = static_cast<std::uint32_t>(group);
  stale_ = true;
  return record;
}

py::list TensorList::gather(py::handle groups, py::handle state, const std::vector<char>& buffered, TensorRoles roles) {
  py::list troubles;
  release();
  held_.reserve(records_.size());
  if (!PyDict_Check(state.ptr()) || !PyList_Check(groups.ptr())) {
    throw py::type_error("param_groups is a list and state a dict.");
  }
  GradReader grad_of;
  StateReader state_of(state.ptr());
  std::size_t place = 0;
  for (Py_ssize_t k = 0; k < PyList_GET_SIZE(groups.ptr()); ++k) {
    PyObject* params = PyDict_GetItemWithError(PyList_GET_ITEM(groups.ptr(), k), words().params);
    if (params == nullptr || !PyList_Check(params)) throw py::type_error("a parameter group holds a list under \"params\".");
    // In blocks, each stage asking for the memory of the next: a thousand tensors do not stay in the second-level cache
    // between two steps, and waiting for each in turn would be most of the time.
    const Py_ssize_t count = PyList_GET_SIZE(params);
    const auto group = static_cast<std::size_t>(k);
    const unsigned wanted = (buffered[group] != 0 ? role_bit(kBuffer) : 0) | (roles.ema ? role_bit(kEma) : 0) |
                            (roles.master ? role_bit(kMaster) : 0);
    for (Py_ssize_t from = 0; from < count; from += kBlock) {
      const Py_ssize_t block = std::min(kBlock, count - from);
      PyObject* grads[kBlock];
      for (Py_ssize_t i = 0; i < block; ++i) prefetch_wrapped(PyList_GET_ITEM(params, from + i));
      for (Py_ssize_t i = 0; i < block; ++i) {
        PyObject* param = PyList_GET_ITEM(params, from + i);
        const Record& record = record_at(place + static_cast<std::size_t>(i), param, group);
        grads[i] = record.foreign ? nullptr : grad_of(param);
        if (grads[i] == nullptr) {
          if (record.foreign) continue;
          throw py::error_already_set();
        }
        held_.push_back(grads[i]);
        for (const UpdateRole role : kStateRoles) {
          if ((record.kept & role_bit(role)) != 0) __builtin_prefetch(record.state[role].ptr());
        }
      }
      for (Py_ssize_t i = 0; i < block; ++i) {
        if (grads[i] == nullptr || grads[i] == Py_None) continue;
        prefetch_wrapped(grads[i]);
        const Record& record = records_[place + static_cast<std::size_t>(i)];
        for (const UpdateRole role : kStateRoles) {
          if ((record.kept & role_bit(role)) != 0) prefetch_wrapped(record.state[role].ptr());
        }
      }
      for (Py_ssize_t i = 0; i < block; ++i, ++place) {
        if (grads[i] == nullptr) continue;
        Record& record = records_[place];
        if (grads[i] == Py_None) {
          stale_ = stale_ || record.active;
          record.active = false;
          continue;
        }
        const char* reason = visit(record, grads[i], state_of, wanted);
        if (reason != nullptr) troubles.append(py::make_tuple(place, reason));
      }
    }
  }
  if (place != records_.size()) {
    records_.resize(place);
    stale_ = true;
  }
  if (stale_ && troubles.empty()) lay_out_all(troubles);
  return troubles;
}

void TensorList::lay_out_all(py::list& troubles) {
  ++layouts_;
  list_.clear();
  tidy_dims();
  py::list counters;
  OverlapCheck overlaps(records_.size() * kUpdateRoles);
  std::vector<Py_ssize_t> dims[kUpdateRoles];
  for (std::size_t place = 0; place < records_.size(); ++place) {
    Record& record = records_[place];
    record.listed = -1;
    if (record.foreign || !record.active) continue;
    const char* reason = nullptr;
    ArrayView views[kUpdateRoles] = {};
    const Reading& p = record.readings[kParam];
    const std::int64_t* const shape = dims_.data() + p.dims;
    const std::size_t rank = p.rank;
    for (int role = 0; role < kUpdateRoles && reason == nullptr; ++role) {
      const Reading& r = record.readings[role];
      ArrayView& v = views[role];
      if (!r.present()) continue;
      const std::int64_t* const own = dims_.data() + r.dims;
      const bool same_shape = r.rank == p.rank && std::equal(shape, shape + rank, own);
      const bool known = number_of(r.code, r.bits, &v.number);
      const bool fits = known && is_complex(r.code) == is_complex(p.code) &&
                        number_fits(static_cast<UpdateRole>(role), views[kParam].number, v.number);
      if (!fits) reason = known ? "dtype" : role == kGrad ? "gradient" : "parameter";
      else if (!same_shape) reason = "shape";
      if (reason != nullptr) break;
      const auto item = static_cast<Py_ssize_t>(r.bits / 8);
      if (reinterpret_cast<std::uintptr_t>(r.data) % static_cast<std::uintptr_t>(item_bytes(v.number)) != 0) {
        reason = "overlap";  // misaligned: as little ours to step as memory that is shared
        break;
      }
      dims[role].assign(own, own + 2 * rank);
      for (std::size_t axis = 0; axis < rank; ++axis) dims[role][rank + axis] *= item;
      if (is_complex(r.code)) {  // a last axis of two reals
        dims[role].insert(dims[role].begin() + static_cast<std::ptrdiff_t>(rank), 2);
        dims[role].push_back(item / 2);
      }
      v.rank = static_cast<int>(dims[role].size() / 2);
      v.shape = dims[role].data();
      v.strides = dims[role].data() + v.rank;
      v.data = static_cast<char*>(r.data);
      v.present = true;
    }
    if (reason == nullptr) {
      UpdateSpan span{};
      span.tensor = place;
      span.rule = record.group;
      if (lay_out(views, span, list_, overlaps) >= 0) reason = "overlap";
    }
    if (reason != nullptr) {
      troubles.append(py::make_tuple(place, reason));
      continue;
    }
    record.listed = static_cast<std::int32_t>(list_.size()) - 1;
    counters.append(counter_of(record));
  }
  OverlapCheck::Pair found;
  // Interleaved views that touch no common byte count as overlapping: torch's own step takes them.
  const auto refuse = [&] { return overlaps.find_extents(&found); };
  if (troubles.empty() && refuse()) {
    troubles.append(py::make_tuple(found.first / kUpdateRoles, "overlap"));
    troubles.append(py::make_tuple(found.second / kUpdateRoles, "overlap"));
  }
  if (!troubles.empty()) return;
  list_.seal();
  counters_ = counters;
  stale_ = false;
}

void TensorList::mark_first(py::handle places) {
  for (const std::size_t listed : first_) {
    if (listed < list_.size()) list_.tensor(listed).whole.first = false;
  }
  first_.clear();
  if (places.is_none()) return;
  for (const py::handle place : places) {
    const auto at = place.cast<std::size_t>();
    if (at < records_.size() && records_[at].listed >= 0) {
      const auto listed = static_cast<std::size_t>(records_[at].listed);
      list_.tensor(listed).whole.first = true;
      first_.push_back(listed);
    }
  }
}

void TensorList::hand_over(std::size_t place) {
  if (place >= records_.size()) return;
  records_[place].foreign = true;
  records_[place].active = false;
  stale_ = true;
}

}  // namespace nag
