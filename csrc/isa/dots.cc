// The kernels of kernels/tile_table.h, for x86-64 processors that multiply pairs of bfloat16 in vectors (AVX512-BF16) twice as
// fast as float32. As isa/kernels.cc this unit uses no STL.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/tile_pack.h"

namespace nag {
namespace dots {
namespace {

void nothing() {}

inline __m512bh as_pairs(__m512i bits) {
  __m512bh pairs;
  __builtin_memcpy(&pairs, &bits, sizeof pairs);
  return pairs;
}

// C blocks of columns from `col` on beside block `row`. R of the sixteen rows of sums at a time, each a vector a block: the
// sums and what they are made of then lie in registers.
template <int R, int C>
inline void multiply(const TileProduct& b, ptrdiff_t row, ptrdiff_t col) {
  const uint32_t* const rows = b.B + row * b.stride;
  const uint32_t* const cols = b.B + col * b.stride;
  float* const sums = b.sums + (row * (row + 1) / 2 + col) * kTilePairs;
  const ptrdiff_t depth = b.panels * (kTileDepth / 2);
  for (ptrdiff_t first = 0; first < kTileSide; first += R) {
    __m512 sum[R][C];
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < C; ++j) sum[i][j] = b.add ? _mm512_load_ps(sums + j * kTilePairs + (first + i) * kTileSide) : _mm512_setzero_ps();
    for (ptrdiff_t k = 0; k < depth; ++k) {
      __m512bh x[C];
      for (int j = 0; j < C; ++j) x[j] = as_pairs(_mm512_load_si512(cols + j * b.stride + k * kTileSide));
      for (int i = 0; i < R; ++i) {
        const __m512bh a = as_pairs(_mm512_set1_epi32(static_cast<int>(rows[k * kTileSide + first + i])));
        for (int j = 0; j < C; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], a, x[j]);
      }
    }
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < C; ++j) _mm512_store_ps(sums + j * kTilePairs + (first + i) * kTileSide, sum[i][j]);
  }
}

void product(const TileProduct& b) {
  for (ptrdiff_t row = 0; row < b.blocks; ++row) {
    ptrdiff_t col = 0;
    for (; col + 3 <= row + 1; col += 3) multiply<8, 3>(b, row, col);
    if (row - col == 1) multiply<8, 2>(b, row, col);
    if (row == col) multiply<16, 1>(b, row, col);
  }
}

}  // namespace

extern const TileKernels kernels;
const TileKernels kernels = {"bf16", &nothing, &nothing, &pack_f32, &pack_f64, &product};

}  // namespace dots
}  // namespace nag
