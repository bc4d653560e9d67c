// Small dense algebra in float64: what a Newton step needs of a d x d matrix. The same bits for every number of threads.
#pragma once
#include <functional>
#include <vector>

#include "kernels/table.h"

namespace nag {

// The lower triangle of A (d x d, C order) becomes L with A = L L', the strict upper triangle zeros. Returns the index of
// the first pivot that is no positive finite number, or -1; A is unspecified after a bad one. -2 when interrupted.
std::int64_t cholesky(const KernelTable& table, double* A, std::int64_t d, int n_threads, const std::function<bool()>& interrupted);

// The lower triangle of K (d x d, C order) becomes scale_i scale_j (factor M_ij - mean_i mean_j) off its diagonal, which becomes
// ones; M has rows of ldm numbers, null means are zeros.
void equilibrate(const double* M, std::int64_t ldm, double factor, const double* mean, const double* scale, double* K, std::int64_t d,
                 int n_threads);

enum class Triangular { solve, product };

// B (d x m, C order) becomes the solution of L X = B, or the product L B; with L' if `transposed`. L is one matrix (d x d,
// C order, of which the lower triangle is read), or one for each of B's columns.
void triangular(const KernelTable& table, Triangular what, const std::vector<const double*>& L, std::int64_t d, double* B, std::int64_t m,
                bool transposed, int n_threads);

// q (p numbers) becomes H q, H the inverse Hessian that m pairs of steps s and changes of gradient y describe, oldest first,
// with H_0 = <s, y>/<y, y> I of the last pair. Sums run in one order.
void two_loops(const std::vector<const double*>& s, const std::vector<const double*>& y, std::int64_t p, double* q);

// The symmetric B (p x p, positive semidefinite) becomes the matrix next to it that maps the step s to the change of gradient y
// (BFGS), and stays definite. Whether it did: not where s or y shows no curvature.
bool secant_update(double* B, std::int64_t p, const double* s, const double* y);

}  // namespace nag
