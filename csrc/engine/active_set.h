// A quadratic plus l1 on a small Gram matrix by exchanging active sets: each set is one linear system.
#pragma once
#include <cstdint>

#include "kernels/table.h"

namespace nag {

// min over v of <g, v - w> + (v - w)'C(v - w)/2 + l1 |v|, v >= 0 if `positive`, C p x p in C order, symmetric. From the
// support of w and its signs: wrong signs leave, then all that offend by more than `accuracy` enter, `rounds` times at most.
// Whether it settled; v is written if it did. One thread; the bits depend on nothing but the arguments.
bool settle_on_gram(const KernelTable& table, const double* C, std::int64_t p, const double* g, const double* w, double l1, bool positive,
                    double accuracy, int rounds, double* v);

// The same from w, whose signs stand: the coefficients that are not zero go to the solution of their linear system, or as far as
// none of them changes sign. w and the model's gradient q there are updated in place, unless rounding would lead uphill.
void signed_step(const KernelTable& table, const double* C, std::int64_t p, double l1, double* w, double* q);

// The same until no violation of the optimality conditions is larger than `accuracy`, or for `rounds` of exchange, coordinate
// descent and a signed step, all without bounds. v is written, and is not finite where C or g is not.
void minimise_on_gram(const KernelTable& table, const double* C, std::int64_t p, const double* g, const double* w, double l1, double accuracy,
                      int rounds, double* v);

}  // namespace nag
