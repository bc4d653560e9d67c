// ProxNewton: proximal Newton steps under l1 on a Problem, or on whatever has its passes.
#include "engine/prox_newton.h"

#include <cmath>

#include "bindings/newton_source.h"
#include "bindings/prox_newton.h"

namespace py = pybind11;

namespace nag {
namespace {

class ProxNewtonLoop {
 public:
  ProxNewtonLoop(const py::object& problem, const py::object& w, const py::object& margins, const py::object& other, double l1, double l2,
                 const py::object& origin, bool reuse, const py::object& hessian, const py::object& known)
      : source_(problem, margins, other, l2, origin),
        l1_(checked(l1, source_.problem())),
        loop_(source_.problem(), l1_, reuse, numbers<double>(w, "w", 1, source_.problem().p(), 1).data(),
              source_.margins(0), source_.margins(1)) {
    const std::int64_t p = source_.problem().p();
    if (!hessian.is_none()) loop_.take_hessian(numbers<double>(hessian, "hessian", 2, p, p).data());
    if (known.is_none()) return;
    if (hessian.is_none()) bad_value("known is given without a hessian; the first pass would take one. Use known=None.");
    const py::tuple pair(known);
    loop_.resume(pair[0].cast<double>(), numbers<double>(pair[1], "known", 1, p, 1).data());
  }

  py::tuple run(std::int64_t steps, double tol, double null_value, double floor) {
    if (steps < 1) bad_value("steps is " + std::to_string(steps) + "; a whole number >= 1 is needed.");
    ProxTrace trace;
    source_.run([&] { trace = loop_.run({steps, tol, null_value, floor}); });
    py::list records;
    for (const ProxRecord& r : trace.records)
      records.append(py::make_tuple(r.data_value, r.f, r.whole, r.bound, r.free, r.seconds, r.passes, r.hessian, r.moved, r.resolved));
    const std::size_t rows = trace.records.size();
    return py::make_tuple(records, source_.matrix(trace.w, rows), source_.matrix(trace.g, rows), source_.matrix(trace.u, rows));
  }

  int current() const { return loop_.current(); }
  py::array_t<double> sizes() const { return py::array_t<double>(static_cast<py::ssize_t>(loop_.sizes().size()), loop_.sizes().data()); }
  py::object hessian() const {
    if (!loop_.has_hessian()) return py::none();
    const py::ssize_t p = source_.problem().p();
    py::array_t<double> out(std::vector<py::ssize_t>{p, p});
    std::copy(loop_.hessian().begin(), loop_.hessian().end(), out.mutable_data());
    return out;
  }

 private:
  static double checked(double l1, const SmoothProblem& problem) {
    if (!(l1 > 0) || !std::isfinite(l1)) bad_value("l1 is " + std::to_string(l1) + "; a positive finite number is needed. Use Newton where it is 0.");
    if (problem.k != 1) bad_value("the problem has " + std::to_string(problem.k) + " margins a row; ProxNewton takes one.");
    return l1;
  }

  NewtonSource source_;
  double l1_;
  ProxNewton loop_;
};

}  // namespace

void bind_prox_newton(py::module_& m) {
  py::class_<ProxNewtonLoop>(m, "ProxNewton", "Proximal Newton steps on a problem with l1 and l2, from w: Hessians, active sets, line search on margins.")
      .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&, double, double, const py::object&, bool,
                    const py::object&, const py::object&>(),
           py::arg("problem"), py::arg("w"), py::arg("margins"), py::arg("other"), py::arg("l1"), py::arg("l2") = 0.0,
           py::arg("origin") = py::none(), py::arg("reuse") = false, py::arg("hessian") = py::none(), py::arg("known") = py::none(),
           "problem, margins, other and origin as for Newton, one margin a row. With `reuse` a Hessian serves as long as steps by it pay, and follows "
           "the gradients; the first of them `hessian` (of the data term), if that is given. known = (data value, gradient of the data term) at w, whose margins lie "
           "in `margins`, saves the first pass.")
      .def("run", &ProxNewtonLoop::run, py::arg("steps") = 1, py::arg("tol") = 0.0, py::arg("null_value") = 0.0, py::arg("floor") = 0.0,
           "As Newton.run. Returns ([(data value, with l2, with l1, bound of the gap, estimate of it, seconds, passes, hessian, moved, resolved)], "
           "w, gradient, gradient of the data term), a row for each pass.")
      .def_property_readonly("current", &ProxNewtonLoop::current, "Which margins are those of the last step taken: 0 or 1.")
      .def_property_readonly("sizes", &ProxNewtonLoop::sizes, "sqrt(mean x^2) of the columns, weighted by the last Hessian's curvature.")
      .def_property_readonly("hessian", &ProxNewtonLoop::hessian, "Of the data term, the last that was taken, or what has become of it; or None.");
}

}  // namespace nag
