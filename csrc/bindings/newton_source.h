// Where a compiled iteration of Newton's kind has its passes from: a Problem, or whatever Python object does them.
#pragma once
#include <vector>

#include "bindings/smooth_passes.h"

namespace nag {

class NewtonSource {
 public:
  // problem is a Problem, or an object with its sizes, value_and_grad, slope_along, shifted_loss, and hessian or class_hessian.
  // Two arrays take the margins of two points.
  NewtonSource(const pybind11::object& problem, const pybind11::object& margins, const pybind11::object& other, double l2,
               const pybind11::object& origin, const pybind11::object& linear = pybind11::none());
  NewtonSource(const NewtonSource&) = delete;
  NewtonSource& operator=(const NewtonSource&) = delete;

  const SmoothProblem& problem() const { return q_; }
  void* margins(int i) const { return z_[i]; }
  const std::vector<pybind11::ssize_t>& shape() const { return shape_; }  // of w
  // `steps()` without the GIL; what goes wrong in it comes out as Python knows it.
  void run(const std::function<void()>& steps) { passes_.guard(steps); }
  // One row of w's shape for each of `rows`.
  pybind11::array_t<double> matrix(const std::vector<double>& numbers, std::size_t rows) const;

 private:
  void take(const pybind11::object& problem);

  pybind11::object source_, margins_[2];
  pybind11::array_t<double> origin_, linear_;
  SmoothProblem q_;
  void* z_[2] = {nullptr, nullptr};
  SmoothPasses passes_;
  std::vector<pybind11::ssize_t> shape_;
};

}  // namespace nag
