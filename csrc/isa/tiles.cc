// The kernels of kernels/tile_table.h, for x86-64 processors with AMX-BF16. As isa/kernels.cc this unit uses no STL.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/tile_table.h"

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

// Rows 2k and 2k + 1, as pairs.
inline __m512i pairs(__m512 even, __m512 odd) {
  alignas(64) static const uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                       8,  24, 9,  25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512bh both = _mm512_cvtne2ps_pbh(odd, even);
  __m512i bits;
  __builtin_memcpy(&bits, &both, sizeof bits);
  return _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), bits);
}

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

// Sixteen columns of a row, those that `mask` has, times c; notes which are not zero.
inline __m512 scaled(const float* x, __mmask16 mask, float c, uint32_t& seen) {
  const __m512 v = _mm512_maskz_loadu_ps(mask, x);
  seen |= _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
  return _mm512_mul_ps(v, _mm512_set1_ps(c));
}
inline __m512 scaled(const double* x, __mmask16 mask, float c, uint32_t& seen) {
  const __m512d low = _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), x), by = _mm512_set1_pd(c);
  const __m512d high = _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask >> 8), x + 8);
  seen |= static_cast<uint32_t>(_mm512_cmp_pd_mask(low, _mm512_setzero_pd(), _CMP_NEQ_UQ)) |
          static_cast<uint32_t>(_mm512_cmp_pd_mask(high, _mm512_setzero_pd(), _CMP_NEQ_UQ)) << 8;
  const __m256 first = _mm512_cvtpd_ps(_mm512_mul_pd(low, by)), second = _mm512_cvtpd_ps(_mm512_mul_pd(high, by));
  return _mm512_insertf32x8(_mm512_castps256_ps512(first), second, 1);
}

template <class S>
inline void pack(const TilePack& b) {
  constexpr ptrdiff_t kLine = 64 / static_cast<ptrdiff_t>(sizeof(S)), kAhead = 8;  // blocks
  const ptrdiff_t blocks = (b.d + (b.ones ? 1 : 0) + kTileSide - 1) / kTileSide;
  for (ptrdiff_t u = 0; u < blocks; ++u) {
    const ptrdiff_t first = u * kTileSide, left = b.d - first;
    const __mmask16 mask = static_cast<__mmask16>(left >= kTileSide ? 0xffff : left > 0 ? (1 << left) - 1 : 0);
    const __mmask16 one = static_cast<__mmask16>(b.ones && left >= 0 && left < kTileSide ? 1 << left : 0);
    const bool here = u + kAhead < blocks;
    const void* const* const asked = here ? b.lines : b.next;
    const ptrdiff_t from = (here ? u + kAhead : u + kAhead - blocks) * kTileSide;
    uint32_t seen = one;
    const auto row = [&](ptrdiff_t i) {
      if (i >= b.rows) return _mm512_setzero_ps();
      if (asked != nullptr)
        for (ptrdiff_t j = 0; j < kTileSide; j += kLine)
          _mm_prefetch(reinterpret_cast<const char*>(static_cast<const S*>(asked[i]) + from + j), _MM_HINT_T0);
      const __m512 x = scaled(static_cast<const S*>(b.lines[i]) + first, mask, b.c[i], seen);
      return one ? _mm512_mask_mov_ps(x, one, _mm512_set1_ps(b.c[i])) : x;
    };
    for (ptrdiff_t k = 0; k < 16; ++k) {
      const __m512 even = row(2 * k), odd = row(2 * k + 1);
      _mm512_store_si512(b.B + u * b.stride + k * 16, pairs(even, odd));
    }
    b.seen[u] = static_cast<uint16_t>(b.seen[u] | seen);
  }
}

void pack_f32(const TilePack& b) { pack<float>(b); }
void pack_f64(const TilePack& b) { pack<double>(b); }

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
const TileKernels kernels = {&enter, &leave, &pack_f32, &pack_f64, &product};

}  // namespace amx
}  // namespace nag
