// Weighted products X' diag(c) X: Gram matrices and Hessians, in one trip of X through memory.
#pragma once
#include "engine/problem.h"

namespace nag {

// What one call asks for. Vectors are of the compute type, n of them; null pointers are not wanted.
//   gram:     out = (1/S) sum s v x x'                       over all rows, or the `count` rows named by `rows`
//   moments:  the same with `targets`, and with value = (1/S) sum s v (y - origin)^2, grad = (1/S) sum s v (y - origin) x
//   hessian:  out = (1/S) sum s phi'' x x', with value, gradient, margins z and residuals r at w (k = 1)
// x holds a last entry 1 where the problem has an intercept. out is w_rows x w_rows in C order, both triangles.
struct SecondRequest {
  const void* v = nullptr;
  const std::int64_t* rows = nullptr;
  std::int64_t count = 0;
  const void* factors = nullptr;  // by which each of those counts, of the compute type; null: one
  const double* w = nullptr;  // null: gram or moments
  bool targets = false;
  double origin = 0.0;
  bool rounded = false;  // gram: two digits are enough, so sqrt(s v) x may be rounded to bfloat16 (engine/gram_tiles.h)
  double* out = nullptr;
  double* grad = nullptr;
  void* z = nullptr;
  void* r = nullptr;
  int n_threads = 1;
  std::function<bool()> interrupted;
};

struct SecondResult {
  double value = 0.0;
  bool interrupted = false;
  bool finite = true;  // false where X holds NaN or infinity and a result shows it: nothing is written then
};

// Whether CSR rows hold so few entries that products of entries cost less than products of whole vectors.
bool has_few_entries(const ProblemView& problem, const SecondRequest& request);
SecondResult run_second_sparse(const ProblemView& problem, const SecondRequest& request);
SecondResult run_second(const ProblemView& problem, const SecondRequest& request);

}  // namespace nag
