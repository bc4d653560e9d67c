// What module.cc lists: one function a subject.
#pragma once
#include <pybind11/pybind11.h>

namespace nag {
void bind_info(pybind11::module_& m);
void bind_problem(pybind11::module_& m);
void bind_stream(pybind11::module_& m);
void bind_update(pybind11::module_& m);
void bind_tensors(pybind11::module_& m);
}  // namespace nag
