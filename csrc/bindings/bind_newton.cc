// Newton: the damped Newton iteration on a Problem, or on whatever has its passes.
#include "bindings/bindings.h"
#include "bindings/newton_source.h"
#include "bindings/prox_newton.h"
#include "engine/newton.h"

namespace py = pybind11;

namespace nag {
namespace {

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
    py::list records;
    for (const NewtonRecord& r : trace.records)
      records.append(py::make_tuple(r.data_value, r.f, r.decrement, r.bound, r.seconds, r.hessian, r.moved, r.resolved));
    const std::size_t rows = trace.records.size();
    return py::make_tuple(records, source_.matrix(trace.w, rows), source_.matrix(trace.g, rows), source_.matrix(trace.u, rows));
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

}  // namespace

void bind_newton(py::module_& m) {
  bind_prox_newton(m);
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
