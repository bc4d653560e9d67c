// Newton: the damped Newton iteration on a Problem, or on whatever has its passes.
#include <algorithm>
#include <cmath>

#include "bindings/bindings.h"
#include "bindings/smooth_passes.h"
#include "engine/newton.h"

namespace py = pybind11;

namespace nag {

class NewtonLoop {
 public:
  NewtonLoop(const py::object& problem, const py::object& w, const py::object& margins, const py::object& other, double l2,
             const py::object& origin, const py::object& linear)
      : source_(problem), margins_{margins, other} {
    if (!(l2 >= 0) || !std::isfinite(l2)) bad_value("l2 is " + std::to_string(l2) + "; a finite number >= 0 is needed.");
    SmoothProblem q;
    q.l2 = l2;
    const bool compiled = py::isinstance<Problem>(problem);
    if (compiled) passes_.give(problem.cast<const Problem&>(), q);
    else take(problem, q);
    if (!origin.is_none()) {
      origin_ = numbers<double>(origin, "origin", 1, q.d, 1);
      q.origin = origin_.data();
    }
    const bool flat = q.k == 1;
    void* z[2];
    for (int i = 0; i < 2; ++i) {
      const char* const name = i == 0 ? "margins" : "other";
      z[i] = q.compute == Compute::f64 ? static_cast<void*>(output<double>(margins_[i], name, q.n, q.k, flat))
                                       : static_cast<void*>(output<float>(margins_[i], name, q.n, q.k, flat));
    }
    if (overlap(margins, other)) bad_value("margins and other overlap in memory; give each an array of its own.");
    if (!linear.is_none()) {
      linear_ = numbers<double>(linear, "linear", flat ? 1 : 2, q.p(), q.k);
      q.linear = linear_.data();
    }
    q.interrupted = [this] { return passes_.asked(); };
    shape_ = {q.p()};
    if (!flat) shape_.push_back(q.k);
    loop_ = std::make_unique<Newton>(q, numbers<double>(w, "w", flat ? 1 : 2, q.p(), q.k).data(), z[0], z[1]);
  }

  py::tuple run(std::int64_t steps, double tol, double null_value, double floor) {
    if (steps < 1) bad_value("steps is " + std::to_string(steps) + "; a whole number >= 1 is needed.");
    NewtonTrace trace;
    passes_.guard([&] { trace = loop_->run({steps, tol, null_value, floor}); });
    py::list records;
    for (const NewtonRecord& r : trace.records)
      records.append(py::make_tuple(r.data_value, r.f, r.decrement, r.bound, r.seconds, r.hessian, r.moved, r.resolved));
    const auto matrix = [&](const std::vector<double>& numbers) {
      std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(trace.records.size())};
      shape.insert(shape.end(), shape_.begin(), shape_.end());
      py::array_t<double> out(shape);
      std::copy(numbers.begin(), numbers.end(), out.mutable_data());
      return out;
    };
    return py::make_tuple(records, matrix(trace.w), matrix(trace.g), matrix(trace.u));
  }

  int current() const { return loop_->current(); }
  py::array_t<double> sizes() const { return py::array_t<double>(static_cast<py::ssize_t>(loop_->sizes().size()), loop_->sizes().data()); }

 private:
  // Any object with Problem's sizes, `value_and_grad`, `slope_along`, `shifted_loss` and `hessian`, or `class_hessian` where
  // it has classes.
  void take(const py::object& problem, SmoothProblem& q) {
    q.table = &table_named(std::nullopt);
    q.n = problem.attr("n").cast<std::int64_t>();
    q.d = problem.attr("d").cast<std::int64_t>();
    q.k = problem.attr("k").cast<std::int64_t>();
    q.fit_intercept = problem.attr("p").cast<std::int64_t>() > q.d;
    q.compute = py::str(problem.attr("compute")).cast<std::string>() == "float64" ? Compute::f64 : Compute::f32;
    q.n_threads = resolve_threads(0);
    const std::int64_t p = q.p(), k = q.k;
    std::vector<py::ssize_t> rows{q.n};
    if (k > 1) rows.push_back(k);
    // Without a copy: any base makes pybind11 leave the memory where it is.
    const auto over = [rows, compute = q.compute](const void* at) -> py::array {
      void* const to = const_cast<void*>(at);
      if (compute == Compute::f64) return py::array_t<double>(rows, static_cast<double*>(to), py::none());
      return py::array_t<float>(rows, static_cast<float*>(to), py::none());
    };
    q.slope = [this, over](const void* z, const void* z_end, double t) {
      const py::gil_scoped_acquire acquire;
      return source_.attr("slope_along")(over(z), over(z_end), t).cast<double>();
    };
    q.residual_size = [this, over](const void* z) {
      const py::gil_scoped_acquire acquire;
      return py::tuple(source_.attr("shifted_loss")(over(z)))[2].cast<double>();
    };
    q.pass = [this, over, p, k](const double* w, double* grad, double* H, void* z) {
      const py::gil_scoped_acquire acquire;
      py::array_t<double> at(shape_);
      std::copy_n(w, p * k, at.mutable_data());
      if (H == nullptr) {
        const py::tuple found = source_.attr("value_and_grad")(at, py::none(), over(z), py::none());
        copy_numbers(found[1], "gradient", p * k, grad);
        return found[0].cast<double>();
      }
      const py::tuple found = k == 1 ? source_.attr("hessian")(at, py::none(), py::none(), over(z), py::none())
                                     : source_.attr("class_hessian")(at, over(z));
      copy_numbers(found[1], "gradient", p * k, grad);
      copy_numbers(found[2], "Hessian", p * k * p * k, H);
      return found[0].cast<double>();
    };
  }

  // Numbers that may have overflowed honestly.
  static void copy_numbers(const py::object& from, const char* name, std::int64_t count, double* to) {
    const py::array_t<double, py::array::c_style | py::array::forcecast> a(from);
    if (a.size() != count) bad_value(std::string(name) + " has shape " + shape_text(a) + "; " + std::to_string(count) + " numbers are needed.");
    std::copy_n(a.data(), count, to);
  }

  py::object source_, margins_[2];
  py::array_t<double> origin_, linear_;
  SmoothPasses passes_;
  std::vector<py::ssize_t> shape_;
  std::unique_ptr<Newton> loop_;
};

void bind_newton(py::module_& m) {
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
