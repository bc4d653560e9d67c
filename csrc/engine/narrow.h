// A narrower copy of a float64 matrix, in one trip through it.
#pragma once
#include <cstdint>

namespace nag {

enum class NarrowNumber { f32, bf16, u8 };

// Lines of `length` numbers, `stride` numbers apart; the copy's lines lie end to end.
struct NarrowView {
  const double* x;
  std::int64_t lines, length, stride;
  // What is stored is (x - origin)/step, one pair for each line or for each place in it; null for 0 and 1.
  const double *origin, *step;
  bool by_line;
};

// Writes the copy. Whether it holds X: floats of at most 1e18 in magnitude (squares and sums of them stay finite), or
// whole numbers in 0..255 that give x back to a few ulps. What is written where it does not is of no use.
bool narrow_copy(const NarrowView& view, NarrowNumber number, void* out, int n_threads);

}  // namespace nag
