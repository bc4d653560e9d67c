// How rows become tiles of bfloat16 pairs (kernels/tile_table.h), for the units of isa/ that multiply those. Needs AVX-512 with
// BF16's conversions. In a namespace without a name, for each unit is compiled for an instruction set of its own, and uses no STL.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "kernels/tile_table.h"

namespace nag {
namespace {

// Rows 2k and 2k + 1, as pairs.
inline __m512i pairs(__m512 even, __m512 odd) {
  alignas(64) static const uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                       8,  24, 9,  25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512bh both = _mm512_cvtne2ps_pbh(odd, even);
  __m512i bits;
  __builtin_memcpy(&bits, &both, sizeof bits);
  return _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), bits);
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

}  // namespace
}  // namespace nag
