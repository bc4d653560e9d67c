#include "engine/least_squares.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/gram.h"
#include "engine/newton.h"

namespace nag {
namespace {

constexpr double kCollinear = 1e-10;  // a least pivot below which no digit of the solution is safe
constexpr double kFar = 1e4;          // mean^2 over variance up to which sums about zero keep twelve digits
constexpr std::int64_t kHead = 256;   // targets whose mean is near all of them

template <class T>
double mean_of_head(const ProblemView& problem) {
  const T* const y = static_cast<const T*>(problem.y);
  const std::int64_t count = std::min(kHead, problem.n);
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(y[i]);
  return sum / static_cast<double>(count);
}

}  // namespace

bool least_squares(const ProblemView& problem, const SmoothProblem& terms, double correct, double* w) {
  const std::int64_t d = terms.d, p = terms.p();
  std::vector<double> H(static_cast<std::size_t>(p * p)), g(static_cast<std::size_t>(p)), step(g.size());
  SecondRequest request;
  request.targets = true;
  if (terms.fit_intercept) request.origin = problem.compute == Compute::f64 ? mean_of_head<double>(problem) : mean_of_head<float>(problem);
  request.out = H.data();
  request.grad = g.data();
  request.n_threads = terms.n_threads;
  request.interrupted = terms.interrupted;
  const SecondResult read = run_second(problem, request);
  if (read.interrupted) throw SmoothInterrupted{};
  if (!read.finite || !std::all_of(H.begin(), H.end(), [](double x) { return std::isfinite(x); })) return false;
  for (std::int64_t j = 0; j < d; ++j) {
    double& diagonal = H[static_cast<std::size_t>(j * p + j)];
    const double mean = terms.fit_intercept ? H[static_cast<std::size_t>(d * p + j)] : 0.0, square = mean * mean;
    if (!(square <= kFar * (diagonal - square))) return false;
    diagonal += terms.l2;
    if (!(diagonal > 0)) return false;
  }
  NewtonFactor factor(terms);
  factor.build(H.data(), 0.0);
  if (factor.ridge() > 0 || !(factor.least() > kCollinear)) return false;
  factor.solve(g.data(), w);
  if (terms.fit_intercept) w[d] += request.origin;
  if (!(factor.least() < correct)) return true;
  terms.pass(w, g.data(), nullptr, nullptr);
  for (std::int64_t j = 0; j < d; ++j) g[static_cast<std::size_t>(j)] += terms.l2 * w[j];
  factor.solve(g.data(), step.data());
  for (std::int64_t j = 0; j < p; ++j) w[j] -= step[static_cast<std::size_t>(j)];
  return true;
}

}  // namespace nag
