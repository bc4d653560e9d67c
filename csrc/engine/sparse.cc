// One pass over CSR. A small gradient (d*k at most kLeafGradient) is summed a leaf at a time like the dense one (in float
// a block at a time first, where that costs little). One that
// fits a core's cache exists once for each of 4 to 32 parts of the rows, where these have entries enough to pay for clearing
// and adding it. A larger one exists once, in double: blocks of rows get their margins by rows, then each thread adds the
// columns it owns, in row order. Either way the bits do not depend on the threads. Memory beyond X: n-vectors and, per
// thread, (leaves) 3 to 20 leaf gradients or (owners) nothing; the large gradient itself is d*k doubles a part or, with
// owners, d*k doubles; parts also keep a ColumnOrder.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "engine/column_order.h"
#include "engine/margins.h"
#include "engine/threads.h"
#include "engine/tree.h"

namespace nag {
namespace {

constexpr std::int64_t kLeafGradient = 16384;  // doubles: a leaf's gradient stays in the second-level cache
constexpr std::int64_t kLeafRows = 2048;
constexpr std::ptrdiff_t kBlockRows = 256;
constexpr std::int64_t kPartGradient = 1 << 18;  // doubles: a part's gradient stays in the second-level cache or nearly so
constexpr std::ptrdiff_t kPartRows = 64;         // what one of them leaves in the first cache the other finds
constexpr std::int64_t kOwnerNonZeros = 1 << 17;  // a thread's share of a round: a megabyte of data and indices

template <class T>
class SparsePass {
 public:
  SparsePass(const ProblemView& v, const PassRequest& q)
      : v_(v), q_(q), kernels_(rows_of<T>(*v.table)), vectors_(v), bias_(static_cast<std::size_t>(v.k), T(0)), indices_(v.indices),
        wide_index_(v.wide_index) {
    if (q.w != nullptr && v.fit_intercept)
      for (std::int64_t c = 0; c < v.k; ++c) bias_[static_cast<std::size_t>(c)] = static_cast<T>(q.w[v.d * v.k + c]);
  }

  PassResult run() {
    const bool small = v_.d * v_.k <= kLeafGradient;
    const int threads = v_.indptr[v_.n] - v_.indptr[0] < 8192 ? 1 : q_.n_threads;
    PassResult result;
    InterruptCheck check(q_.interrupted);
    const bool leaves = small || q_.kind == PassRequest::Kind::margins;
    const RowParts parts = leaves ? RowParts() : row_parts();
    if (leaves) by_leaves(threads, check, &result);
    else if (parts.stride != 0) by_parts(parts, threads, check, &result);
    else by_owners(threads, check, &result);
    result.interrupted = check.stopped();
    return result;
  }

 private:
  // With many columns the work on w and on the gradient is of the order of the pass itself, so the threads share it.
  void each_part(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& body) const {
    const int threads = count < 32768 ? 1 : q_.n_threads;
    parallel_pass(threads, [&](int thread, int of) { body(count * thread / of, count * (thread + 1) / of); });
  }

  void take_weights() {
    if (q_.w == nullptr) return;
    const std::int64_t count = v_.d * v_.k;
    if constexpr (sizeof(T) == sizeof(double)) {
      w_ = q_.w;  // read where it lies
    } else {
      copy_ = Aligned<T>(static_cast<std::size_t>(count), Unset{});
      each_part(count, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t j = begin; j < end; ++j) copy_[static_cast<std::size_t>(j)] = static_cast<T>(q_.w[j]);
      });
      w_ = copy_.data();
    }
  }

  bool wants_grad() const { return q_.kind != PassRequest::Kind::margins; }

  struct Workspace {
    Aligned<T> z, sr;
    explicit Workspace(std::int64_t k)
        : z(static_cast<std::size_t>(k * kBlockRows)), sr(static_cast<std::size_t>(k * kBlockRows)) {}
  };

  int storage() const { return static_cast<int>(v_.storage); }

  void dot(std::int64_t row, std::ptrdiff_t rows, T* z) const {
    csr_dot_of<T>(v_, wide_index_)(v_.data, indices_, v_.indptr + row, rows, w_, static_cast<std::ptrdiff_t>(v_.k), z, kBlockRows);
  }
  void outer(const std::int64_t* cuts, std::ptrdiff_t stride, std::ptrdiff_t rows, const T* sr, double* g) const {
    kernels_.csr_outer[storage()][wide_index_](v_.data, indices_, cuts, stride, rows, sr, kBlockRows,
                                                 static_cast<std::ptrdiff_t>(v_.k), g);
  }

  // Margins and loss of one block; s*r stays in w.sr. Adds the value to sums[k] and the residual sums to sums[0..k).
  void run_block(std::int64_t row, std::ptrdiff_t rows, Workspace& w, double* sums) const {
    if (q_.kind == PassRequest::Kind::rmatvec) {
      vectors_.weigh(row, rows, static_cast<const T*>(q_.v), kBlockRows, w.sr.data());
    } else {
      dot(row, rows, w.z.data());
      if (q_.kind == PassRequest::Kind::margins) {
        vectors_.margins(row, rows, w.z.data(), kBlockRows, bias_.data(), static_cast<T*>(q_.z));
        return;
      }
      sums[v_.k] += vectors_.respond(q_, row, rows, w.z.data(), kBlockRows, bias_.data(), static_cast<T*>(q_.z),
                                     static_cast<T*>(q_.r), w.sr.data());
    }
    if (v_.fit_intercept)
      for (std::int64_t c = 0; c < v_.k; ++c) sums[c] += kernels_.sum(w.sr.data() + c * kBlockRows, rows);
  }

  void finish(const double* g, const double* sums, PassResult* result) {
    const double inverse = 1.0 / v_.weight_sum;
    const bool sums_finite = finish_sums(sums, result);
    if (!wants_grad()) return;
    const std::int64_t count = v_.d * v_.k;
    if (q_.only_finite) {
      std::atomic<bool> finite{sums_finite};
      each_part(count, [&](std::int64_t begin, std::int64_t end) {
        if (!(zero_if_finite(g, begin, end, inverse) == 0.0)) finite = false;
      });
      result->finite = finite;
      if (!finite) return;
    }
    each_part(count, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = begin; j < end; ++j) q_.grad[j] = g[j] * inverse;
    });
    if (v_.fit_intercept)
      for (std::int64_t c = 0; c < v_.k; ++c) q_.grad[v_.d * v_.k + c] = sums[c] * inverse;
  }

  void by_leaves(int threads, InterruptCheck& check, PassResult* result) {
    take_weights();
    const std::int64_t leaves = (v_.n + kLeafRows - 1) / kLeafRows;
    const std::size_t gsize = wants_grad() ? static_cast<std::size_t>(v_.d * v_.k) : 0;
    const std::size_t node_size = gsize + static_cast<std::size_t>(v_.k) + 1;
    int level = 0;
    while (((leaves - 1) >> level) + 1 > 32 * threads) ++level;
    const std::int64_t subtrees = ((leaves - 1) >> level) + 1;
    std::vector<double> nodes(static_cast<std::size_t>(subtrees) * node_size);
    // A block's entries are summed in T where folding that into doubles costs little beside them.
    const bool by_blocks = sizeof(T) == sizeof(float) && wants_grad() && v_.k == 1 &&
                           kBlockRows * (v_.indptr[v_.n] - v_.indptr[0]) >= 8 * v_.d * v_.n;
    std::atomic<std::int64_t> next{0};
    parallel_pass(static_cast<int>(std::min<std::int64_t>(threads, subtrees)), [&](int thread, int) {
      Workspace w(v_.k);
      TreeSum tree(node_size, level + 1);
      std::vector<double> leaf_node(node_size);
      Aligned<T> short_sums(by_blocks ? gsize : 0);
      for (std::int64_t i; (i = next++) < subtrees;) {
        const std::int64_t end_leaf = std::min(leaves, (i + 1) << level);
        for (std::int64_t leaf = i << level; leaf < end_leaf && !check.due(thread); ++leaf) {
          std::fill(leaf_node.begin(), leaf_node.end(), 0.0);
          const std::int64_t end = std::min(v_.n, (leaf + 1) * kLeafRows);
          for (std::int64_t row = leaf * kLeafRows; row < end; row += kBlockRows) {
            const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(kBlockRows, end - row));
            run_block(row, rows, w, leaf_node.data() + gsize);
            if (by_blocks) {
              std::fill_n(short_sums.data(), gsize, T(0));
              kernels_.csr_scatter[storage()][wide_index_](v_.data, indices_, v_.indptr + row, rows, w.sr.data(), short_sums.data());
              kernels_.fold(leaf_node.data(), short_sums.data(), static_cast<std::ptrdiff_t>(gsize), true);
            } else if (wants_grad()) {
              outer(v_.indptr + row, 1, rows, w.sr.data(), leaf_node.data());
            }
          }
          tree.push([&](double* node, bool add) {
            for (std::size_t j = 0; j < node_size; ++j) node[j] = (add ? node[j] : 0.0) + leaf_node[j];
          });
        }
        tree.finish(nodes.data() + static_cast<std::size_t>(i) * node_size);
      }
    });
    if (check.stopped()) return;
    combine_nodes(nodes.data(), static_cast<std::size_t>(subtrees), node_size);
    finish(nodes.data(), nodes.data() + gsize, result);
  }

  // Parts of about the same number of entries, from n, d, k and indptr alone. Stride 0 where their gradients would not pay.
  RowParts row_parts() const {
    RowParts parts;
    const std::int64_t first = v_.indptr[0], nnz = v_.indptr[v_.n] - first;
    if (v_.d * v_.k > kPartGradient || nnz < 12 * v_.d) return parts;
    std::int64_t count = 4;
    while (count < 32 && nnz >= 16 * count * v_.d) count *= 2;
    for (std::int64_t p = 0; p <= count; ++p)
      parts.first_row.push_back(std::lower_bound(v_.indptr, v_.indptr + v_.n, first + nnz / count * p) - v_.indptr);
    parts.first_row.front() = 0;  // rows without entries, too, at both ends
    parts.first_row.back() = v_.n;
    parts.stride = pad_to(static_cast<std::ptrdiff_t>(v_.d) + 1, 8);  // one more: a zero for columns without entries
    return parts;
  }

  // NaN as soon as one of g[begin, end) times `inverse` is not finite, else 0.
  static double zero_if_finite(const double* g, std::int64_t begin, std::int64_t end, double inverse) {
    double lanes[8] = {};
    std::int64_t j = begin;
    for (; j + 8 <= end; j += 8)
      for (int u = 0; u < 8; ++u) lanes[u] += g[j + u] * inverse * 0.0;
    for (; j < end; ++j) lanes[0] += g[j] * inverse * 0.0;
    double sum = 0;
    for (const double lane : lanes) sum += lane;
    return sum;
  }

  // The value and the intercept's gradient, from the sums over rows. True when they are finite.
  bool finish_sums(const double* sums, PassResult* result) const {
    result->value = sums[v_.k] * (1.0 / v_.weight_sum);
    bool finite = std::isfinite(result->value);
    for (std::int64_t c = 0; c < v_.k && v_.fit_intercept; ++c) finite = finite && std::isfinite(sums[c] * (1.0 / v_.weight_sum));
    return finite;
  }

  // With an order, or without one on the columns as they stand: the same operands in the same additions.
  void by_parts(const RowParts& parts, int threads, InterruptCheck& check, PassResult* result) {
    const ColumnOrder* order = v_.order ? v_.order->for_pass(v_, parts, threads, check) : nullptr;
    if (check.stopped()) return;
    const int count = parts.count();
    const std::int64_t k = v_.k, stride = parts.stride * k, shared = (order ? order->shared : v_.d) * k;
    if (order == nullptr) {
      take_weights();
    } else {
      indices_ = order->index.data();
      wide_index_ = false;
      if (q_.w != nullptr) copy_ = Aligned<T>(static_cast<std::size_t>(v_.d * k), Unset{});
      w_ = copy_.data();
    }
    const auto local = [&](int p) { return order ? order->local[static_cast<std::size_t>(p)] * k : shared; };
    Aligned<double> g(static_cast<std::size_t>(count * stride), Unset{});
    const std::size_t node = static_cast<std::size_t>(k) + 1;
    std::vector<std::int64_t> first_block(1, 0);  // of each part, in `sums`: k residual sums and the value of each block
    for (int p = 0; p < count; ++p) {
      const std::int64_t rows = parts.first_row[static_cast<std::size_t>(p) + 1] - parts.first_row[static_cast<std::size_t>(p)];
      first_block.push_back(first_block.back() + (rows + kPartRows - 1) / kPartRows);
    }
    std::vector<double> sums(static_cast<std::size_t>(first_block.back()) * node, 0.0);
    std::vector<Workspace> works;
    for (int t = 0; t < threads; ++t) works.emplace_back(k);
    std::atomic<int> next{0};
    std::atomic<bool> finite{true};
    const double inverse = 1.0 / v_.weight_sum;
    parallel_pass(threads, [&](int thread, int of) {
      if (order != nullptr && q_.w != nullptr) {
        each_column(order->number.data(), k, v_.d * thread / of, v_.d * (thread + 1) / of,
                    [w = q_.w, to = copy_.data()](std::int64_t at, std::int64_t number) { to[number] = static_cast<T>(w[at]); });
        parallel_barrier();
      }
      for (int p; (p = next++) < count;) {
        double* const gp = g.data() + p * stride;
        std::fill(gp, gp + shared, 0.0);
        std::fill(gp + local(p), gp + local(p + 1), 0.0);
        const std::int64_t end = parts.first_row[static_cast<std::size_t>(p) + 1];
        double* sum = sums.data() + static_cast<std::size_t>(first_block[static_cast<std::size_t>(p)]) * node;
        for (std::int64_t row = parts.first_row[static_cast<std::size_t>(p)]; row < end && !check.due(thread); row += kPartRows, sum += node) {
          const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(kPartRows, end - row));
          Workspace& w = works[static_cast<std::size_t>(thread)];
          run_block(row, rows, w, sum);
          outer(v_.indptr + row, 1, rows, w.sr.data(), gp);
        }
      }
      parallel_barrier();
      if (check.stopped()) return;
      if (thread == 0) {
        std::fill(g.data() + v_.d * k, g.data() + (v_.d + 1) * k, 0.0);
        combine_nodes(sums.data(), static_cast<std::size_t>(first_block.back()), node);
        if (!finish_sums(sums.data(), result)) finite = false;
      }
      add_parts(g.data(), count, stride, shared * thread / of, shared * (thread + 1) / of);
      double not_finite = zero_if_finite(g.data(), shared * thread / of, shared * (thread + 1) / of, inverse);
      for (int p = thread; p < count; p += of) not_finite += zero_if_finite(g.data() + p * stride, local(p), local(p + 1), inverse);
      if (!(not_finite == 0.0)) finite = false;
      parallel_barrier();
      if (q_.only_finite && !finite) return;
      each_column(order ? order->place.data() : nullptr, k, v_.d * thread / of, v_.d * (thread + 1) / of,
                  [grad = q_.grad, from = g.data(), inverse](std::int64_t at, std::int64_t place) { grad[at] = from[place] * inverse; });
    });
    if (check.stopped()) return;
    if (q_.only_finite) result->finite = finite;
    if (q_.only_finite && !finite) return;
    for (std::int64_t c = 0; c < k && v_.fit_intercept; ++c) q_.grad[v_.d * k + c] = sums[static_cast<std::size_t>(c)] * inverse;
  }

  // body(element of column j, element of column to[j]) for the columns begin to end, k elements each; null `to` is j itself.
  template <class Body>
  static void each_column(const std::int32_t* to, std::int64_t k, std::int64_t begin, std::int64_t end, Body&& body) {
    if (to == nullptr) {
      for (std::int64_t j = begin * k; j < end * k; ++j) body(j, j);
    } else if (k == 1) {
      for (std::int64_t j = begin; j < end; ++j) body(j, static_cast<std::int64_t>(to[j]));
    } else {
      for (std::int64_t j = begin; j < end; ++j)
        for (std::int64_t c = 0; c < k; ++c) body(j * k + c, to[j] * k + c);
    }
  }

  // Elements begin to end of all parts' gradients into the first's, in the tree of combine_nodes, a few lines at a time.
  static void add_parts(double* g, int count, std::int64_t stride, std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t kStrip = 256;
    for (std::int64_t j = begin; j < end; j += kStrip) {
      const std::int64_t m = std::min(kStrip, end - j);
      for (std::int64_t step = 1; step < count; step *= 2)
        for (std::int64_t p = 0; p + step < count; p += 2 * step) {
          double* const to = g + p * stride + j;
          const double* const from = to + step * stride;
          for (std::int64_t u = 0; u < m; ++u) to[u] += from[u];
        }
    }
  }

  // Column boundaries that give each owner about the same number of non-zeros, from a sample of the indices. The bits do
  // not depend on them: a column is summed by one owner, in row order, wherever the boundaries fall.
  std::vector<std::int64_t> owner_bounds(int owners) const {
    const std::int64_t first = v_.indptr[0], nnz = v_.indptr[v_.n] - first;
    const std::int64_t count = std::min<std::int64_t>(nnz, 1024);
    std::vector<std::int64_t> sample(static_cast<std::size_t>(count));
    for (std::int64_t q = 0; q < count; ++q) {
      const std::int64_t e = first + q * (nnz / count);
      sample[static_cast<std::size_t>(q)] = v_.wide_index ? static_cast<const std::int64_t*>(v_.indices)[e]
                                                          : static_cast<const std::int32_t*>(v_.indices)[e];
    }
    std::sort(sample.begin(), sample.end());
    std::vector<std::int64_t> bounds(static_cast<std::size_t>(owners) + 1, 0);
    for (int t = 1; t < owners; ++t) bounds[static_cast<std::size_t>(t)] = sample[static_cast<std::size_t>(count * t / owners)];
    bounds.back() = v_.d;
    return bounds;
  }

  void by_owners(int threads, InterruptCheck& check, PassResult* result) {
    take_weights();
    const std::int64_t k = v_.k, blocks = (v_.n + kBlockRows - 1) / kBlockRows;
    Aligned<double> g(static_cast<std::size_t>(v_.d * k), Unset{});  // each owner clears its own part
    // Per block: k residual sums and the value, added in a fixed tree at the end.
    const std::size_t node = static_cast<std::size_t>(k) + 1;
    std::vector<double> sums(static_cast<std::size_t>(blocks) * node, 0.0);
    const double row_nnz = static_cast<double>(v_.indptr[v_.n] - v_.indptr[0]) / static_cast<double>(v_.n);
    // The same number of blocks for each thread.
    const std::int64_t round = threads * std::max<std::int64_t>(
        1, static_cast<std::int64_t>(static_cast<double>(kOwnerNonZeros) / (row_nnz + 1) / kBlockRows));
    std::vector<Aligned<T>> residuals;
    for (std::int64_t b = 0; b < std::min(round, blocks); ++b) residuals.emplace_back(static_cast<std::size_t>(k * kBlockRows));
    const std::vector<std::int64_t> bounds = owner_bounds(threads);
    std::vector<std::int64_t> cuts(static_cast<std::size_t>(std::min(round, blocks) * kBlockRows * (threads + 1)));
    std::vector<Workspace> works;
    for (int t = 0; t < threads; ++t) works.emplace_back(k);
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> stop{false};
    parallel_pass(threads, [&](int thread, int count) {
      Workspace& w = works[static_cast<std::size_t>(thread)];
      for (int owner = thread; owner < threads; owner += count)
        std::fill(g.data() + bounds[static_cast<std::size_t>(owner)] * k, g.data() + bounds[static_cast<std::size_t>(owner) + 1] * k, 0.0);
      for (std::int64_t b0 = 0; b0 < blocks; b0 += round) {
        const std::int64_t b1 = std::min(blocks, b0 + round);
        for (std::int64_t b; (b = next++) < b1;) {
          const std::int64_t row = b * kBlockRows;
          const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(kBlockRows, v_.n - row));
          run_block(row, rows, w, sums.data() + static_cast<std::size_t>(b) * node);
          std::swap(w.sr, residuals[static_cast<std::size_t>(b - b0)]);
          // Searched here, while the row is in this core's cache: each step of a cold search would wait for memory.
          kernels_.csr_split[v_.wide_index](v_.indices, v_.indptr + row, rows, bounds.data(), threads,
                                            cuts.data() + (b - b0) * kBlockRows * (threads + 1));
        }
        if (thread == 0 && check.due(0)) stop = true;
        parallel_barrier();  // residuals of the round are ready, and every thread sees the same `stop`
        if (stop) return;
        for (int owner = thread; owner < threads; owner += count)
          for (std::int64_t b = b0; b < b1; ++b) {
            const std::int64_t row = b * kBlockRows;
            outer(cuts.data() + (b - b0) * kBlockRows * (threads + 1) + owner, threads + 1,
                  static_cast<std::ptrdiff_t>(std::min<std::int64_t>(kBlockRows, v_.n - row)),
                  residuals[static_cast<std::size_t>(b - b0)].data(), g.data());
          }
        if (thread == 0) next = b1;  // each thread's losing draw has moved it past the round's end
        parallel_barrier();
      }
    });
    if (check.stopped()) return;
    combine_nodes(sums.data(), static_cast<std::size_t>(blocks), node);
    finish(g.data(), sums.data(), result);
  }

  const ProblemView& v_;
  const PassRequest& q_;
  const RowKernels<T>& kernels_;
  BlockVectors<T> vectors_;
  const T* w_ = nullptr;  // d x k
  Aligned<T> copy_;
  std::vector<T> bias_;
  const void* indices_;  // X's own, or their numbers in a ColumnOrder
  bool wide_index_;
};

}  // namespace

PassResult run_sparse(const ProblemView& problem, const PassRequest& request) {
  if (problem.compute == Compute::f64) return SparsePass<double>(problem, request).run();
  return SparsePass<float>(problem, request).run();
}

}  // namespace nag
