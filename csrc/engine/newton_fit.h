// A whole fit by Newton's method, or under l1 by proximal Newton steps, in one call: the null model, the iteration, and the
// proof of the gap.
#pragma once
#include "engine/certificate.h"
#include "engine/newton.h"
#include "engine/prox_newton.h"

namespace nag {

struct NewtonFitRequest {
  double l1 = 0.0;
  bool reuse = false;            // under l1, as `ProxNewton` has it
  std::int64_t steps = 1;        // passes at most, but for the proofs
  double tol = 0.0, rounding = 0.0;  // the gap to reach is tol (null value - F), but not less than `rounding` times the null value
  double curvature = 1.0;        // bounds phi''
};

struct NewtonFit {
  double null_value = 0.0;       // F at w = 0 with the best intercept
  std::vector<double> null_b;    // that intercept, k numbers
  // A pass: F there, what it proves and what it says of the gap, when it ended, and what it costs.
  struct Pass { double value, bound, free, seconds; std::int64_t cost; bool moved, resolved; };
  std::vector<Pass> passes;      // from the null model
  std::vector<double> w;         // the best point
  // Where passes' bounds were estimates, proofs were tried after so many of them.
  struct Proof { std::size_t passes; double value, gap; };
  std::vector<Proof> proofs;
  bool reached = false;          // whether the gap is within reach, with a proof
};

// Float64 arithmetic, no offset, a penalty, and `terms` the problem's own, with l2. The iteration ends where the
// gap is proven, or rounding has hidden what steps do for a while.
NewtonFit newton_fit(const ProblemView& problem, const SmoothProblem& terms, const NewtonFitRequest& request);

}  // namespace nag
