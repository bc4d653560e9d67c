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
constexpr std::int64_t kNarrowColumns = 24;  // from which on a product in float32 and a correction are faster than one in float64
constexpr double kNarrowLeast = 1e-5;        // a least pivot that float32's rounding leaves two digits of, or more
constexpr double kMoved = 1e-4;              // whose square is a correction's error: eight digits

template <class T>
double mean_of_head(const ProblemView& problem) {
  const T* const y = static_cast<const T*>(problem.y);
  const std::int64_t count = std::min(kHead, problem.n);
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(y[i]);
  return sum / static_cast<double>(count);
}

// The same problem read in float32: half the time of a product in float64, and nearly all of it from some columns on.
struct Narrow {
  ProblemView view;
  std::vector<float> y, s;
  explicit Narrow(const ProblemView& problem) : view(problem), y(copy(problem.y)), s(copy(problem.s)) {
    view.compute = Compute::f32;
    view.y = y.data();
    if (problem.s != nullptr) view.s = s.data();
  }
  std::vector<float> copy(const void* of) const {
    const double* const from = static_cast<const double*>(of);
    std::vector<float> to(from == nullptr ? 0 : static_cast<std::size_t>(view.n));
    std::transform(from, from + to.size(), to.begin(), [](double x) { return static_cast<float>(x); });
    return to;
  }
};

class NormalEquations {
 public:
  NormalEquations(const SmoothProblem& terms, double* w)
      : terms_(terms), w_(w), p_(static_cast<std::size_t>(terms.p())), H_(p_ * p_), g_(p_), step_(p_), factor_(terms) {}

  // By one product in the view's arithmetic. False where that is not to be trusted, or its least pivot is below `least`.
  bool solve(const ProblemView& view, double least) {
    SecondRequest request;
    request.targets = true;
    request.origin = !terms_.fit_intercept ? 0.0 : view.compute == Compute::f64 ? mean_of_head<double>(view) : mean_of_head<float>(view);
    request.out = H_.data();
    request.grad = g_.data();
    request.n_threads = terms_.n_threads;
    request.interrupted = terms_.interrupted;
    const SecondResult read = run_second(view, request);
    if (read.interrupted) throw SmoothInterrupted{};
    if (!read.finite || !std::all_of(H_.begin(), H_.end(), [](double x) { return std::isfinite(x); })) return false;
    const std::size_t d = static_cast<std::size_t>(terms_.d);
    for (std::size_t j = 0; j < d; ++j) {
      double& diagonal = H_[j * p_ + j];
      const double mean = terms_.fit_intercept ? H_[d * p_ + j] : 0.0, square = mean * mean;
      if (!(square <= kFar * (diagonal - square))) return false;
      diagonal += terms_.l2;
      if (!(diagonal > 0)) return false;
    }
    factor_.build(H_.data(), 0.0);
    if (factor_.ridge() > 0 || !(factor_.least() > least)) return false;
    factor_.solve(g_.data(), w_);
    if (terms_.fit_intercept) w_[d] += request.origin;
    return true;
  }

  double least() const { return factor_.least(); }

  // Takes the residuals' step, in a read of X; returns its size in parts of w's, each coefficient by its column's size. The
  // intercept, which may be far larger than all that depends on X, has a part in the step's alone.
  double correct() {
    terms_.pass(w_, g_.data(), nullptr, nullptr);
    for (std::size_t j = 0; j < static_cast<std::size_t>(terms_.d); ++j) g_[j] += terms_.l2 * w_[j];
    factor_.solve(g_.data(), step_.data());
    double moved = 0, size = 0;
    for (std::size_t j = 0; j < p_; ++j) {
      const double scale = H_[j * p_ + j];
      w_[j] -= step_[j];
      moved += scale * step_[j] * step_[j];
      if (j < static_cast<std::size_t>(terms_.d)) size += scale * w_[j] * w_[j];
    }
    return moved == 0 ? 0.0 : std::sqrt(moved / size);
  }

 private:
  const SmoothProblem& terms_;
  double* const w_;
  const std::size_t p_;
  std::vector<double> H_, g_, step_;
  NewtonFactor factor_;
};

}  // namespace

bool least_squares(const ProblemView& problem, const SmoothProblem& terms, double correct, bool narrow, double* w) {
  NormalEquations equations(terms, w);
  const bool fits = problem.storage == Storage::f32 && problem.compute == Compute::f64 && !problem.sparse && problem.offset == nullptr && problem.p == nullptr;
  if (narrow && fits && terms.p() >= kNarrowColumns && equations.solve(Narrow(problem).view, kNarrowLeast)) {
    // A correction leaves of the error about what the product was off by, which is what it has just moved w by.
    const double moved = equations.correct();
    if (moved <= kMoved || equations.correct() * moved <= kMoved * kMoved) return true;
  }
  if (!equations.solve(problem, kCollinear)) return false;
  if (equations.least() < correct) equations.correct();
  return true;
}

}  // namespace nag
