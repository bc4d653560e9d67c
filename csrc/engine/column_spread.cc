#include "engine/column_spread.h"

#include <algorithm>
#include <vector>

namespace nag {
namespace {

constexpr std::int64_t kTogether = 16;  // entries: a line of the cache is read whole or not at all

template <class S, class I>
double spread(const ProblemView& v, std::int64_t step) {
  const S* const data = static_cast<const S*>(v.data);
  const I* const idx = static_cast<const I*>(v.indices);
  std::vector<double> squares(static_cast<std::size_t>(v.d), 0.0);
  std::vector<std::int32_t> count(static_cast<std::size_t>(v.d), 0);
  for (std::int64_t first = v.indptr[0]; first < v.indptr[v.n]; first += kTogether * step)
    for (std::int64_t e = first; e < std::min(first + kTogether, v.indptr[v.n]); ++e) {
      const double x = static_cast<double>(data[e]);
      squares[static_cast<std::size_t>(idx[e])] += x * x;
      ++count[static_cast<std::size_t>(idx[e])];
    }
  std::vector<double> sizes;
  for (std::size_t j = 0; j < squares.size(); ++j)
    if (squares[j] != 0) sizes.push_back(squares[j] / count[j]);
  if (sizes.empty()) return 1.0;
  double largest = 0;
  for (const double size : sizes) {
    if (!(size - size == 0)) return size;
    largest = std::max(largest, size);
  }
  const auto middle = sizes.begin() + static_cast<std::ptrdiff_t>(sizes.size() / 2);
  std::nth_element(sizes.begin(), middle, sizes.end());
  double median = *middle;
  if (sizes.size() % 2 == 0) median = 0.5 * (median + *std::max_element(sizes.begin(), middle));
  return largest / median;
}

}  // namespace

double column_spread(const ProblemView& v, std::int64_t entries) {
  const std::int64_t step = std::max<std::int64_t>(1, (v.indptr[v.n] - v.indptr[0]) / entries);
  if (v.storage == Storage::f64)
    return v.wide_index ? spread<double, std::int64_t>(v, step) : spread<double, std::int32_t>(v, step);
  return v.wide_index ? spread<float, std::int64_t>(v, step) : spread<float, std::int32_t>(v, step);
}

}  // namespace nag
