// One pass over rows so long that a few of them, the coefficients and the gradient overflow one core's second-level cache.
// All threads take the same rows and each owns a range of columns, so that every core holds a fraction of each. Margins are
// summed a panel of columns at a time and the panels' sums by one kernel; a column's gradient is summed by its owner, rows in
// order. So the bits do not depend on how many owners there are. Shares of the margins are exchanged once a step, and read a
// panel later than they are due, so that threads seldom wait; the loss of a step's few rows is computed by every thread.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "engine/even_block.h"
#include "engine/fixed_point.h"
#include "engine/handshake.h"
#include "engine/margins.h"
#include "engine/threads.h"
#include "engine/tree.h"

namespace nag {
namespace {

constexpr std::int64_t kLag = 1;  // panels

template <class T>
class WidePass {
 public:
  WidePass(const ProblemView& v, const PassRequest& q)
      : v_(v), q_(q), kernels_(rows_of<T>(*v.table)), vectors_(v), panels_((v.d + kPanel - 1) / kPanel), fixed_(v, kernels_, panels_),
        dpad_(pad_to(static_cast<std::ptrdiff_t>(v.d), kernels_.lanes)), item_(static_cast<std::ptrdiff_t>(kStorageBytes[static_cast<int>(v.storage)])) {
    // Rows share each load of w and g, as many as fit two cores' caches together with their successors.
    const std::int64_t bytes = v.d * item_;
    const LongRows& how = v.table->long_rows;
    group_ = bytes <= how.four_rows ? (is_narrow() ? how.narrow.group : 4) : bytes <= how.two_rows ? 2 : 1;
    leaf_rows_ = kLeafAdditions * group_;
  }

  PassResult run() {
    const int threads = static_cast<int>(std::min<std::int64_t>(q_.n_threads, panels_));
    const std::int64_t leaves = (v_.n + leaf_rows_ - 1) / leaf_rows_;
    w_sums_ = Aligned<double>(static_cast<std::size_t>(panels_), Unset{});
    for (Aligned<T>& p : partial_) p = Aligned<T>(static_cast<std::size_t>(panels_ * group_));
    g_ = Aligned<double>(static_cast<std::size_t>(wants_grad() ? dpad_ : 0), Unset{});
    InterruptCheck check(q_.interrupted);
    Handshake others(threads);
    std::vector<Owner> owners;
    for (int t = 0; t < threads; ++t) owners.emplace_back(*this, t, threads, ceil_log2(leaves) + 1);
    parallel_pass(threads, [&](int thread, int count) {
      // A runtime that grants fewer threads than asked leaves some owners to each.
      std::vector<Owner*> mine;
      for (int t = thread; t < threads; t += count) mine.push_back(&owners[static_cast<std::size_t>(t)]);
      for (Owner* o : mine) start(*o);
      try {
        if (!sweep_rows(thread, count, mine, others, check)) return;
        for (Owner* o : mine) finish(*o);
        others.arrive(thread, kFinished);
        // Nothing is written before every column is known to be finite.
        if (wants_grad() && others.wait(count, kFinished) && all_finite(owners))
          for (Owner* o : mine) write_gradient(*o);
      } catch (...) {
        others.leave();
        throw;
      }
    });
    PassResult result;
    result.interrupted = check.stopped();
    if (result.interrupted) return result;
    const double* const total = owners[0].total;
    result.value = total[1] / v_.weight_sum;
    result.finite = all_finite(owners);
    if (wants_grad() && result.finite && v_.fit_intercept) q_.grad[v_.d] = total[0] / v_.weight_sum;
    return result;
  }

 private:
  static constexpr std::ptrdiff_t kPanel = RowKernels<T>::kPanel;
  // So many additions to a leaf's gradient follow each other at most, each of a group of rows.
  static constexpr std::int64_t kLeafAdditions = sizeof(T) == 8 ? 256 : 128;
  static constexpr std::int64_t kFinished = std::numeric_limits<std::int64_t>::max();

  // w, g and the rows start at different places of a page: a load whose address ends in the same 12 bits as an earlier
  // store waits for it.
  static constexpr std::ptrdiff_t kPage = 4096, kSkewG = 2048, kSkewRows = 1024;

  struct Owner {
    std::int64_t first_panel, end_panel;
    std::ptrdiff_t first_column, columns;
    std::ptrdiff_t slot_bytes;
    std::ptrdiff_t tail;  // columns of a last panel that is narrower than the others
    bool copies;          // of rows: only where they stay in the cache
    EvenBlock block;  // what stays in the cache, in one piece: coefficients, gradient, and the rows last read
    T *w, *g;
    char* rows;  // as stored, in slots of a panel; each turn of a slot reads the rows before and leaves the next ones there
    std::int64_t slot = 0;
    Aligned<T> z;  // of the panels; lines that others have just read would hold up every store behind them
    TreeSum tree, sums;
    double total[2] = {0, 0};  // of s*r, and of the value
    bool finite = true;        // these and the columns' gradient, where the caller asks
    Owner(const WidePass& p, int t, int count, int levels)
        : first_panel(p.panels_ * t / count), end_panel(p.panels_ * (t + 1) / count),
          first_column(static_cast<std::ptrdiff_t>(first_panel * kPanel)),
          columns(std::min<std::ptrdiff_t>(p.dpad_, static_cast<std::ptrdiff_t>(end_panel * kPanel)) - first_column),
          slot_bytes(p.group_ * kPanel * p.item_), tail(p.columns_of(end_panel - 1) % kPanel),
          copies(p.copies(bytes(true), count)), block(bytes(copies), p.is_large(), p.v_.table->stream_read),
          z(static_cast<std::size_t>((end_panel - first_panel) * p.group_)), tree(static_cast<std::size_t>(columns), levels), sums(2, levels) {
      char* const at = block.data();
      w = reinterpret_cast<T*>(at);
      g = reinterpret_cast<T*>(at + of_columns() + kSkewG);
      rows = at + 2 * of_columns() + kSkewG + kSkewRows;
    }
    std::ptrdiff_t of_columns() const { return pad_to(columns * static_cast<std::ptrdiff_t>(sizeof(T)), kPage); }
    std::size_t bytes(bool with_rows) const {
      return static_cast<std::size_t>(2 * of_columns() + kSkewG + kSkewRows + (with_rows ? (full() + lag() + 1) * slot_bytes : 0));
    }
    void clear() { std::fill(g, g + columns, T(0)); }
    std::int64_t full() const { return end_panel - first_panel - (tail > 0); }
    std::int64_t lag() const { return std::min(kLag, full()); }
    // The slot whose turn it is: it holds what was read full() + lag() panels ago. The narrow panel's own comes last.
    char* turn_slot() {
      char* const at = rows + slot * slot_bytes;
      if (++slot == full() + lag()) slot = 0;
      return at;
    }
    char* tail_slot() { return rows + (full() + lag()) * slot_bytes; }
  };

  // A pass that takes as long as the search for memory that suits it.
  bool is_large() const { return v_.n * v_.d * item_ >= std::int64_t(64) << 20; }
  bool wants_grad() const { return q_.kind != PassRequest::Kind::margins; }
  // Whether an owner's rows are copied, which takes so many bytes with its w and g.
  bool copies(std::size_t bytes, int owners) const {
    const LongRows& how = v_.table->long_rows;
    return static_cast<std::int64_t>(bytes) * (how.copied_by_all ? owners : 1) <= how.copied && (how.copies_narrow || !is_narrow());
  }
  bool is_narrow() const { return item_ < static_cast<std::ptrdiff_t>(sizeof(T)); }

  // An owner's coefficients as the kernels want them, by the thread that works there: so they are in its core's cache.
  // scale*x + shift is folded in, as in weights.h.
  void start(Owner& o) {
    o.clear();
    for (std::int64_t panel = o.first_panel; panel < o.end_panel; ++panel) {
      T* const w = o.w + (panel - o.first_panel) * kPanel;
      const std::ptrdiff_t m = columns_of(panel);
      std::fill(w + m, w + pad_to(m, kernels_.lanes), T(0));
      double lanes[8] = {};
      if (q_.w == nullptr) {
        std::fill(w, w + m, T(0));
      } else {
        const double* const from = q_.w + panel * kPanel;
        for (std::ptrdiff_t j = 0; j < m; ++j) {
          w[j] = static_cast<T>(v_.scale * from[j]);
          lanes[j % 8] += from[j];
        }
        fixed_.set(panel, w, m);
      }
      w_sums_[static_cast<std::size_t>(panel)] = std::accumulate(lanes, lanes + 8, 0.0);
    }
  }

  // The intercept and shift * sum_j w_j; not finite where a coefficient is not. All owners have started.
  T bias_of_w() const {
    if (q_.w == nullptr) return T(0);
    const double b = v_.shift * std::accumulate(w_sums_.data(), w_sums_.data() + panels_, 0.0);
    return static_cast<T>(v_.fit_intercept ? b + q_.w[v_.d] : b);
  }

  // In turn `step`, an owner forms the margins of row group `step` panel by panel, and kLag panels later adds the gradient of
  // the group before: the others' shares of its margins have long arrived by then, so threads seldom wait for each other.
  bool sweep_rows(int thread, int threads, const std::vector<Owner*>& mine, Handshake& others, InterruptCheck& check) {
    const std::int64_t groups = (v_.n + group_ - 1) / group_;
    const std::ptrdiff_t ld = pad_to(group_, kernels_.lanes);
    Aligned<T> zdot(static_cast<std::size_t>(ld)), sr(static_cast<std::size_t>(2 * ld));
    double leaf_sums[2] = {0, 0};  // of s*r, and of the value
    T bias = 0;
    for (std::int64_t step = 0;; ++step) {
      // The last panels of group step - 2; its followers' r is not known yet.
      for (Owner* o : mine)
        for (std::int64_t i = 0; i < o->lag(); ++i)
          sweep_panel(*o, i, kPanel, o->turn_slot(), step, step - 2, o->full() - o->lag() + i, sr.data() + step % 2 * ld);
      const std::int64_t row = (step - 1) * group_;
      if (step > 0) {
        const bool more = step <= groups;
        if (row % leaf_rows_ == 0 || !more)
          if (step > 1) {
            for (Owner* o : mine) push(*o, leaf_sums);
            leaf_sums[0] = leaf_sums[1] = 0;
          }
        if (!more) return true;
        if (thread == 0 && row % leaf_rows_ == 0 && check.due(0)) others.leave();
        if (!others.wait(threads, step - 1) || check.stopped()) return false;
        if (step == 1) bias = bias_of_w();
        lose(row, rows_of_group(step - 1), bias, partial_[(step - 1) % 3].data(), ld, thread == 0, zdot.data(), sr.data() + (step - 1) % 2 * ld, leaf_sums);
      }
      for (Owner* o : mine) {
        const T* const r = sr.data() + (step + 1) % 2 * ld;
        for (std::int64_t i = o->lag(); i < o->full(); ++i) sweep_panel(*o, i, kPanel, o->turn_slot(), step, step - 1, i - o->lag(), r);
        // Of the narrow panel both sides at once: beside a whole one, each would go alone.
        if (o->tail > 0) sweep_panel(*o, o->full(), o->tail, o->tail_slot(), step, step - 1, o->full(), r);
      }
      for (Owner* o : mine)
        for (std::int64_t p = o->first_panel; p < o->end_panel; ++p)
          for (std::int64_t i = 0; i < group_; ++i)
            partial_[step % 3][static_cast<std::size_t>(i * panels_ + p)] = o->z[static_cast<std::size_t>((p - o->first_panel) * group_ + i)];
      others.arrive(thread, step);
    }
  }

  std::ptrdiff_t rows_of_group(std::int64_t group) const {
    return group < 0 ? 0 : static_cast<std::ptrdiff_t>(std::max<std::int64_t>(0, std::min<std::int64_t>(group_, v_.n - group * group_)));
  }

  // Margins of row group `next` in an owner's i-th panel, and the gradient of group `prev`, whose rows are in the slot, in its
  // `prev_panel`-th.
  void sweep_panel(Owner& o, std::int64_t i, std::ptrdiff_t columns, char* slot, std::int64_t next, std::int64_t prev,
                   std::int64_t prev_panel, const T* r) {
    const std::int64_t panel = o.first_panel + i;
    PipeBlock<T> b{};
    b.group = group_;
    b.ldx = v_.row_stride / item_;
    b.ldp = kPanel;
    const LongRows& how = v_.table->long_rows;
    const LongRows::Sweep& asked = o.copies && wants_grad() ? how.beside_copies : is_narrow() ? how.narrow : how.in_place;
    b.far = group_ == 1 ? columns * item_ : asked.far;
    b.pieces = true;
    b.near = item_ > 1 ? asked.near : 0;
    b.d = columns;
    b.next = at(next, panel);
    // The same rows' next panel, and after an owner's last one the next rows' first.
    b.after = panel + 1 < o.end_panel ? at(next, panel + 1) : at(next + 1, o.first_panel);
    b.next_rows = rows_of_group(next);
    b.w = o.w + i * kPanel;
    b.fixed = fixed_.from(panel);
    b.z = o.z.data() + i * group_;
    if (wants_grad()) {
      if (o.copies) {
        b.prev = b.copy = slot;
      } else {
        b.prev = at(prev, o.first_panel + prev_panel);
        b.ldp = b.ldx;
      }
      b.prev_rows = rows_of_group(prev);
      b.r = r;
      b.g = o.g + prev_panel * kPanel;
    }
    kernels_.pipe[static_cast<int>(v_.storage)](b);
  }

  std::ptrdiff_t columns_of(std::int64_t panel) const {
    return std::min<std::ptrdiff_t>(kPanel, static_cast<std::ptrdiff_t>(v_.d - panel * kPanel));
  }
  const char* at(std::int64_t group, std::int64_t panel) const {
    return static_cast<const char*>(v_.X) + group * group_ * v_.row_stride + panel * kPanel * item_;
  }

  // Margins from the panels, then the loss of these rows; the thread that speaks writes what the caller asked for.
  void lose(std::int64_t row, std::ptrdiff_t rows, T bias, const T* partial, std::ptrdiff_t ld, bool speaks, T* zdot, T* sr, double* leaf_sums) {
    if (q_.kind == PassRequest::Kind::rmatvec) {
      vectors_.weigh(row, rows, static_cast<const T*>(q_.v), ld, sr);
    } else {
      for (std::ptrdiff_t i = 0; i < rows; ++i)
        zdot[i] = static_cast<T>(kernels_.sum(partial + i * panels_, static_cast<std::ptrdiff_t>(panels_)));
      if (!wants_grad()) {
        if (speaks) vectors_.margins(row, rows, zdot, ld, &bias, static_cast<T*>(q_.z));
        return;
      }
      leaf_sums[1] += vectors_.respond(q_, row, rows, zdot, ld, &bias, speaks ? static_cast<T*>(q_.z) : nullptr,
                                       speaks ? static_cast<T*>(q_.r) : nullptr, sr);
    }
    leaf_sums[0] += kernels_.sum(sr, rows);
  }

  void finish(Owner& o) {
    o.sums.finish(o.total);
    if (!wants_grad()) return;
    double* const g = g_.data() + o.first_column;
    o.tree.finish(g);
    o.tree = TreeSum(0, 0);  // its memory goes back to the thread that will ask for it again
    if (!q_.only_finite) return;
    const double shifted = v_.shift * o.total[0], inverse = 1.0 / v_.weight_sum;
    double lanes[8] = {(o.total[0] + o.total[1]) * inverse * 0.0};  // NaN as soon as one term is not finite
    for (std::ptrdiff_t j = 0, m = columns_written(o); j < m; ++j) lanes[j % 8] += (v_.scale * g[j] + shifted) * inverse * 0.0;
    for (double lane : lanes) o.finite = o.finite && lane == 0.0;
  }

  static bool all_finite(const std::vector<Owner>& owners) {
    return std::all_of(owners.begin(), owners.end(), [](const Owner& o) { return o.finite; });
  }

  std::ptrdiff_t columns_written(const Owner& o) const {
    return std::min<std::ptrdiff_t>(o.columns, static_cast<std::ptrdiff_t>(v_.d) - o.first_column);
  }

  void write_gradient(const Owner& o) {
    const double* const g = g_.data() + o.first_column;
    double* const to = q_.grad + o.first_column;
    const double shifted = v_.shift * o.total[0], inverse = 1.0 / v_.weight_sum;
    for (std::ptrdiff_t j = 0, m = columns_written(o); j < m; ++j) to[j] = (v_.scale * g[j] + shifted) * inverse;
  }

  void push(Owner& o, const double* leaf_sums) {
    if (wants_grad() && o.columns > 0) {
      o.tree.push([&](double* node, bool add) { kernels_.fold(node, o.g, o.columns, add); });
      o.clear();
    }
    o.sums.push([&](double* node, bool add) {
      for (int i = 0; i < 2; ++i) node[i] = (add ? node[i] : 0.0) + leaf_sums[i];
    });
  }

  const ProblemView& v_;
  const PassRequest& q_;
  const RowKernels<T>& kernels_;
  BlockVectors<T> vectors_;
  std::int64_t panels_;
  FixedPoint fixed_;
  std::ptrdiff_t dpad_;
  std::ptrdiff_t group_ = 1;
  std::int64_t leaf_rows_ = 0;
  Aligned<double> w_sums_;  // of each panel
  // Of a step's rows, each row's panels side by side. A thread may be kLag panels into a turn before all have read what it
  // wrote three turns ago.
  Aligned<T> partial_[3];
  Aligned<double> g_;
  std::ptrdiff_t item_;
};

}  // namespace

bool is_wide(const ProblemView& v) {
  const std::ptrdiff_t item = static_cast<std::ptrdiff_t>(kStorageBytes[static_cast<int>(v.storage)]);
  const std::int64_t bytes = v.d * (v.compute == Compute::f64 ? 8 : 4);
  return v.k == 1 && kLosses[v.loss].targets != Domain::classes && bytes >= v.table->long_rows.wide && v.col_stride == item &&
         v.row_stride % item == 0 && reinterpret_cast<std::uintptr_t>(v.X) % static_cast<std::size_t>(item) == 0;
}

PassResult run_wide(const ProblemView& problem, const PassRequest& request) {
  if (problem.compute == Compute::f64) return WidePass<double>(problem, request).run();
  return WidePass<float>(problem, request).run();
}

}  // namespace nag
