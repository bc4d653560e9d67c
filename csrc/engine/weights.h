// Coefficients as the dense kernels want them, and gradients as the caller wants them: scale*x + shift is folded into both
// here, so that X is read as stored.
#pragma once
#include <vector>

#include "engine/aligned.h"
#include "engine/problem.h"

namespace nag {

// w is [k][ld] of T, zero-padded; bias[k] holds the intercept and shift * sum_j w_j.
template <class T>
struct Weights {
  Aligned<T> w;
  std::vector<T> bias;

  Weights(const ProblemView& v, const double* from, std::ptrdiff_t ld)
      : w(static_cast<std::size_t>(v.k * ld)), bias(static_cast<std::size_t>(v.k), T(0)) {
    if (from == nullptr) return;
    for (std::int64_t c = 0; c < v.k; ++c) {
      double sum = 0;
      for (std::int64_t j = 0; j < v.d; ++j) {
        w[static_cast<std::size_t>(c * ld + j)] = static_cast<T>(v.scale * from[j * v.k + c]);
        sum += from[j * v.k + c];
      }
      double b = v.shift * sum;
      if (v.fit_intercept) b += from[v.d * v.k + c];
      bias[static_cast<std::size_t>(c)] = static_cast<T>(b);
    }
  }
};

// g is [k][ld], sums[k] the sums of s*r; the request's gradient is w_rows x k, and result.value is there already.
inline void unfold_gradient(const ProblemView& v, const PassRequest& q, const double* g, std::ptrdiff_t ld, const double* sums,
                            PassResult* result) {
  const double inverse = 1.0 / v.weight_sum;
  if (q.only_finite) {
    double not_finite = result->value * 0.0;  // NaN as soon as one term is not finite
    for (std::int64_t c = 0; c < v.k; ++c) {
      const double shifted = v.shift * sums[c];
      not_finite += shifted * inverse * 0.0;
      for (std::int64_t j = 0; j < v.d; ++j) not_finite += (v.scale * g[c * ld + j] + shifted) * inverse * 0.0;
      if (v.fit_intercept) not_finite += sums[c] * inverse * 0.0;
    }
    result->finite = not_finite == 0.0;
    if (!result->finite) return;
  }
  for (std::int64_t c = 0; c < v.k; ++c) {
    for (std::int64_t j = 0; j < v.d; ++j) q.grad[j * v.k + c] = (v.scale * g[c * ld + j] + v.shift * sums[c]) * inverse;
    if (v.fit_intercept) q.grad[v.d * v.k + c] = sums[c] * inverse;
  }
}

}  // namespace nag
