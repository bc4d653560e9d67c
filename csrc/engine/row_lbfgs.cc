#include "engine/row_lbfgs.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "engine/combine.h"

namespace nag {
namespace {

constexpr double kArmijo = 1e-4;
constexpr double kFlat = 0.3;     // of the slope at the start: a step's end with less is near enough to the minimum along it
constexpr int kTrials = 20;
constexpr int kLanes = 16;
constexpr double kLarge = 1e-3;   // of F: steps that promise more are far from any rounding
constexpr double kApart = 100;    // roundings: what is kept and less of it is new is in the span of the rest
constexpr double kSeconds = 0.02; // of a call, after which signals and deadlines are looked at
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

template <class T>
RowLbfgs<T>::RowLbfgs(const RowProblem<T>& problem, const Memory& memory, int pairs, double f, double square)
    : problem_(problem), at_(memory), pairs_(pairs), count_(2 * pairs + 1), rows_(problem.n * problem.k), size_(problem.size()),
      weight_(1.0 / static_cast<double>(problem.n)), f_(f), square_(square), inner_(static_cast<std::size_t>(count_ * count_), 0.0),
      length_(static_cast<std::size_t>(pairs), 0.0), live_(static_cast<std::size_t>(count_), 0) {
  if (problem.second) second_.resize(static_cast<std::size_t>(rows_));
  if (problem.c > 0) {
    balanced_.resize(static_cast<std::size_t>(rows_));
    way_.resize(static_cast<std::size_t>(rows_));
    if (problem.second) ones_.assign(static_cast<std::size_t>(rows_), T(1));
  }
}

template <class T>
double RowLbfgs<T>::dot(const T* a, const T* b, std::int64_t n) const {
  return inner_products<T>({a}, b, n, problem_.n_threads)[0];
}

// The part of an inner product that is not of w: the product of the b's.
template <class T>
double RowLbfgs<T>::tails(const T* a, const T* b) const {
  double sum = 0;
  for (std::int64_t i = rows_; i < size_; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// (K a, b): the product with a whose mean is taken away, less its own mean.
template <class T>
bool RowLbfgs<T>::lift(const T* x, T* out) {
  ++products_;
  if (!(problem_.c > 0)) return problem_.product(x, out);
  const std::int64_t n = problem_.n, k = problem_.k;
  std::vector<double> mean(static_cast<std::size_t>(k));
  const auto centred = [&](const T* from, T* to) {
    std::fill(mean.begin(), mean.end(), 0.0);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < k; ++c) mean[static_cast<std::size_t>(c)] += static_cast<double>(from[i * k + c]);
    for (std::int64_t c = 0; c < k; ++c) mean[static_cast<std::size_t>(c)] *= weight_;
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < k; ++c) to[i * k + c] = from[i * k + c] - static_cast<T>(mean[static_cast<std::size_t>(c)]);
  };
  centred(x, balanced_.data());
  if (!problem_.product(balanced_.data(), out)) return false;
  centred(out, out);
  std::copy(x + rows_, x + size_, out + rows_);
  return true;
}

// The gradient at x, kept with its product and its inner products with all that is kept.
template <class T>
RowRecord RowLbfgs<T>::take_gradient() {
  const int at = place(steps_);
  T *const g = at_.plain[static_cast<std::size_t>(at)], *const Kg = at_.lifted[static_cast<std::size_t>(at)];
  const T* const r = at_.r[current_];
  combine<T>({r, at_.x}, {weight_, problem_.l2}, rows_, g, problem_.n_threads);
  for (std::int64_t c = 0; rows_ + c < size_; ++c) {
    double sum = 0;
    for (std::int64_t i = c; i < rows_; i += problem_.k) sum += static_cast<double>(r[i]);
    g[rows_ + c] = static_cast<T>(problem_.c * sum * weight_);
  }
  if (!lift(g, Kg)) {
    interrupted_ = true;
    return {};
  }
  live_[static_cast<std::size_t>(at)] = 1;
  std::vector<const T*> with;
  for (int i = 0; i < count_; ++i)
    if (kept(i)) with.push_back(at_.lifted[static_cast<std::size_t>(i)]);
  const std::vector<double> found = inner_products(with, static_cast<const T*>(g), size_, problem_.n_threads);
  for (int i = 0, j = 0; i < count_; ++i)
    if (kept(i)) inner(at, i) = inner(i, at) = found[static_cast<std::size_t>(j++)];
  const double size = std::max(inner(at, at) - tails(g, g), 0.0);
  return {f_, 0.5 * size / problem_.l2, 0.0, resolved_};
}

// Newton's direction in the span of what is kept. What is kept, newest first, is made orthogonal in the Hessian's metric by a
// Cholesky factor; what is left of one within rounding of the others is left out. False where there is no such metric.
template <class T>
bool RowLbfgs<T>::in_span(std::vector<double>& c) {
  if (!problem_.second || steps_ == 0) return false;
  std::vector<int> at{place(steps_)};
  for (std::int64_t i = steps_ - 1; i >= std::max<std::int64_t>(steps_ - pairs_, 0); --i) {
    at.push_back(static_cast<int>(i % pairs_));
    at.push_back(place(i));
  }
  std::vector<const T*> lifted;
  for (const int i : at) lifted.push_back(at_.lifted[static_cast<std::size_t>(i)]);
  const bool shifted = problem_.c > 0;
  if (shifted) lifted.push_back(ones_.data());
  problem_.second(at_.z[current_], second_.data());
  const std::vector<double> G = weighted_gram(*problem_.table, lifted, static_cast<const T*>(second_.data()), rows_, problem_.n_threads);
  const std::size_t m = at.size(), line = lifted.size();
  std::vector<double> H(m * m), b(m, 0.0), scale(m);
  for (std::size_t j = 0; shifted && j < m; ++j) b[j] = problem_.c * static_cast<double>(at_.plain[static_cast<std::size_t>(at[j])][rows_]);
  for (std::size_t j = 0; j < m; ++j)
    for (std::size_t k = 0; k <= j; ++k) {
      double curved = G[j * line + k], square = inner(at[j], at[k]);
      if (shifted) {
        curved += b[k] * G[j * line + m] + b[j] * G[k * line + m] + b[j] * b[k] * G[m * line + m];
        square -= tails(at_.plain[static_cast<std::size_t>(at[j])], at_.plain[static_cast<std::size_t>(at[k])]);
      }
      H[j * m + k] = weight_ * curved + problem_.l2 * square;
    }
  if (!(H[0] > 0) || !std::isfinite(H[0])) return false;
  // L L' = S H S, S H's diagonal to the power of -1/2; y = L^-1 S M g.
  std::vector<char> in(m, 0);
  std::vector<double> y(m, 0.0);
  for (std::size_t j = 0; j < m; ++j) {
    const double own = H[j * m + j];
    if (!(own > 0) || !std::isfinite(own)) continue;
    scale[j] = 1 / std::sqrt(own);
    double left = 1.0, sum = scale[j] * inner(at[j], at[0]);
    for (std::size_t k = 0; k < j; ++k) {
      if (!in[k]) continue;
      double& l = H[j * m + k];
      l *= scale[j] * scale[k];
      for (std::size_t i = 0; i < k; ++i)
        if (in[i]) l -= H[j * m + i] * H[k * m + i];
      l /= H[k * m + k];
      left -= l * l;
      sum -= l * y[k];
    }
    if (!(left > kApart * static_cast<double>(std::numeric_limits<T>::epsilon()))) continue;
    in[j] = 1;
    H[j * m + j] = std::sqrt(left);
    y[j] = sum / H[j * m + j];
  }
  for (std::size_t j = m; j-- > 0;) {
    if (!in[j]) continue;
    for (std::size_t k = j + 1; k < m; ++k)
      if (in[k]) y[j] -= H[k * m + j] * y[k];
    y[j] /= H[j * m + j];
  }
  for (std::size_t j = 0; j < m; ++j)
    if (in[j]) c[static_cast<std::size_t>(at[j])] = -scale[j] * y[j];
  return true;
}

// The direction of L-BFGS, -H g, by the two loops on coefficients.
template <class T>
void RowLbfgs<T>::by_pairs(std::vector<double>& c) const {
  struct Pair {
    int s, newer, older;
    double bend, alpha;
  };
  const auto times = [&](int row) {
    double sum = 0;
    for (int j = 0; j < count_; ++j) sum += inner(row, j) * c[static_cast<std::size_t>(j)];
    return sum;
  };
  const auto coefficient = [&](int i) -> double& { return c[static_cast<std::size_t>(i)]; };
  coefficient(place(steps_)) = -1.0;
  std::vector<Pair> pairs;
  for (std::int64_t i = steps_ - 1; i >= std::max<std::int64_t>(steps_ - pairs_, 0); --i) {
    const int s = static_cast<int>(i % pairs_), newer = place(i + 1), older = place(i);
    const double bend = length_[static_cast<std::size_t>(s)] * (inner(s, newer) - inner(s, older));
    if (bend > 0) pairs.push_back({s, newer, older, bend, 0.0});
  }
  for (Pair& p : pairs) {
    p.alpha = length_[static_cast<std::size_t>(p.s)] * times(p.s) / p.bend;
    coefficient(p.newer) -= p.alpha;
    coefficient(p.older) += p.alpha;
  }
  if (!pairs.empty()) {
    const Pair& p = pairs[0];
    const double change = inner(p.newer, p.newer) - 2 * inner(p.newer, p.older) + inner(p.older, p.older);
    if (change > 0)
      for (double& each : c) each *= p.bend / change;
  }
  for (auto p = pairs.rbegin(); p != pairs.rend(); ++p)
    coefficient(p->s) += length_[static_cast<std::size_t>(p->s)] * (p->alpha - (times(p->newer) - times(p->older)) / p->bend);
}

// The next direction and its lift, kept as the next step.
template <class T>
void RowLbfgs<T>::direction() {
  std::vector<double> c(static_cast<std::size_t>(count_), 0.0);
  if (!in_span(c)) by_pairs(c);
  const auto times = [&](int row) {
    double sum = 0;
    for (int j = 0; j < count_; ++j) sum += inner(row, j) * c[static_cast<std::size_t>(j)];
    return sum;
  };
  const auto coefficient = [&](int i) { return c[static_cast<std::size_t>(i)]; };
  std::vector<double> along(static_cast<std::size_t>(count_)), weights;
  double size = 0;
  std::vector<const T*> plain, lifted;
  for (int i = 0; i < count_; ++i) {
    along[static_cast<std::size_t>(i)] = times(i);
    size += coefficient(i) * along[static_cast<std::size_t>(i)];
    if (!kept(i) || coefficient(i) == 0) continue;
    weights.push_back(coefficient(i));
    plain.push_back(at_.plain[static_cast<std::size_t>(i)]);
    lifted.push_back(at_.lifted[static_cast<std::size_t>(i)]);
  }
  const int at = static_cast<int>(steps_ % pairs_);
  T *const d = at_.plain[static_cast<std::size_t>(at)], *const Kd = at_.lifted[static_cast<std::size_t>(at)];
  combine(plain, weights, size_, d, problem_.n_threads);
  combine(lifted, weights, size_, Kd, problem_.n_threads);
  live_[static_cast<std::size_t>(at)] = 1;
  for (int i = 0; i < count_; ++i) inner(at, i) = inner(i, at) = along[static_cast<std::size_t>(i)];
  inner(at, at) = size;
  slope_ = along[static_cast<std::size_t>(place(steps_))];
  far_ = size - tails(d, d);
  h_ = Kd;
  if (problem_.c > 0) {
    const std::int64_t k = problem_.k;
    for (std::int64_t i = 0; i < problem_.n; ++i)
      for (std::int64_t q = 0; q < k; ++q)
        way_[static_cast<std::size_t>(i * k + q)] = Kd[i * k + q] + static_cast<T>(problem_.c) * d[rows_ + q];
    h_ = way_.data();
  }
  cross_ = dot(problem_.c > 0 ? at_.Kx : at_.z[current_], d, rows_);
}

// The mean loss's slope along the direction, from residuals.
template <class T>
double RowLbfgs<T>::along(const T* r) const {
  return weight_ * dot(h_, r, rows_);
}

// How far a value of f can be off: rounded margins.
template <class T>
double RowLbfgs<T>::rounding() const {
  const T* const z = at_.z[current_];
  const double residual = std::sqrt(weight_ * dot(at_.r[current_], at_.r[current_], rows_));  // no less than any class's mean
  T largest[kLanes] = {};  // one of many at a time would wait for the last
  std::int64_t i = 0;
  for (; i + kLanes <= rows_; i += kLanes)
    for (int u = 0; u < kLanes; ++u) largest[u] = std::max(largest[u], std::fabs(z[i + u]));
  for (; i < rows_; ++i) largest[0] = std::max(largest[0], std::fabs(z[i]));
  const double most = static_cast<double>(*std::max_element(largest, largest + kLanes));
  return 4 * static_cast<double>(std::numeric_limits<T>::epsilon()) * (std::fabs(f_) + residual * most);
}

// A length near the minimum along the way, where F is no higher than here: true, with its margins and residuals in found_.
// F is convex: its slope along the way increases, and its root is found by secants in a bracket.
template <class T>
bool RowLbfgs<T>::search(double t, double noise) {
  double low = 0.0, at_low = slope_, high = kInfinity, at_high = std::numeric_limits<double>::quiet_NaN();
  bool any = false;
  length_found_ = 0.0;
  for (int i = 0; i < kTrials; ++i) {
    int trial = 0;
    while (trial == current_ || (any && trial == found_)) ++trial;
    combine<T>({at_.z[current_], h_}, {1.0, t}, rows_, at_.z[trial], problem_.n_threads);
    const double f = problem_.loss(at_.z[trial], at_.r[trial]) + 0.5 * problem_.l2 * (square_ + t * (2 * cross_ + t * far_));
    const double slope = std::isfinite(f) ? along(at_.r[trial]) + problem_.l2 * (cross_ + t * far_) : kInfinity;
    const bool resolved = -slope_ * t > noise;
    if (f <= f_ + (resolved ? kArmijo * t * slope_ : noise) && (!any || f <= f_found_)) {
      any = true;
      found_ = trial, f_found_ = f, length_found_ = t;
      if (std::fabs(slope) <= kFlat * std::fabs(slope_)) break;
    }
    if (!(slope > 0)) {
      const double secant = slope > at_low ? t - slope * (t - low) / (slope - at_low) : kInfinity;
      low = t, at_low = slope;
      if (high == kInfinity) {
        t = std::min(std::max(secant, 1.2 * t), 10 * t);
        continue;
      }
    } else {
      high = t, at_high = slope;
    }
    const double secant = low - at_low * (high - low) / (at_high - at_low);  // NaN where the slope is infinite at the end
    const bool inside = std::isfinite(at_high) && low + 0.01 * (high - low) < secant && secant < high - 0.01 * (high - low) && i % 3 != 2;
    t = inside ? secant : low + (std::isfinite(at_high) ? 0.5 : 0.1) * (high - low);
    if (high - low <= 1e-8 * high) break;
  }
  return any;
}

// One step. False where it leads no lower.
template <class T>
bool RowLbfgs<T>::step() {
  direction();
  double t = 1.0;
  if (steps_ == 0) {  // by the bound of the curvature
    const double bend = problem_.curvature * weight_ * dot(h_, h_, rows_) + problem_.l2 * far_;
    t = bend > 0 ? -slope_ / bend : 1.0;
  }
  const double noise = -slope_ < kLarge * std::fabs(f_) ? rounding() : 0.0;
  const bool any = search(t, noise), lower = any && f_found_ < f_;
  t = length_found_;
  if (any) {
    const T *const d = at_.plain[static_cast<std::size_t>(steps_ % pairs_)], *const Kd = at_.lifted[static_cast<std::size_t>(steps_ % pairs_)];
    std::copy_n(at_.x, size_, at_.before);
    combine<T>({at_.x, d}, {1.0, t}, size_, at_.x, problem_.n_threads);
    if (problem_.c > 0) combine<T>({at_.Kx, Kd}, {1.0, t}, rows_, at_.Kx, problem_.n_threads);
    square_ += t * (2 * cross_ + t * far_);
    f_ = f_found_;
    current_ = found_;
  }
  resolved_ = any && -slope_ * t > noise;
  length_[static_cast<std::size_t>(steps_ % pairs_)] = t;
  ++steps_;
  return lower;
}

template <class T>
std::vector<RowRecord> RowLbfgs<T>::run(const RowLimits& limits) {
  const double begun = now();
  std::vector<RowRecord> records;
  for (std::int64_t i = 0; i < limits.steps; ++i) {
    const bool lower = started_ ? step() : true;
    started_ = true;
    RowRecord record = take_gradient();
    if (interrupted_) break;
    record.seconds = now() - begun;
    records.push_back(record);
    const double target = std::max(limits.tol * (limits.null_value - f_), limits.floor);
    if (!lower || !record.resolved || !(record.bound > target) || record.seconds > kSeconds) break;
  }
  return records;
}

template class RowLbfgs<float>;
template class RowLbfgs<double>;

}  // namespace nag
