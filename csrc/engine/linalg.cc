// Right-looking blocked Cholesky on the panels of kernels/panels.h, whose product is also a Gram matrix's, and blocked
// substitution on the row kernels. Each element is computed by one thread in an order that depends on d alone.
// Memory beyond A: twice a strip of kStrip columns.
#include "engine/linalg.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/margins.h"
#include "engine/threads.h"

namespace nag {
namespace {

constexpr std::ptrdiff_t kSmallStrip = 64, kStrip = 128;  // columns: wider ones read the rest of A less often
constexpr std::int64_t kWideFrom = 1024;
constexpr std::int64_t kAlone = 192;  // up to this size one thread is faster than barriers
constexpr double kLeastCurvature = 1e-10;  // of what a secant replaces

class Cholesky {
 public:
  Cholesky(const KernelTable& table, double* A, std::int64_t d)
      : panel_(table.f64.panel), lanes_(table.f64.lanes), A_(A), d_(static_cast<std::ptrdiff_t>(d)),
        strip_(d < kWideFrom ? kSmallStrip : kStrip),
        P_(static_cast<std::size_t>(pad_to(d_, lanes_) * strip_)), Q_(static_cast<std::size_t>(pad_to(d_, lanes_) * strip_)) {}

  std::int64_t run(int n_threads, InterruptCheck& check) {
    std::int64_t bad = -1;
    std::atomic<std::int64_t> task{0};
    parallel_run(d_ <= kAlone ? 1 : n_threads, [&](int thread, int count) {
      std::int64_t task_base = 0;
      for (std::ptrdiff_t at = 0; at < d_; at += strip_) {
        const std::ptrdiff_t width = std::min(strip_, d_ - at), vectors = (d_ - at + lanes_ - 1) / lanes_;
        pack(at, width, share(vectors, thread, count), share(vectors, thread + 1, count));
        parallel_barrier();
        if (thread == 0) {
          const std::ptrdiff_t k = panel_.factor(P_.data(), strip_, width);
          if (k >= 0) bad = at + k;
          else if (check.due(0)) bad = -2;
        }
        parallel_barrier();
        if (bad != -1) return;
        const std::ptrdiff_t head = (width + lanes_ - 1) / lanes_, below = vectors - head;
        if (thread == 0) unpack(at, width, 0, head);
        if (below > 0) {
          const std::ptrdiff_t from = share(below, thread, count), to = share(below, thread + 1, count);
          double* P = P_.data() + (head + from) * strip_ * lanes_;
          panel_.solve(P_.data(), P, strip_, width, to - from);
          negate(P, Q_.data() + (head + from) * strip_ * lanes_, (to - from) * strip_ * lanes_);
          unpack(at, width, head + from, head + to);
        }
        parallel_barrier();
        if (below > 0) subtract(at + width, width, head, below, count, task, &task_base);
        parallel_barrier();
      }
      for (std::ptrdiff_t i = share(d_, thread, count); i < share(d_, thread + 1, count); ++i)
        std::fill(A_ + i * d_ + i + 1, A_ + (i + 1) * d_, 0.0);
    });
    return bad;
  }

 private:
  static std::ptrdiff_t share(std::ptrdiff_t total, int thread, int count) { return total * thread / count; }

  // Line k of the panels is column at + k of A, their lanes its rows from `at` on.
  void pack(std::ptrdiff_t at, std::ptrdiff_t width, std::ptrdiff_t from, std::ptrdiff_t to) {
    const std::ptrdiff_t rows = std::min(to * lanes_, d_ - at) - from * lanes_;
    if (rows <= 0) return;
    const std::ptrdiff_t item = static_cast<std::ptrdiff_t>(sizeof(double));
    const PackBlock b{A_ + (at + from * lanes_) * d_ + at, item, d_ * item, nullptr, width, rows, strip_, false, 0};
    panel_.pack[static_cast<int>(Storage::f64)](b, P_.data() + from * strip_ * lanes_);
  }

  void unpack(std::ptrdiff_t at, std::ptrdiff_t width, std::ptrdiff_t from, std::ptrdiff_t to) {
    for (std::ptrdiff_t i = from * lanes_; i < std::min(to * lanes_, d_ - at); ++i) {
      const double* p = P_.data() + i / lanes_ * strip_ * lanes_ + i % lanes_;
      double* row = A_ + (at + i) * d_ + at;
      for (std::ptrdiff_t k = 0; k < std::min(width, i + 1); ++k) row[k] = p[k * lanes_];
    }
  }

  static void negate(const double* from, double* to, std::ptrdiff_t count) {
    for (std::ptrdiff_t i = 0; i < count; ++i) to[i] = -from[i];
  }

  // What the strip takes away from everything below and to the right of it.
  void subtract(std::ptrdiff_t corner, std::ptrdiff_t width, std::ptrdiff_t head, std::ptrdiff_t vectors, int count,
                std::atomic<std::int64_t>& task, std::int64_t* task_base) {
    constexpr std::ptrdiff_t kRows = 8, kColumns = PanelProduct<double>::kColumns;
    PanelProduct<double> p{};
    p.P = P_.data() + head * strip_ * lanes_;
    p.Q = Q_.data() + head * strip_ * lanes_;
    p.ld = strip_;
    p.rows = width;
    p.row_count = p.col_count = d_ - corner;
    p.C = A_ + corner * d_ + corner;
    p.ldc = d_;
    // Tasks are numbered column group by column group; the same walk finds each.
    std::int64_t index = task++ - *task_base, first = 0;
    for (std::ptrdiff_t col = 0; col < vectors; col += kColumns) {
      const std::int64_t tasks = (vectors - col + kRows - 1) / kRows;
      for (; index < first + tasks; index = task++ - *task_base) {
        p.first_col = col;
        p.first_row = col + static_cast<std::ptrdiff_t>(index - first) * kRows;
        p.end_row = std::min(vectors, p.first_row + kRows);
        panel_.product(p);
      }
      first += tasks;
    }
    *task_base += first + count;  // every thread draws one too many
  }

  const PanelKernels<double>& panel_;
  const std::ptrdiff_t lanes_;
  double* const A_;
  const std::ptrdiff_t d_, strip_;
  Aligned<double> P_, Q_;
};

constexpr std::ptrdiff_t kStep = 32;      // rows solved one by one before the kernels take what they give the others
constexpr std::ptrdiff_t kTogether = 16;  // right-hand sides that share each read of L

// X is [columns][ld]: the right-hand sides, then the solutions.
void forward(const RowKernels<double>& kernels, const double* L, std::ptrdiff_t d, double* X, std::ptrdiff_t ld, std::ptrdiff_t columns) {
  double t[kTogether * kStep];
  for (std::ptrdiff_t at = 0; at < d; at += kStep) {
    const std::ptrdiff_t rows = std::min(kStep, d - at);
    if (at > 0) kernels.dot(L + at * d, d, rows, at, X, ld, columns, t, kStep, false, {});
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      double* x = X + c * ld + at;
      for (std::ptrdiff_t i = 0; i < rows; ++i) {
        const double* row = L + (at + i) * d + at;
        double s = at > 0 ? x[i] - t[c * kStep + i] : x[i];
        for (std::ptrdiff_t j = 0; j < i; ++j) s -= row[j] * x[j];
        x[i] = s / row[i];
      }
    }
  }
}

void backward(const RowKernels<double>& kernels, const double* L, std::ptrdiff_t d, double* X, std::ptrdiff_t ld, std::ptrdiff_t columns) {
  double r[kTogether * kStep];
  for (std::ptrdiff_t at = (d - 1) / kStep * kStep; at >= 0; at -= kStep) {
    const std::ptrdiff_t rows = std::min(kStep, d - at);
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      double* x = X + c * ld + at;
      for (std::ptrdiff_t i = rows; i-- > 0;) {
        double s = x[i];
        for (std::ptrdiff_t j = i + 1; j < rows; ++j) s -= L[(at + j) * d + at + i] * x[j];
        x[i] = s / L[(at + i) * d + at + i];
        r[c * kStep + i] = -x[i];
      }
    }
    if (at > 0) kernels.outer(L + at * d, d, rows, at, r, kStep, columns, X, ld, {});
  }
}

// X becomes L X: rows from the last one up, so that what they need is still there.
void forward_product(const RowKernels<double>& kernels, const double* L, std::ptrdiff_t d, double* X, std::ptrdiff_t ld, std::ptrdiff_t columns) {
  double t[kTogether * kStep];
  for (std::ptrdiff_t at = (d - 1) / kStep * kStep; at >= 0; at -= kStep) {
    const std::ptrdiff_t rows = std::min(kStep, d - at);
    if (at > 0) kernels.dot(L + at * d, d, rows, at, X, ld, columns, t, kStep, false, {});
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      double* x = X + c * ld + at;
      for (std::ptrdiff_t i = rows; i-- > 0;) {
        const double* row = L + (at + i) * d + at;
        double s = at > 0 ? t[c * kStep + i] : 0.0;
        for (std::ptrdiff_t j = 0; j <= i; ++j) s += row[j] * x[j];
        x[i] = s;
      }
    }
  }
}

// X becomes L' X: what row i gives to those before it is added before row i itself changes.
void backward_product(const RowKernels<double>& kernels, const double* L, std::ptrdiff_t d, double* X, std::ptrdiff_t ld, std::ptrdiff_t columns) {
  double r[kTogether * kStep];
  for (std::ptrdiff_t at = 0; at < d; at += kStep) {
    const std::ptrdiff_t rows = std::min(kStep, d - at);
    for (std::ptrdiff_t c = 0; c < columns; ++c) std::copy_n(X + c * ld + at, rows, r + c * kStep);
    if (at > 0) kernels.outer(L + at * d, d, rows, at, r, kStep, columns, X, ld, {});
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      double* x = X + c * ld + at;
      for (std::ptrdiff_t i = 0; i < rows; ++i) {
        double s = 0;
        for (std::ptrdiff_t j = i; j < rows; ++j) s += L[(at + j) * d + at + i] * r[c * kStep + j];
        x[i] = s;
      }
    }
  }
}

}  // namespace

std::int64_t cholesky(const KernelTable& table, double* A, std::int64_t d, int n_threads, const std::function<bool()>& interrupted) {
  InterruptCheck check(interrupted);
  return Cholesky(table, A, d).run(n_threads, check);
}

namespace {

using Sweep = void (*)(const RowKernels<double>&, const double*, std::ptrdiff_t, double*, std::ptrdiff_t, std::ptrdiff_t);

Sweep sweep_of(Triangular what, bool transposed) {
  if (what == Triangular::solve) return transposed ? backward : forward;
  return transposed ? backward_product : forward_product;
}

// Columns `first` to `first + columns` of B (d x m) by one L.
void sweep_columns(const KernelTable& table, Sweep sweep, const double* L, std::int64_t d, double* B, std::int64_t m, std::int64_t first,
                   std::ptrdiff_t columns, Aligned<double>& X) {
  const std::ptrdiff_t ld = pad_to(static_cast<std::ptrdiff_t>(d), kStep);
  for (std::ptrdiff_t c = 0; c < columns; ++c)
    for (std::int64_t i = 0; i < d; ++i) X[static_cast<std::size_t>(c * ld + i)] = B[i * m + first + c];
  sweep(table.f64, L, static_cast<std::ptrdiff_t>(d), X.data(), ld, columns);
  for (std::ptrdiff_t c = 0; c < columns; ++c)
    for (std::int64_t i = 0; i < d; ++i) B[i * m + first + c] = X[static_cast<std::size_t>(c * ld + i)];
}

}  // namespace

void triangular(const KernelTable& table, Triangular what, const std::vector<const double*>& L, std::int64_t d, double* B, std::int64_t m,
                bool transposed, int n_threads) {
  const Sweep sweep = sweep_of(what, transposed);
  const bool each = L.size() > 1;
  const std::int64_t together = each ? 1 : kTogether, groups = (m + together - 1) / together;
  const std::ptrdiff_t ld = pad_to(static_cast<std::ptrdiff_t>(d), kStep);
  const bool alone = each && d * d * m <= kAlone * kAlone;
  std::atomic<std::int64_t> next{0};
  parallel_run(alone ? 1 : static_cast<int>(std::min<std::int64_t>(n_threads, groups)), [&](int, int) {
    Aligned<double> X(static_cast<std::size_t>(together * ld));
    for (std::int64_t g; (g = next++) < groups;) {
      const std::int64_t first = g * together;
      sweep_columns(table, sweep, L[static_cast<std::size_t>(each ? g : 0)], d, B, m, first,
                    static_cast<std::ptrdiff_t>(std::min<std::int64_t>(together, m - first)), X);
    }
  });
}

namespace {

double dot(const double* a, const double* b, std::int64_t p) {
  constexpr std::int64_t kLanes = 8;
  double sums[kLanes] = {}, total = 0;
  std::int64_t i = 0;
  for (; i + kLanes <= p; i += kLanes)
    for (std::int64_t l = 0; l < kLanes; ++l) sums[l] += a[i + l] * b[i + l];
  for (; i < p; ++i) total += a[i] * b[i];
  for (const double sum : sums) total += sum;
  return total;
}

void add(double t, const double* a, double* b, std::int64_t p) {
  for (std::int64_t i = 0; i < p; ++i) b[i] += t * a[i];
}

}  // namespace

void equilibrate(const double* M, std::int64_t ldm, double factor, const double* mean, const double* scale, double* K, std::int64_t d,
                 int n_threads) {
  constexpr std::int64_t kBand = 16;
  std::atomic<std::int64_t> next{0};
  const std::int64_t bands = (d + kBand - 1) / kBand;
  parallel_run(d < 128 ? 1 : n_threads, [&](int, int) {
    for (std::int64_t band; (band = next++) < bands;)
      for (std::int64_t i = (bands - 1 - band) * kBand, end = std::min(d, i + kBand); i < end; ++i) {
        const double* const from = M + i * ldm;
        double* const to = K + i * d;
        const double times = factor * scale[i], off = mean ? mean[i] * scale[i] : 0.0;
        if (mean)
          for (std::int64_t j = 0; j < i; ++j) to[j] = (times * from[j] - off * mean[j]) * scale[j];
        else
          for (std::int64_t j = 0; j < i; ++j) to[j] = times * from[j] * scale[j];
        to[i] = 1.0;
      }
  });
}

void two_loops(const std::vector<const double*>& s, const std::vector<const double*>& y, std::int64_t p, double* q) {
  const std::size_t m = s.size();
  std::vector<double> alpha(m), rho(m);
  for (std::size_t i = m; i-- > 0;) {
    rho[i] = dot(s[i], y[i], p);
    alpha[i] = dot(s[i], q, p) / rho[i];
    add(-alpha[i], y[i], q, p);
  }
  if (m == 0) return;
  const double scale = rho[m - 1] / dot(y[m - 1], y[m - 1], p);
  for (std::int64_t i = 0; i < p; ++i) q[i] *= scale;
  for (std::size_t i = 0; i < m; ++i) add(alpha[i] - dot(y[i], q, p) / rho[i], s[i], q, p);
}

bool secant_update(double* B, std::int64_t p, const double* s, const double* y) {
  std::vector<double> seen(static_cast<std::size_t>(p));
  for (std::int64_t i = 0; i < p; ++i) seen[static_cast<std::size_t>(i)] = dot(B + i * p, s, p);
  const double before = dot(seen.data(), s, p), now = dot(y, s, p);
  if (!(before > 0) || !(now > kLeastCurvature * before) || !std::isfinite(now / before)) return false;
  for (std::int64_t i = 0; i < p; ++i) {
    add(-seen[static_cast<std::size_t>(i)] / before, seen.data(), B + i * p, p);
    add(y[i] / now, y, B + i * p, p);
  }
  return true;
}

}  // namespace nag
