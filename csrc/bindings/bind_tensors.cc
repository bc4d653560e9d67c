// TensorPlan: one step of a whole torch optimizer in one call. Behind nagcore.torch.SGD, which answers what it reports back.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/tensor_plan.h"
#include "bindings/update_scalars.h"
#include "dispatch/dispatch.h"
#include "engine/large_pages.h"
#include "engine/update.h"

namespace py = pybind11;

namespace nag {
namespace {

// Holds the plan for one call; Python's lock is given up while the engine runs, and a second thread must not come in then.
class Turn {
 public:
  explicit Turn(std::atomic<bool>& busy) : busy_(busy) {
    if (busy_.exchange(true)) {
      throw std::runtime_error("this optimizer is in the middle of a step in another thread. Step it from one thread at a "
                               "time, or give each thread its own.");
    }
  }
  ~Turn() { busy_ = false; }

 private:
  std::atomic<bool>& busy_;
};

class TensorPlan {
 public:
  TensorPlan(py::handle capsule, py::object describe, py::object counter, bool large_pages)
      : tensors_(capsule, std::move(describe), std::move(counter)), large_pages_(large_pages) {}

  // Reads groups and tensors; [] when a step may follow.
  py::list gather(const py::list& groups, const py::dict& state, py::handle momentum, py::handle lookahead, bool ema, bool master,
                  bool remember) {
    const Turn turn(busy_);
    tensors_.remember(remember);
    read_rules(groups, momentum, lookahead);
    return tensors_.gather(groups, state, buffered_, {ema, master});
  }

  double norm(py::handle grad_scale, py::handle n_threads) {
    const Turn turn(busy_);
    const double scale = grad_scale.is_none() ? 1.0 : finite(grad_scale, "grad_scale");
    const int threads = read_threads(n_threads);
    const py::gil_scoped_release released;
    return update_norm(active_table().update, tensors_.list(), threads) / scale;
  }

  py::tuple step(py::handle first, py::handle max_norm, py::handle ema_decay, py::handle grad_scale, bool read_first,
                 py::handle known_norm, bool aligned, py::handle seed, py::handle n_threads) {
    const Turn turn(busy_);
    UpdateScalars shared;
    if (!max_norm.is_none()) {
      shared.max_norm = number(max_norm, "max_norm");
      if (!(shared.max_norm > 0)) fail("max_norm is " + text_of(max_norm) + "; it must be positive. None does not clip.");
    }
    if (!grad_scale.is_none()) {
      shared.grad_scale = finite(grad_scale, "grad_scale");
      if (shared.grad_scale <= 0) fail("grad_scale is " + text_of(grad_scale) + "; it must be positive.");
      check_float_range(shared.grad_scale, "grad_scale");
    }
    shared.averaged = !ema_decay.is_none();
    if (shared.averaged) shared.ema_decay = at_least_zero(ema_decay, "ema_decay");
    if (!known_norm.is_none()) shared.known_norm = number(known_norm, "known_norm");
    shared.seed = read_seed(seed);
    shared.read_first = read_first || shared.max_norm != 0.0;
    shared.aligned = aligned;
    const int threads = read_threads(n_threads);
    std::vector<UpdateScalars> rules = rules_;
    if (rules.empty()) rules.emplace_back();
    for (UpdateScalars& rule : rules) share(shared, rule);
    tensors_.mark_first(first);
    UpdateReport r;
    {
      const py::gil_scoped_release released;
      const auto start = std::chrono::steady_clock::now();
      r = run_update(active_table().update, tensors_.list(), rules, threads);
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
      if (large_pages_) pages_.after_step(tensors_.list(), tensors_.layouts(), taken.count());
    }
    tensors_.release();
    const UpdateList& list = tensors_.list();
    return py::make_tuple(r.grad_norm, r.clip_factor, r.found_inf, r.written ? list.size() : 0,
                          r.written ? list.elements() : 0, -r.alignment);
  }

  void release() { tensors_.release(); }
  void hand_over(std::size_t place) { tensors_.hand_over(place); }
  py::list counters() const { return tensors_.counters(); }
  std::size_t layouts() const { return tensors_.layouts(); }
  py::tuple pages() const {
    const PageMover::Bytes found = pages_.bytes();
    return py::make_tuple(found.moved, found.waiting, found.refused);
  }

 private:
  static void share(const UpdateScalars& shared, UpdateScalars& rule) {
    rule.max_norm = shared.max_norm;
    rule.grad_scale = shared.grad_scale;
    rule.averaged = shared.averaged;
    rule.ema_decay = shared.ema_decay;
    rule.known_norm = shared.known_norm;
    rule.seed = shared.seed;
    rule.read_first = shared.read_first;
    rule.aligned = shared.aligned;
  }

  static py::handle entry(py::handle group, const char* name) {
    PyObject* value = PyDict_GetItemString(group.ptr(), name);
    if (value == nullptr) fail(std::string("a parameter group has no \"") + name + "\"; give it one, such as group[\"" + name + "\"] = 0.0.");
    return value;
  }

  // What torch lets a scheduler set is set here without torch's checks of the constructor, but a number it must be.
  void read_rules(const py::list& groups, py::handle momentum, py::handle lookahead) {
    rules_.resize(groups.size());
    buffered_.resize(groups.size());
    for (std::size_t k = 0; k < rules_.size(); ++k) {
      const py::handle group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(k));
      if (!PyDict_Check(group.ptr())) throw py::type_error("a parameter group is a dict.");
      UpdateScalars& s = rules_[k];
      s = UpdateScalars{};
      s.lr = finite(entry(group, "lr"), "lr");
      const bool scheduled = !momentum.is_none();
      s.momentum = finite(scheduled ? momentum : entry(group, "momentum"), "momentum");
      s.lookahead = lookahead.is_none() ? s.momentum : finite(lookahead, "lookahead");
      s.dampening = finite(entry(group, "dampening"), "dampening");
      s.weight_decay = finite(entry(group, "weight_decay"), "weight_decay");
      s.nesterov = flag(entry(group, "nesterov"), "nesterov");
      s.maximize = flag(entry(group, "maximize"), "maximize");
      s.decoupled = flag(entry(group, "decoupled_weight_decay"), "decoupled_weight_decay");
      s.buffered = scheduled || s.momentum != 0.0;
      buffered_[k] = s.buffered ? 1 : 0;
      check_float_range(s.lr, "lr");
      check_float_range(s.momentum, "momentum");
      check_float_range(s.weight_decay, "weight_decay");
      check_float_range(1.0 - s.lr * s.weight_decay, "lr * weight_decay");
    }
  }

  TensorList tensors_;
  std::vector<UpdateScalars> rules_;
  std::vector<char> buffered_;
  bool large_pages_;
  PageMover pages_;
  std::atomic<bool> busy_{false};
};

}  // namespace

void bind_tensors(py::module_& m) {
  m.def("advise_large_pages", &advise_large_pages, py::arg("address"), py::arg("bytes"),
        "Asks the system to keep this memory in large pages, where it is large and the system has them.");
  py::class_<TensorPlan>(m, "TensorPlan", "The tensors and rules of an optimizer's step; behind nagcore.torch.SGD.")
      .def(py::init<py::handle, py::object, py::object, bool>(), py::arg("exchange"), py::arg("describe"), py::arg("counter"),
           py::arg("large_pages"))
      .def("gather", &TensorPlan::gather, py::arg("groups"), py::arg("state"), py::arg("momentum"), py::arg("lookahead"),
           py::arg("ema"), py::arg("master"), py::arg("remember"),
           "Reads every tensor. Returns (place, reason) for those that need a look; [] when step may follow. remember keeps "
           "weak references to the gradients.")
      .def("norm", &TensorPlan::norm, py::arg("grad_scale"), py::arg("n_threads"),
           "The gradients' norm in one read of them; NaN where one is not finite.")
      .def("step", &TensorPlan::step, py::arg("first"), py::arg("max_norm"), py::arg("ema_decay"), py::arg("grad_scale"),
           py::arg("read_first"), py::arg("known_norm"), py::arg("aligned"), py::arg("seed"), py::arg("n_threads"),
           "One step of all that was gathered: (grad_norm, clip_factor, found_inf, tensors, elements, alignment).")
      .def("release", &TensorPlan::release, "Lets go of the tensors that gather holds for the step.")
      .def("hand_over", &TensorPlan::hand_over, py::arg("place"), "Leaves the parameter at this place to somebody else.")
      .def_property_readonly("counters", &TensorPlan::counters,
                             "For each parameter that the next step writes, a tensor that shares its version counter.")
      .def_property_readonly("pages", &TensorPlan::pages, "Bytes moved into large pages, waiting, and refused by the system.")
      .def_property_readonly("layouts", &TensorPlan::layouts, "How often the list was laid out anew.");
}

}  // namespace nag
