// AVX-512 (x86-64-v4) vectors. Included inside the per-ISA namespace; <immintrin.h> comes before, at global scope.

struct Vf {
  using T = float;
  static constexpr int N = 16;
  __m512 v;
  static NAG_INLINE Vf zero() { return {_mm512_setzero_ps()}; }
  static NAG_INLINE Vf set1(float x) { return {_mm512_set1_ps(x)}; }
  static NAG_INLINE Vf load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static NAG_INLINE Vf load_n(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p)};
  }
  NAG_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  NAG_INLINE void store_n(float* p, int n) const {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), v);
  }
};
struct Vd {
  using T = double;
  static constexpr int N = 8;
  __m512d v;
  static NAG_INLINE Vd zero() { return {_mm512_setzero_pd()}; }
  static NAG_INLINE Vd set1(double x) { return {_mm512_set1_pd(x)}; }
  static NAG_INLINE Vd load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static NAG_INLINE Vd load_n(const double* p, int n) {
    return {_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1u), p)};
  }
  NAG_INLINE void store(double* p) const { _mm512_storeu_pd(p, v); }
  NAG_INLINE void store_n(double* p, int n) const {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1u), v);
  }
};
struct Mf { __mmask16 m; };
struct Md { __mmask8 m; };

NAG_INLINE Vf operator+(Vf a, Vf b) { return {_mm512_add_ps(a.v, b.v)}; }
NAG_INLINE Vf operator-(Vf a, Vf b) { return {_mm512_sub_ps(a.v, b.v)}; }
NAG_INLINE Vf operator*(Vf a, Vf b) { return {_mm512_mul_ps(a.v, b.v)}; }
NAG_INLINE Vf operator/(Vf a, Vf b) { return {_mm512_div_ps(a.v, b.v)}; }
NAG_INLINE Vd operator+(Vd a, Vd b) { return {_mm512_add_pd(a.v, b.v)}; }
NAG_INLINE Vd operator-(Vd a, Vd b) { return {_mm512_sub_pd(a.v, b.v)}; }
NAG_INLINE Vd operator*(Vd a, Vd b) { return {_mm512_mul_pd(a.v, b.v)}; }
NAG_INLINE Vd operator/(Vd a, Vd b) { return {_mm512_div_pd(a.v, b.v)}; }

// a*b + c and c - a*b, rounded once.
NAG_INLINE Vf fma(Vf a, Vf b, Vf c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
NAG_INLINE Vd fma(Vd a, Vd b, Vd c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
NAG_INLINE Vf fnma(Vf a, Vf b, Vf c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
NAG_INLINE Vd fnma(Vd a, Vd b, Vd c) { return {_mm512_fnmadd_pd(a.v, b.v, c.v)}; }

// max and min return the SECOND operand when either is NaN (x86 rule, kept by every instruction set here).
NAG_INLINE Vf max(Vf a, Vf b) { return {_mm512_max_ps(a.v, b.v)}; }
NAG_INLINE Vd max(Vd a, Vd b) { return {_mm512_max_pd(a.v, b.v)}; }
NAG_INLINE Vf min(Vf a, Vf b) { return {_mm512_min_ps(a.v, b.v)}; }
NAG_INLINE Vd min(Vd a, Vd b) { return {_mm512_min_pd(a.v, b.v)}; }
NAG_INLINE Vf abs(Vf a) { return {_mm512_abs_ps(a.v)}; }
NAG_INLINE Vd abs(Vd a) { return {_mm512_abs_pd(a.v)}; }

NAG_INLINE Mf operator<(Vf a, Vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
NAG_INLINE Md operator<(Vd a, Vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ)}; }
NAG_INLINE Mf operator==(Vf a, Vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
NAG_INLINE Md operator==(Vd a, Vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ)}; }
// m ? a : b
NAG_INLINE Vf select(Mf m, Vf a, Vf b) { return {_mm512_mask_blend_ps(m.m, b.v, a.v)}; }
NAG_INLINE Vd select(Md m, Vd a, Vd b) { return {_mm512_mask_blend_pd(m.m, b.v, a.v)}; }

NAG_INLINE Vf round_even(Vf a) { return {_mm512_roundscale_ps(a.v, 8)}; }
NAG_INLINE Vd round_even(Vd a) { return {_mm512_roundscale_pd(a.v, 8)}; }
// a * 2^n for integral n, with gradual underflow and overflow to infinity
NAG_INLINE Vf scale2(Vf a, Vf n) { return {_mm512_scalef_ps(a.v, n.v)}; }
NAG_INLINE Vd scale2(Vd a, Vd n) { return {_mm512_scalef_pd(a.v, n.v)}; }
// x = m * 2^e with m in [0.75, 1.5), x positive and normal
NAG_INLINE Vf split2(Vf x, Vf& m) {
  m = {_mm512_getmant_ps(x.v, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src)};
  return {_mm512_getexp_ps(_mm512_div_ps(x.v, m.v))};
}
NAG_INLINE Vd split2(Vd x, Vd& m) {
  m = {_mm512_getmant_pd(x.v, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src)};
  return {_mm512_getexp_pd(_mm512_div_pd(x.v, m.v))};
}

NAG_INLINE float reduce_add(Vf a) {  // pairwise: halves, quarters, ...; fixed order
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
NAG_INLINE double reduce_add(Vd a) {
  __m256d h = _mm256_add_pd(_mm512_castpd512_pd256(a.v), _mm512_extractf64x4_pd(a.v, 1));
  __m128d q = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
  return _mm_cvtsd_f64(_mm_add_sd(q, _mm_unpackhi_pd(q, q)));
}

// Lane i of the result is the sum over lanes of a[i]: a transpose whose stages add, so 15 additions instead of 60.
NAG_INLINE Vf transpose_sum(const Vf* a) {
  __m512 b[8], c[4], e[2];
  for (int i = 0; i < 8; ++i)  // pairs: lanes even of a[2i], odd of a[2i+1]
    b[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[2 * i].v, a[2 * i + 1].v), _mm512_unpackhi_ps(a[2 * i].v, a[2 * i + 1].v));
  for (int i = 0; i < 4; ++i)
    c[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[2 * i]), _mm512_castps_pd(b[2 * i + 1]))),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[2 * i]), _mm512_castps_pd(b[2 * i + 1]))));
  // c[i]: four quarters, each holding partial sums of rows 4i..4i+3
  for (int i = 0; i < 2; ++i)
    e[i] = _mm512_add_ps(_mm512_shuffle_f32x4(c[2 * i], c[2 * i + 1], 0x88), _mm512_shuffle_f32x4(c[2 * i], c[2 * i + 1], 0xDD));
  return {_mm512_add_ps(_mm512_shuffle_f32x4(e[0], e[1], 0x88), _mm512_shuffle_f32x4(e[0], e[1], 0xDD))};
}
NAG_INLINE Vd transpose_sum(const Vd* a) {
  __m512d b[4], c[2];
  for (int i = 0; i < 4; ++i)
    b[i] = _mm512_add_pd(_mm512_unpacklo_pd(a[2 * i].v, a[2 * i + 1].v), _mm512_unpackhi_pd(a[2 * i].v, a[2 * i + 1].v));
  for (int i = 0; i < 2; ++i)
    c[i] = _mm512_add_pd(_mm512_shuffle_f64x2(b[2 * i], b[2 * i + 1], 0x88), _mm512_shuffle_f64x2(b[2 * i], b[2 * i + 1], 0xDD));
  return {_mm512_add_pd(_mm512_shuffle_f64x2(c[0], c[1], 0x88), _mm512_shuffle_f64x2(c[0], c[1], 0xDD))};
}

// Lane j of a[i] changes places with lane i of a[j].
NAG_INLINE void transpose(Vf* a) {
  __m512 b[16], c[16];
  for (int i = 0; i < 8; ++i) {
    b[2 * i] = _mm512_unpacklo_ps(a[2 * i].v, a[2 * i + 1].v);
    b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i].v, a[2 * i + 1].v);
  }
  for (int i = 0; i < 16; i += 4)  // quarter q of c[i + k]: lane 4q + k of a[i] to a[i + 3]
    for (int k = 0; k < 2; ++k) {
      const __m512d low = _mm512_castps_pd(b[i + k]), high = _mm512_castps_pd(b[i + k + 2]);
      c[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      c[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  for (int k = 0; k < 4; ++k) {
    const __m512 even = _mm512_shuffle_f32x4(c[k], c[4 + k], 0x88), odd = _mm512_shuffle_f32x4(c[k], c[4 + k], 0xDD);
    const __m512 even2 = _mm512_shuffle_f32x4(c[8 + k], c[12 + k], 0x88), odd2 = _mm512_shuffle_f32x4(c[8 + k], c[12 + k], 0xDD);
    a[k].v = _mm512_shuffle_f32x4(even, even2, 0x88);
    a[4 + k].v = _mm512_shuffle_f32x4(odd, odd2, 0x88);
    a[8 + k].v = _mm512_shuffle_f32x4(even, even2, 0xDD);
    a[12 + k].v = _mm512_shuffle_f32x4(odd, odd2, 0xDD);
  }
}
NAG_INLINE void transpose(Vd* a) {
  __m512d c[8];
  for (int i = 0; i < 8; i += 2) {  // quarter q of c[i + k]: lane 2q + k of a[i] and a[i + 1]
    c[i] = _mm512_unpacklo_pd(a[i].v, a[i + 1].v);
    c[i + 1] = _mm512_unpackhi_pd(a[i].v, a[i + 1].v);
  }
  for (int k = 0; k < 2; ++k) {
    const __m512d even = _mm512_shuffle_f64x2(c[k], c[2 + k], 0x88), odd = _mm512_shuffle_f64x2(c[k], c[2 + k], 0xDD);
    const __m512d even2 = _mm512_shuffle_f64x2(c[4 + k], c[6 + k], 0x88), odd2 = _mm512_shuffle_f64x2(c[4 + k], c[6 + k], 0xDD);
    a[k].v = _mm512_shuffle_f64x2(even, even2, 0x88);
    a[2 + k].v = _mm512_shuffle_f64x2(odd, odd2, 0x88);
    a[4 + k].v = _mm512_shuffle_f64x2(even, even2, 0xDD);
    a[6 + k].v = _mm512_shuffle_f64x2(odd, odd2, 0xDD);
  }
}

// Narrow storage to the compute type, one vector of lanes at a time.
NAG_INLINE Vf widen(const uint8_t* p, Vf) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
NAG_INLINE Vd widen(const uint8_t* p, Vd) {
  return {_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
NAG_INLINE Vf widen(const bf16* p, Vf) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16))};
}
NAG_INLINE Vd widen(const bf16* p, Vd) {
  return {_mm512_cvtps_pd(_mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16)))};
}
NAG_INLINE Vd widen(const float* p, Vd) { return {_mm512_cvtps_pd(_mm256_loadu_ps(p))}; }
NAG_INLINE Vf widen(const float* p, Vf) { return Vf::load(p); }
NAG_INLINE Vd widen(const double* p, Vd) { return Vd::load(p); }
NAG_INLINE Vf widen(const double* p, Vf) {
  return {_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(_mm512_loadu_pd(p))),
                             _mm512_cvtpd_ps(_mm512_loadu_pd(p + 8)), 1)};
}

// The first n lanes; the others are zero, and nothing past them is read.
NAG_INLINE __mmask16 lanes16(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
NAG_INLINE Vf widen_n(const uint8_t* p, int n, Vf) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes16(n), p)))};
}
NAG_INLINE Vd widen_n(const uint8_t* p, int n, Vd) {
  return {_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes16(n), p)))};
}
NAG_INLINE Vf widen_n(const bf16* p, int n, Vf) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes16(n), p)), 16))};
}
NAG_INLINE Vd widen_n(const bf16* p, int n, Vd) {
  return {_mm512_cvtps_pd(_mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_maskz_loadu_epi16(static_cast<__mmask8>(lanes16(n)), p)), 16)))};
}
NAG_INLINE Vd widen_n(const float* p, int n, Vd) {
  return {_mm512_cvtps_pd(_mm256_maskz_loadu_ps(static_cast<__mmask8>(lanes16(n)), p))};
}
NAG_INLINE Vf widen_n(const float* p, int n, Vf) { return Vf::load_n(p, n); }
NAG_INLINE Vd widen_n(const double* p, int n, Vd) { return Vd::load_n(p, n); }

#if defined(__AVX512VNNI__)
// Sums of products of bytes with whole numbers of 32 bits, whose halves come apart (FixedPanel). A step adds two products of 2^23 at
// most to a lane, which so holds those of 2048 columns.
struct ByteSum {
  static constexpr int N = 32;  // columns a time
  __m512i low = _mm512_setzero_si512(), high = _mm512_setzero_si512();
  static NAG_INLINE __m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static NAG_INLINE __m256i load_n(const uint8_t* p, int n) { return _mm256_maskz_loadu_epi8((1u << n) - 1u, p); }  // n < N
  NAG_INLINE void add(__m256i bytes, const int16_t* halves) {
    const __m512i x = _mm512_cvtepu8_epi16(bytes);
    low = _mm512_dpwssd_epi32(low, x, _mm512_loadu_si512(halves));
    high = _mm512_dpwssd_epi32(high, x, _mm512_loadu_si512(halves + N));
  }
  // Exact: less than 2^53 all the way.
  NAG_INLINE double total() const { return 65536.0 * lanes(high) + lanes(low); }

 private:
  static NAG_INLINE double lanes(__m512i v) {
    return _mm512_reduce_add_pd(_mm512_add_pd(_mm512_cvtepi32_pd(_mm512_castsi512_si256(v)), _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(v, 1))));
  }
};
#endif

// base[i] for the n lanes whose 32- or 64-bit indices stand at i; the others are zero.
NAG_INLINE Vf gather_n(const float* base, const int32_t* i, int n) {
  const __mmask16 m = static_cast<__mmask16>((1u << n) - 1u);
  return {_mm512_mask_i32gather_ps(_mm512_setzero_ps(), m, _mm512_maskz_loadu_epi32(m, i), base, 4)};
}
NAG_INLINE Vf gather_n(const float* base, const int64_t* i, int n) {
  const __mmask16 m = static_cast<__mmask16>((1u << n) - 1u);
  const __mmask8 lo = static_cast<__mmask8>(m & 0xFF), hi = static_cast<__mmask8>(m >> 8);
  const __m256 a = _mm512_mask_i64gather_ps(_mm256_setzero_ps(), lo, _mm512_maskz_loadu_epi64(lo, i), base, 4);
  const __m256 b = _mm512_mask_i64gather_ps(_mm256_setzero_ps(), hi, _mm512_maskz_loadu_epi64(hi, i + 8), base, 4);
  return {_mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1)};
}
NAG_INLINE Vd gather_n(const double* base, const int32_t* i, int n) {
  const __mmask8 m = static_cast<__mmask8>((1u << n) - 1u);
  return {_mm512_mask_i32gather_pd(_mm512_setzero_pd(), m, _mm256_maskz_loadu_epi32(m, i), base, 8)};
}
NAG_INLINE Vd gather_n(const double* base, const int64_t* i, int n) {
  const __mmask8 m = static_cast<__mmask8>((1u << n) - 1u);
  return {_mm512_mask_i64gather_pd(_mm512_setzero_pd(), m, _mm512_maskz_loadu_epi64(m, i), base, 8)};
}
// The same lanes by a load for each, where the processor's gathers take longer. All N indices are read, and what they name.
template <class I> NAG_INLINE __m128d load_pair(const double* base, const I* i) {
  return _mm_loadh_pd(_mm_load_sd(base + i[0]), base + i[1]);
}
template <class I> NAG_INLINE __m256d load_four(const double* base, const I* i) {
  return _mm256_insertf128_pd(_mm256_castpd128_pd256(load_pair(base, i)), load_pair(base, i + 2), 1);
}
template <class I> NAG_INLINE __m128 load_four(const float* base, const I* i) {
  const __m128 a = _mm_insert_ps(_mm_load_ss(base + i[0]), _mm_load_ss(base + i[1]), 0x10);
  return _mm_insert_ps(_mm_insert_ps(a, _mm_load_ss(base + i[2]), 0x20), _mm_load_ss(base + i[3]), 0x30);
}
template <class I> NAG_INLINE Vd load_each_n(const double* base, const I* i, int n) {
  const __m512d x = _mm512_insertf64x4(_mm512_castpd256_pd512(load_four(base, i)), load_four(base, i + 4), 1);
  return {_mm512_maskz_mov_pd(static_cast<__mmask8>((1u << n) - 1u), x)};
}
template <class I> NAG_INLINE Vf load_each_n(const float* base, const I* i, int n) {
  __m512 x = _mm512_insertf32x4(_mm512_castps128_ps512(load_four(base, i)), load_four(base, i + 4), 1);
  if (n > 8) x = _mm512_insertf32x4(_mm512_insertf32x4(x, load_four(base, i + 8), 2), load_four(base, i + 12), 3);
  return {_mm512_maskz_mov_ps(static_cast<__mmask16>((1u << n) - 1u), x)};
}
NAG_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
// Into the second-level cache, which has three times the lines in flight that the first has.
NAG_INLINE void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
