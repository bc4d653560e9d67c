// A quadratic plus l1, perhaps in a box, minimised coordinate by coordinate: on a small Gram matrix, or on columns of X where that matrix
// would be larger than the columns. float64; the bits depend on nothing but the arguments.
#pragma once
#include <cstdint>
#include <functional>

namespace nag {

// Columns of X, p of length n: dense, one after the other, or (rows given) their entries by row number.
struct ColumnsView {
  std::int64_t n = 0, p = 0;
  const double* values = nullptr;
  const std::int32_t* rows = nullptr;    // of each value; null where the columns are dense
  const std::int64_t* starts = nullptr;  // p + 1 of them
};

struct QuadraticL1 {
  double l1 = 0, l2 = 0;
  bool intercept = false;   // a coefficient b of a column of ones, free: it is minimised out, which centres the columns
  double slope_b = 0;       // the gradient in b at w0
  const double* lower = nullptr;  // p of them, what coefficients are bounded by from below; null for nothing
  const double* upper = nullptr;  // and from above
  double accuracy = 0;      // largest violation of the optimality conditions to end with
  std::int64_t rounds = 0;  // at most
};

// min over w in the box of <g, w - w0> + (w - w0)'H(w - w0)/2 + l1 |w|, H = A diag(v) A' + l2 I (A's rows are the columns; the l2
// term of the value at w0 is in g). w goes from w0 to the solution, b to what the intercept changes by, t (n) becomes
// A'(w - w0) + b. One thread. Returns the violation that is left, or -1 when interrupted.
double minimise_on_columns(const ColumnsView& A, const double* v, const double* g, const QuadraticL1& how, double* w, double* b, double* t,
                           const std::function<bool()>& interrupted);

// <column, r> for each column.
void column_products(const ColumnsView& A, const double* r, double* products, int n_threads);

// t += A' c, the columns with c = 0 left out. One thread.
void add_columns(const ColumnsView& A, const double* c, double* t);

// Sweeps of coordinate descent for <q, .> + (.)'C(.)/2 + l1 |w| within lower <= w <= upper (null for no bound): w and the
// gradient q are updated in place. One thread. Returns the largest violation that the last sweep met.
double sweep_on_gram(const double* C, std::int64_t p, double l1, const double* lower, const double* upper, double accuracy, std::int64_t sweeps,
                     double* w, double* q);

}  // namespace nag
