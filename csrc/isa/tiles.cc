// The kernels of kernels/tile_table.h, for x86-64 processors with AMX-BF16. As isa/kernels.cc this unit uses no STL.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/tile_pack.h"

namespace nag {
namespace amx {
namespace {

struct alignas(64) Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Static: compilers have taken the instruction to read eight bytes of its 64, and left the others of a local one unwritten.
const Config kConfig;

void enter() { _tile_loadconfig(&kConfig); }

void leave() { _tile_release(); }

// 16 x 16 numbers of 32 bits: within quarters of vectors first, then the quarters.
inline void transpose(const uint32_t* from, uint32_t* to) {
  __m512i a[16], b[16], c[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm512_load_si512(from + 16 * i);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    c[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    c[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    c[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    c[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  for (int q = 0; q < 4; ++q) {
    const __m512i low = _mm512_shuffle_i32x4(c[q], c[4 + q], 0x88), high = _mm512_shuffle_i32x4(c[8 + q], c[12 + q], 0x88);
    const __m512i low2 = _mm512_shuffle_i32x4(c[q], c[4 + q], 0xdd), high2 = _mm512_shuffle_i32x4(c[8 + q], c[12 + q], 0xdd);
    _mm512_store_si512(to + (0 + q) * 16, _mm512_shuffle_i32x4(low, high, 0x88));
    _mm512_store_si512(to + (4 + q) * 16, _mm512_shuffle_i32x4(low2, high2, 0x88));
    _mm512_store_si512(to + (8 + q) * 16, _mm512_shuffle_i32x4(low, high, 0xdd));
    _mm512_store_si512(to + (12 + q) * 16, _mm512_shuffle_i32x4(low2, high2, 0xdd));
  }
}

// Rows `row` and, with R = 2, row + 1 of C; columns `col` and, with C = 2, col + 1. What lies above the diagonal is let go.
template <int R, int C>
inline void multiply(const TileProduct& b, ptrdiff_t row, ptrdiff_t col) {
  const uint32_t *a = b.A, *x = b.B + col * b.stride;
  const auto sums = [&](ptrdiff_t i, ptrdiff_t j) {
    return b.sums + ((row + i) * (row + i + 1) / 2 + col + j) * kTilePairs;
  };
  const bool below = row > col;
  if (b.add) {
    _tile_loadd(0, sums(0, 0), 64);
    if (C > 1) {
      if (below) _tile_loadd(1, sums(0, 1), 64);
      else _tile_zero(1);
    }
    if (R > 1) _tile_loadd(2, sums(1, 0), 64);
    if (R > 1 && C > 1) _tile_loadd(3, sums(1, 1), 64);
  } else {
    _tile_zero(0);
    if (C > 1) _tile_zero(1);
    if (R > 1) _tile_zero(2);
    if (R > 1 && C > 1) _tile_zero(3);
  }
  for (ptrdiff_t k = 0; k < b.panels; ++k, a += R * kTilePairs, x += kTilePairs) {
    _tile_loadd(6, x, 64);
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (R > 1) {
      _tile_loadd(5, a + kTilePairs, 64);
      _tile_dpbf16ps(2, 5, 6);
    }
    if (C > 1) {
      _tile_loadd(7, x + b.stride, 64);
      _tile_dpbf16ps(1, 4, 7);
      if (R > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums(0, 0), 64);
  if (C > 1 && below) _tile_stored(1, sums(0, 1), 64);
  if (R > 1) _tile_stored(2, sums(1, 0), 64);
  if (R > 1 && C > 1) _tile_stored(3, sums(1, 1), 64);
}

// Two rows of C at a time: their tiles of A stay in the first-level cache while B goes by.
template <int R>
inline void multiply_rows(const TileProduct& b, ptrdiff_t row) {
  for (ptrdiff_t k = 0; k < b.panels; ++k)
    for (ptrdiff_t i = 0; i < R; ++i)
      transpose(b.B + (row + i) * b.stride + k * kTilePairs, b.A + (k * R + i) * kTilePairs);
  ptrdiff_t col = 0;
  for (; col + 2 <= row + R; col += 2) multiply<R, 2>(b, row, col);
  if (col < row + R) multiply<R, 1>(b, row, col);
}

void product(const TileProduct& b) {
  ptrdiff_t row = 0;
  for (; row + 2 <= b.blocks; row += 2) multiply_rows<2>(b, row);
  if (row < b.blocks) multiply_rows<1>(b, row);
}

}  // namespace

extern const TileKernels kernels;
const TileKernels kernels = {"amx", &enter, &leave, &pack_f32, &pack_f64, &product};

}  // namespace amx
}  // namespace nag
