#include "engine/newton.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "engine/linalg.h"
#include "engine/slope_root.h"

namespace nag {
namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon();
constexpr double kMostRidge = 1e8;     // times the diagonal: beyond it a step is one of steepest descent
constexpr double kShort = 0.1;         // a step cut below this says that the model is poor: the ridge grows
constexpr double kSurely = 0.1;        // of the gap to reach, what a step must promise to be taken for the last

}  // namespace

// ---- the factor of a Hessian

NewtonFactor::NewtonFactor(const SmoothProblem& problem)
    : problem_(problem), d_(problem.d), k_(problem.k), p_(problem.p()), size_(problem.k * problem.d),
      scale_(static_cast<std::size_t>(size_)), half_(static_cast<std::size_t>(size_)), tail_(static_cast<std::size_t>(k_)),
      L_(static_cast<std::size_t>(size_ * size_), Unset{}) {}

// B = L_B L_B' of the intercepts' block, V their rows beside the coefficients' columns, T = B^-1 V.
void NewtonFactor::take_intercepts(double* H) {
  const std::int64_t d = d_, k = k_, p = p_;
  B_.assign(static_cast<std::size_t>(k * k), 0.0);
  V_.assign(static_cast<std::size_t>(k * size_), 0.0);
  double trace = 0;
  for (std::int64_t a = 0; a < k; ++a) {
    const double* const row = H + (a * p + d) * k * p;
    for (std::int64_t b = 0; b < k; ++b) {
      B_[static_cast<std::size_t>(a * k + b)] = row[b * p + d];
      std::copy_n(row + b * p, d, V_.data() + a * size_ + b * d);
    }
    trace += row[a * p + d];
  }
  for (std::int64_t a = 0; a < k; ++a) {
    double& diagonal = B_[static_cast<std::size_t>(a * k + a)];
    if (k > 1) diagonal += 64 * kEps * (trace != 0 ? trace : 1.0);
    else if (diagonal == 0) diagonal = 1.0;
  }
  if (cholesky(*problem_.table, B_.data(), k, 1, nullptr) != -1)
    throw std::domain_error("the Hessian holds NaN or infinity: numbers of X are too large to square. Scale the columns of X.");
  T_ = V_;
  for (const bool transposed : {false, true})
    triangular(*problem_.table, Triangular::solve, {B_.data()}, k, T_.data(), size_, transposed, 1);
}

void NewtonFactor::build(double* H, double ridge) {
  const std::int64_t d = d_, k = k_, p = p_, line = k * p;
  if (k > 1)  // what shifts all classes alike leaves the margins' differences: curvature of the columns' own size goes there
    for (std::int64_t j = 0; j < p; ++j) {
      double mean = 0;
      for (std::int64_t a = 0; a < k; ++a) mean += H[(a * p + j) * line + a * p + j];
      for (std::int64_t a = 0; a < k; ++a)
        for (std::int64_t b = 0; b < k; ++b) H[(a * p + j) * line + b * p + j] += mean / static_cast<double>(k * k);
    }
  if (problem_.fit_intercept) take_intercepts(H);
  std::vector<char> constant(static_cast<std::size_t>(size_));
  for (std::int64_t r = 0; r < size_; ++r) {
    const std::int64_t at = r / d * p + r % d;
    const double before = H[at * line + at];
    double diagonal = before;
    for (std::int64_t a = 0; problem_.fit_intercept && a < k; ++a)
      diagonal -= V_[static_cast<std::size_t>(a * size_ + r)] * T_[static_cast<std::size_t>(a * size_ + r)];
    // A column that is constant up to rounding has no curvature of its own.
    constant[static_cast<std::size_t>(r)] = diagonal <= 64 * kEps * before;
    scale_[static_cast<std::size_t>(r)] = constant[static_cast<std::size_t>(r)] ? 1.0 : 1 / std::sqrt(diagonal);
  }
  some_constant_ = std::find(constant.begin(), constant.end(), 1) != constant.end();
  double* const row = half_.data();
  for (std::int64_t r = 0; r < size_; ++r) {  // the lower triangle, without the intercepts' gaps: never ahead of what is read
    const double* const from = H + (r / d * p + r % d) * line;
    for (std::int64_t b = 0; b * d <= r; ++b) std::copy_n(from + b * p, std::min(d, r + 1 - b * d), row + b * d);
    for (std::int64_t a = 0; problem_.fit_intercept && a < k; ++a) {
      const double v = V_[static_cast<std::size_t>(a * size_ + r)], *const t = T_.data() + a * size_;
      for (std::int64_t c = 0; c <= r; ++c) row[c] -= v * t[c];
    }
    double* const to = H + r * size_;
    const double own = scale_[static_cast<std::size_t>(r)];
    for (std::int64_t c = 0; c < r; ++c)
      to[c] = constant[static_cast<std::size_t>(r)] || constant[static_cast<std::size_t>(c)] ? 0.0 : row[c] * scale_[static_cast<std::size_t>(c)] * own;
    to[r] = std::isnan(own) ? own : 1.0;
  }
  for (std::int64_t r = 0; r < size_; ++r)
    if (constant[static_cast<std::size_t>(r)]) scale_[static_cast<std::size_t>(r)] = problem_.l2 > 0 ? 1 / std::sqrt(problem_.l2) : 0.0;
  factorise(H, ridge);
}

void NewtonFactor::factorise(const double* K, double ridge) {
  for (;;) {
    for (std::int64_t r = 0; r < size_; ++r) {
      std::copy_n(K + r * size_, r + 1, L_.data() + r * size_);
      L_[static_cast<std::size_t>(r * size_ + r)] += ridge;
    }
    const std::int64_t bad = cholesky(*problem_.table, L_.data(), size_, problem_.n_threads, problem_.interrupted);
    if (bad == -1) break;
    if (bad == -2) throw SmoothInterrupted{};
    ridge = std::max(100 * ridge, 1e-16);
    if (!(ridge < kMostRidge))
      throw std::domain_error("the Hessian holds NaN or infinity: numbers of X are too large to square. Scale the columns of X.");
  }
  ridge_ = ridge;
}

double NewtonFactor::least() const {
  if (some_constant_) return 0.0;
  double least = std::numeric_limits<double>::infinity();
  for (std::int64_t r = 0; r < size_; ++r) least = std::min(least, L_[static_cast<std::size_t>(r * size_ + r)]);
  return least * least;
}

// half_ = L^-1 S (g - T' g_b), tail_ = L_B^-1 g_b.
void NewtonFactor::half(const double* g) {
  for (std::int64_t a = 0; a < k_; ++a) {
    for (std::int64_t i = 0; i < d_; ++i) half_[static_cast<std::size_t>(a * d_ + i)] = g[i * k_ + a];
    if (problem_.fit_intercept) tail_[static_cast<std::size_t>(a)] = g[d_ * k_ + a];
  }
  for (std::int64_t a = 0; problem_.fit_intercept && a < k_; ++a) {
    const double b = tail_[static_cast<std::size_t>(a)], *const t = T_.data() + a * size_;
    for (std::int64_t r = 0; r < size_; ++r) half_[static_cast<std::size_t>(r)] -= t[r] * b;
  }
  for (std::int64_t r = 0; r < size_; ++r) half_[static_cast<std::size_t>(r)] *= scale_[static_cast<std::size_t>(r)];
  triangular(*problem_.table, Triangular::solve, {L_.data()}, size_, half_.data(), 1, false, 1);
  if (problem_.fit_intercept) triangular(*problem_.table, Triangular::solve, {B_.data()}, k_, tail_.data(), 1, false, 1);
}

void NewtonFactor::solve(const double* g, double* out) {
  half(g);
  triangular(*problem_.table, Triangular::solve, {L_.data()}, size_, half_.data(), 1, true, 1);
  for (std::int64_t r = 0; r < size_; ++r) half_[static_cast<std::size_t>(r)] *= scale_[static_cast<std::size_t>(r)];
  for (std::int64_t a = 0; a < k_; ++a)
    for (std::int64_t i = 0; i < d_; ++i) out[i * k_ + a] = half_[static_cast<std::size_t>(a * d_ + i)];
  if (problem_.fit_intercept) {
    triangular(*problem_.table, Triangular::solve, {B_.data()}, k_, tail_.data(), 1, true, 1);
    for (std::int64_t a = 0; a < k_; ++a) {
      double b = tail_[static_cast<std::size_t>(a)];
      for (std::int64_t r = 0; r < size_; ++r) b -= T_[static_cast<std::size_t>(a * size_ + r)] * half_[static_cast<std::size_t>(r)];
      out[d_ * k_ + a] = b;
    }
  }
  for (std::int64_t i = 0; k_ > 1 && i < p_; ++i) {
    double mean = 0;
    for (std::int64_t a = 0; a < k_; ++a) mean += out[i * k_ + a] / static_cast<double>(k_);
    for (std::int64_t a = 0; a < k_; ++a) out[i * k_ + a] -= mean;
  }
}

double NewtonFactor::norm(const double* g) {
  half(g);
  double square = dot(half_, half_);
  if (problem_.fit_intercept) square += dot(tail_, tail_);
  return std::sqrt(square);
}

// ---- the iteration

Newton::Newton(const SmoothProblem& problem, const double* w, void* margins0, void* margins1)
    : problem_(problem), d_(problem.d), k_(problem.k), p_(problem.p()),
      eps_(problem.compute == Compute::f64 ? kEps : static_cast<double>(std::numeric_limits<float>::epsilon())),
      ridge_(64 * eps_), least_(64 * eps_), z_{margins0, margins1}, rms_(static_cast<std::size_t>(d_), 1.0),
      centre_(static_cast<std::size_t>(d_ * k_)), H_(static_cast<std::size_t>(p_ * k_ * p_ * k_), Unset{}), factor_(problem_) {
  const std::size_t count = static_cast<std::size_t>(p_ * k_);
  for (Point* point : {&here_, &there_})
    for (std::vector<double>* v : {&point->w, &point->u, &point->g}) v->resize(count);
  std::copy_n(w, count, here_.w.data());
  h_.resize(count);
}

NewtonTrace Newton::run(const SmoothLimits& limits) {
  NewtonTrace trace;
  const double begun = now();
  double lowest = started_ ? here_.f : std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < limits.steps; ++i) {
    const auto target = [&](double f) { return std::max(limits.tol * std::max(limits.null_value - f, 0.0), limits.floor); };
    NewtonRecord r = !started_ ? start() : fresh_ || searching_ ? step(target(here_.f)) : renew();
    r.seconds = now() - begun;
    trace.records.push_back(r);
    const Point& at = r.moved ? here_ : there_;
    trace.w.insert(trace.w.end(), at.w.begin(), at.w.end());
    trace.g.insert(trace.g.end(), at.g.begin(), at.g.end());
    trace.u.insert(trace.u.end(), at.u.begin(), at.u.end());
    // Without an intercept the bound is a proof, and an earlier one may be the best.
    if (r.moved && problem_.l2 > 0 && !problem_.fit_intercept) lower_ = std::max(lower_, r.f - r.bound);
    const double free = std::min(gap(), r.f - lower_);
    if (!r.moved || !r.resolved || !(r.f < lowest) || !(free > target(r.f)) || r.seconds > kSeconds) break;
    lowest = r.f;
  }
  return trace;
}

void Newton::pass_at(Point& point, void* z, bool hessian) {
  point.data_value = problem_.pass(point.w.data(), point.u.data(), hessian ? H_.data() : nullptr, z);
  add_penalty(problem_, point);
  if (!hessian) return;
  if (std::isfinite(point.f)) take_sizes();
  const std::int64_t line = k_ * p_;
  for (std::int64_t a = 0; a < k_; ++a)
    for (std::int64_t i = 0; i < d_; ++i) H_[static_cast<std::size_t>((a * p_ + i) * line + a * p_ + i)] += problem_.l2;
}

// Of the data term's Hessian: the columns' sizes, and their means weighted by the curvature.
void Newton::take_sizes() {
  const std::int64_t line = k_ * p_;
  std::fill(rms_.begin(), rms_.end(), 0.0);
  for (std::int64_t a = 0; a < k_; ++a) {
    const double* const block = H_.data() + a * p_ * line + a * p_;
    const double weight = problem_.fit_intercept && block[d_ * line + d_] > 0 ? block[d_ * line + d_] : 0.0;
    for (std::int64_t i = 0; i < d_; ++i) {
      double& most = rms_[static_cast<std::size_t>(i)];
      most = std::max(most, block[i * line + i] / (weight > 0 ? weight : 1.0));
      centre_[static_cast<std::size_t>(i * k_ + a)] = weight > 0 ? block[d_ * line + i] / weight : 0.0;
    }
  }
  for (double& size : rms_) size = std::sqrt(size);
}

// What the pass at `here_` says of the gap, and the next direction.
void Newton::settle() {
  bound_ = std::numeric_limits<double>::quiet_NaN();
  if (problem_.l2 > 0) {
    double square = 0;
    for (std::int64_t e = 0; e < d_ * k_; ++e) {
      const std::size_t at = static_cast<std::size_t>(e);
      double q = here_.g[at];
      if (problem_.fit_intercept) q -= centre_[at] * here_.u[static_cast<std::size_t>(d_ * k_ + e % k_)];
      square += q * q;
    }
    bound_ = square / (2 * problem_.l2);
  }
  if (fresh_) factor_.build(H_.data(), ridge_);
  factor_.solve(here_.g.data(), h_.data());
  size_ = dot(here_.g, h_);
}

NewtonRecord Newton::record(const Point& point, bool hessian, bool moved, bool resolved) const {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  return {point.data_value, point.f, moved ? 0.5 * size_ : nan, moved ? bound_ : nan, 0.0, hessian, moved, resolved};
}

NewtonRecord Newton::start() {
  pass_at(here_, z_[current_], true);
  if (!std::isfinite(here_.f))
    throw std::domain_error("the objective is infinite at the starting point; start elsewhere, or use w0=None to start at the null model.");
  started_ = fresh_ = true;
  settle();
  return record(here_, true, true, true);
}

// The Hessian where the last step went without.
NewtonRecord Newton::renew() {
  pass_at(here_, z_[current_], true);
  fresh_ = true;
  settle();
  last_gap_ = 0;
  return record(here_, true, false, true);
}

NewtonRecord Newton::step(double target) {
  const double before = gap();
  bool hessian = true;
  if (!searching_) {
    t_ = 1.0;
    // Gaps that shrink from a to b shrink to b (b/a)^2 next, or faster.
    hessian = !(last_gap_ > before && before * (before / last_gap_) * (before / last_gap_) <= kSurely * target);
  }
  searching_ = true;
  for (std::size_t e = 0; e < h_.size(); ++e) there_.w[e] = here_.w[e] - t_ * h_[e];
  pass_at(there_, z_[1 - current_], hessian);
  const double slope = -size_ * t_, noise = rounding_(problem_, rms_, here_.f, z_[current_], there_.w);
  const bool resolved = -slope > noise;
  bool taken = there_.f <= here_.f + kArmijo * slope + (resolved ? 0.0 : noise);
  // Where values say nothing any more, what the gradient says must not grow.
  if (!taken && !resolved) {
    searching_ = false;
    taken = factor_.norm(there_.g.data()) <= factor_.norm(here_.g.data());
    if (!taken) return record(here_, hessian, true, false);
  }
  if (!taken) {
    const NewtonRecord looked = record(there_, hessian, false, true);
    std::vector<double> segment(h_.size());
    for (std::size_t e = 0; e < h_.size(); ++e) segment[e] = -t_ * h_[e];
    t_ = std::min(best_step(problem_, z_[current_], z_[1 - current_], here_.w, segment, slope) * t_, 0.9 * t_);
    return looked;
  }
  searching_ = false;
  last_gap_ = t_ == 1.0 ? before : 0.0;
  ridge_ = t_ < kShort ? std::min(100 * factor_.ridge(), 1.0) : std::max(factor_.ridge() / 10, least_);
  std::swap(here_, there_);
  current_ = 1 - current_;
  fresh_ = hessian;
  settle();
  return record(here_, hessian, true, resolved);
}

}  // namespace nag
