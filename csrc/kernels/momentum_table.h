// The update's part of THE table: the plain structs that cross between the engine and the
// per-instruction-set kernels. Nothing here has a body, so no instruction set can leak from it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nag {

enum class UpdateNumber : std::uint8_t { f64, f32, bf16, f16 };

enum class UpdateConvention : std::uint8_t {
  torch,  // lr outside the buffer, one fma where torch has one
  keras,  // lr inside the buffer, every operation rounded on its own
  keras_torch,  // the same on keras' torch backend, whose foreach operations are an fma each
  keras_jax,  // the same under jax.jit, where XLA contracts a product and the sum behind it
};

enum class UpdateForm : std::uint8_t { plain, heavy_ball, nesterov };  // plain: no buffer at all

enum class UpdateDecay : std::uint8_t { none, coupled, decoupled };

// The scalars of one call, already rounded to the compute type T (docs/maths.md, Updates).
template <class T>
struct UpdateRule {
  T lr;
  T momentum;   // of the buffer
  T lookahead;  // of the step that reads the buffer
  T gain;       // 1 - dampening
  T decay;      // lambda
  T keep;       // 1 - lr*lambda, rounded once: torch's decoupled decay
  T ema_keep;   // kappa
  T ema_mix;    // 1 - kappa
  T unscale;    // gradients are divided by it
  T clip;       // and multiplied by it; it carries the sign of `maximize`
  std::uint64_t seed;  // 0: round to nearest even
  UpdateConvention convention;
  UpdateForm form;
  UpdateDecay decay_kind;
  bool scaled;    // unscale != 1
  bool clipped;   // clip != 1
  bool averaged;  // an EMA is kept
};

// Elements a leaf holds. A constant: leaves, not threads, decide the order of every sum.
inline constexpr std::size_t kUpdateLeaf = 4096;

// One tensor, or a part of it: a run of elements that lie side by side in every array.
struct UpdateSpan {
  void* param;
  const void* grad;
  void* buffer;         // state type or bfloat16; unread when form is plain
  void* ema;            // state type (double for double, else float), or null
  float* master;        // or null
  std::size_t count;
  std::uint64_t tensor;  // with the leaf, the counter of the random bits
  std::uint64_t leaf;    // of the first element
  UpdateNumber param_number;
  UpdateNumber grad_number;
  bool first;  // buffer and ema are written without being read
  bool bf16_buffer;  // the buffer is bfloat16 instead of the state type
  std::uint32_t rule;  // which of the call's rules is this tensor's
};

// The leaves [begin, end) of a span, in the order in which they are stepped. Many at a call: what a leaf was told through
// memory, the processor would look for behind all stores of the leaf before it, which wait for their lines.
struct UpdateLeaves {
  std::size_t begin;
  std::size_t end;
  double* squares;     // one for each: the sum of squares of the gradient as it came, not unscaled and not clipped. In double,
                       // so that no finite float32 gradient can overflow it and a non-finite one always shows.
  double* alignments;  // one for each: <g, b>, g as decayed and b as it becomes; or null: not asked for
  bool asks;           // whether elements are asked for ahead of time, up to the span's end
};

struct UpdateTable {
  void (*step_f64)(const UpdateSpan&, const UpdateRule<double>&, const UpdateLeaves&);
  void (*step_f32)(const UpdateSpan&, const UpdateRule<float>&, const UpdateLeaves&);  // float32 and narrower
  // As `squares` of one leaf, of any number of elements.
  double (*sum_squares)(const void* grad, UpdateNumber number, std::size_t count);
  bool asks;  // whether a processor of this set gains by asking for a tensor's elements ahead of time
};

}  // namespace nag
