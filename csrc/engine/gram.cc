// X' diag(c) X from blocks of rows that are packed once (kernels/panels.h) and multiplied while they are in cache. The
// gradient rides along as one more row of the product: with s*r where a column of c*x would stand, it gathers sum s r x.
// So do the targets, with c*(y - origin) there.
// Few columns: a thread takes whole leaves, which add up in the fixed tree. Many: all threads pack one block together and
// share the tiles of one matrix of totals, to which blocks are added in order. Either way the bits do not depend on how
// many threads there are. Memory beyond X: (few) some 8 MB of nodes, (many) one matrix and a packed block.
#include "engine/gram.h"

#include <algorithm>
#include <vector>

#include "dispatch/dispatch.h"
#include "engine/gram_tiles.h"
#include "engine/margins.h"
#include "engine/threads.h"
#include "engine/tree.h"

namespace nag {
namespace {

constexpr std::int64_t kLeafRows = 1024;
constexpr std::ptrdiff_t kLeafBlock = 128;     // rows: three vectors of columns, 24 KiB, stay in the first-level cache
constexpr std::ptrdiff_t kSharedBlock = 512;   // rows: fewer trips of the totals through the caches
constexpr std::ptrdiff_t kPackRows = 32;       // rows packed, mapped and scaled before the next
constexpr std::size_t kSharedBytes = 256 * 1024;  // of a matrix of totals, from which on it exists once

template <class T>
class SecondPass {
 public:
  SecondPass(const ProblemView& v, const SecondRequest& q)
      : v_(v), q_(q), kernels_(rows_of<T>(*v.table)), panel_(kernels_.panel), vectors_(v), lanes_(kernels_.lanes) {
    m_ = q.rows ? q.count : v.n;
    hessian_ = q.w != nullptr;
    weighted_ = hessian_ || q.v != nullptr || v.s != nullptr || q.factors != nullptr;
    ones_ = v.fit_intercept || v.shift != 0.0;
    columns_ = static_cast<std::ptrdiff_t>(v.d) + (ones_ ? 1 : 0);
    rows_ = columns_ + (hessian_ || q.targets ? 1 : 0);
    col_vectors_ = (columns_ + lanes_ - 1) / lanes_;
    row_vectors_ = (rows_ + lanes_ - 1) / lanes_;
    total_ = static_cast<std::size_t>(lanes_ * lanes_ * row_vectors_ * (row_vectors_ + 1) / 2);
    shared_ = total_ * sizeof(double) >= kSharedBytes;
    ld_ = shared_ ? kSharedBlock : kLeafBlock;
    const std::int64_t row_bytes = v.d * static_cast<std::int64_t>(kStorageBytes[static_cast<int>(v.storage)]);
    in_order_ = !v.sparse && q.rows == nullptr && v.row_stride >= row_bytes && v.row_stride < 2 * row_bytes;
    if (hessian_) fold_weights();
  }

  SecondResult run() {
    InterruptCheck check(q_.interrupted);
    SecondResult result;
    if (sum_tiles(check)) {
      write_out();
      return result;
    }
    result.interrupted = check.stopped();
    if (result.interrupted) return result;
    totals_ = shared_ ? share_tiles(check) : add_leaves(check);
    result.interrupted = check.stopped();
    if (result.interrupted) return result;
    result.value = totals_[total_] / v_.weight_sum;
    std::int64_t row = 0, column = 0;
    result.finite = totals_are_finite() || !find_non_finite(v_, &row, &column);
    if (result.finite) write_out();
    return result;
  }

 private:
  struct Block {
    Aligned<T> P, Q;
    explicit Block(const SecondPass& p)
        : P(p.panel_size()), Q(p.weighted_ ? p.panel_size() : 0) {}
  };
  std::size_t panel_size() const { return static_cast<std::size_t>(row_vectors_ * ld_ * lanes_); }

  // The coefficients as the packed rows want them: scale*w, and what the column of ones carries.
  void fold_weights() {
    w_ = Aligned<T>(static_cast<std::size_t>(col_vectors_ * lanes_));
    double sum = 0;
    for (std::int64_t j = 0; j < v_.d; ++j) {
      w_[static_cast<std::size_t>(j)] = static_cast<T>(v_.scale * q_.w[j]);
      sum += q_.w[j];
    }
    if (ones_) w_[static_cast<std::size_t>(v_.d)] = static_cast<T>(v_.shift * sum + (v_.fit_intercept ? q_.w[v_.d] : 0.0));
  }

  // Packs the rows [row, row + rows) of the sample from line `at` of the block on; adds their losses up.
  double fill(std::int64_t row, std::ptrdiff_t rows, Block& b, std::ptrdiff_t at) const {
    T* P = b.P.data() + at * lanes_;
    pack(row, rows, P);
    if (!weighted_) return q_.targets ? put_targets(row, rows, nullptr, P) : 0.0;
    alignas(64) T c[kPackRows + 16], z[kPackRows + 16], sr[kPackRows + 16];
    double value = 0;
    if (hessian_) {
      const T no_bias = 0;
      panel_.dot(P, ld_, rows, col_vectors_, w_.data(), z);
      value = vectors_.apply(row, rows, z, ld_, &no_bias, true, static_cast<T*>(q_.z), static_cast<T*>(q_.r), sr, c);
    } else {
      for (std::ptrdiff_t i = 0; i < rows; ++i) {
        c[i] = weight(row + i, q_.rows ? q_.rows[row + i] : row + i);
        if (c[i] == 0)  // nothing of a row that does not count: zero times NaN would be NaN
          for (std::ptrdiff_t u = 0; u < col_vectors_; ++u) std::fill_n(P + (u * ld_ + i) * lanes_, lanes_, T(0));
      }
    }
    T* Q = b.Q.data() + at * lanes_;
    panel_.scale(P, ld_, rows, col_vectors_, c, Q);
    if (hessian_) {
      T* g = beyond_columns(Q);
      for (std::ptrdiff_t i = 0; i < rows; ++i) g[i * lanes_] = sr[i];
    }
    return q_.targets ? put_targets(row, rows, c, Q) : value;
  }

  // What row i of the sample counts, which is row `from` of X.
  T weight(std::int64_t i, std::int64_t from) const {
    const T *v = static_cast<const T*>(q_.v), *s = vectors_.s, *factors = static_cast<const T*>(q_.factors);
    const T c = v && s ? v[from] * s[from] : v ? v[from] : s ? s[from] : T(1);
    return factors ? c * factors[i] : c;
  }

  T* beyond_columns(T* Q) const { return Q + columns_ / lanes_ * ld_ * lanes_ + columns_ % lanes_; }

  // c*(y - origin) beside the columns; returns the sum of c*(y - origin)^2. Null c: ones.
  double put_targets(std::int64_t row, std::ptrdiff_t rows, const T* c, T* Q) const {
    const T* y = vectors_.y;
    T* to = beyond_columns(Q);
    double squares = 0;
    for (std::ptrdiff_t i = 0; i < rows; ++i) {
      const double t = static_cast<double>(y[q_.rows ? q_.rows[row + i] : row + i]) - q_.origin;
      const double ct = c ? static_cast<double>(c[i]) * t : t;
      to[i * lanes_] = static_cast<T>(ct);
      squares += ct * t;
    }
    return squares;
  }

  void pack(std::int64_t row, std::ptrdiff_t rows, T* P) const {
    const std::int64_t* at = q_.rows ? q_.rows + row : nullptr;
    if (v_.sparse) {
      const CsrPackBlock b{v_.data, v_.indices, at ? v_.indptr : v_.indptr + row, at, rows, static_cast<std::ptrdiff_t>(v_.d), ld_, ones_};
      panel_.pack_csr[static_cast<int>(v_.storage)][v_.wide_index](b, P);
      return;
    }
    const char* X = static_cast<const char*>(v_.X) + (at ? 0 : row * v_.row_stride);
    const PackBlock b{X, v_.row_stride, v_.col_stride, at, rows, static_cast<std::ptrdiff_t>(v_.d), ld_, ones_, ld_ * v_.row_stride + 63};
    panel_.pack[static_cast<int>(v_.storage)](b, P);
  }

  PanelProduct<T> product(const Block& b, std::ptrdiff_t rows, double* C) const {
    PanelProduct<T> p{};
    p.P = b.P.data();
    p.Q = weighted_ ? b.Q.data() : b.P.data();
    p.ld = ld_;
    p.rows = rows;
    p.end_row = row_vectors_;
    p.row_count = rows_;
    p.col_count = columns_;
    p.C = C;
    return p;
  }

  // ---- two digits: matrix tiles

  // False where they are not wanted, not there, or do not hold these numbers.
  bool sum_tiles(InterruptCheck& check) {
    if (!q_.rounded || hessian_ || q_.targets || columns_ < TileSums::kFewestColumns || m_ < TileSums::kFewestRows) return false;
    const TileKernels* const tiles = v_.table == &active_table() ? active_tiles() : nullptr;
    if (tiles == nullptr) return false;
    const std::ptrdiff_t item = static_cast<std::ptrdiff_t>(kStorageBytes[static_cast<int>(v_.storage)]), d = static_cast<std::ptrdiff_t>(v_.d);
    const bool numbers = v_.storage == Storage::f32 || v_.storage == Storage::f64;
    const bool in_place = numbers && !v_.sparse && v_.col_stride == item && v_.row_stride % item == 0 &&
                          reinterpret_cast<std::uintptr_t>(v_.X) % static_cast<std::uintptr_t>(item) == 0;
    const Aligned<char> nothing(static_cast<std::size_t>(d) * sizeof(double));
    TileSums sums(*tiles, m_, d, ones_, in_place ? static_cast<std::size_t>(item) : sizeof(T), !in_place);
    const bool held = sums.run(q_.n_threads, [&](std::int64_t row, std::ptrdiff_t rows, const void** lines, float* c, void* room) {
      for (std::ptrdiff_t i = 0; i < rows; ++i) {
        const std::int64_t from = q_.rows ? q_.rows[row + i] : row + i;
        c[i] = static_cast<float>(std::sqrt(weight(row + i, from)));
        T* const to = static_cast<T*>(room) + i * d;
        if (c[i] == 0) {
          lines[i] = nothing.data();
        } else if (in_place) {
          lines[i] = static_cast<const char*>(v_.X) + from * v_.row_stride;
        } else {
          write_row(from, to);
          lines[i] = to;
        }
      }
    }, [&](int thread) { return check.due(thread); });
    if (!held) return false;
    totals_ = Aligned<double>(total_ + 1, Unset{});
    for (std::ptrdiff_t i = 0; i < columns_; ++i) sums.copy_row(i, totals_.data() + place(i, 0));
    return true;
  }

  // Row `from` of X as d numbers.
  void write_row(std::int64_t from, T* to) const {
    if (!v_.sparse) {
      kernels_.decode[static_cast<int>(v_.storage)](static_cast<const char*>(v_.X) + from * v_.row_stride, v_.row_stride, v_.col_stride, 1,
                                                    static_cast<std::ptrdiff_t>(v_.d), to, static_cast<std::ptrdiff_t>(v_.d), 0);
      return;
    }
    std::fill_n(to, v_.d, T(0));
    const bool f64 = v_.storage == Storage::f64;
    for (std::int64_t e = v_.indptr[from]; e < v_.indptr[from + 1]; ++e) {
      const std::int64_t j = v_.wide_index ? static_cast<const std::int64_t*>(v_.indices)[e] : static_cast<const std::int32_t*>(v_.indices)[e];
      to[j] = f64 ? static_cast<T>(static_cast<const double*>(v_.data)[e]) : static_cast<T>(static_cast<const float*>(v_.data)[e]);
    }
  }

  // ---- few columns: leaves in a tree

  Aligned<double> add_leaves(InterruptCheck& check) {
    const std::int64_t leaves = std::max<std::int64_t>(1, (m_ + kLeafRows - 1) / kLeafRows);
    const std::size_t node = total_ + 1;
    const bool tiny = static_cast<double>(m_) * static_cast<double>(columns_ * columns_) < 2e5;
    const int threads = tiny ? 1 : static_cast<int>(std::min<std::int64_t>(q_.n_threads, leaves));
    const std::int64_t most = std::max<std::int64_t>(2 * threads, std::min<std::int64_t>(
        16 * threads, static_cast<std::int64_t>((std::size_t(4) << 20) / (node * sizeof(double)))));
    int level = 0;
    while (((leaves - 1) >> level) + 1 > (threads == 1 ? 1 : most)) ++level;
    const std::int64_t subtrees = ((leaves - 1) >> level) + 1;
    Aligned<double> nodes(static_cast<std::size_t>(subtrees) * node);
    std::atomic<std::int64_t> next{0};
    parallel_pass(threads, [&](int thread, int) {
      Block block(*this);
      std::vector<double> leaf(node);
      TreeSum tree(node, level + 1);
      for (std::int64_t i; (i = next++) < subtrees;) {
        const std::int64_t end = std::min(leaves, (i + 1) << level);
        for (std::int64_t l = i << level; l < end && !check.due(thread); ++l) {
          std::fill(leaf.begin(), leaf.end(), 0.0);
          add_rows(l * kLeafRows, std::min(m_, (l + 1) * kLeafRows), block, leaf.data());
          tree.push([&](double* to, bool add) {
            if (add) for (std::size_t j = 0; j < node; ++j) to[j] += leaf[j];
            else std::copy(leaf.begin(), leaf.end(), to);
          });
        }
        tree.finish(nodes.data() + static_cast<std::size_t>(i) * node);
      }
    });
    combine_nodes(nodes.data(), static_cast<std::size_t>(subtrees), node);
    return nodes;
  }

  void add_rows(std::int64_t begin, std::int64_t end, Block& block, double* totals) const {
    for (std::int64_t row = begin; row < end; row += ld_) {
      const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(ld_, end - row));
      for (std::ptrdiff_t at = 0; at < rows; at += kPackRows)
        totals[total_] += fill(row + at, std::min(kPackRows, rows - at), block, at);
      PanelProduct<T> p = product(block, rows, totals);
      if (in_order_ && row + rows < end) {
        p.ahead = static_cast<const char*>(v_.X) + (row + rows) * v_.row_stride;
        p.ahead_lines = std::min<std::int64_t>(ld_, end - row - rows) * v_.row_stride / 64;
      }
      for (; p.first_col < col_vectors_; p.first_col += PanelProduct<T>::kColumns) panel_.product(p);
    }
  }

  // ---- many columns: threads share the tiles of one matrix

  Aligned<double> share_tiles(InterruptCheck& check) {
    Aligned<double> totals(total_ + 1);
    Block block(*this);
    struct Task { std::ptrdiff_t first_col, first_row, end_row; };
    std::vector<Task> tasks;
    constexpr std::ptrdiff_t kTaskRows = 8;
    // Rows outside: kTaskRows vectors of Q stay in a second-level cache while P, three vectors a task, goes by.
    for (std::ptrdiff_t row = 0; row < row_vectors_; row += kTaskRows)
      for (std::ptrdiff_t col = 0; col < std::min(col_vectors_, row + kTaskRows); col += PanelProduct<T>::kColumns)
        tasks.push_back({col, row, std::min(row_vectors_, row + kTaskRows)});
    const std::int64_t task_count = static_cast<std::int64_t>(tasks.size());
    constexpr std::ptrdiff_t kPieces = kSharedBlock / kPackRows;
    double values[kPieces];
    // Counters run on from block to block, so that no thread has to reset them.
    std::atomic<std::int64_t> piece{0}, task{0};
    std::atomic<bool> stop{false};
    parallel_pass(q_.n_threads, [&](int thread, int count) {
      std::int64_t piece_base = 0, task_base = 0;
      for (std::int64_t row = 0; row < m_; row += ld_) {
        const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(ld_, m_ - row));
        const std::int64_t pieces = (rows + kPackRows - 1) / kPackRows;
        for (std::int64_t i; (i = piece++ - piece_base) < pieces;) {
          const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(i) * kPackRows;
          values[i] = fill(row + at, std::min(kPackRows, rows - at), block, at);
        }
        piece_base += pieces + count;  // every thread draws one too many
        if (thread == 0 && check.due(0)) stop = true;
        parallel_barrier();  // the block is packed, and every thread sees the same `stop`
        if (stop) return;
        if (thread == 0)
          for (std::int64_t i = 0; i < pieces; ++i) totals[total_] += values[i];
        PanelProduct<T> p = product(block, rows, totals.data());
        for (std::int64_t i; (i = task++ - task_base) < task_count;) {
          p.first_col = tasks[static_cast<std::size_t>(i)].first_col;
          p.first_row = tasks[static_cast<std::size_t>(i)].first_row;
          p.end_row = tasks[static_cast<std::size_t>(i)].end_row;
          panel_.product(p);
        }
        task_base += task_count + count;
        parallel_barrier();
      }
    });
    return totals;
  }

  // ---- results

  std::size_t place(std::ptrdiff_t i, std::ptrdiff_t j) const {  // j <= i
    const std::ptrdiff_t v = i / lanes_;
    return static_cast<std::size_t>(lanes_ * lanes_ * v * (v + 1) / 2 + (i % lanes_) * (v + 1) * lanes_ + j);
  }
  double total(std::ptrdiff_t i, std::ptrdiff_t j) const { return totals_[place(i, j)]; }

  bool totals_are_finite() const {
    double bad = 0;  // stays zero while everything is
    for (std::size_t j = 0; j <= total_; ++j) bad += totals_[j] * 0.0;
    return bad == 0;
  }

  // scale*x + shift is folded here: sum c (a x + b)(a x' + b) = a^2 G + a b (u + u') + b^2 S_c, u and S_c from the ones.
  double folded(std::ptrdiff_t i, std::ptrdiff_t j) const {
    const std::ptrdiff_t d = static_cast<std::ptrdiff_t>(v_.d);
    const double a = v_.scale, b = v_.shift, h = total(i, j);
    if (i == d) return j == d ? h : a * h + (b != 0 ? b * total(d, d) : 0.0);
    if (b == 0) return a * a * h;
    return a * a * h + b * (a * (total(d, i) + total(d, j)) + b * total(d, d));
  }

  // Squares of the lower triangle, each with its mirror image, so that both are written a cache line at a time.
  void write_out() const {
    constexpr std::ptrdiff_t kSide = 32;
    const std::ptrdiff_t p = static_cast<std::ptrdiff_t>(v_.w_rows()), bands = (p + kSide - 1) / kSide;
    const double inverse = 1.0 / v_.weight_sum;
    std::atomic<std::ptrdiff_t> next{0};
    parallel_run(p < 256 ? 1 : q_.n_threads, [&](int, int) {
      for (std::ptrdiff_t band; (band = next++) < bands;) {
        const std::ptrdiff_t i0 = (bands - 1 - band) * kSide, i1 = std::min(p, i0 + kSide);
        for (std::ptrdiff_t j0 = 0; j0 <= i0; j0 += kSide) {
          for (std::ptrdiff_t i = i0; i < i1; ++i)
            for (std::ptrdiff_t j = j0; j < std::min(j0 + kSide, i + 1); ++j) q_.out[i * p + j] = folded(i, j) * inverse;
          for (std::ptrdiff_t j = j0; j < std::min(p, j0 + kSide); ++j)
            for (std::ptrdiff_t i = std::max(i0, j + 1); i < i1; ++i) q_.out[j * p + i] = q_.out[i * p + j];
        }
      }
    });
    if (q_.grad == nullptr) return;
    const std::ptrdiff_t d = static_cast<std::ptrdiff_t>(v_.d);
    const double sum = ones_ ? total(columns_, d) : 0.0;
    for (std::ptrdiff_t j = 0; j < d; ++j) q_.grad[j] = (v_.scale * total(columns_, j) + v_.shift * sum) * inverse;
    if (v_.fit_intercept) q_.grad[d] = sum * inverse;
  }

  const ProblemView& v_;
  const SecondRequest& q_;
  const RowKernels<T>& kernels_;
  const PanelKernels<T>& panel_;
  BlockVectors<T> vectors_;
  std::ptrdiff_t lanes_;
  std::int64_t m_ = 0;
  bool hessian_ = false, weighted_ = false, ones_ = false, shared_ = false;
  bool in_order_ = false;  // rows follow each other in memory: the next ones can be asked for
  std::ptrdiff_t columns_ = 0, rows_ = 0;  // of the product: x with its one; the same and, for a Hessian, the gradient
  std::ptrdiff_t col_vectors_ = 0, row_vectors_ = 0, ld_ = 0;
  std::size_t total_ = 0;
  Aligned<T> w_;
  Aligned<double> totals_;
};

}  // namespace

SecondResult run_second(const ProblemView& problem, const SecondRequest& request) {
  // Targets ride along in panels alone.
  if (problem.sparse && !request.targets && has_few_entries(problem, request)) return run_second_sparse(problem, request);
  if (problem.compute == Compute::f64) return SecondPass<double>(problem, request).run();
  return SecondPass<float>(problem, request).run();
}

}  // namespace nag
