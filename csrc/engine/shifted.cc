#include "engine/shifted.h"

#include <algorithm>
#include <cmath>

#include "engine/margins.h"
#include "engine/threads.h"
#include "engine/tree.h"

namespace nag {
namespace {

template <class T>
ShiftedLoss typed(const ProblemView& problem, const T* z, const double* b, T* moved, T* r, int n_threads) {
  const BlockVectors<T> vectors(problem);
  const std::int64_t k = problem.k, n = problem.n, leaves = (n + kMarginLeaf - 1) / kMarginLeaf;
  constexpr std::ptrdiff_t kBlock = 256, kLd = kBlock + 64, kLanes = 8;
  const std::size_t node = static_cast<std::size_t>(1 + 2 * k);
  std::vector<double> sums(static_cast<std::size_t>(leaves) * node);
  const std::vector<T> no_bias(static_cast<std::size_t>(k), T(0));
  std::atomic<std::int64_t> next{0};
  parallel_run(static_cast<int>(std::min<std::int64_t>(n_threads, leaves)), [&](int, int) {
    Aligned<T> at(static_cast<std::size_t>(k * kLd)), sr(static_cast<std::size_t>(k * kLd));
    for (std::int64_t leaf; (leaf = next++) < leaves;) {
      double* const to = sums.data() + static_cast<std::size_t>(leaf) * node;
      const std::int64_t end = std::min(n, (leaf + 1) * kMarginLeaf);
      for (std::int64_t row = leaf * kMarginLeaf; row < end; row += kBlock) {
        const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(kBlock, end - row));
        for (std::int64_t c = 0; c < k; ++c) {
          T* const line = at.data() + c * kLd;
          const T* const from = z + row * k + c;
          const double shift = b ? b[c] : 0.0;
          for (std::ptrdiff_t i = 0; i < rows; ++i) line[i] = static_cast<T>(static_cast<double>(from[i * k]) + shift);
          if (moved)
            for (std::ptrdiff_t i = 0; i < rows; ++i) moved[(row + i) * k + c] = line[i];
        }
        to[0] += vectors.apply(row, rows, at.data(), kLd, no_bias.data(), false, nullptr, r, sr.data());
        for (std::int64_t c = 0; c < k; ++c) {
          const T* const line = sr.data() + c * kLd;
          double mean[kLanes] = {}, size[kLanes] = {};
          std::ptrdiff_t i = 0;
          for (; i + kLanes <= rows; i += kLanes)
            for (std::ptrdiff_t u = 0; u < kLanes; ++u) {
              mean[u] += static_cast<double>(line[i + u]);
              size[u] += std::fabs(static_cast<double>(line[i + u]));
            }
          for (; i < rows; ++i) {
            mean[0] += static_cast<double>(line[i]);
            size[0] += std::fabs(static_cast<double>(line[i]));
          }
          combine_nodes(mean, kLanes, 1);
          combine_nodes(size, kLanes, 1);
          to[1 + c] += mean[0];
          to[1 + k + c] += size[0];
        }
      }
    }
  });
  combine_nodes(sums.data(), static_cast<std::size_t>(leaves), node);
  ShiftedLoss out;
  out.value = sums[0] / problem.weight_sum;
  for (std::int64_t c = 0; c < k; ++c) {
    out.mean.push_back(sums[static_cast<std::size_t>(1 + c)] / problem.weight_sum);
    out.size.push_back(sums[static_cast<std::size_t>(1 + k + c)] / problem.weight_sum);
  }
  return out;
}

}  // namespace

ShiftedLoss shifted_loss(const ProblemView& problem, const void* z, const double* b, void* moved, void* r, int n_threads) {
  if (problem.compute == Compute::f64)
    return typed(problem, static_cast<const double*>(z), b, static_cast<double*>(moved), static_cast<double*>(r), n_threads);
  return typed(problem, static_cast<const float*>(z), b, static_cast<float*>(moved), static_cast<float*>(r), n_threads);
}

}  // namespace nag
