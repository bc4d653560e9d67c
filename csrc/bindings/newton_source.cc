#include "bindings/newton_source.h"

#include <algorithm>
#include <cmath>

#include "engine/draw.h"

namespace py = pybind11;

namespace nag {
namespace {

// Numbers that may have overflowed honestly.
void copy_numbers(const py::object& from, const char* name, std::int64_t count, double* to) {
  const py::array_t<double, py::array::c_style | py::array::forcecast> a(from);
  if (a.size() != count) bad_value(std::string(name) + " has shape " + shape_text(a) + "; " + std::to_string(count) + " numbers are needed.");
  std::copy_n(a.data(), count, to);
}

}  // namespace

NewtonSource::NewtonSource(const py::object& problem, const py::object& margins, const py::object& other, double l2, const py::object& origin,
                           const py::object& linear)
    : source_(problem), margins_{margins, other} {
  if (!(l2 >= 0) || !std::isfinite(l2)) bad_value("l2 is " + std::to_string(l2) + "; a finite number >= 0 is needed.");
  q_.l2 = l2;
  if (py::isinstance<Problem>(problem)) passes_.give(problem.cast<const Problem&>(), q_);
  else take(problem);
  if (!origin.is_none()) {
    origin_ = numbers<double>(origin, "origin", 1, q_.d, 1);
    q_.origin = origin_.data();
  }
  const bool flat = q_.k == 1;
  for (int i = 0; i < 2; ++i) {
    const char* const name = i == 0 ? "margins" : "other";
    z_[i] = q_.compute == Compute::f64 ? static_cast<void*>(output<double>(margins_[i], name, q_.n, q_.k, flat))
                                       : static_cast<void*>(output<float>(margins_[i], name, q_.n, q_.k, flat));
  }
  if (overlap(margins, other)) bad_value("margins and other overlap in memory; give each an array of its own.");
  if (!linear.is_none()) {
    linear_ = numbers<double>(linear, "linear", flat ? 1 : 2, q_.p(), q_.k);
    q_.linear = linear_.data();
  }
  q_.interrupted = [this] { return passes_.asked(); };
  shape_ = {q_.p()};
  if (!flat) shape_.push_back(q_.k);
}

py::array_t<double> NewtonSource::matrix(const std::vector<double>& numbers, std::size_t rows) const {
  std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(rows)};
  shape.insert(shape.end(), shape_.begin(), shape_.end());
  py::array_t<double> out(shape);
  std::copy(numbers.begin(), numbers.end(), out.mutable_data());
  return out;
}

// Any object with Problem's sizes, `value_and_grad`, `slope_along`, `shifted_loss` and `hessian`, or `class_hessian` where
// it has classes.
void NewtonSource::take(const py::object& problem) {
  SmoothProblem& q = q_;
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
  if (k == 1 && py::hasattr(problem, "curvature_from_margins"))
    q.mean_curvature = [this, over](const void* z) {
      const py::gil_scoped_acquire acquire;
      const py::array_t<double, py::array::c_style | py::array::forcecast> found(source_.attr("curvature_from_margins")(over(z)));
      RowMean mean;  // of rows alike: what is asked for is how it changes
      mean.x = found.data();
      mean.n = found.size();
      return row_mean(mean);
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

}  // namespace nag
