#include "engine/prox_newton.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "engine/active_set.h"
#include "engine/linalg.h"
#include "engine/slope_root.h"

namespace nag {
namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon(), kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kFeasible = 1 + 1e-12, kRounded = 1 + 4e-16;  // times l1: what is beyond has no finite gap at l2 = 0
constexpr double kReads = 16;       // columns per gradient that a Hessian costs beyond the first
constexpr double kLeft = 1e-3;      // of the violation, that gradients for the price of a Hessian are to leave
constexpr double kModel = 1e-3;     // of the violation, to which a model is solved
constexpr int kRounds = 100;        // of a model's solution

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

double sign(double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0; }

}  // namespace

ProxNewton::ProxNewton(const SmoothProblem& problem, double l1, bool reuse, const double* w, void* z0, void* z1)
    : problem_(problem), l1_(l1), reuse_(reuse), d_(problem.d), p_(problem.p()), z_{z0, z1}, step_(at(p_)), rms_(at(d_), 1.0),
      centre_(at(d_), 0.0), slope_(at(d_)), H_(at(p_ * p_)), model_(at(d_ * d_)), head_(at(d_)), target_(at(d_)) {
  for (Point* point : {&here_, &there_})
    for (std::vector<double>* v : {&point->w, &point->u, &point->g}) v->resize(at(p_));
  std::copy_n(w, p_, here_.w.data());
}

void ProxNewton::take_hessian(const double* H) {
  std::copy_n(H, p_ * p_, H_.data());
  has_hessian_ = true;
  take_sizes();
}

void ProxNewton::resume(double data_value, const double* u) {
  here_.data_value = data_value;
  std::copy_n(u, p_, here_.u.data());
  known_ = true;
}

ProxTrace ProxNewton::run(const SmoothLimits& limits) {
  ProxTrace trace;
  const double begun = now();
  double lowest = started_ ? here_.whole : std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < limits.steps; ++i) {
    if (started_ && !searching_) aim();
    ProxRecord r = started_ ? step() : start();
    r.seconds = now() - begun;
    trace.records.push_back(r);
    const Point& point = r.moved ? here_ : there_;
    trace.w.insert(trace.w.end(), point.w.begin(), point.w.end());
    trace.g.insert(trace.g.end(), point.g.begin(), point.g.end());
    trace.u.insert(trace.u.end(), point.u.begin(), point.u.end());
    if (!r.moved || !r.resolved || !(r.whole < lowest)) break;
    // Without an intercept the bound is a proof, and an earlier one may be the best.
    if (!problem_.fit_intercept) lower_ = std::max(lower_, r.whole - r.bound);
    const double target = std::max(limits.tol * std::max(limits.null_value - r.whole, 0.0), limits.floor);
    if (!(std::min(r.free, r.whole - lower_) > target) || r.seconds > kSeconds) break;
    lowest = r.whole;
  }
  return trace;
}

void ProxNewton::evaluate(Point& point, void* z, bool hessian) {
  point.data_value = problem_.pass(point.w.data(), point.u.data(), hessian ? H_.data() : nullptr, z);
  penalise(point);
  if (!hessian) return;
  has_hessian_ = true;
  wanted_ = !std::isfinite(point.f);  // where a step has overflowed it serves nothing
  if (!wanted_) take_sizes();
}

void ProxNewton::penalise(Point& point) const {
  add_penalty(problem_, point);
  double size = 0;
  for (std::int64_t j = 0; j < d_; ++j) size += std::fabs(point.w[at(j)]);
  point.whole = point.f + l1_ * size;
}

// Of the data term's Hessian: the columns' sizes, and their means weighted by the curvature.
void ProxNewton::take_sizes() {
  const double weight = problem_.fit_intercept ? H_[at(d_ * p_ + d_)] : 1.0;
  for (std::int64_t j = 0; j < d_; ++j) {
    rms_[at(j)] = std::sqrt(H_[at(j * p_ + j)] / (weight != 0 ? weight : 1.0));
    centre_[at(j)] = problem_.fit_intercept && weight > 0 ? H_[at(d_ * p_ + j)] / weight : 0.0;
  }
}

// H_ at here_ becomes that at there_, a step away: the pass there gave it, or the gradient.
void ProxNewton::learn(bool hessian, bool resolved) {
  const double mean = problem_.mean_curvature ? problem_.mean_curvature(z_[1 - current_]) : 0.0;
  if (!hessian) {
    if (mean > 0 && mean_ > 0)
      for (double& h : H_) h *= mean / mean_;
    std::vector<double> s(at(p_)), y(at(p_));
    for (std::int64_t j = 0; j < p_; ++j) {
      s[at(j)] = there_.w[at(j)] - here_.w[at(j)];
      y[at(j)] = there_.u[at(j)] - here_.u[at(j)];
    }
    if (resolved) secant_update(H_.data(), p_, s.data(), y.data());
    take_sizes();
  }
  mean_ = mean;
}

// Omega(w) + Omega*(-u) + <w, u> at `scale` times the centred slope; infinite where that is not dual feasible.
double ProxNewton::gap_of_penalty(double scale, double largest) const {
  double kept = 0, square = 0;
  for (std::int64_t j = 0; j < d_; ++j) {
    const double u = scale * slope_[at(j)], w = here_.w[at(j)], clip = std::min(std::max(-u, -l1_), l1_), q = problem_.l2 * w + u + clip;
    kept += l1_ * std::fabs(w) - w * clip;
    square += q * q;
  }
  if (problem_.l2 > 0) return kept + square / (2 * problem_.l2);
  return scale * largest <= l1_ * kRounded ? kept : std::numeric_limits<double>::infinity();
}

// What the pass at `here_` says of the gap: as a bound (infinite at l2 = 0), and as an estimate, which shrinks the residuals
// into |u| <= l1 at a cost that is exact for squares only.
void ProxNewton::settle() {
  double largest = 0;
  for (std::int64_t j = 0; j < d_; ++j) {
    slope_[at(j)] = here_.u[at(j)] - (problem_.fit_intercept ? centre_[at(j)] * here_.u[at(d_)] : 0.0);
    const double size = std::fabs(slope_[at(j)]);
    largest = std::isnan(size) ? size : std::max(largest, size);
  }
  const bool within = problem_.l2 > 0 || largest <= l1_ * kFeasible;
  bound_ = within ? gap_of_penalty(1.0, largest) : std::numeric_limits<double>::infinity();
  free_ = bound_;
  if (!(largest <= l1_)) {
    const double scale = l1_ / largest;
    free_ = std::min(bound_, gap_of_penalty(scale, largest) + (1 - scale) * (1 - scale) * std::fabs(here_.data_value));
  }
  offence_ = offence();
}

double ProxNewton::offence() const {
  double most = problem_.fit_intercept ? std::fabs(here_.g[at(d_)]) : 0.0;
  for (std::int64_t j = 0; j < d_; ++j) {
    const double g = here_.g[at(j)], w = here_.w[at(j)];
    most = std::max(most, w == 0 ? std::fabs(g) - l1_ : std::fabs(g + l1_ * sign(w)));
  }
  return most;
}

// step_ goes to the minimiser of the model at here_: the intercept eliminated, and found back at the end.
void ProxNewton::aim() {
  const bool intercept = problem_.fit_intercept;
  double pivot = intercept ? H_[at(d_ * p_ + d_)] : 1.0;
  if (pivot == 0) pivot = 1.0;
  const double* const border = H_.data() + (p_ - 1) * p_;
  // A ridge at the rounding of H: a direction that it shows as flat is not run along for ever.
  const double eps = problem_.compute == Compute::f64 ? kEps : static_cast<double>(std::numeric_limits<float>::epsilon());
  for (std::int64_t i = 0; i < d_; ++i) {
    const double mean = intercept ? border[i] / pivot : 0.0;
    for (std::int64_t j = 0; j < d_; ++j) model_[at(i * d_ + j)] = H_[at(i * p_ + j)] - mean * (intercept ? border[j] : 0.0);
    model_[at(i * d_ + i)] = (model_[at(i * d_ + i)] + problem_.l2) * (1 + 64 * eps);
    head_[at(i)] = here_.g[at(i)] - (intercept ? mean * here_.g[at(d_)] : 0.0);
  }
  const double accuracy = std::max(kModel * offence_, 1e-15 * (l1_ + offence_));
  minimise_on_gram(*problem_.table, model_.data(), d_, head_.data(), here_.w.data(), l1_, accuracy, kRounds, target_.data());
  double before = 0, after = 0;
  for (std::int64_t j = 0; j < d_; ++j) {
    step_[at(j)] = target_[at(j)] - here_.w[at(j)];
    before += std::fabs(here_.w[at(j)]);
    after += std::fabs(here_.w[at(j)] + step_[at(j)]);
  }
  if (intercept) {
    step_[at(d_)] = -here_.g[at(d_)] / pivot;
    for (std::int64_t j = 0; j < d_; ++j) step_[at(d_)] -= border[j] / pivot * step_[at(j)];
  }
  least_ = l1_ * (after - before);
  for (std::int64_t j = 0; j < p_; ++j) least_ += here_.g[at(j)] * step_[at(j)];
  if (std::isnan(least_)) throw std::domain_error("the Hessian holds NaN or infinity: numbers of X are too large to square. Scale the columns of X.");
  t_ = 1.0;
}

ProxRecord ProxNewton::record(const Point& point, bool hessian, bool moved, bool resolved) const {
  return {point.data_value, point.f, point.whole, moved ? bound_ : kNone, moved ? free_ : kNone, 0.0, 1, hessian, moved, resolved};
}

ProxRecord ProxNewton::start() {
  const bool hessian = !has_hessian_;
  if (known_ && !hessian) penalise(here_);
  else evaluate(here_, z_[current_], hessian);
  if (!std::isfinite(here_.whole))
    throw std::domain_error("the objective is infinite at the starting point; start elsewhere, or use w0=None to start at the null model.");
  started_ = true;
  if (reuse_ && problem_.mean_curvature) mean_ = problem_.mean_curvature(z_[current_]);
  settle();
  ProxRecord first = record(here_, hessian, true, true);
  first.passes = known_ && !hessian ? 0 : 1;
  return first;
}

ProxRecord ProxNewton::step() {
  const bool hessian = !reuse_ || wanted_;
  searching_ = true;
  for (std::int64_t j = 0; j < p_; ++j) there_.w[at(j)] = here_.w[at(j)] + t_ * step_[at(j)];
  evaluate(there_, z_[1 - current_], hessian);
  const double noise = rounding_(problem_, rms_, here_.f, z_[current_], there_.w);
  const bool resolved = -least_ * t_ > noise;
  if (!(there_.whole <= here_.whole + (resolved ? kArmijo * t_ * least_ : noise))) {
    searching_ = resolved;
    if (reuse_ && hessian && problem_.mean_curvature) mean_ = problem_.mean_curvature(z_[1 - current_]);
    if (!resolved) return record(here_, hessian, true, false);  // values say nothing any more: stay
    const ProxRecord looked = record(there_, hessian, false, true);
    t_ = std::min(best_step(t_ * least_) * t_, 0.9 * t_);
    return looked;
  }
  searching_ = false;
  if (reuse_) learn(hessian, resolved);
  const double before = offence_;
  std::swap(here_, there_);
  current_ = 1 - current_;
  settle();
  const double left = t_ < 1 ? 1.0 : before > 0 ? offence_ / before : 0.0;
  wanted_ = std::pow(left, 1.0 + static_cast<double>(p_) / kReads) > kLeft;
  return record(here_, hessian, true, resolved);
}

// A part of the step in (0, 1) near the minimum of F along it. `slope` is a bound of F's there, at its start.
double ProxNewton::best_step(double slope) {
  const auto slope_at = [&](double t) {
    double value = problem_.slope(z_[current_], z_[1 - current_], t);
    for (std::int64_t j = 0; j < d_; ++j) {
      const double delta = t_ * step_[at(j)], w = here_.w[at(j)] + t * delta;
      value += delta * (problem_.l2 * w + l1_ * sign(w));
    }
    return std::isnan(value) ? std::numeric_limits<double>::infinity() : value;
  };
  return root_of_slope(slope_at, slope);
}

}  // namespace nag
