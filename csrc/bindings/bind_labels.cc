// Labels of two classes in one sweep: NumPy would make an array for each question.
#include <pybind11/numpy.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <type_traits>

#include "bindings/array_checks.h"
#include "bindings/bindings.h"
#include "bindings/kept_array.h"
#include "bindings/problem.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace nag {
namespace {

constexpr std::int64_t kAlone = 1 << 16;  // labels that one thread tells as soon as two
constexpr std::int64_t kBlock = 1 << 12;  // labels that stay in the first cache

// Whether v holds low and high alone, and which of them as 0 and 1. Whole vectors at a time: without a branch for each label,
// and of floating-point numbers without a comparison, which would have to be narrowed to bytes.
template <class S>
bool codes_of(const S* v, std::int64_t n, S low, S high, std::int8_t* to) {
  if constexpr (std::is_floating_point_v<S>) {
    S lanes[16] = {};
    std::int64_t i = 0;
    for (; i + 16 <= n; i += 16)
      for (int u = 0; u < 16; ++u) lanes[u] += std::fabs((v[i + u] - low) * (v[i + u] - high));
    for (; i < n; ++i) lanes[0] += std::fabs((v[i] - low) * (v[i] - high));
    for (const S lane : lanes)
      if (!(lane == S(0))) return false;
    const S unit = S(1) / (high - low);
    for (i = 0; i < n; ++i) to[i] = static_cast<std::int8_t>(static_cast<std::int32_t>((v[i] - low) * unit + S(0.5)));
    return true;
  } else {
    int others = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      to[i] = static_cast<std::int8_t>(v[i] == high);
      others |= (v[i] != low) & (v[i] != high);
    }
    return others == 0;
  }
}

template <class S>
py::object two_values_of(const py::array& y, int n_threads) {
  const S* const v = static_cast<const S*>(y.data());
  const std::int64_t n = y.size();
  S low = v[0], high = low;
  std::int64_t i = 1;
  for (; i < n && v[i] == low; ++i) {
  }
  if (i >= n) return py::none();
  high = std::max(low, v[i]);
  low = std::min(low, v[i]);
  if constexpr (std::is_floating_point_v<S>)  // NaN is none of them, and what is between whole numbers never vanishes below
    if (!std::isfinite(low) || !std::isfinite(high) || low != std::rint(low) || high != std::rint(high)) return py::none();
  const py::array_t<std::int8_t> codes = new_array<std::int8_t>({static_cast<py::ssize_t>(n)});
  std::int8_t* const to = const_cast<std::int8_t*>(codes.data());
  std::atomic<bool> fine{true};
  {
    const py::gil_scoped_release release;
    const std::int64_t blocks = (n + kBlock - 1) / kBlock;
    parallel_run(n < kAlone ? 1 : n_threads, [&](int t, int of) {
      for (std::int64_t b = blocks * t / of; fine && b < blocks * (t + 1) / of; ++b)
        if (!codes_of(v + b * kBlock, std::min(kBlock, n - b * kBlock), low, high, to + b * kBlock)) fine = false;
    });
  }
  if (!fine) return py::none();
  return py::make_tuple(low, high, codes);
}

bool in_place(const py::array& y) {
  return y.ndim() == 1 && y.size() > 0 && (y.flags() & py::array::c_style) && y.dtype().byteorder() != '>' &&
         reinterpret_cast<std::uintptr_t>(y.data()) % static_cast<std::size_t>(y.itemsize()) == 0;
}

py::object two_values(const py::array& y, const py::object& n_threads) {
  const int threads = resolve_threads(thread_count(n_threads));
  if (!in_place(y)) return py::none();
  const char kind = y.dtype().kind();
  const auto size = y.itemsize();
  if (kind == 'f' && size == 8) return two_values_of<double>(y, threads);
  if (kind == 'f' && size == 4) return two_values_of<float>(y, threads);
  if (kind == 'i' && size == 8) return two_values_of<std::int64_t>(y, threads);
  if (kind == 'i' && size == 4) return two_values_of<std::int32_t>(y, threads);
  if (kind == 'i' && size == 1) return two_values_of<std::int8_t>(y, threads);
  if (kind == 'u' && size == 1) return two_values_of<std::uint8_t>(y, threads);
  return py::none();
}

}  // namespace

void bind_labels(py::module_& m) {
  m.def("two_values", &two_values, py::arg("y"), py::arg("n_threads") = py::none(),
        "(low, high, y == high as int8) of a vector that holds two whole numbers alone; None where it holds others, or is of another kind.");
}

}  // namespace nag
