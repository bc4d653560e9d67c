// What module.cc lists: one function a subject.
#pragma once
#include <pybind11/pybind11.h>

namespace nag {
class Problem;
void bind_coordinates(pybind11::module_& m);
void bind_draw(pybind11::module_& m);
void bind_info(pybind11::module_& m);
void bind_intercept(pybind11::module_& m);
void bind_lbfgs(pybind11::module_& m);
void bind_labels(pybind11::module_& m);
void bind_linalg(pybind11::module_& m);
void bind_problem(pybind11::module_& m);
void bind_second_order(pybind11::class_<Problem>& problem);  // called by bind_problem
void bind_newton(pybind11::module_& m);
void bind_row_lbfgs(pybind11::module_& m);
void bind_row_products(pybind11::module_& m);
void bind_narrow(pybind11::module_& m);
void bind_stream(pybind11::module_& m);
void bind_update(pybind11::module_& m);
void bind_tensors(pybind11::module_& m);
}  // namespace nag
