// Coordinate descent finds the support and the signs; on those the rest is a linear system, towards which conjugate
// gradients go a little further each round: where columns are collinear, sweeps alone would crawl.
// Sources: Friedman, Hastie & Tibshirani 2010 (coordinate descent); Hestenes & Stiefel 1952 (conjugate gradients).
#include "engine/coordinates.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "engine/threads.h"

namespace nag {
namespace {

constexpr int kLanes = 8;  // independent sums: the chain of additions is not what a dot product waits for

double dot(const double* a, const double* b, std::int64_t m) {
  double sum[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= m; i += kLanes)
    for (int u = 0; u < kLanes; ++u) sum[u] += a[i + u] * b[i + u];
  for (; i < m; ++i) sum[0] += a[i] * b[i];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

struct Interval {
  double lower = -INFINITY, upper = INFINITY;
};

// How far zero is from q + l1 d|w| + the normal cone of the interval at w.
double violation_at(double q, double w, double l1, Interval box) {
  const double down = w <= box.lower ? -INFINITY : (w > 0 ? q + l1 : q - l1);  // what a step down gains, up:
  const double up = w >= box.upper ? -INFINITY : (w < 0 ? l1 - q : -q - l1);
  return std::max(std::max(down, up), 0.0);
}

double minimiser(double target, double threshold, Interval box) {
  const double soft = target > threshold ? target - threshold : (target < -threshold ? target + threshold : 0.0);
  return std::min(std::max(soft, box.lower), box.upper);
}

// The same without bounds: sweeps over coordinates that mostly stay where they are cost half as much again with them.
struct Unbounded {};

double violation_at(double q, double w, double l1, Unbounded) {
  if (w != 0) return std::fabs(q + std::copysign(l1, w));
  return std::max(std::fabs(q) - l1, 0.0);
}

double minimiser(double target, double threshold, Unbounded) {
  if (target > threshold) return target - threshold;
  return target < -threshold ? target + threshold : 0.0;
}

// The piece of the interval about w on which l1 |.| is linear.
Interval piece_about(double w, double l1, Interval box) {
  if (l1 > 0 && w > 0) return {std::max(box.lower, 0.0), box.upper};
  if (l1 > 0 && w < 0) return {box.lower, std::min(box.upper, 0.0)};
  return box;
}

// Whether w may move both ways on its piece.
bool is_free(double w, double l1, Interval box) { return (w != 0 || l1 == 0) && w > box.lower && w < box.upper; }

class Columns {
 public:
  Columns(const ColumnsView& A, const double* v) : A_(A), v_(v) {}

  double product(std::int64_t j, const double* u) const {
    if (A_.rows == nullptr) return dot(A_.values + j * A_.n, u, A_.n);
    double even = 0, odd = 0;
    std::int64_t k = A_.starts[j];
    const std::int64_t end = A_.starts[j + 1];
    for (; k + 1 < end; k += 2) {
      even += A_.values[k] * u[A_.rows[k]];
      odd += A_.values[k + 1] * u[A_.rows[k + 1]];
    }
    if (k < end) even += A_.values[k] * u[A_.rows[k]];
    return even + odd;
  }

  void add(std::int64_t j, double c, double* u) const {
    if (A_.rows == nullptr) {
      const double* x = A_.values + j * A_.n;
      for (std::int64_t i = 0; i < A_.n; ++i) u[i] += c * x[i];
    } else {
      for (std::int64_t k = A_.starts[j]; k < A_.starts[j + 1]; ++k) u[A_.rows[k]] += c * A_.values[k];
    }
  }

  void add_weighted(std::int64_t j, double c, double* u) const {
    if (A_.rows == nullptr) {
      const double* x = A_.values + j * A_.n;
      for (std::int64_t i = 0; i < A_.n; ++i) u[i] += c * x[i] * v_[i];
    } else {
      for (std::int64_t k = A_.starts[j]; k < A_.starts[j + 1]; ++k) u[A_.rows[k]] += c * A_.values[k] * v_[A_.rows[k]];
    }
  }

  double curvature(std::int64_t j) const {
    double sum = 0;
    if (A_.rows == nullptr) {
      const double* x = A_.values + j * A_.n;
      double parts[kLanes] = {};
      std::int64_t i = 0;
      for (; i + kLanes <= A_.n; i += kLanes)
        for (int u = 0; u < kLanes; ++u) parts[u] += x[i + u] * x[i + u] * v_[i + u];
      for (; i < A_.n; ++i) parts[0] += x[i] * x[i] * v_[i];
      for (const double part : parts) sum += part;
    } else {
      for (std::int64_t k = A_.starts[j]; k < A_.starts[j + 1]; ++k) sum += A_.values[k] * A_.values[k] * v_[A_.rows[k]];
    }
    return sum;
  }

 private:
  const ColumnsView& A_;
  const double* v_;
};

class Solver {
 public:
  Solver(const ColumnsView& A, const double* v, const double* g, const QuadraticL1& how, double* w)
      : X_(A, v), n_(static_cast<std::size_t>(A.n)), p_(A.p), v_(v), g_(g), how_(how), w_(w), w0_(w, w + A.p), vt_(n_),
        h_(static_cast<std::size_t>(A.p)), e_(static_cast<std::size_t>(A.p)) {
    for (std::size_t i = 0; i < n_; ++i) total_ += v_[i];
    for (std::int64_t j = 0; j < p_; ++j) {
      const double raw = X_.curvature(j);
      double h = raw;
      if (how_.intercept && total_ > 0) {
        e_[at(j)] = X_.product(j, v_);
        h -= e_[at(j)] * e_[at(j)] / total_;
        if (h <= kConstant * raw) h = 0;  // constant up to rounding: the intercept does its work
      }
      h_[at(j)] = h > 0 ? h + how_.l2 : (raw > 0 ? how_.l2 : 0.0);
    }
  }

  double run(const std::function<bool()>& interrupted) {
    double worst = 0, before = INFINITY;
    for (std::int64_t round = 0; round < how_.rounds; ++round) {
      worst = 0;
      for (std::int64_t j = 0; j < p_; ++j) worst = std::max(worst, move(j));
      if (worst <= how_.accuracy) break;
      if (interrupted()) return -1;
      support_.clear();
      for (std::int64_t j = 0; j < p_; ++j)
        if (is_free(w_[j], how_.l1, box(j))) support_.push_back(j);
      for (int sweep = 0; sweep < kShortSweeps; ++sweep) {
        double met = 0;
        for (const std::int64_t j : support_) met = std::max(met, move(j));
        if (met <= 0.3 * how_.accuracy) break;
      }
      if (round > 0 && worst > kFast * before)
        for (int turn = 0; turn < kTurns && conjugate_gradients(); ++turn) {}
      before = worst;
    }
    return worst;
  }

  double intercept() const { return how_.intercept && total_ > 0 ? -how_.slope_b / total_ - centre_ : 0.0; }

  void margins(double* t) const {
    std::fill(t, t + n_, intercept());
    for (std::int64_t j = 0; j < p_; ++j)
      if (w_[j] != w0_[at(j)]) X_.add(j, w_[j] - w0_[at(j)], t);
  }

 private:
  static constexpr int kShortSweeps = 4;  // over the support, between two over all columns
  static constexpr double kFast = 0.1;    // sweeps that shrink the violation this much need no help
  static constexpr int kSteps = 24;       // of conjugate gradients a round
  static constexpr double kWithin = 0.3;  // of the accuracy asked for, where they end
  static constexpr int kTurns = 8;        // as coefficients reach zero on the way
  static constexpr double kConstant = 1e-13;

  static std::size_t at(std::int64_t j) { return static_cast<std::size_t>(j); }
  Interval box(std::int64_t j) const {
    return {how_.lower == nullptr ? -INFINITY : how_.lower[j], how_.upper == nullptr ? INFINITY : how_.upper[j]};
  }
  // With b minimised out, A stands for its centred columns x_j - e_j/total, e_j = <x_j, v>: vt_ holds v times the raw
  // margins, and what their weighted mean `centre_` changes is subtracted where it is read.
  double slope(std::int64_t j) const {
    const double mean = how_.intercept && total_ > 0 ? e_[at(j)] * (how_.slope_b / total_ + centre_) : 0.0;
    return g_[j] + X_.product(j, vt_.data()) - mean + how_.l2 * (w_[j] - w0_[at(j)]);
  }

  // To the minimum along one coordinate; returns the violation that was met.
  double move(std::int64_t j) {
    const double h = h_[at(j)];
    if (!(h > 0)) return 0.0;  // without curvature the column is zero (or a constant), and so is its gradient
    const double q = slope(j), old = w_[j];
    const double to = minimiser(old - q / h, how_.l1 / h, box(j)), met = violation_at(q, old, how_.l1, box(j));
    if (to != old) {
      X_.add_weighted(j, to - old, vt_.data());
      if (how_.intercept && total_ > 0) centre_ += (to - old) * e_[at(j)] / total_;
      w_[j] = to;
    }
    return met;
  }

  // The weighted mean of the margins of c.
  double mean_of(const std::vector<double>& c) const {
    if (!how_.intercept || !(total_ > 0)) return 0.0;
    double sum = 0;
    for (std::size_t k = 0; k < support_.size(); ++k) sum += c[k] * e_[at(support_[k])];
    return sum / total_;
  }

  // y = v times the raw margins of c; returns the quadratic form of c.
  double spread(const std::vector<double>& c, std::vector<double>& y) const {
    std::fill(y.begin(), y.end(), 0.0);
    for (std::size_t k = 0; k < support_.size(); ++k)
      if (c[k] != 0) X_.add(support_[k], c[k], y.data());
    const double mean = mean_of(c);
    double square = 0, data = 0;
    for (std::size_t k = 0; k < support_.size(); ++k) square += c[k] * c[k] * how_.l2;
    for (std::size_t i = 0; i < n_; ++i) {
      const double margin = y[i] - mean;
      data += v_[i] * margin * margin;
      y[i] *= v_[i];
    }
    return square + data;
  }

  // Towards the minimum on the support, its signs held. Returns whether a coefficient reached zero, or a bound, on the way.
  bool conjugate_gradients() {
    support_.erase(std::remove_if(support_.begin(), support_.end(),
                                  [this](std::int64_t j) { return !is_free(w_[j], how_.l1, box(j)) || !(h_[at(j)] > 0); }),
                   support_.end());
    const std::size_t m = support_.size();
    if (m < 2) return false;
    std::vector<double> r(m), start(m), x(m), d(m), Hd(m), y(n_);
    double rz = 0, largest = 0;
    for (std::size_t k = 0; k < m; ++k) {
      const std::int64_t j = support_[k];
      start[k] = slope(j) + std::copysign(how_.l1, w_[j]);
      r[k] = -start[k];
      d[k] = r[k] / h_[at(j)];
      rz += r[k] * d[k];
      largest = std::max(largest, std::fabs(r[k]));
    }
    const double goal = 1e-6 * rz;
    for (int step = 0; step < kSteps && rz > goal && largest > kWithin * how_.accuracy; ++step) {
      const double curved = spread(d, y);
      if (!(curved > 0)) break;
      const double alpha = rz / curved, mean = mean_of(d);
      double next = 0;
      largest = 0;
      for (std::size_t k = 0; k < m; ++k) {
        const std::int64_t j = support_[k];
        Hd[k] = X_.product(j, y.data()) - mean * e_[at(j)] + how_.l2 * d[k];
        x[k] += alpha * d[k];
        r[k] -= alpha * Hd[k];
        next += r[k] * r[k] / h_[at(j)];
        largest = std::max(largest, std::fabs(r[k]));
      }
      for (std::size_t k = 0; k < m; ++k) d[k] = r[k] / h_[at(support_[k])] + next / rz * d[k];
      rz = next;
    }
    // Coefficients that would change sign stop at zero, and those in a box at its ends; or all stop where the first does: as the
    // value falls more.
    double least = 1;
    std::size_t first = m;
    std::vector<double> clipped = x, stop(m, NAN);
    for (std::size_t k = 0; k < m; ++k) {
      const std::int64_t j = support_[k];
      const Interval piece = piece_about(w_[j], how_.l1, box(j));
      const double to = w_[j] + x[k];
      if (to >= piece.lower && to <= piece.upper) continue;
      stop[k] = to < piece.lower ? piece.lower : piece.upper;
      clipped[k] = stop[k] - w_[j];
      if (first == m || clipped[k] / x[k] < least) {
        least = std::min(clipped[k] / x[k], 1.0);
        first = k;
      }
    }
    if (first < m) {
      for (double& c : x) c *= least;
      x[first] = clipped[first];
    }
    const double fall = change(x, start, y), fall_clipped = first < m ? change(clipped, start, y) : fall;
    if (!(std::min(fall, fall_clipped) < 0)) return false;
    const std::vector<double>& c = fall_clipped < fall ? clipped : x;
    spread(c, y);
    centre_ += mean_of(c);
    for (std::size_t k = 0; k < m; ++k) {
      double& w = w_[support_[k]];
      const bool stopped = !std::isnan(stop[k]) && (&c == &clipped || k == first);
      const Interval piece = piece_about(w, how_.l1, box(support_[k]));
      w = stopped ? stop[k] : std::min(std::max(w + c[k], piece.lower), piece.upper);  // a sum may miss the end by its rounding
    }
    for (std::size_t i = 0; i < n_; ++i) vt_[i] += y[i];
    return first < m;
  }

  // What a step on the support changes in the value: l1 is linear along it, as signs hold.
  double change(const std::vector<double>& c, const std::vector<double>& start, std::vector<double>& y) const {
    double sum = 0.5 * spread(c, y);
    for (std::size_t k = 0; k < c.size(); ++k) sum += c[k] * start[k];
    return sum;
  }

  Columns X_;
  std::size_t n_;
  std::int64_t p_;
  const double *v_, *g_;
  const QuadraticL1& how_;
  double* w_;
  std::vector<double> w0_, vt_, h_, e_;
  double total_ = 0, centre_ = 0;
  std::vector<std::int64_t> support_;
};

}  // namespace

double minimise_on_columns(const ColumnsView& A, const double* v, const double* g, const QuadraticL1& how, double* w, double* b, double* t,
                           const std::function<bool()>& interrupted) {
  Solver solver(A, v, g, how, w);
  const double left = solver.run(interrupted);
  solver.margins(t);
  *b = solver.intercept();
  return left;
}

void column_products(const ColumnsView& A, const double* r, double* products, int n_threads) {
  constexpr std::int64_t kTogether = 64;  // columns a thread takes at once
  constexpr std::int64_t kAlone = 1 << 15;  // numbers that one thread is done with before another has begun
  const Columns columns(A, nullptr);
  const std::int64_t groups = (A.p + kTogether - 1) / kTogether, size = A.rows == nullptr ? A.p * A.n : A.starts[A.p];
  std::atomic<std::int64_t> next{0};
  parallel_run(size < kAlone ? 1 : static_cast<int>(std::min<std::int64_t>(n_threads, groups)), [&](int, int) {
    for (std::int64_t group; (group = next++) < groups;)
      for (std::int64_t j = group * kTogether; j < std::min(A.p, (group + 1) * kTogether); ++j) products[j] = columns.product(j, r);
  });
}

void add_columns(const ColumnsView& A, const double* c, double* t) {
  const Columns columns(A, nullptr);
  for (std::int64_t j = 0; j < A.p; ++j)
    if (c[j] != 0) columns.add(j, c[j], t);
}

namespace {

template <class BoxAt>
double sweep_in_box(const double* C, std::int64_t p, double l1, BoxAt box_at, double accuracy, std::int64_t sweeps, double* w, double* q) {
  double worst = 0;
  for (std::int64_t sweep = 0; sweep < sweeps; ++sweep) {
    worst = 0;
    for (std::int64_t j = 0; j < p; ++j) {
      const double h = C[j * p + j];
      const auto box = box_at(j);
      const double met = violation_at(q[j], w[j], l1, box);
      if (!(met > accuracy) || !(h > 0)) continue;
      worst = std::max(worst, met);
      const double to = minimiser(w[j] - q[j] / h, l1 / h, box), change = to - w[j];
      if (change == 0) continue;
      w[j] = to;
      const double* row = C + j * p;
      for (std::int64_t i = 0; i < p; ++i) q[i] += change * row[i];
    }
    if (worst <= accuracy) break;
  }
  return worst;
}

}  // namespace

double sweep_on_gram(const double* C, std::int64_t p, double l1, const double* lower, const double* upper, double accuracy, std::int64_t sweeps,
                     double* w, double* q) {
  if (lower == nullptr && upper == nullptr)
    return sweep_in_box(C, p, l1, [](std::int64_t) { return Unbounded{}; }, accuracy, sweeps, w, q);
  const auto box_at = [=](std::int64_t j) {
    return Interval{lower == nullptr ? -INFINITY : lower[j], upper == nullptr ? INFINITY : upper[j]};
  };
  return sweep_in_box(C, p, l1, box_at, accuracy, sweeps, w, q);
}

}  // namespace nag
