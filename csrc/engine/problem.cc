#include "engine/problem.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/margins.h"
#include "engine/threads.h"
#include "engine/tree.h"

namespace nag {

bool InterruptCheck::due(int thread) {
  if (thread == 0 && ask_ && !stopped()) {
    const std::int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(
                                 std::chrono::steady_clock::now().time_since_epoch()).count();
    if (last_ == 0) last_ = now;
    if (now - last_ >= 100) {
      last_ = now;
      if (ask_()) stop_ = true;
    }
  }
  return stopped();
}

PassResult run_pass(const ProblemView& problem, const PassRequest& request) {
  return problem.sparse ? run_sparse(problem, request) : run_dense(problem, request);
}

namespace {

template <class T>
double loss_of_margins(const ProblemView& problem, const T* z, T* r, int n_threads) {
  const BlockVectors<T> vectors(problem);
  const std::int64_t k = problem.k, n = problem.n;
  const std::ptrdiff_t block = 256, ld = block + 64;
  const std::int64_t leaves = (n + kMarginLeaf - 1) / kMarginLeaf;
  std::vector<double> sums(static_cast<std::size_t>(leaves));
  const std::vector<T> no_bias(static_cast<std::size_t>(k), T(0));
  std::atomic<std::int64_t> next{0};
  const int threads = static_cast<int>(std::min<std::int64_t>(n_threads, leaves));
  parallel_pass(threads, [&](int, int) {
    Aligned<T> zdot(static_cast<std::size_t>(k * ld)), sr(static_cast<std::size_t>(k * ld));
    for (std::int64_t leaf; (leaf = next++) < leaves;) {
      double sum = 0;
      const std::int64_t end = std::min(n, (leaf + 1) * kMarginLeaf);
      for (std::int64_t row = leaf * kMarginLeaf; row < end; row += block) {
        const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(block, end - row));
        const T* source = z + row;
        if (k > 1) {
          for (std::ptrdiff_t i = 0; i < rows; ++i)
            for (std::int64_t c = 0; c < k; ++c) zdot[static_cast<std::size_t>(c * ld + i)] = z[(row + i) * k + c];
          source = zdot.data();
        }
        // The margins hold intercept and offset already.
        sum += vectors.apply(row, rows, source, ld, no_bias.data(), false, nullptr, r, sr.data());
      }
      sums[static_cast<std::size_t>(leaf)] = sum;
    }
  });
  combine_nodes(sums.data(), sums.size(), 1);
  return sums[0] / problem.weight_sum;
}

template <class T>
void curvature_of_margins(const ProblemView& problem, const T* z, T* h, int n_threads) {
  ProblemView plain = problem;  // the curvature without the sample weights
  plain.s = nullptr;
  const BlockVectors<T> vectors(plain);
  const std::int64_t n = problem.n, leaves = (n + kMarginLeaf - 1) / kMarginLeaf;
  std::atomic<std::int64_t> next{0};
  parallel_pass(static_cast<int>(std::min<std::int64_t>(n_threads, leaves)), [&](int, int) {
    constexpr std::ptrdiff_t kBlock = 256;
    alignas(64) T residuals[kBlock];
    const T no_bias = 0;
    for (std::int64_t leaf; (leaf = next++) < leaves;) {
      const std::int64_t end = std::min(n, (leaf + 1) * kMarginLeaf);
      for (std::int64_t row = leaf * kMarginLeaf; row < end; row += kBlock)
        vectors.apply(row, static_cast<std::ptrdiff_t>(std::min<std::int64_t>(kBlock, end - row)), z + row, kBlock, &no_bias, false,
                      nullptr, nullptr, residuals, h + row);
    }
  });
}

template <class S>
bool finite(const char* p);
template <> bool finite<double>(const char* p) { double x; std::memcpy(&x, p, 8); return std::isfinite(x); }
template <> bool finite<float>(const char* p) { float x; std::memcpy(&x, p, 4); return std::isfinite(x); }
template <> bool finite<bf16>(const char* p) { std::uint16_t x; std::memcpy(&x, p, 2); return (x & 0x7F80) != 0x7F80; }

template <class S>
bool scan(const ProblemView& v, std::int64_t* row, std::int64_t* col) {
  if (v.sparse) {
    const char* data = static_cast<const char*>(v.data);
    for (std::int64_t i = 0; i < v.n; ++i)
      for (std::int64_t e = v.indptr[i]; e < v.indptr[i + 1]; ++e)
        if (!finite<S>(data + e * static_cast<std::int64_t>(sizeof(S)))) {
          *row = i;
          *col = v.wide_index ? static_cast<const std::int64_t*>(v.indices)[e] : static_cast<const std::int32_t*>(v.indices)[e];
          return true;
        }
    return false;
  }
  const char* X = static_cast<const char*>(v.X);
  for (std::int64_t i = 0; i < v.n; ++i)
    for (std::int64_t j = 0; j < v.d; ++j)
      if (!finite<S>(X + i * v.row_stride + j * v.col_stride)) {
        *row = i;
        *col = j;
        return true;
      }
  return false;
}

}  // namespace

double loss_from_margins(const ProblemView& problem, const void* z, void* r, int n_threads) {
  if (problem.compute == Compute::f64)
    return loss_of_margins(problem, static_cast<const double*>(z), static_cast<double*>(r), n_threads);
  return loss_of_margins(problem, static_cast<const float*>(z), static_cast<float*>(r), n_threads);
}

void curvature_from_margins(const ProblemView& problem, const void* z, void* h, int n_threads) {
  if (problem.compute == Compute::f64)
    return curvature_of_margins(problem, static_cast<const double*>(z), static_cast<double*>(h), n_threads);
  curvature_of_margins(problem, static_cast<const float*>(z), static_cast<float*>(h), n_threads);
}

bool find_non_finite(const ProblemView& v, std::int64_t* row, std::int64_t* col) {
  switch (v.storage) {
    case Storage::f64: return scan<double>(v, row, col);
    case Storage::f32: return scan<float>(v, row, col);
    case Storage::bf16: return scan<bf16>(v, row, col);
    case Storage::u8: return false;
  }
  return false;
}

}  // namespace nag
