// One data set with one loss, validated and pointed at, and the passes over it that solvers are made of.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/table.h"

namespace nag {

class LazyColumnOrder;

// Everything a pass reads. The vectors y, s, offset, p are of the compute type; X is as stored. Strides are in bytes.
struct ProblemView {
  const KernelTable* table = nullptr;
  int loss = 0;
  Storage storage = Storage::f64;
  Compute compute = Compute::f64;
  std::int64_t n = 0, d = 0, k = 1;
  bool fit_intercept = false;
  double delta = 1.0, scale = 1.0, shift = 0.0, weight_sum = 0.0;

  const void* X = nullptr;
  std::ptrdiff_t row_stride = 0, col_stride = 0;

  bool sparse = false, wide_index = false;
  const void* data = nullptr;
  const void* indices = nullptr;
  const std::int64_t* indptr = nullptr;
  std::shared_ptr<LazyColumnOrder> order;  // or null: sparse passes keep here what they learn of X's columns

  const void* y = nullptr;
  const void* p = nullptr;
  const void* s = nullptr;
  const void* offset = nullptr;

  std::int64_t w_rows() const { return d + (fit_intercept ? 1 : 0); }
};

// What one call asks of a pass; null pointers are not wanted. z, r and v are n x k in C order, of the compute type;
// w and grad are w_rows x k in C order, double.
struct PassRequest {
  enum class Kind { value_and_grad, margins, rmatvec, hessian_vector } kind = Kind::value_and_grad;
  const double* w = nullptr;
  // rmatvec's vector; hessian_vector's n weights, or with `coupled` its n x k softmax probabilities. w is the direction there.
  const void* v = nullptr;
  bool coupled = false;
  double* grad = nullptr;
  bool only_finite = false;  // leave grad as it is where the value or the gradient is not finite
  void* z = nullptr;
  void* r = nullptr;
  int n_threads = 1;
  // Called now and then on the calling thread; true ends the pass early.
  std::function<bool()> interrupted;
};

struct PassResult {
  double value = 0.0;  // (1/S) sum s_i phi_i
  bool finite = true;  // value and gradient, where only_finite asks
  bool interrupted = false;
};

PassResult run_pass(const ProblemView& problem, const PassRequest& request);

// The kernel of margins of CSR whose indices are so wide: by loads where w stays in the first-level cache or nearly so, if they
// are faster there.
constexpr std::int64_t kNearWeights = 64 * 1024;  // bytes
template <class T>
typename RowKernels<T>::CsrDot csr_dot_of(const ProblemView& v, bool wide_index) {
  const RowKernels<T>& kernels = rows_of<T>(*v.table);
  const auto& dots = v.d * static_cast<std::int64_t>(sizeof(T)) <= kNearWeights ? kernels.csr_dot_near : kernels.csr_dot;
  return dots[static_cast<int>(v.storage)][wide_index];
}

// (1/S) sum s phi(z, y) from margins alone, and the residuals when wanted: O(n), X stays where it is.
double loss_from_margins(const ProblemView& problem, const void* z, void* r, int n_threads);

// The derivative of that in t along z + t (z_end - z), at t: O(n), and nothing of the size of the margins is made.
double slope_along(const ProblemView& problem, const void* z, const void* z_end, double t, int n_threads);

// (1/S) sum s |phi'(z, y)| from margins alone (k = 1).
double residual_size(const ProblemView& problem, const void* z, int n_threads);

// phi''(z, y) from margins alone (k = 1).
void curvature_from_margins(const ProblemView& problem, const void* z, void* h, int n_threads);

// The first non-finite element of X in row order. False when there is none.
bool find_non_finite(const ProblemView& problem, std::int64_t* row, std::int64_t* col);

// Sum of s phi over rows z (n x k, C order) of one leaf at a time in a fixed tree.
constexpr std::int64_t kMarginLeaf = 4096;

}  // namespace nag
