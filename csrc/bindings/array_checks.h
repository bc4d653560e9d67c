// Every check on what Python hands over, each with one error that names the argument, what came, what is accepted, the fix.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/problem.h"

namespace nag {

[[noreturn]] void bad_value(const std::string& message);
[[noreturn]] void bad_type(const std::string& message);

std::string shape_text(const pybind11::array& a);
std::string dtype_name(const pybind11::array& a);

// Points the view at X (dense or CSR) after checking it; indptr may be widened into `indptr`.
// `keep` collects the arrays that must outlive the view.
void check_data(const pybind11::object& X, const std::string& dtype, ProblemView& view, std::vector<std::int64_t>& indptr,
                std::vector<pybind11::object>& keep, int n_threads);

// Whether two arrays share a byte range; None and non-arrays share nothing.
bool overlap(const pybind11::object& a, const pybind11::object& b);

// Without a branch for each element, so that it takes whole vectors: x*0 is NaN where x is not finite.
template <class T> bool all_finite(const T* x, std::int64_t m) {
  T lanes[16] = {};
  std::int64_t i = 0;
  for (; i + 16 <= m; i += 16)
    for (int u = 0; u < 16; ++u) lanes[u] += x[i + u] * T(0);
  for (; i < m; ++i) lanes[0] += x[i] * T(0);
  for (const T lane : lanes)
    if (!(lane == T(0))) return false;
  return true;
}

// A vector (ndim 1) or matrix (ndim 2) of finite numbers as a C-contiguous array of T. `own`: a copy, so that what is checked
// here cannot change afterwards; else x itself where it is such an array, for the length of one call.
template <class T>
pybind11::array_t<T> numbers(const pybind11::object& x, const char* name, int ndim, std::int64_t rows, std::int64_t cols, bool own = true);
extern template pybind11::array_t<float> numbers<float>(const pybind11::object&, const char*, int, std::int64_t, std::int64_t, bool);
extern template pybind11::array_t<double> numbers<double>(const pybind11::object&, const char*, int, std::int64_t, std::int64_t, bool);

// An output array: writable, C-contiguous, aligned, of dtype T and the given shape.
template <class T>
T* output(const pybind11::object& x, const char* name, std::int64_t rows, std::int64_t cols, bool flat);
extern template float* output<float>(const pybind11::object&, const char*, std::int64_t, std::int64_t, bool);
extern template double* output<double>(const pybind11::object&, const char*, std::int64_t, std::int64_t, bool);

}  // namespace nag
