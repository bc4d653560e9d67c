// What bind_newton.cc lists beside its own.
#pragma once
#include <pybind11/pybind11.h>

namespace nag {
void bind_prox_newton(pybind11::module_& m);
}  // namespace nag
