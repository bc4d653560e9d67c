// nesterov_step and NesterovPlan: the scalars of a call checked, the lock of Python released, the engine run.
// Scalars come as Python objects and are read here, so that a wrong one gets a sentence instead of a list of overloads.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/update_arrays.h"
#include "bindings/update_scalars.h"
#include "dispatch/dispatch.h"
#include "engine/threads.h"
#include "engine/update.h"

namespace py = pybind11;

namespace nag {
namespace {

// The scalars as they stand in the signature of nagcore.nesterov_step_.
struct ScalarArguments {
  py::handle lr, momentum, lookahead, dampening, weight_decay, decoupled, nesterov, maximize, convention, check_finite,
      grad_scale, max_norm, ema_decay, seed;
};

UpdateConvention read_convention(py::handle h) {
  if (PyUnicode_Check(h.ptr())) {
    if (PyUnicode_CompareWithASCIIString(h.ptr(), "torch") == 0) return UpdateConvention::torch;
    if (PyUnicode_CompareWithASCIIString(h.ptr(), "keras") == 0) return UpdateConvention::keras;
    if (PyUnicode_CompareWithASCIIString(h.ptr(), "keras-torch") == 0) return UpdateConvention::keras_torch;
    if (PyUnicode_CompareWithASCIIString(h.ptr(), "keras-jax") == 0) return UpdateConvention::keras_jax;
  }
  fail("convention is " + text_of(h) + "; it is \"torch\", \"keras\", \"keras-torch\" or \"keras-jax\".");
}

// The rules of momentum are those of the library whose convention is asked for (docs/maths.md, Updates).
void check_momentum(const UpdateScalars& s, bool lookahead_given) {
  if (lookahead_given && !s.nesterov) {
    fail("lookahead was given with nesterov=False; only the Nesterov step looks ahead. Leave it out, or pass nesterov=True.");
  }
  if (s.convention != UpdateConvention::torch) {
    if (s.dampening != 0) fail("dampening is not 0; the keras convention has none. Leave it out, or use convention=\"torch\".");
    return;
  }
  if (!s.nesterov) return;
  if (s.dampening != 0) fail("nesterov=True needs dampening=0. Pass nesterov=False to keep the dampening.");
  if (s.momentum == 0 && !lookahead_given) {
    fail("nesterov=True needs momentum > 0. Pass nesterov=False for plain gradient descent.");
  }
}

UpdateScalars read_scalars(const ScalarArguments& a, const UpdateArrays& arrays) {
  UpdateScalars s;
  s.convention = read_convention(a.convention);
  s.lr = at_least_zero(a.lr, "lr");
  s.momentum = at_least_zero(a.momentum, "momentum");
  const bool lookahead_given = !a.lookahead.is_none();
  s.lookahead = lookahead_given ? at_least_zero(a.lookahead, "lookahead") : s.momentum;
  s.dampening = finite(a.dampening, "dampening");
  s.weight_decay = at_least_zero(a.weight_decay, "weight_decay");
  s.decoupled = flag(a.decoupled, "decoupled");
  s.nesterov = flag(a.nesterov, "nesterov");
  s.maximize = flag(a.maximize, "maximize");
  check_momentum(s, lookahead_given);
  s.buffered = s.momentum != 0 || lookahead_given;
  if (s.buffered && !arrays.buffered) {
    fail("buffers is None and momentum is not 0; pass one array for each parameter, such as "
         "[np.zeros_like(p) for p in params] (float32 for bfloat16 and float16 parameters).");
  }
  const bool scaled = !a.grad_scale.is_none();
  if (scaled) {
    s.grad_scale = finite(a.grad_scale, "grad_scale");
    if (s.grad_scale <= 0) fail("grad_scale is " + text_of(a.grad_scale) + "; it must be positive.");
  }
  const bool clipped = !a.max_norm.is_none();
  if (clipped) {
    s.max_norm = number(a.max_norm, "max_norm");  // infinity measures and never clips
    if (!(s.max_norm > 0)) fail("max_norm is " + text_of(a.max_norm) + "; it must be positive. None does not clip.");
  }
  s.read_first = flag(a.check_finite, "check_finite") || scaled || clipped;
  s.averaged = arrays.averaged;
  if (s.averaged != !a.ema_decay.is_none()) {
    fail(s.averaged ? "ema was given without ema_decay; pass both, such as ema_decay=0.999."
                    : "ema_decay was given without ema; pass both, ema holding one array for each parameter.");
  }
  if (s.averaged) {
    s.ema_decay = at_least_zero(a.ema_decay, "ema_decay");
    if (s.ema_decay > 1) fail("ema_decay is " + text_of(a.ema_decay) + "; it must lie in [0, 1].");
  }
  s.seed = read_seed(a.seed);
  if (arrays.list.any_single()) {
    check_float_range(s.lr, "lr");
    check_float_range(s.momentum, "momentum");
    check_float_range(s.lookahead, "lookahead");
    check_float_range(1.0 - s.dampening, "dampening");
    check_float_range(s.weight_decay, "weight_decay");
    check_float_range(1.0 - s.lr * s.weight_decay, "lr * weight_decay");
    check_float_range(s.grad_scale, "grad_scale");
    if (static_cast<float>(s.grad_scale) == 0.0F) fail("grad_scale is 0 in float32; it must be positive there.");
  }
  return s;
}

// first_step: one truth for all tensors, or one for each.
class FirstSteps {
 public:
  FirstSteps(py::handle h, std::size_t tensors) {
    if (!PyBool_Check(h.ptr()) && PySequence_Check(h.ptr()) && !PyUnicode_Check(h.ptr()) &&
        !(py::isinstance<py::array>(h) && py::reinterpret_borrow<py::array>(h).ndim() == 0)) {
      const py::object items = py::reinterpret_steal<py::object>(PySequence_Tuple(h.ptr()));
      if (!items) throw py::error_already_set();
      const auto count = static_cast<std::size_t>(PyTuple_GET_SIZE(items.ptr()));
      if (count != tensors) {
        fail("first_step has " + std::to_string(count) + " entries and params has " + std::to_string(tensors) +
             " arrays; give one for each, or a single bool for all.");
      }
      each_.resize(count);
      for (std::size_t i = 0; i < count; ++i) {
        each_[i] = flag(PyTuple_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i)), "first_step") ? 1 : 0;
      }
      return;
    }
    all_ = flag(h, "first_step");
  }

  void apply(UpdateList& list) const {
    for (std::size_t i = 0; i < list.size(); ++i) list.tensor(i).whole.first = each_.empty() ? all_ : each_[i] != 0;
  }

 private:
  bool all_ = false;
  std::vector<char> each_;
};

py::tuple report_tuple(const UpdateReport& r, const UpdateList& list) {
  const std::size_t tensors = r.written ? list.size() : 0;
  const std::size_t elements = r.written ? list.elements() : 0;
  return py::make_tuple(r.grad_norm, r.clip_factor, r.found_inf, tensors, elements);
}

class Plan {
 public:
  Plan(py::handle params, py::handle grads, py::handle buffers, py::handle ema, py::handle master, py::handle dtype)
      : arrays_(read_update_arrays(params, grads, buffers, ema, master, dtype)) {}

  py::tuple step(const ScalarArguments& scalars, py::handle first_step, py::handle n_threads) {
    const UpdateScalars s = read_scalars(scalars, arrays_);
    const FirstSteps first(first_step, arrays_.list.size());
    const int threads = read_threads(n_threads);
    UpdateReport report;
    {
      const py::gil_scoped_release released;
      // One step at a time: the plan's sums and first-step marks are shared. Taken without Python's lock, so no deadlock.
      const std::lock_guard<std::mutex> lock(busy_);
      first.apply(arrays_.list);
      report = run_update(active_table().update, arrays_.list, s, threads);
    }
    return report_tuple(report, arrays_.list);
  }

  std::size_t tensors() const { return arrays_.list.size(); }
  std::size_t elements() const { return arrays_.list.elements(); }

 private:
  UpdateArrays arrays_;
  std::mutex busy_;
};

}  // namespace

void bind_update(py::module_& m) {
  using O = const py::object&;
  m.def(
      "nesterov_step",
      [](O params, O grads, O buffers, O ema, O master, O dtype, O lr, O momentum, O lookahead, O dampening,
         O weight_decay, O decoupled, O nesterov, O maximize, O convention, O first_step, O check_finite, O grad_scale,
         O max_norm, O ema_decay, O seed, O n_threads) {
        UpdateArrays arrays = read_update_arrays(params, grads, buffers, ema, master, dtype);
        const UpdateScalars s = read_scalars({lr, momentum, lookahead, dampening, weight_decay, decoupled, nesterov,
                                              maximize, convention, check_finite, grad_scale, max_norm, ema_decay, seed},
                                             arrays);
        const FirstSteps first(first_step, arrays.list.size());
        const int threads = read_threads(n_threads);
        UpdateReport report;
        {
          const py::gil_scoped_release released;
          first.apply(arrays.list);
          report = run_update(active_table().update, arrays.list, s, threads);
        }
        return report_tuple(report, arrays.list);
      },
      py::arg("params"), py::arg("grads"), py::arg("buffers"), py::arg("ema"), py::arg("master"), py::arg("dtype"),
      py::arg("lr"), py::arg("momentum"), py::arg("lookahead"), py::arg("dampening"), py::arg("weight_decay"),
      py::arg("decoupled"), py::arg("nesterov"), py::arg("maximize"), py::arg("convention"), py::arg("first_step"),
      py::arg("check_finite"), py::arg("grad_scale"), py::arg("max_norm"), py::arg("ema_decay"), py::arg("seed"),
      py::arg("n_threads"),
      "The update behind nagcore.nesterov_step_. Returns (grad_norm, clip_factor, found_inf, tensors, elements).");

  py::class_<Plan>(m, "NesterovPlan", "The arrays of an update, checked once; behind nagcore.NesterovPlan.")
      .def(py::init<O, O, O, O, O, O>(),
           py::arg("params"), py::arg("grads"), py::arg("buffers"), py::arg("ema"), py::arg("master"),
           py::arg("dtype"))
      .def_property_readonly("tensors", &Plan::tensors)
      .def_property_readonly("elements", &Plan::elements)
      .def("step",
           [](Plan& plan, O lr, O momentum, O lookahead, O dampening, O weight_decay, O decoupled, O nesterov, O maximize,
              O convention, O first_step, O check_finite, O grad_scale, O max_norm, O ema_decay, O seed, O n_threads) {
             return plan.step({lr, momentum, lookahead, dampening, weight_decay, decoupled, nesterov, maximize, convention,
                               check_finite, grad_scale, max_norm, ema_decay, seed},
                              first_step, n_threads);
           },
           py::arg("lr"), py::arg("momentum"), py::arg("lookahead"), py::arg("dampening"), py::arg("weight_decay"),
           py::arg("decoupled"), py::arg("nesterov"), py::arg("maximize"), py::arg("convention"),
           py::arg("first_step"), py::arg("check_finite"), py::arg("grad_scale"), py::arg("max_norm"),
           py::arg("ema_decay"), py::arg("seed"), py::arg("n_threads"),
           "One step; returns what nesterov_step returns.");
}

}  // namespace nag
