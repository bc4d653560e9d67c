// The loss of margins that are all shifted alike: what a search for the best intercept asks for.
#pragma once
#include <vector>

#include "engine/problem.h"

namespace nag {

struct ShiftedLoss {
  double value = 0.0;              // (1/S) sum s phi(z + b)
  std::vector<double> mean, size;  // of the k residuals: (1/S) sum s r and (1/S) sum s |r|
};

// At margins z + b, b k numbers or null for zero. moved gets those margins where it is not null, r the residuals. O(n).
ShiftedLoss shifted_loss(const ProblemView& problem, const void* z, const double* b, void* moved, void* r, int n_threads);

}  // namespace nag
