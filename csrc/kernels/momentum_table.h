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

// One leaf: a run of elements that lie side by side in every array of one tensor.
struct UpdateSpan {
  void* param;
  const void* grad;
  void* buffer;         // state type or bfloat16; unread when form is plain
  void* ema;            // state type (double for double, else float), or null
  float* master;        // or null
  double* alignment;    // where <g, b> of the leaf goes, g as decayed and b as it becomes; or null: not asked for
  std::size_t count;
  std::size_t asked;    // elements from the first on, of this leaf and those behind it, that are worth asking for ahead of time
  std::uint64_t tensor;  // with `leaf`, the counter of the random bits
  std::uint64_t leaf;
  UpdateNumber param_number;
  UpdateNumber grad_number;
  bool first;  // buffer and ema are written without being read
  bool bf16_buffer;  // the buffer is bfloat16 instead of the state type
  std::uint32_t rule;  // which of the call's rules is this tensor's
};

// Both return the sum of squares of the gradient as it came (not unscaled, not clipped): in double,
// so that no finite float32 gradient can overflow it and a non-finite one always shows.
struct UpdateTable {
  double (*step_f64)(const UpdateSpan&, const UpdateRule<double>&);
  double (*step_f32)(const UpdateSpan&, const UpdateRule<float>&);  // float32 and narrower
  double (*sum_squares)(const void* grad, UpdateNumber number, std::size_t count);
  bool asks;  // whether a processor of this set gains by asking for a tensor's elements ahead of time
};

}  // namespace nag
