// Probabilities sum to one, hence blocks to zero along each row: those off the diagonal give those on it, without
// cancellation. Memory beyond H: probabilities (n x k), a product of two, one Gram matrix.
#include "engine/class_hessian.h"

#include <algorithm>
#include <cmath>

#include "engine/aligned.h"
#include "engine/threads.h"

namespace nag {
namespace {

constexpr std::int64_t kRows = 1024;  // of a task: O(n) work

// P is n x k: softmax of each row of z, or, where targets are class numbers, what P holds already, the residuals, plus
// one at the row's class.
template <class T>
void probabilities(const T* z, bool from_residuals, std::int64_t n, std::int64_t k, T* P, int n_threads) {
  const std::int64_t tasks = (n + kRows - 1) / kRows;
  std::atomic<std::int64_t> next{0};
  parallel_run(static_cast<int>(std::min<std::int64_t>(n_threads, tasks)), [&](int, int) {
    for (std::int64_t task; (task = next++) < tasks;) {
      const std::int64_t end = std::min(n, (task + 1) * kRows);
      if (from_residuals) {
        for (std::int64_t e = task * kRows * k; e < end * k; ++e) P[e] += P[e] < 0 ? T(1) : T(0);
        continue;
      }
      for (std::int64_t i = task * kRows; i < end; ++i) {
        const T* const from = z + i * k;
        T* const to = P + i * k;
        const T most = *std::max_element(from, from + k);
        T sum = 0;
        for (std::int64_t c = 0; c < k; ++c) sum += to[c] = std::exp(from[c] - most);
        for (std::int64_t c = 0; c < k; ++c) to[c] /= sum;
      }
    }
  });
}

template <class T>
SecondResult typed(const ProblemView& problem, const SecondRequest& request) {
  const std::int64_t n = problem.n, k = problem.k, p = problem.w_rows();
  PassRequest pass;
  pass.w = request.w;
  pass.grad = request.grad;
  pass.z = request.z;
  pass.n_threads = request.n_threads;
  pass.interrupted = request.interrupted;
  const bool numbers = problem.y != nullptr;
  Aligned<T> P(static_cast<std::size_t>(k * n), Unset{}), product(static_cast<std::size_t>(n), Unset{});
  pass.r = numbers ? P.data() : nullptr;
  const PassResult first = run_pass(problem, pass);
  SecondResult result;
  result.value = first.value;
  result.interrupted = first.interrupted;
  std::fill_n(request.out, k * p * k * p, 0.0);
  if (!first.interrupted && !std::isfinite(first.value)) {
    std::int64_t row = 0, column = 0;
    result.finite = !find_non_finite(problem, &row, &column);
  }
  if (first.interrupted || !std::isfinite(first.value)) return result;
  probabilities(static_cast<const T*>(request.z), numbers, n, k, P.data(), request.n_threads);
  Aligned<double> G(static_cast<std::size_t>(p * p));
  SecondRequest gram;
  gram.v = product.data();
  gram.out = G.data();
  gram.n_threads = request.n_threads;
  gram.interrupted = request.interrupted;
  ProblemView flat = problem;
  flat.k = 1;
  for (std::int64_t a = 1; a < k; ++a)
    for (std::int64_t b = 0; b < a; ++b) {
      T* const to = product.data();
      for (std::int64_t i = 0; i < n; ++i) to[i] = P[static_cast<std::size_t>(i * k + a)] * P[static_cast<std::size_t>(i * k + b)];
      const SecondResult found = run_second(flat, gram);
      result.interrupted = found.interrupted;
      result.finite = found.finite;
      if (found.interrupted || !found.finite) return result;
      for (std::int64_t i = 0; i < p; ++i) {
        const double* const from = G.data() + i * p;
        double *const aa = request.out + ((a * p + i) * k + a) * p, *const ab = request.out + ((a * p + i) * k + b) * p,
               *const ba = request.out + ((b * p + i) * k + a) * p, *const bb = request.out + ((b * p + i) * k + b) * p;
        for (std::int64_t j = 0; j < p; ++j) {
          aa[j] += from[j];
          bb[j] += from[j];
          ab[j] = ba[j] = -from[j];
        }
      }
    }
  return result;
}

}  // namespace

SecondResult class_hessian(const ProblemView& problem, const SecondRequest& request) {
  return problem.compute == Compute::f64 ? typed<double>(problem, request) : typed<float>(problem, request);
}

}  // namespace nag
