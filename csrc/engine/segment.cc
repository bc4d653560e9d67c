// What line searches and tests of rounding ask of margins: slopes along a segment, and the size of residuals.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "engine/margins.h"
#include "engine/threads.h"
#include "engine/tree.h"

namespace nag {
namespace {

template <class T>
double slope_of(const ProblemView& problem, const T* z, const T* z_end, T t, int n_threads) {
  const BlockVectors<T> vectors(problem);
  const std::int64_t k = problem.k, n = problem.n;
  constexpr std::ptrdiff_t kBlock = 256, kLd = kBlock + 64, kLanes = 8;
  const std::int64_t leaves = (n + kMarginLeaf - 1) / kMarginLeaf;
  std::vector<double> sums(static_cast<std::size_t>(leaves));
  const std::vector<T> no_bias(static_cast<std::size_t>(k), T(0));
  std::atomic<std::int64_t> next{0};
  parallel_pass(static_cast<int>(std::min<std::int64_t>(n_threads, leaves)), [&](int, int) {
    Aligned<T> trial(static_cast<std::size_t>(k * kLd)), h(static_cast<std::size_t>(k * kLd)), sr(static_cast<std::size_t>(k * kLd));
    for (std::int64_t leaf; (leaf = next++) < leaves;) {
      double lanes[kLanes] = {};
      const std::int64_t end = std::min(n, (leaf + 1) * kMarginLeaf);
      for (std::int64_t row = leaf * kMarginLeaf; row < end; row += kBlock) {
        const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(kBlock, end - row));
        for (std::int64_t c = 0; c < k; ++c) {
          T *const hop = h.data() + c * kLd, *const at = trial.data() + c * kLd;
          if (k == 1) {  // what the compiler makes vectors of
            for (std::ptrdiff_t i = 0; i < rows; ++i) hop[i] = z_end[row + i] - z[row + i];
            for (std::ptrdiff_t i = 0; i < rows; ++i) at[i] = z[row + i] + t * hop[i];
            continue;
          }
          const T *const from = z + row * k + c, *const to = z_end + row * k + c;
          for (std::ptrdiff_t i = 0; i < rows; ++i) {
            hop[i] = to[i * k] - from[i * k];
            at[i] = from[i * k] + t * hop[i];
          }
        }
        vectors.apply(row, rows, trial.data(), kLd, no_bias.data(), false, nullptr, nullptr, sr.data());
        for (std::int64_t c = 0; c < k; ++c) {
          const T *const hop = h.data() + c * kLd, *const slope = sr.data() + c * kLd;
          std::ptrdiff_t i = 0;
          for (; i + kLanes <= rows; i += kLanes)
            for (std::ptrdiff_t u = 0; u < kLanes; ++u) lanes[u] += static_cast<double>(slope[i + u]) * static_cast<double>(hop[i + u]);
          for (; i < rows; ++i) lanes[0] += static_cast<double>(slope[i]) * static_cast<double>(hop[i]);
        }
      }
      combine_nodes(lanes, kLanes, 1);
      sums[static_cast<std::size_t>(leaf)] = lanes[0];
    }
  });
  combine_nodes(sums.data(), sums.size(), 1);
  return sums[0] / problem.weight_sum;
}

template <class T>
double size_of(const ProblemView& problem, const T* z, int n_threads) {
  const BlockVectors<T> vectors(problem);
  constexpr std::ptrdiff_t kBlock = 256, kLanes = 8;
  const std::int64_t n = problem.n, leaves = (n + kMarginLeaf - 1) / kMarginLeaf;
  std::vector<double> sums(static_cast<std::size_t>(leaves));
  std::atomic<std::int64_t> next{0};
  parallel_pass(static_cast<int>(std::min<std::int64_t>(n_threads, leaves)), [&](int, int) {
    alignas(64) T sr[kBlock + 64];
    const T no_bias = 0;
    for (std::int64_t leaf; (leaf = next++) < leaves;) {
      double lanes[kLanes] = {};
      const std::int64_t end = std::min(n, (leaf + 1) * kMarginLeaf);
      for (std::int64_t row = leaf * kMarginLeaf; row < end; row += kBlock) {
        const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(kBlock, end - row));
        vectors.apply(row, rows, z + row, kBlock, &no_bias, false, nullptr, nullptr, sr);
        std::ptrdiff_t i = 0;
        for (; i + kLanes <= rows; i += kLanes)
          for (std::ptrdiff_t u = 0; u < kLanes; ++u) lanes[u] += static_cast<double>(std::abs(sr[i + u]));
        for (; i < rows; ++i) lanes[0] += static_cast<double>(std::abs(sr[i]));
      }
      combine_nodes(lanes, kLanes, 1);
      sums[static_cast<std::size_t>(leaf)] = lanes[0];
    }
  });
  combine_nodes(sums.data(), sums.size(), 1);
  return sums[0] / problem.weight_sum;
}

}  // namespace

double residual_size(const ProblemView& problem, const void* z, int n_threads) {
  if (problem.compute == Compute::f64) return size_of(problem, static_cast<const double*>(z), n_threads);
  return size_of(problem, static_cast<const float*>(z), n_threads);
}

double slope_along(const ProblemView& problem, const void* z, const void* z_end, double t, int n_threads) {
  if (problem.compute == Compute::f64)
    return slope_of(problem, static_cast<const double*>(z), static_cast<const double*>(z_end), t, n_threads);
  return slope_of(problem, static_cast<const float*>(z), static_cast<const float*>(z_end), static_cast<float>(t), n_threads);
}

}  // namespace nag
