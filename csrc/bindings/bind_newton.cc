// Newton: the damped Newton iteration on a Problem, or on whatever has its passes.
#include "bindings/bindings.h"
#include "bindings/newton_source.h"
#include "bindings/prox_newton.h"
#include "bindings/smooth_passes.h"
#include "engine/newton_fit.h"

namespace py = pybind11;

namespace nag {
namespace {

py::list as_tuples(const std::vector<NewtonRecord>& records) {
  py::list out;
  for (const NewtonRecord& r : records)
    out.append(py::make_tuple(r.data_value, r.f, r.decrement, r.bound, r.seconds, r.hessian, r.moved, r.resolved));
  return out;
}

class NewtonLoop {
 public:
  NewtonLoop(const py::object& problem, const py::object& w, const py::object& margins, const py::object& other, double l2,
             const py::object& origin, const py::object& linear)
      : source_(problem, margins, other, l2, origin, linear),
        loop_(source_.problem(), start(w).data(), source_.margins(0), source_.margins(1)) {}

  py::tuple run(std::int64_t steps, double tol, double null_value, double floor) {
    if (steps < 1) bad_value("steps is " + std::to_string(steps) + "; a whole number >= 1 is needed.");
    NewtonTrace trace;
    source_.run([&] { trace = loop_.run({steps, tol, null_value, floor}); });
    const std::size_t rows = trace.records.size();
    return py::make_tuple(as_tuples(trace.records), source_.matrix(trace.w, rows), source_.matrix(trace.g, rows), source_.matrix(trace.u, rows));
  }

  int current() const { return loop_.current(); }
  py::array_t<double> sizes() const { return py::array_t<double>(static_cast<py::ssize_t>(loop_.sizes().size()), loop_.sizes().data()); }

 private:
  py::array_t<double> start(const py::object& w) const {
    const SmoothProblem& q = source_.problem();
    return numbers<double>(w, "w", q.k == 1 ? 1 : 2, q.p(), q.k);
  }

  NewtonSource source_;
  Newton loop_;
};

py::tuple fit_by_newton(const Problem& problem, double l1, double l2, bool reuse, std::int64_t steps, double tol, double rounding, double curvature) {
  const ProblemView& view = problem.view();
  if (view.compute != Compute::f64 || view.offset != nullptr) bad_value("problem computes in float32 or has an offset. Use Newton.");
  for (const auto& [name, value] : {std::pair<const char*, double>{"l1", l1}, {"l2", l2}})
    if (!(value >= 0) || !std::isfinite(value)) bad_value(std::string(name) + " is " + std::to_string(value) + "; a finite number >= 0 is needed.");
  if (l1 == 0 && l2 == 0) bad_value("l1 and l2 are 0; a penalty is needed for the proof of a gap. Use Newton.");
  if (l1 > 0 && view.k != 1) bad_value("the problem has " + std::to_string(view.k) + " margins a row; under l1 it takes one.");
  if (steps < 1) bad_value("steps is " + std::to_string(steps) + "; a whole number >= 1 is needed.");
  if (!(curvature > 0)) bad_value("curvature is " + std::to_string(curvature) + "; a positive number is needed, or infinity.");
  SmoothPasses passes;
  SmoothProblem terms;
  passes.give(problem, terms);
  terms.l2 = l2;
  NewtonFit fit;
  passes.guard([&] { fit = newton_fit(view, terms, {l1, reuse, steps, tol, rounding, curvature}); });
  std::vector<py::ssize_t> shape{terms.p()}, classes;
  if (kLosses[view.loss].targets == Domain::classes) shape.push_back(terms.k), classes.push_back(terms.k);
  if (!fit.reached) return py::make_tuple(fit.null_value, py::array_t<double>(classes, fit.null_b.data()), py::none(), py::none(), py::none());
  py::list seen, proofs;
  for (const NewtonFit::Pass& pass : fit.passes)
    seen.append(py::make_tuple(pass.value, pass.bound, pass.free, pass.seconds, pass.cost, pass.moved));
  for (const NewtonFit::Proof& proof : fit.proofs)
    proofs.append(py::make_tuple(proof.passes, proof.value, proof.gap));
  return py::make_tuple(fit.null_value, py::array_t<double>(classes, fit.null_b.data()), seen, py::array_t<double>(shape, fit.w.data()), proofs);
}

}  // namespace

void bind_newton(py::module_& m) {
  bind_prox_newton(m);
  m.def("fit_by_newton", &fit_by_newton, py::arg("problem"), py::arg("l1"), py::arg("l2"), py::arg("reuse"), py::arg("steps"), py::arg("tol"),
        py::arg("rounding"), py::arg("curvature"),
        "Newton's method, or under l1 proximal Newton steps, from the null model to a proven gap of max(tol (F0 - F), rounding |F0|), in float64 and at "
        "most `steps` passes: (F0, its intercept, [(F, bound of the gap, estimate of it, seconds, passes, moved)] of the passes, the best w, [(how many "
        "of these before it, F with the best intercept, its proven gap)] of the proofs that it took). None in place of the last three where the gap is "
        "out of reach. `reuse` as for ProxNewton.");
  py::class_<NewtonLoop>(m, "Newton", "Newton's method on a problem with l2, from w: a Hessian a pass, Cholesky, line search on margins.")
      .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&, double, const py::object&, const py::object&>(),
           py::arg("problem"), py::arg("w"), py::arg("margins"), py::arg("other"), py::arg("l2") = 0.0,
           py::arg("origin") = py::none(), py::arg("linear") = py::none(),
           "problem is a Problem, or an object with its sizes, value_and_grad, slope_along, shifted_loss, and hessian or class_hessian. margins and other are written: "
           "arrays for the margins of two points; origin is the point about which X is stored. f has linear'w, if "
           "that is given, as a term of its own.")
      .def("run", &NewtonLoop::run, py::arg("steps") = 1, py::arg("tol") = 0.0, py::arg("null_value") = 0.0, py::arg("floor") = 0.0,
           "At most `steps` passes; fewer where a step is cut short or changes f by rounding alone, where the gap is about "
           "max(tol (null_value - f), floor), and after 20 ms. Returns ([(data value, f, decrement, bound, seconds, hessian, moved, resolved)], w, "
           "gradient, gradient of the data term), a row for each pass.")
      .def_property_readonly("current", &NewtonLoop::current, "Which margins are those of the last step taken: 0 or 1.")
      .def_property_readonly("sizes", &NewtonLoop::sizes, "sqrt(mean x^2) of the columns, weighted by the last pass's curvature.");
}

}  // namespace nag
