#include "engine/smooth.h"

#include <chrono>
#include <cmath>
#include <limits>

#include "engine/slope_root.h"

namespace nag {
namespace {

constexpr int kResidualSteps = 16;

}  // namespace

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void add_penalty(const SmoothProblem& problem, SmoothPoint& point) {
  const std::size_t penalised = static_cast<std::size_t>(problem.d * problem.k);
  point.f = point.data_value;
  point.g = point.u;
  double square = 0, product = 0;
  for (std::size_t e = 0; problem.l2 > 0 && e < penalised; ++e) {
    square += point.w[e] * point.w[e];
    point.g[e] += problem.l2 * point.w[e];
  }
  for (std::size_t e = 0; problem.linear && e < point.w.size(); ++e) {
    product += problem.linear[e] * point.w[e];
    point.g[e] += problem.linear[e];
  }
  point.f += 0.5 * problem.l2 * square + product;
}

double Rounding::operator()(const SmoothProblem& problem, const std::vector<double>& rms, double f, const void* z,
                            const std::vector<double>& w) {
  const std::int64_t d = problem.d, k = problem.k;
  if (age_ == 0) residual_ = problem.residual_size(z);
  age_ = (age_ + 1) % kResidualSteps;
  double size = 0;
  for (std::int64_t e = 0; e < d * k; ++e) size += rms[static_cast<std::size_t>(e / k)] * std::fabs(w[static_cast<std::size_t>(e)]);
  for (std::int64_t c = 0; c < k; ++c) {
    double b = problem.fit_intercept ? w[static_cast<std::size_t>(d * k + c)] : 0.0;
    for (std::int64_t i = 0; problem.origin && i < d; ++i) b += problem.origin[i] * w[static_cast<std::size_t>(i * k + c)];
    size += std::fabs(b);
  }
  const double eps = problem.compute == Compute::f64 ? std::numeric_limits<double>::epsilon()
                                                     : static_cast<double>(std::numeric_limits<float>::epsilon());
  return 4 * eps * (std::fabs(f) + residual_ * size);
}

double best_step(const SmoothProblem& problem, const void* z, const void* z_end, const std::vector<double>& w,
                 const std::vector<double>& step, double slope) {
  double linear = 0, square = 0;
  const std::size_t penalised = static_cast<std::size_t>(problem.d * problem.k);
  for (std::size_t e = 0; problem.l2 > 0 && e < penalised; ++e) {
    linear += problem.l2 * w[e] * step[e];
    square += problem.l2 * step[e] * step[e];
  }
  for (std::size_t e = 0; problem.linear && e < step.size(); ++e) linear += problem.linear[e] * step[e];
  const auto slope_at = [&](double t) {
    const double value = problem.slope(z, z_end, t) + linear + t * square;
    return std::isnan(value) ? std::numeric_limits<double>::infinity() : value;
  };
  return root_of_slope(slope_at, slope);
}

}  // namespace nag
