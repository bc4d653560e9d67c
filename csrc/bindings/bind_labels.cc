// Labels as class numbers, of two classes in one sweep and of a few in two: NumPy would make an array for each question.
#include <pybind11/numpy.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <type_traits>
#include <vector>

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
constexpr int kFew = 1 << 7;              // class numbers that int8 holds

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

// Calls block(v, n, at, thread) with labels that lie together, each thread's one after the other; false stops all.
template <class S, class Block>
bool over_blocks(S* v, std::int64_t n, int n_threads, const Block& block) {
  const py::gil_scoped_release release;
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  std::atomic<bool> fine{true};
  parallel_run(n < kAlone ? 1 : n_threads, [&](int t, int of) {
    for (std::int64_t b = blocks * t / of; fine && b < blocks * (t + 1) / of; ++b)
      if (!block(v + b * kBlock, std::min(kBlock, n - b * kBlock), b * kBlock, t)) fine = false;
  });
  return fine;
}

// Two whole numbers, and which of them each label is.
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
  if (!over_blocks(v, n, n_threads, [&](const S* part, std::int64_t count, std::int64_t at, int) { return codes_of(part, count, low, high, to + at); }))
    return py::none();
  py::list classes;
  classes.append(low), classes.append(high);
  return py::make_tuple(classes, codes);
}

template <class S>
struct Range {
  S low, high;
  bool few() const {
    if constexpr (std::is_floating_point_v<S>) return high - low < S(kFew);  // not where one is infinite
    else return static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) < std::uint64_t{kFew};
  }
  // Widens it to hold v[0..n); false where one of them is no whole number.
  bool take(const S* v, std::int64_t n) {
    S least = low, most = high;
    bool whole = true;
    for (std::int64_t i = 0; i < n; ++i) {
      least = v[i] < least ? v[i] : least;
      most = v[i] > most ? v[i] : most;
      if constexpr (std::is_floating_point_v<S>) whole &= v[i] == std::rint(v[i]);
    }
    low = least, high = most;
    return whole;
  }
};

// Whole numbers, fewer than kFew from the least to the largest: those that occur, and the number of each label's.
template <class S>
py::object few_values_of(const py::array& y, int n_threads) {
  const S* const v = static_cast<const S*>(y.data());
  const std::int64_t n = y.size();
  const std::size_t threads = static_cast<std::size_t>(n_threads);
  std::vector<Range<S>> ranges(threads, {v[0], v[0]});
  if (!over_blocks(v, n, n_threads, [&](const S* part, std::int64_t count, std::int64_t, int t) {
        Range<S>& range = ranges[static_cast<std::size_t>(t)];
        return range.take(part, count) && range.few();
      }))
    return py::none();
  Range<S> all = ranges[0];
  for (const Range<S>& range : ranges) all.take(&range.low, 1), all.take(&range.high, 1);
  if (!all.few()) return py::none();
  const int span = static_cast<int>(all.high - all.low);
  const py::array_t<std::int8_t> codes = new_array<std::int8_t>({static_cast<py::ssize_t>(n)});
  std::int8_t* const to = const_cast<std::int8_t*>(codes.data());
  std::vector<std::array<bool, kFew>> seen(threads, std::array<bool, kFew>{});
  over_blocks(v, n, n_threads, [&](const S* part, std::int64_t count, std::int64_t at, int t) {
    bool* const found = seen[static_cast<std::size_t>(t)].data();
    for (std::int64_t i = 0; i < count; ++i) {
      const int code = static_cast<int>(part[i] - all.low);
      to[at + i] = static_cast<std::int8_t>(code);
      found[code] = true;
    }
    return true;
  });
  std::array<std::int8_t, kFew> number{};
  py::list classes;
  for (int code = 0; code <= span; ++code) {
    number[static_cast<std::size_t>(code)] = static_cast<std::int8_t>(classes.size());
    if (std::any_of(seen.begin(), seen.end(), [&](const auto& found) { return found[static_cast<std::size_t>(code)]; }))
      classes.append(static_cast<S>(all.low + static_cast<S>(code)));
  }
  if (static_cast<int>(classes.size()) <= span)
    over_blocks(to, n, n_threads, [&](std::int8_t* part, std::int64_t count, std::int64_t, int) {
      for (std::int64_t i = 0; i < count; ++i) part[i] = number[static_cast<std::size_t>(part[i])];
      return true;
    });
  return py::make_tuple(classes, codes);
}

bool in_place(const py::array& y) {
  return y.ndim() == 1 && y.size() > 0 && (y.flags() & py::array::c_style) && y.dtype().byteorder() != '>' &&
         reinterpret_cast<std::uintptr_t>(y.data()) % static_cast<std::size_t>(y.itemsize()) == 0;
}

template <class S>
py::object class_numbers_of(const py::array& y, int n_threads) {
  const py::object two = two_values_of<S>(y, n_threads);
  return two.is_none() ? few_values_of<S>(y, n_threads) : two;
}

py::object class_numbers(const py::array& y, const py::object& n_threads) {
  const int threads = resolve_threads(thread_count(n_threads));
  if (!in_place(y)) return py::none();
  const char kind = y.dtype().kind();
  const auto size = y.itemsize();
  if (kind == 'f' && size == 8) return class_numbers_of<double>(y, threads);
  if (kind == 'f' && size == 4) return class_numbers_of<float>(y, threads);
  if (kind == 'i' && size == 8) return class_numbers_of<std::int64_t>(y, threads);
  if (kind == 'i' && size == 4) return class_numbers_of<std::int32_t>(y, threads);
  if (kind == 'i' && size == 1) return class_numbers_of<std::int8_t>(y, threads);
  if (kind == 'u' && size == 1) return class_numbers_of<std::uint8_t>(y, threads);
  return py::none();
}

}  // namespace

void bind_labels(py::module_& m) {
  m.def("class_numbers", &class_numbers, py::arg("y"), py::arg("n_threads") = py::none(),
        "(values, the number of each label's as int8) of a vector of whole numbers, two of them or less than 128 apart, values in order; None where it "
        "holds others, or is of another kind.");
}

}  // namespace nag
