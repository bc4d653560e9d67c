// A whole fit by Newton's method in one call: the null model, the iteration, and the proof of the gap.
#pragma once
#include "engine/certificate.h"
#include "engine/newton.h"

namespace nag {

struct NewtonFit {
  double null_value = 0.0;       // F at w = 0 with the best intercept
  std::vector<double> null_b;    // that intercept, k numbers
  std::vector<NewtonRecord> records;  // from the null model
  std::vector<double> w;         // the best point
  // With an intercept the steps' bounds are estimates: proofs were tried after so many records.
  struct Proof { std::size_t records; double value, gap; };
  std::vector<Proof> proofs;
  bool reached = false;          // whether the gap is within reach, with a proof
};

// Float64 arithmetic, no offset, `terms.l2` > 0 and `terms` the problem's own. The iteration ends where
// rounding hides what a step does, or the gap is proven; the gap to reach is tol (null value - F), but not less than `rounding` times the null value. `curvature` bounds phi''.
NewtonFit newton_fit(const ProblemView& problem, const SmoothProblem& terms, std::int64_t steps, double tol, double rounding, double curvature);

}  // namespace nag
