// One pass over dense X: rows are cut into leaves, leaves into blocks that stay in cache while margins, loss and gradient
// use them. X leaves main memory once.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "engine/fixed_point.h"
#include "engine/margins.h"
#include "engine/threads.h"
#include "engine/tree.h"
#include "engine/weights.h"

namespace nag {
namespace {

// The cut depends on d, k, dtype and layout alone, never on n or the threads: the bits follow from it.
// In longer rows, beyond which kernels/rows.h sums panels of a row, the next ones and the last ones share a sweep.
constexpr std::int64_t kLongRowVectors = 32;

// How far ahead the sweep asks, and the copies of several columns' blocks. Short rows: a fixed 16 KiB, past the rows it works on.
// Longer rows: some of each, as suits the processor.
constexpr std::int64_t kFixedAheadRowBytes = 8192;
constexpr std::ptrdiff_t kFixedAhead = 16384;

constexpr std::ptrdiff_t kPieceBytes = 256;  // of a column, in F order
// A block that leaves the second-level cache no room for the next one: either kernel asks for the same rows of columns to come.
constexpr std::ptrdiff_t kLargeBlock = 1 << 20, kColumnsAhead = 64;

struct Cut {
  std::ptrdiff_t block, leaf;  // rows
};

Cut cut_rows(std::int64_t d, std::int64_t k, std::size_t item, bool transposed) {
  Cut c{256, 512};
  const std::int64_t row_bytes = std::max<std::int64_t>(1, d * static_cast<std::int64_t>(item));
  // C order: blocks of about 6 KiB, at least 16 rows (one vector of margins), so that the block and the next one, prefetched
  // meanwhile, share the first-level cache. Several columns of W and G take that cache for themselves: 128 KiB of rows share their
  // way there. F order: a column's piece is at least four cache lines of T, and the block at most about 512 KiB.
  const std::int64_t budget = transposed ? 512 * 1024 : k > 1 ? 128 * 1024 : 6400;
  const std::ptrdiff_t least = transposed ? kPieceBytes / static_cast<std::ptrdiff_t>(item) : k > 1 ? 4 : 16;
  while (c.block > least && c.block * row_bytes > budget) c.block /= 2;
  // A leaf's sum is folded into double once: the leaf must dwarf that, and stay short enough for float32 (16 u a chain).
  if (d * k > 16384) c.leaf = 256;
  if (d * k > 65536) c.leaf = 128;
  c.leaf = std::max(c.leaf, c.block);
  return c;
}

// Numbers at any byte, side by side. The nearer neighbours are walked inside, so that a cache line is used whole.
template <class S>
void copy_numbers(const char* from, std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, std::ptrdiff_t rows, std::ptrdiff_t columns,
                  void* to, std::ptrdiff_t ld) {
  S* const out = static_cast<S*>(to);
  const auto copy = [&](std::ptrdiff_t i, std::ptrdiff_t j) { std::memcpy(out + i * ld + j, from + i * row_stride + j * col_stride, sizeof(S)); };
  if (std::abs(row_stride) < std::abs(col_stride)) {
    for (std::ptrdiff_t j = 0; j < columns; ++j)
      for (std::ptrdiff_t i = 0; i < rows; ++i) copy(i, j);
  } else {
    for (std::ptrdiff_t i = 0; i < rows; ++i)
      for (std::ptrdiff_t j = 0; j < columns; ++j) copy(i, j);
  }
}

template <class T>
class DensePass {
 public:
  DensePass(const ProblemView& v, const PassRequest& q)
      : v_(v), q_(q), kernels_(rows_of<T>(*v.table)), vectors_(v) {
    const std::ptrdiff_t item = item_ = static_cast<std::ptrdiff_t>(kStorageBytes[static_cast<int>(v.storage)]);
    same_type_ = item == static_cast<std::ptrdiff_t>(sizeof(T));
    transposed_ = v.col_stride != item && v.row_stride == item;
    const std::ptrdiff_t far = transposed_ ? v.col_stride : v.row_stride;
    const std::ptrdiff_t near = transposed_ ? v.row_stride : v.col_stride;
    // One column of w: numbers are widened where they are read; those that are strided or misaligned are copied a block at a time
    // first, as stored, and take the same road to the same bits. Several columns: all that is not T is widened by a copy.
    in_place_ = near == item && far % item == 0 && reinterpret_cast<std::uintptr_t>(v.X) % static_cast<std::size_t>(item) == 0 &&
                (v.k == 1 || same_type_);
    ldx_ = far / item;
    cut_ = cut_rows(v.d, v.k, sizeof(T), transposed_);
    const std::ptrdiff_t lanes = kernels_.lanes;
    if (transposed_) cut_.block = std::min<std::ptrdiff_t>(cut_.block, kLongRowVectors * lanes);  // longer pieces of columns are summed in panels
    piped_ = !transposed_ && v.k == 1 && v.d > kLongRowVectors * (same_type_ ? kernels_.row_lanes : lanes);
    if (piped_) {
      cut_.block = 16;  // a vector of margins, where the rows and those before them still fit the second-level cache
      const LongRows& how = v.table->long_rows;
      const std::int64_t stored = v.d * item;
      const bool few_pages = same_type_ && stored < how.few_pages;
      sweep_ = few_pages ? how.few : !same_type_ ? (stored <= kFixedAheadRowBytes ? how.narrow_few : how.narrow) : wants_grad() ? how.longer : how.margins;
      if (!in_place_) sweep_.near = 0;
      if (stored <= kFixedAheadRowBytes) sweep_.far = kFixedAhead;
      cut_.leaf = 128;  // a group is an addition to the leaf's gradient: at most 64 in a chain
      const std::int64_t row_bytes = v.d * static_cast<std::int64_t>(sizeof(T)), most = few_pages ? how.few_block : 128 * 1024;
      while (cut_.block > std::max<std::ptrdiff_t>(4, sweep_.group) && cut_.block * row_bytes > most) cut_.block /= 2;
    }
    dpad_ = pad_to(v.d, lanes);
    ldz_ = pad_to(cut_.block, lanes);
    // A leaf: the gradient [k][dpad], then k residual sums and the value.
    node_ = static_cast<std::size_t>(v.k * dpad_ + v.k + 1);
    weights_.emplace(v, q.w, dpad_);
    if (!piped_) return;
    constexpr std::ptrdiff_t kPanel = RowKernels<T>::kPanel;
    fixed_.emplace(v, kernels_, (v.d + kPanel - 1) / kPanel);
    for (std::ptrdiff_t j = 0; j < v.d; j += kPanel)
      fixed_->set(j / kPanel, weights_->w.data() + j, std::min<std::ptrdiff_t>(kPanel, static_cast<std::ptrdiff_t>(v.d) - j));
  }

  PassResult run() {
    const std::int64_t leaves = (v_.n + cut_.leaf - 1) / cut_.leaf;
    const bool tiny = v_.n * v_.d * v_.k < 16384;
    const int threads = tiny ? 1 : static_cast<int>(std::min<std::int64_t>(q_.n_threads, leaves));
    // Subtrees of 2^level leaves, several a thread so that an uneven machine stays busy, as far as their memory is small.
    const std::int64_t most = std::max<std::int64_t>(2 * threads, std::min<std::int64_t>(
        16 * threads, static_cast<std::int64_t>((std::size_t(8) << 20) / (node_ * sizeof(double)))));
    int level = 0;
    while (((leaves - 1) >> level) + 1 > (threads == 1 ? 1 : most)) ++level;
    const std::int64_t subtrees = ((leaves - 1) >> level) + 1;
    Aligned<double> nodes(static_cast<std::size_t>(subtrees) * (wants_grad() ? node_ : 1));
    const std::size_t node_size = wants_grad() ? node_ : 1;
    Subtrees all{subtrees, level, nodes.data(), node_size};
    InterruptCheck check(q_.interrupted);
    parallel_pass(threads, [&](int thread, int) {
      Workspace w(*this);
      TreeSum tree(node_size, std::min(level, ceil_log2(leaves)) + 1);
      if (piped_) run_piped(all, w, tree, check, thread);
      for (std::int64_t i; !piped_ && (i = all.next++) < subtrees;) {
        const std::int64_t end = std::min(leaves, (i + 1) << level);
        for (std::int64_t leaf = i << level; leaf < end && !check.due(thread); ++leaf) run_leaf(leaf, w, tree);
        tree.finish(all.node(i));
      }
    });
    PassResult result;
    result.interrupted = check.stopped();
    if (result.interrupted) return result;
    combine_nodes(nodes.data(), static_cast<std::size_t>(subtrees), node_size);
    result.value = nodes[node_size - 1] / v_.weight_sum;
    if (wants_grad()) unfold_gradient(v_, q_, nodes.data(), dpad_, nodes.data() + v_.k * dpad_, &result);
    return result;
  }

 private:
  bool wants_grad() const { return q_.kind != PassRequest::Kind::margins; }
  bool wants_residual_sums() const { return v_.fit_intercept || v_.shift != 0.0; }

  struct Workspace {
    Aligned<T> block, z, sr, g;
    std::vector<double> sums;
    explicit Workspace(const DensePass& p)
        : z(static_cast<std::size_t>(p.v_.k * p.ldz_)), sr(static_cast<std::size_t>(p.v_.k * p.ldz_)),
          g(static_cast<std::size_t>(p.v_.k * p.dpad_)), sums(static_cast<std::size_t>(p.v_.k) + 1) {
      if (p.piped_) {
        sr = Aligned<T>(static_cast<std::size_t>(2 * p.ldz_));
        if (!p.in_place_) block = Aligned<T>(static_cast<std::size_t>(2 * p.cut_.block * p.dpad_));
      } else if (!p.in_place_)
        block = Aligned<T>(static_cast<std::size_t>(p.transposed_ ? p.v_.d * p.ldz_ : p.cut_.block * p.dpad_));
    }
  };

  // What threads take from, and where the root of each goes.
  struct Subtrees {
    std::int64_t count;
    int level;
    double* nodes;
    std::size_t node_size;
    std::atomic<std::int64_t> next{0};
    double* node(std::int64_t i) const { return nodes + static_cast<std::size_t>(i) * node_size; }
  };

  void start_leaf(Workspace& w) {
    if (wants_grad()) std::fill(w.g.data(), w.g.data() + v_.k * dpad_, T(0));
    std::fill(w.sums.begin(), w.sums.end(), 0.0);
  }

  // Long rows: the margins of one block and the gradient of the block before it share a sweep (kernels/pipe.h). The pipeline runs
  // through all that a thread takes, leaves and subtrees; filling and draining it changes no arithmetic.
  void run_piped(Subtrees& all, Workspace& w, TreeSum& tree, InterruptCheck& check, int thread) {
    const auto pipe = kernels_.pipe[static_cast<int>(v_.storage)];
    const std::int64_t rows_of_subtree = cut_.leaf << all.level;
    std::int64_t i = all.next++;
    if (i >= all.count) return;
    std::int64_t row = i * rows_of_subtree, end = std::min(v_.n, row + rows_of_subtree);
    PipeBlock<T> b{};
    b.d = static_cast<std::ptrdiff_t>(v_.d);
    b.ldx = b.ldp = in_place_ ? ldx_ : dpad_;
    b.group = sweep_.group;
    b.far = sweep_.far;
    b.near = sweep_.near;
    b.w = weights_->w.data();
    b.fixed = fixed_->from(0);
    b.z = w.z.data();
    b.g = w.g.data();
    int turn = 0;
    start_leaf(w);
    for (bool filled = false;; filled = true, row += cut_.block, turn ^= 1) {
      const std::int64_t read = row < end ? -1 : i;  // a subtree that is finished with this step
      if (read >= 0 && (i = all.next++) < all.count) {
        row = i * rows_of_subtree;
        end = std::min(v_.n, row + rows_of_subtree);
      }
      const bool more = row < end;
      const bool leaf_starts = filled && (row % cut_.leaf == 0 || !more);
      if (leaf_starts && check.due(thread)) return;
      const std::int64_t leaf_end = (row / cut_.leaf + 1) * cut_.leaf;
      const std::ptrdiff_t rows = more ? static_cast<std::ptrdiff_t>(std::min<std::int64_t>(cut_.block, std::min(end, leaf_end) - row)) : 0;
      T* sr = w.sr.data() + turn * ldz_;
      const bool dot = q_.kind != PassRequest::Kind::rmatvec;
      b.next = static_cast<const char*>(v_.X) + row * v_.row_stride;
      b.next_rows = rows;
      if (!in_place_ && rows > 0) {
        T* const copy = w.block.data() + turn * cut_.block * dpad_;
        copy_stored(static_cast<const char*>(b.next), v_.row_stride, v_.col_stride, rows, b.d, copy, dpad_);
        b.next = copy;
      }
      pipe(b);
      if (leaf_starts) {
        push_leaf(w, tree);
        if (read >= 0) tree.finish(all.node(read));
        start_leaf(w);
      }
      if (!more) return;
      if (!dot) vectors_.weigh(row, rows, static_cast<const T*>(q_.v), ldz_, sr);
      else if (!wants_grad()) vectors_.margins(row, rows, w.z.data(), ldz_, weights_->bias.data(), static_cast<T*>(q_.z));
      else
        w.sums.back() += vectors_.respond(q_, row, rows, w.z.data(), ldz_, weights_->bias.data(), static_cast<T*>(q_.z),
                                          static_cast<T*>(q_.r), sr);
      if (wants_grad() && wants_residual_sums()) w.sums[0] += kernels_.sum(sr, rows);
      b.prev = b.next;
      b.prev_rows = wants_grad() ? rows : 0;
      b.r = sr;
    }
  }

  void run_leaf(std::int64_t leaf, Workspace& w, TreeSum& tree) {
    const std::int64_t first = leaf * cut_.leaf, end = std::min(v_.n, first + cut_.leaf);
    start_leaf(w);
    for (std::int64_t row = first; row < end; row += cut_.block)
      run_block(row, static_cast<std::ptrdiff_t>(std::min<std::int64_t>(cut_.block, end - row)), w);
    push_leaf(w, tree);
  }

  void push_leaf(Workspace& w, TreeSum& tree) {
    const std::size_t gsize = static_cast<std::size_t>(v_.k * dpad_);
    tree.push([&](double* node, bool add) {
      std::size_t at = 0;
      if (wants_grad()) {
        kernels_.fold(node, w.g.data(), static_cast<std::ptrdiff_t>(gsize), add);
        for (std::int64_t c = 0; c < v_.k; ++c) {
          double& to = node[gsize + static_cast<std::size_t>(c)];
          to = (add ? to : 0.0) + w.sums[static_cast<std::size_t>(c)];
        }
        at = node_ - 1;
      }
      node[at] = (add ? node[at] : 0.0) + w.sums.back();
    });
  }

  void run_block(std::int64_t row, std::ptrdiff_t rows, Workspace& w) {
    const std::ptrdiff_t d = static_cast<std::ptrdiff_t>(v_.d), k = static_cast<std::ptrdiff_t>(v_.k);
    const char* const source = static_cast<const char*>(v_.X) + row * v_.row_stride;
    const std::ptrdiff_t on = rows * v_.row_stride;  // to the next block, which is asked for while this one is read
    const void* X = source;
    std::ptrdiff_t ld = ldx_;
    Ahead ahead;
    if (!in_place_) {
      ld = transposed_ ? ldz_ : dpad_;
      if (transposed_) copy_block(source, v_.col_stride, v_.row_stride, d, rows, w.block.data(), ld, on);
      else copy_block(source, v_.row_stride, v_.col_stride, rows, d, w.block.data(), ld, kFixedAhead);
      X = w.block.data();
    } else if (transposed_ && k == 1 && rows * d * item_ > kLargeBlock) {
      ahead.apart = kColumnsAhead * v_.col_stride;
      ahead.all = true;
    } else if (row + rows < v_.n) {
      if (transposed_) ahead.apart = on;
      else ahead.next = source + on;
      ahead.all = q_.kind == PassRequest::Kind::margins || q_.kind == PassRequest::Kind::rmatvec;
    }
    if (q_.kind == PassRequest::Kind::rmatvec) {
      vectors_.weigh(row, rows, static_cast<const T*>(q_.v), ldz_, w.sr.data());
    } else {
      margins_of_block(X, ld, rows, d, w, ahead);
      if (q_.kind == PassRequest::Kind::margins) {
        vectors_.margins(row, rows, w.z.data(), ldz_, weights_->bias.data(), static_cast<T*>(q_.z));
        return;
      }
      w.sums.back() += vectors_.respond(q_, row, rows, w.z.data(), ldz_, weights_->bias.data(), static_cast<T*>(q_.z),
                                        static_cast<T*>(q_.r), w.sr.data());
    }
    if (wants_residual_sums())
      for (std::ptrdiff_t c = 0; c < k; ++c)
        w.sums[static_cast<std::size_t>(c)] += kernels_.sum(w.sr.data() + c * ldz_, rows);
    if (transposed_) return dot(X, ld, d, rows, w.sr.data(), ldz_, w.g.data(), dpad_, true, ahead);
    if (ahead.next != nullptr && !ahead.all) ahead.next = static_cast<const char*>(ahead.next) + on / 2;
    outer(X, ld, rows, d, w.sr.data(), ldz_, w.g.data(), dpad_, ahead);
  }

  void margins_of_block(const void* X, std::ptrdiff_t ld, std::ptrdiff_t rows, std::ptrdiff_t d, Workspace& w, const Ahead& ahead) const {
    if (!transposed_) return dot(X, ld, rows, d, weights_->w.data(), dpad_, w.z.data(), ldz_, false, ahead);
    // F order: z = sum_j w_j X[:, j] is `outer` on the transpose. Rows past the block stay zero for the gradient's dot.
    std::fill(w.z.data(), w.z.data() + v_.k * ldz_, T(0));
    std::fill(w.sr.data(), w.sr.data() + v_.k * ldz_, T(0));
    outer(X, ld, d, rows, weights_->w.data(), dpad_, w.z.data(), ldz_, ahead);
  }

  void copy_block(const char* from, std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, std::ptrdiff_t rows, std::ptrdiff_t columns,
                  T* to, std::ptrdiff_t ld, std::ptrdiff_t far) const {
    if (v_.k == 1) return copy_stored(from, row_stride, col_stride, rows, columns, to, ld);
    kernels_.decode[static_cast<int>(v_.storage)](from, row_stride, col_stride, rows, columns, to, ld, far);
  }
  // ld is in numbers as stored.
  void copy_stored(const char* from, std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, std::ptrdiff_t rows, std::ptrdiff_t columns,
                   void* to, std::ptrdiff_t ld) const {
    switch (item_) {
      case 1: return copy_numbers<std::uint8_t>(from, row_stride, col_stride, rows, columns, to, ld);
      case 2: return copy_numbers<std::uint16_t>(from, row_stride, col_stride, rows, columns, to, ld);
      case 4: return copy_numbers<float>(from, row_stride, col_stride, rows, columns, to, ld);
      default: return copy_numbers<double>(from, row_stride, col_stride, rows, columns, to, ld);
    }
  }

  // The kernels of rows.h on a block, or on its transpose. Pieces of columns are whole lines: there vectors are as wide as can be.
  bool as_rows() const { return v_.k == 1 && !(transposed_ && same_type_); }
  void dot(const void* X, std::ptrdiff_t ld, std::ptrdiff_t rows, std::ptrdiff_t columns, const T* W, std::ptrdiff_t ldw, T* Z,
           std::ptrdiff_t ldz, bool accumulate, const Ahead& ahead) const {
    if (as_rows()) return kernels_.row_dot[static_cast<int>(v_.storage)](X, ld, rows, columns, W, Z, accumulate, ahead);
    kernels_.dot(static_cast<const T*>(X), ld, rows, columns, W, ldw, static_cast<std::ptrdiff_t>(v_.k), Z, ldz, accumulate, ahead);
  }
  void outer(const void* X, std::ptrdiff_t ld, std::ptrdiff_t rows, std::ptrdiff_t columns, const T* R, std::ptrdiff_t ldr, T* G,
             std::ptrdiff_t ldg, const Ahead& ahead) const {
    if (as_rows()) return kernels_.row_outer[static_cast<int>(v_.storage)](X, ld, rows, columns, R, G, ahead);
    kernels_.outer(static_cast<const T*>(X), ld, rows, columns, R, ldr, static_cast<std::ptrdiff_t>(v_.k), G, ldg, ahead);
  }

  const ProblemView& v_;
  const PassRequest& q_;
  const RowKernels<T>& kernels_;
  BlockVectors<T> vectors_;
  bool same_type_ = false, transposed_ = false, piped_ = false, in_place_ = false;
  LongRows::Sweep sweep_{4, 0, 0};
  std::ptrdiff_t item_ = 0, ldx_ = 0, dpad_ = 0, ldz_ = 0;
  Cut cut_{};
  std::size_t node_ = 0;
  std::optional<Weights<T>> weights_;
  std::optional<FixedPoint> fixed_;  // of long rows
};

}  // namespace

PassResult run_dense(const ProblemView& problem, const PassRequest& request) {
  if (is_wide(problem)) return run_wide(problem, request);
  if (problem.compute == Compute::f64) return DensePass<double>(problem, request).run();
  return DensePass<float>(problem, request).run();
}

}  // namespace nag
