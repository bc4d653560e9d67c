#include "engine/lbfgs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "engine/linalg.h"

namespace nag {
namespace {

constexpr std::size_t kPairs = 12;
constexpr double kCurved = 1e-10;  // of <y, y>: a pair of less <s, y> says nothing

}  // namespace

Lbfgs::Lbfgs(const SmoothProblem& problem, LbfgsMetric metric, std::vector<double> v, void* margins0, void* margins1)
    : problem_(problem), metric_(std::move(metric)), d_(problem.d), p_(problem.p()), z_{margins0, margins1} {
  const std::size_t count = static_cast<std::size_t>(p_);
  for (Point* point : {&here_, &there_})
    for (std::vector<double>* numbers : {&point->w, &point->u, &point->g, &point->v, &point->pulled}) numbers->resize(count);
  here_.v = std::move(v);
}

void Lbfgs::know(double data_value, std::vector<double> w, std::vector<double> u) {
  here_.data_value = data_value;
  here_.w = std::move(w);
  here_.u = std::move(u);
  known_ = true;
}

void Lbfgs::remember(std::vector<double> s, std::vector<double> y) {
  if (pairs_.size() == kPairs) pairs_.pop_front();
  pairs_.emplace_back(std::move(s), std::move(y));
}

LbfgsTrace Lbfgs::run(const SmoothLimits& limits) {
  LbfgsTrace trace;
  const double begun = now();
  double lowest = started_ ? here_.f : std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < limits.steps; ++i) {
    LbfgsRecord r = started_ ? step() : start();
    r.seconds = now() - begun;
    trace.records.push_back(r);
    const Point& at = r.moved ? here_ : there_;
    trace.v.insert(trace.v.end(), at.v.begin(), at.v.end());
    trace.g.insert(trace.g.end(), at.pulled.begin(), at.pulled.end());
    trace.w.insert(trace.w.end(), at.w.begin(), at.w.end());
    trace.u.insert(trace.u.end(), at.u.begin(), at.u.end());
    const double target = std::max(limits.tol * std::max(limits.null_value - r.f, 0.0), limits.floor);
    if (!r.moved || !r.resolved || !(r.f < lowest) || !(r.bound > target) || r.seconds > kSeconds) break;
    lowest = r.f;
  }
  return trace;
}

// w of v.
void Lbfgs::place(Point& point) const {
  std::copy_n(point.v.begin(), d_, point.w.begin());
  if (!metric_.L.empty()) triangular(*problem_.table, Triangular::solve, {metric_.L.data()}, d_, point.w.data(), 1, true, 1);
  for (std::size_t i = 0; i < static_cast<std::size_t>(d_); ++i) point.w[i] *= metric_.scale[i];
  if (p_ == d_) return;
  double b = point.v.back() * metric_.scale_b;
  for (std::size_t i = 0; i < static_cast<std::size_t>(d_); ++i) b -= metric_.mean[i] * point.w[i];
  point.w.back() = b;
}

// The gradient in v from that in w.
void Lbfgs::pull_back(Point& point) const {
  for (std::size_t i = 0; i < static_cast<std::size_t>(d_); ++i) {
    const double centred = p_ > d_ ? point.g[i] - metric_.mean[i] * point.g.back() : point.g[i];
    point.pulled[i] = centred * metric_.scale[i];
  }
  if (!metric_.L.empty()) triangular(*problem_.table, Triangular::solve, {metric_.L.data()}, d_, point.pulled.data(), 1, false, 1);
  if (p_ > d_) point.pulled.back() = point.g.back() * metric_.scale_b;
}

void Lbfgs::pass_at(Point& point, void* z) {
  point.data_value = problem_.pass(point.w.data(), point.u.data(), nullptr, z);
  add_penalty(problem_, point);
  pull_back(point);
}

double Lbfgs::bound(const Point& point) const {
  if (!(problem_.l2 > 0)) return std::numeric_limits<double>::quiet_NaN();
  double square = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(d_); ++i) {
    const double q = p_ > d_ ? point.g[i] - metric_.mean[i] * point.g.back() : point.g[i];
    square += q * q;
  }
  return square / (2 * problem_.l2);
}

LbfgsRecord Lbfgs::start() {
  const bool passed = !known_;
  if (known_) {
    add_penalty(problem_, here_);
    pull_back(here_);
  } else {
    place(here_);
    pass_at(here_, z_[current_]);
    if (!std::isfinite(here_.f))
      throw std::domain_error("the objective is infinite at the starting point; start elsewhere, or use w0=None to start at the null model.");
  }
  started_ = true;
  return {here_.data_value, here_.f, bound(here_), 0.0, passed, true, true};
}

// The next step and its slope.
void Lbfgs::direction() {
  t_ = 1.0;
  if (!proposed_.empty()) {
    step_ = std::move(proposed_);
    proposed_.clear();
    slope_ = dot(here_.pulled, step_);
    if (slope_ < 0) return;
  }
  std::vector<const double*> s, y;
  for (const Pair& pair : pairs_) {
    s.push_back(pair.first.data());
    y.push_back(pair.second.data());
  }
  step_ = here_.pulled;
  two_loops(s, y, p_, step_.data());
  for (double& x : step_) x = -x;
  slope_ = dot(here_.pulled, step_);
  if (slope_ < 0) return;
  pairs_.clear();
  for (std::size_t e = 0; e < step_.size(); ++e) step_[e] = -here_.pulled[e];
  slope_ = -dot(here_.pulled, here_.pulled);
}

LbfgsRecord Lbfgs::step() {
  if (!searching_) direction();
  searching_ = true;
  for (std::size_t e = 0; e < step_.size(); ++e) there_.v[e] = here_.v[e] + t_ * step_[e];
  place(there_);
  pass_at(there_, z_[1 - current_]);
  const double slope = slope_ * t_, noise = rounding_(problem_, metric_.rms, here_.f, z_[current_], there_.w);
  const bool resolved = -slope > noise;
  if (!(there_.f <= here_.f + (resolved ? kArmijo * slope : noise))) {
    const LbfgsRecord looked{there_.data_value, there_.f, std::numeric_limits<double>::quiet_NaN(), 0.0, true, false, true};
    std::vector<double> segment(there_.w.size());
    for (std::size_t e = 0; e < segment.size(); ++e) segment[e] = there_.w[e] - here_.w[e];
    t_ = std::min(best_step(problem_, z_[current_], z_[1 - current_], here_.w, segment, slope) * t_, 0.9 * t_);
    return looked;
  }
  searching_ = false;
  std::vector<double> s(step_.size()), y(step_.size());
  for (std::size_t e = 0; e < s.size(); ++e) {
    s[e] = there_.v[e] - here_.v[e];
    y[e] = there_.pulled[e] - here_.pulled[e];
  }
  const double size = dot(y, y);
  if (size > 0 && dot(s, y) > kCurved * size) remember(std::move(s), std::move(y));
  std::swap(here_, there_);
  current_ = 1 - current_;
  return {here_.data_value, here_.f, bound(here_), 0.0, true, true, resolved};
}

}  // namespace nag
