// The best intercept for given margins: the shift of all margins alike, or of each class's, that minimises the data term.
#pragma once
#include <functional>

#include "engine/shifted.h"

namespace nag {

// Where the search gets its numbers. Every one is O(n) on the margins, none a pass.
struct InterceptSource {
  const KernelTable* table = nullptr;
  std::int64_t k = 1;
  double eps = 0.0;        // of the margins' type
  double curvature = 1.0;  // a bound on phi''; may be infinite
  // The data term at margins shifted by b (k numbers), or null: as they are.
  std::function<ShiftedLoss(const double* b)> at;
  // The mean curvature where the margins are, before any shift (k = 1); NaN where there is none.
  std::function<double()> bend;
  // Of the last shift, if targets are class numbers: mean (k) and mean product (k x k, lower triangle) of the probabilities.
  std::function<bool(double* mean, double* square)> probabilities;
  // Where to begin, given the mean residual at the margins as they are: k numbers, of which NaN says that there is no
  // rule. Null: by curvature.
  std::function<void(const double* mean, double* b)> link;
};

struct Intercept {
  std::vector<double> b;      // k numbers
  bool moved = false;         // false: b is zero, and the margins are as they were given
  double given_value = 0.0;   // the data term there
  ShiftedLoss at;             // at the best shift, which was the last looked at
};

// k = 1: secant steps inside a bracket that halves. Classes: a Newton step to begin with, then BFGS. A mean residual at its own
// rounding counts as zero.
Intercept best_intercept(const InterceptSource& source);

// The source for a problem's margins z (n x k), with arrays like it for the shifted ones and for residuals: all outlive it.
InterceptSource intercept_source(const ProblemView& problem, const void* z, void* moved, void* r, double curvature, int n_threads);

// The best intercept of rows whose margins are all zero from their mean residual h: targets have the mean mu(0) - h, mu the
// inverse of the link. A start, not taken on trust; NaN for losses without such a rule.
void link_of(int loss, std::int64_t k, const double* h, double* b);

// Means over rows of p and p p' (lower triangle), p = r, plus one where that is negative; false where a row has no such
// entry, or several. s: weights, or null for ones; total: their sum.
template <class T, class S>
bool class_moments(const T* r, std::int64_t n, std::int64_t k, const S* s, double total, int n_threads, double* mean, double* square);

// (1/S) sum s phi''(z, y) at margins z (k = 1); phi'' of each row is left in `rows`, n of the compute type.
double mean_curvature(const ProblemView& view, const void* z, void* rows, int n_threads);

}  // namespace nag
