// The scalars of an update as Python hands them over, each read or refused with a sentence.
#pragma once

#include <pybind11/pybind11.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <string>

#include "engine/threads.h"

namespace nag {

namespace py = pybind11;

inline std::string text_of(py::handle h) { return py::str(py::repr(h)); }

[[noreturn]] inline void fail(const std::string& what) { throw py::value_error(what); }

inline double number(py::handle h, const char* name) {
  if (PyFloat_CheckExact(h.ptr())) return PyFloat_AS_DOUBLE(h.ptr());
  const double x = PyFloat_AsDouble(h.ptr());
  if (x == -1.0 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw py::type_error(std::string(name) + " is " + text_of(h) + "; it must be a real number, such as " + name +
                         "=0.1.");
  }
  return x;
}

inline double finite(py::handle h, const char* name) {
  const double x = number(h, name);
  if (!std::isfinite(x)) fail(std::string(name) + " is " + text_of(h) + "; it must be finite.");
  return x;
}

inline double at_least_zero(py::handle h, const char* name) {
  const double x = finite(h, name);
  if (x < 0) fail(std::string(name) + " is " + text_of(h) + "; it must not be negative.");
  return x;
}

inline bool flag(py::handle h, const char* name) {
  if (h.ptr() == Py_True) return true;
  if (h.ptr() == Py_False) return false;
  const int truth = !h.is_none() && py::hasattr(h, "__bool__") ? PyObject_IsTrue(h.ptr()) : -1;
  if (truth >= 0) return truth != 0;
  PyErr_Clear();
  throw py::type_error(std::string(name) + " is " + text_of(h) + "; it must be True or False.");
}

inline void check_float_range(double x, const char* name) {
  if (std::fabs(x) > static_cast<double>(FLT_MAX)) {
    fail(std::string(name) + " is beyond float32, in which float32, bfloat16 and float16 parameters are updated.");
  }
}

inline std::uint64_t read_seed(py::handle h) {
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(h.ptr()));
  if (index) {
    const unsigned long long seed = PyLong_AsUnsignedLongLong(index.ptr());
    if (PyErr_Occurred() == nullptr) return seed;
  }
  PyErr_Clear();
  fail("seed is " + text_of(h) + "; it must be an integer in [0, 2**64): 0 rounds to nearest, any other rounds "
       "stochastically.");
}

inline int read_threads(py::handle h) {
  if (h.is_none()) return default_threads();
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(h.ptr()));
  if (index) {
    const long n = PyLong_AsLong(index.ptr());
    if (PyErr_Occurred() == nullptr && n >= 1 && n <= 4096) return resolve_threads(static_cast<int>(n));
  }
  PyErr_Clear();
  fail("n_threads is " + text_of(h) + "; it must be an integer from 1 to 4096, or None for all that this process may use.");
}

}  // namespace nag
