// X' diag(c) X for CSR rows of few entries: every pair of a row's entries is one addition to one matrix of doubles. Threads
// own ranges of its rows and go through all rows of X in order, a round at a time, so that the bits do not depend on how
// many owners there are. Memory beyond X: that matrix and two vectors of a round.
#include <algorithm>
#include <vector>

#include "engine/gram.h"
#include "engine/margins.h"
#include "engine/threads.h"
#include "engine/tree.h"

namespace nag {
namespace {

constexpr std::ptrdiff_t kBlockRows = 256;
constexpr std::int64_t kRoundBlocks = 16;

// The k-th of `count` rows spread over the request's.
std::int64_t row_of(const ProblemView& v, const SecondRequest& q, std::int64_t k, std::int64_t count) {
  const std::int64_t i = (q.rows ? q.count : v.n) * k / count;
  return q.rows ? q.rows[i] : i;
}
std::int64_t sample_size(const ProblemView& v, const SecondRequest& q) {
  return std::min<std::int64_t>(q.rows ? q.count : v.n, 4096);
}

template <class T>
class SparseSecond {
 public:
  SparseSecond(const ProblemView& v, const SecondRequest& q)
      : v_(v), q_(q), kernels_(rows_of<T>(*v.table)), vectors_(v), m_(q.rows ? q.count : v.n), p_(static_cast<std::ptrdiff_t>(v.w_rows())),
        hessian_(q.w != nullptr), G_(static_cast<std::size_t>(p_ * p_)), g_(static_cast<std::size_t>(p_)) {
    if (!hessian_) return;
    w_ = Aligned<T>(static_cast<std::size_t>(v.d) + 16);
    for (std::int64_t j = 0; j < v.d; ++j) w_[static_cast<std::size_t>(j)] = static_cast<T>(q.w[j]);
    if (v.fit_intercept) bias_ = static_cast<T>(q.w[v.d]);
  }

  SecondResult run() {
    const std::int64_t blocks = (m_ + kBlockRows - 1) / kBlockRows;
    const int threads = m_ < 2048 ? 1 : q_.n_threads;
    const std::vector<std::int64_t> bounds = owner_bounds(threads);
    const std::int64_t owners = static_cast<std::int64_t>(bounds.size()) - 1;
    std::vector<double> values(static_cast<std::size_t>(blocks), 0.0);
    Aligned<T> c(static_cast<std::size_t>(kRoundBlocks * kBlockRows)), r(static_cast<std::size_t>(kRoundBlocks * kBlockRows));
    InterruptCheck check(q_.interrupted);
    std::atomic<std::int64_t> block{0}, owner{0};
    std::atomic<bool> stop{false};
    parallel_pass(threads, [&](int thread, int count) {
      std::int64_t block_base = 0, owner_base = 0;
      for (std::int64_t b0 = 0; b0 < blocks; b0 += kRoundBlocks) {
        const std::int64_t round = std::min(kRoundBlocks, blocks - b0);
        for (std::int64_t b; (b = block++ - block_base) < round;)
          values[static_cast<std::size_t>(b0 + b)] = weigh((b0 + b) * kBlockRows, c.data() + b * kBlockRows, r.data() + b * kBlockRows);
        block_base += round + count;  // every thread draws one too many
        if (thread == 0 && check.due(0)) stop = true;
        parallel_barrier();
        if (stop) return;
        const std::int64_t row = b0 * kBlockRows;
        CsrGramBlock<T> g{v_.data, v_.indices, v_.indptr, q_.rows ? q_.rows + row : nullptr, row,
                          static_cast<std::ptrdiff_t>(std::min(m_ - row, round * kBlockRows)), static_cast<std::ptrdiff_t>(v_.d),
                          v_.fit_intercept, 0, 0, c.data(), hessian_ ? r.data() : nullptr, G_.data(), p_, g_.data()};
        for (std::int64_t o; (o = owner++ - owner_base) < owners;) {
          g.first = bounds[static_cast<std::size_t>(o)];
          g.end = bounds[static_cast<std::size_t>(o) + 1];
          kernels_.csr_gram[static_cast<int>(v_.storage)][v_.wide_index](g);
        }
        owner_base += owners + count;
        parallel_barrier();
      }
    });
    SecondResult result;
    result.interrupted = check.stopped();
    if (result.interrupted) return result;
    combine_nodes(values.data(), values.size(), 1);
    result.value = values[0] / v_.weight_sum;
    finish(&result);
    return result;
  }

 private:
  // The weights of one block's rows, and for a Hessian its residuals and value.
  double weigh(std::int64_t row, T* c, T* r) const {
    const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(kBlockRows, m_ - row));
    if (hessian_) {
      alignas(64) T z[kBlockRows];
      csr_dot_of<T>(v_, v_.wide_index)(v_.data, v_.indices, v_.indptr + row, rows, w_.data(), 1, z, kBlockRows);
      return vectors_.apply(row, rows, z, kBlockRows, &bias_, true, static_cast<T*>(q_.z), static_cast<T*>(q_.r), r, c);
    }
    const T *v = static_cast<const T*>(q_.v), *s = vectors_.s, *factors = static_cast<const T*>(q_.factors);
    for (std::ptrdiff_t i = 0; i < rows; ++i) {
      const std::int64_t from = q_.rows ? q_.rows[row + i] : row + i;
      c[i] = (v ? v[from] : T(1)) * (s ? s[from] : T(1)) * (factors ? factors[row + i] : T(1));
    }
    return 0.0;
  }

  // Ranges of columns with about the same number of products, from a sample of rows.
  std::vector<std::int64_t> owner_bounds(int owners) const {
    std::vector<std::int64_t> bounds{0}, products(static_cast<std::size_t>(v_.d), 0);
    const std::int64_t count = owners == 1 ? 0 : sample_size(v_, q_);
    std::int64_t total = 0, sum = 0;
    for (std::int64_t k = 0; k < count; ++k) {
      const std::int64_t row = row_of(v_, q_, k, count), end = v_.indptr[row + 1];
      for (std::int64_t e = v_.indptr[row]; e < end; ++e) {
        const std::int64_t j = v_.wide_index ? static_cast<const std::int64_t*>(v_.indices)[e] : static_cast<const std::int32_t*>(v_.indices)[e];
        products[static_cast<std::size_t>(j)] += end - e;
        total += end - e;
      }
    }
    for (std::int64_t j = 0; j < v_.d; sum += products[static_cast<std::size_t>(j++)])
      if (j > bounds.back() && sum * owners >= total * static_cast<std::int64_t>(bounds.size()) && static_cast<int>(bounds.size()) < owners)
        bounds.push_back(j);
    bounds.push_back(v_.d + 1);
    return bounds;
  }

  void finish(SecondResult* result) {
    double bad = result->value * 0.0;
    for (std::ptrdiff_t j = 0; j < p_ * p_; ++j) bad += G_[static_cast<std::size_t>(j)] * 0.0;
    for (std::ptrdiff_t j = 0; j < p_; ++j) bad += g_[static_cast<std::size_t>(j)] * 0.0;
    std::int64_t row = 0, column = 0;
    result->finite = bad == 0 || !find_non_finite(v_, &row, &column);
    if (!result->finite) return;
    const double inverse = 1.0 / v_.weight_sum;
    constexpr std::ptrdiff_t kSide = 32;  // a square and its mirror image: whole cache lines on both sides
    for (std::ptrdiff_t i0 = 0; i0 < p_; i0 += kSide)
      for (std::ptrdiff_t j0 = i0; j0 < p_; j0 += kSide)
        for (std::ptrdiff_t i = i0; i < std::min(p_, i0 + kSide); ++i)
          for (std::ptrdiff_t j = std::max(i, j0); j < std::min(p_, j0 + kSide); ++j)
            q_.out[j * p_ + i] = q_.out[i * p_ + j] = G_[static_cast<std::size_t>(i * p_ + j)] * inverse;
    if (q_.grad != nullptr)
      for (std::ptrdiff_t j = 0; j < p_; ++j) q_.grad[j] = g_[static_cast<std::size_t>(j)] * inverse;
  }

  const ProblemView& v_;
  const SecondRequest& q_;
  const RowKernels<T>& kernels_;
  BlockVectors<T> vectors_;
  const std::int64_t m_;
  const std::ptrdiff_t p_;
  const bool hessian_;
  Aligned<double> G_, g_;
  Aligned<T> w_;
  T bias_ = 0;
};

}  // namespace

bool has_few_entries(const ProblemView& v, const SecondRequest& q) {
  const std::int64_t count = sample_size(v, q);
  double pairs = 0;
  for (std::int64_t k = 0; k < count; ++k) {
    const std::int64_t row = row_of(v, q, k, count);
    const double entries = static_cast<double>(v.indptr[row + 1] - v.indptr[row] + (v.fit_intercept ? 1 : 0));
    pairs += entries * (entries + 1) / 2;
  }
  // Measured on AVX-512: a pair costs 2 cycles, a row of vectors 1.3 times its multiply-adds at two a cycle, and its packing.
  const int lanes = v.compute == Compute::f64 ? v.table->f64.lanes : v.table->f32.lanes;
  const double p = static_cast<double>(v.w_rows());
  return 2 * pairs < static_cast<double>(count) * (p * p / (4 * lanes) * 1.3 + 6 * p / lanes);
}

SecondResult run_second_sparse(const ProblemView& problem, const SecondRequest& request) {
  if (problem.compute == Compute::f64) return SparseSecond<double>(problem, request).run();
  return SparseSecond<float>(problem, request).run();
}

}  // namespace nag
