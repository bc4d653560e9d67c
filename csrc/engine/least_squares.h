// Least squares of few columns with an l2 penalty: the normal equations, and a correction where rounding asks for one.
#pragma once
#include "engine/smooth.h"

namespace nag {

// Minimises (1/2S) sum s (x'w + b - y)^2 + (l2/2) |w|^2, with `terms.l2`; w holds p numbers, b last. One read of X; a second,
// in which the residuals correct w, where the least pivot of the scaled matrix, about its reciprocal condition, is below
// `correct`. Where `narrow`, X in float32 is first multiplied in float32, if it has columns enough, and w corrected to some eight
// digits; it is read again in full where that does not do. False where the normal equations are not to be trusted: columns that are nearly collinear, constant or far from
// zero for their spread, NaN, or numbers whose squares overflow. `terms` are the problem's own, whose loss is the squared one.
bool least_squares(const ProblemView& problem, const SmoothProblem& terms, double correct, bool narrow, double* w);

}  // namespace nag
