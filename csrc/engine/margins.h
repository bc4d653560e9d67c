// One block of margins through the problem's loss: what the dense and the sparse pass and the O(n) map share.
#pragma once
#include "engine/aligned.h"
#include "engine/problem.h"

namespace nag {

// Typed views of the problem's vectors from a row on.
template <class T>
struct BlockVectors {
  const ProblemView& problem;
  const RowKernels<T>& kernels;
  const T *y, *p, *s, *offset;

  explicit BlockVectors(const ProblemView& v)
      : problem(v), kernels(rows_of<T>(*v.table)), y(static_cast<const T*>(v.y)), p(static_cast<const T*>(v.p)),
        s(static_cast<const T*>(v.s)), offset(static_cast<const T*>(v.offset)) {}

  bool is_softmax() const { return kernels.loss[problem.loss] == nullptr; }

  // zdot is [k][ld], zero-padded; sr gets [k][ld]. z and r are the whole n x k arrays, or null.
  // With h, and k = 1, also s*phi''.
  double apply(std::int64_t row, std::ptrdiff_t rows, const T* zdot, std::ptrdiff_t ld, const T* bias, bool add_offset,
               T* z, T* r, T* sr, T* h = nullptr) const {
    const std::int64_t k = problem.k;
    if (is_softmax()) {
      SoftmaxBlock<T> b{rows, static_cast<std::ptrdiff_t>(k), ld, zdot, bias,
                        add_offset && offset ? offset + row * k : nullptr, y ? y + row : nullptr, p ? p + row * k : nullptr,
                        s ? s + row : nullptr, z ? z + row * k : nullptr, r ? r + row * k : nullptr, sr};
      return kernels.softmax(b);
    }
    MarginBlock<T> b{rows, zdot, bias[0], add_offset && offset ? offset + row : nullptr, y + row, s ? s + row : nullptr,
                     static_cast<T>(problem.delta), z ? z + row : nullptr, r ? r + row : nullptr, sr, h};
    return (h ? kernels.second : kernels.loss)[problem.loss](b);
  }

  // What a pass with a gradient makes of margins: s*r, or the answer of a Hessian to a direction. Returns the value.
  double respond(const PassRequest& q, std::int64_t row, std::ptrdiff_t rows, const T* zdot, std::ptrdiff_t ld, const T* bias,
                 T* z, T* r, T* sr) const {
    if (q.kind != PassRequest::Kind::hessian_vector) return apply(row, rows, zdot, ld, bias, true, z, r, sr);
    const std::int64_t k = problem.k;
    const T* const v = static_cast<const T*>(q.v);
    for (std::ptrdiff_t i = 0; i < rows; ++i) {
      const T weight = s ? s[row + i] : T(1), *const curve = v + (row + i) * (q.coupled ? k : 1);
      T mean = 0;  // sum_c p_c z_c: diag(p) - p p'
      for (std::int64_t c = 0; q.coupled && c < k; ++c) mean += curve[c] * (zdot[c * ld + i] + bias[c]);
      for (std::int64_t c = 0; c < k; ++c)
        sr[c * ld + i] = weight * ((q.coupled ? curve[c] : curve[0]) * (zdot[c * ld + i] + bias[c] - mean));
    }
    return 0.0;
  }

  // Margins alone: z = zdot + bias + offset.
  void margins(std::int64_t row, std::ptrdiff_t rows, const T* zdot, std::ptrdiff_t ld, const T* bias, T* z) const {
    const std::int64_t k = problem.k;
    for (std::ptrdiff_t i = 0; i < rows; ++i)
      for (std::int64_t c = 0; c < k; ++c) {
        T m = zdot[c * ld + i] + bias[c];
        if (offset) m += offset[(row + i) * k + c];
        z[(row + i) * k + c] = m;
      }
  }

  // sr = s*v, class-major.
  void weigh(std::int64_t row, std::ptrdiff_t rows, const T* v, std::ptrdiff_t ld, T* sr) const {
    const std::int64_t k = problem.k;
    for (std::ptrdiff_t i = 0; i < rows; ++i)
      for (std::int64_t c = 0; c < k; ++c) {
        const T x = v[(row + i) * k + c];
        sr[c * ld + i] = s ? x * s[row + i] : x;
      }
  }
};

// Asks `interrupted` at most ten times a second, and only on the calling thread.
class InterruptCheck {
 public:
  explicit InterruptCheck(const std::function<bool()>& ask) : ask_(ask) {}
  bool due(int thread);
  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

 private:
  const std::function<bool()>& ask_;
  std::atomic<bool> stop_{false};
  std::int64_t last_ = 0;
};

PassResult run_dense(const ProblemView& problem, const PassRequest& request);
// C-ordered rows so long that a few of them, w and g overflow a core's cache: threads share the columns (wide.cc).
bool is_wide(const ProblemView& problem);
PassResult run_wide(const ProblemView& problem, const PassRequest& request);
PassResult run_sparse(const ProblemView& problem, const PassRequest& request);

}  // namespace nag
