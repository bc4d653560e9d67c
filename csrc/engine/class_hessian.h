// The Hessian of softmax from Gram matrices, one for each two classes.
#pragma once
#include "engine/gram.h"

namespace nag {

// Value, gradient (w_rows x k), margins z (n x k, of the compute type; wanted) and the Hessian of the data term at w, as
// [a][i][b][j], a and b classes, i and j rows of w: (1/S) sum s (delta_ab p_a - p_a p_b) x x'. k (k - 1)/2 + 1 passes.
// Of the request: w, out, grad, z, n_threads and interrupted.
SecondResult class_hessian(const ProblemView& problem, const SecondRequest& request);

}  // namespace nag
