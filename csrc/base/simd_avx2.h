// AVX2 + FMA (x86-64-v3) vectors. Included inside the per-ISA namespace; <immintrin.h> comes before, at global scope.

// Rows of -1 then 0: a window of it is the mask of the first n lanes.
alignas(32) static const int32_t kLaneMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
NAG_INLINE __m256i lane_mask32(int n) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneMask + 8 - n)); }
NAG_INLINE __m256i lane_mask64(int n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneMask + 8 - 2 * n));
}

struct Vf {
  using T = float;
  static constexpr int N = 8;
  __m256 v;
  static NAG_INLINE Vf zero() { return {_mm256_setzero_ps()}; }
  static NAG_INLINE Vf set1(float x) { return {_mm256_set1_ps(x)}; }
  static NAG_INLINE Vf load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static NAG_INLINE Vf load_n(const float* p, int n) { return {_mm256_maskload_ps(p, lane_mask32(n))}; }
  NAG_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  NAG_INLINE void store_n(float* p, int n) const { _mm256_maskstore_ps(p, lane_mask32(n), v); }
};
struct Vd {
  using T = double;
  static constexpr int N = 4;
  __m256d v;
  static NAG_INLINE Vd zero() { return {_mm256_setzero_pd()}; }
  static NAG_INLINE Vd set1(double x) { return {_mm256_set1_pd(x)}; }
  static NAG_INLINE Vd load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static NAG_INLINE Vd load_n(const double* p, int n) { return {_mm256_maskload_pd(p, lane_mask64(n))}; }
  NAG_INLINE void store(double* p) const { _mm256_storeu_pd(p, v); }
  NAG_INLINE void store_n(double* p, int n) const { _mm256_maskstore_pd(p, lane_mask64(n), v); }
};
struct Mf { __m256 m; };
struct Md { __m256d m; };

NAG_INLINE Vf operator+(Vf a, Vf b) { return {_mm256_add_ps(a.v, b.v)}; }
NAG_INLINE Vf operator-(Vf a, Vf b) { return {_mm256_sub_ps(a.v, b.v)}; }
NAG_INLINE Vf operator*(Vf a, Vf b) { return {_mm256_mul_ps(a.v, b.v)}; }
NAG_INLINE Vf operator/(Vf a, Vf b) { return {_mm256_div_ps(a.v, b.v)}; }
NAG_INLINE Vd operator+(Vd a, Vd b) { return {_mm256_add_pd(a.v, b.v)}; }
NAG_INLINE Vd operator-(Vd a, Vd b) { return {_mm256_sub_pd(a.v, b.v)}; }
NAG_INLINE Vd operator*(Vd a, Vd b) { return {_mm256_mul_pd(a.v, b.v)}; }
NAG_INLINE Vd operator/(Vd a, Vd b) { return {_mm256_div_pd(a.v, b.v)}; }

NAG_INLINE Vf fma(Vf a, Vf b, Vf c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
NAG_INLINE Vd fma(Vd a, Vd b, Vd c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
NAG_INLINE Vf fnma(Vf a, Vf b, Vf c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
NAG_INLINE Vd fnma(Vd a, Vd b, Vd c) { return {_mm256_fnmadd_pd(a.v, b.v, c.v)}; }

NAG_INLINE Vf max(Vf a, Vf b) { return {_mm256_max_ps(a.v, b.v)}; }
NAG_INLINE Vd max(Vd a, Vd b) { return {_mm256_max_pd(a.v, b.v)}; }
NAG_INLINE Vf min(Vf a, Vf b) { return {_mm256_min_ps(a.v, b.v)}; }
NAG_INLINE Vd min(Vd a, Vd b) { return {_mm256_min_pd(a.v, b.v)}; }
NAG_INLINE Vf abs(Vf a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
NAG_INLINE Vd abs(Vd a) { return {_mm256_andnot_pd(_mm256_set1_pd(-0.0), a.v)}; }

NAG_INLINE Mf operator<(Vf a, Vf b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
NAG_INLINE Md operator<(Vd a, Vd b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ)}; }
NAG_INLINE Mf operator==(Vf a, Vf b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
NAG_INLINE Md operator==(Vd a, Vd b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)}; }
NAG_INLINE Vf select(Mf m, Vf a, Vf b) { return {_mm256_blendv_ps(b.v, a.v, m.m)}; }
NAG_INLINE Vd select(Md m, Vd a, Vd b) { return {_mm256_blendv_pd(b.v, a.v, m.m)}; }

NAG_INLINE Vf round_even(Vf a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
NAG_INLINE Vd round_even(Vd a) { return {_mm256_round_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

// 2^n for integral n inside the normal range, by writing the exponent field.
NAG_INLINE Vf exp2_normal(Vf n) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23))};
}
NAG_INLINE Vd exp2_normal(Vd n) {
  // 2^52+2^51 turns an integral double into its own low bits; no 64-bit conversion exists before AVX-512
  const __m256d magic = _mm256_set1_pd(6755399441055744.0);
  const __m256i i = _mm256_castpd_si256(_mm256_add_pd(n.v, magic));
  return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_add_epi64(i, _mm256_set1_epi64x(1023)), 52))};
}
// Two factors, each a normal number, so the product underflows gradually and overflows to infinity.
NAG_INLINE Vf scale2(Vf a, Vf n) {
  const Vf h = round_even(n * Vf::set1(0.5f));
  return a * exp2_normal(h) * exp2_normal(n - h);
}
NAG_INLINE Vd scale2(Vd a, Vd n) {
  const Vd h = round_even(n * Vd::set1(0.5));
  return a * exp2_normal(h) * exp2_normal(n - h);
}
// x = m * 2^e with m in [0.75, 1.5), x positive and normal
NAG_INLINE Vf split2(Vf x, Vf& m) {
  const __m256i i = _mm256_castps_si256(x.v);
  const __m256i e = _mm256_srai_epi32(_mm256_sub_epi32(i, _mm256_set1_epi32(0x3F400000)), 23);
  m = {_mm256_castsi256_ps(_mm256_sub_epi32(i, _mm256_slli_epi32(e, 23)))};
  return {_mm256_cvtepi32_ps(e)};
}
NAG_INLINE Vd split2(Vd x, Vd& m) {
  const __m256i i = _mm256_castpd_si256(x.v);
  const __m256i bias = _mm256_set1_epi64x(0x3FE8000000000000LL);  // 0.75
  // Exponent of x/0.75 kept biased by 1024 so that a logical shift serves (no 64-bit arithmetic shift here).
  const __m256i up = _mm256_add_epi64(_mm256_sub_epi64(i, bias), _mm256_set1_epi64x(1024LL << 52));
  const __m256i e = _mm256_sub_epi64(_mm256_srli_epi64(up, 52), _mm256_set1_epi64x(1024));
  m = {_mm256_castsi256_pd(_mm256_sub_epi64(i, _mm256_slli_epi64(e, 52)))};
  const __m256d magic = _mm256_set1_pd(6755399441055744.0);
  return {_mm256_sub_pd(_mm256_castsi256_pd(_mm256_add_epi64(e, _mm256_castpd_si256(magic))), magic)};
}

NAG_INLINE float reduce_add(Vf a) {
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
NAG_INLINE double reduce_add(Vd a) {
  const __m128d q = _mm_add_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(q, _mm_unpackhi_pd(q, q)));
}
NAG_INLINE Vf transpose_sum(const Vf* a) {
  __m256 b[4], c[2];
  for (int i = 0; i < 4; ++i)
    b[i] = _mm256_add_ps(_mm256_unpacklo_ps(a[2 * i].v, a[2 * i + 1].v), _mm256_unpackhi_ps(a[2 * i].v, a[2 * i + 1].v));
  for (int i = 0; i < 2; ++i)
    c[i] = _mm256_add_ps(_mm256_shuffle_ps(b[2 * i], b[2 * i + 1], 0x44), _mm256_shuffle_ps(b[2 * i], b[2 * i + 1], 0xEE));
  return {_mm256_add_ps(_mm256_permute2f128_ps(c[0], c[1], 0x20), _mm256_permute2f128_ps(c[0], c[1], 0x31))};
}
NAG_INLINE Vd transpose_sum(const Vd* a) {
  const __m256d b = _mm256_hadd_pd(a[0].v, a[1].v), c = _mm256_hadd_pd(a[2].v, a[3].v);
  return {_mm256_add_pd(_mm256_permute2f128_pd(b, c, 0x20), _mm256_permute2f128_pd(b, c, 0x31))};
}

// Lane j of a[i] changes places with lane i of a[j].
NAG_INLINE void transpose(Vf* a) {
  __m256 b[8], c[8];
  for (int i = 0; i < 4; ++i) {
    b[2 * i] = _mm256_unpacklo_ps(a[2 * i].v, a[2 * i + 1].v);
    b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i].v, a[2 * i + 1].v);
  }
  for (int i = 0; i < 8; i += 4)  // half q of c[i + k]: lane 4q + k of a[i] to a[i + 3]
    for (int k = 0; k < 2; ++k) {
      c[i + 2 * k] = _mm256_shuffle_ps(b[i + k], b[i + k + 2], 0x44);
      c[i + 2 * k + 1] = _mm256_shuffle_ps(b[i + k], b[i + k + 2], 0xEE);
    }
  for (int k = 0; k < 4; ++k) {
    a[k].v = _mm256_permute2f128_ps(c[k], c[4 + k], 0x20);
    a[4 + k].v = _mm256_permute2f128_ps(c[k], c[4 + k], 0x31);
  }
}
NAG_INLINE void transpose(Vd* a) {
  __m256d c[4];
  for (int i = 0; i < 4; i += 2) {  // half q of c[i + k]: lane 2q + k of a[i] and a[i + 1]
    c[i] = _mm256_unpacklo_pd(a[i].v, a[i + 1].v);
    c[i + 1] = _mm256_unpackhi_pd(a[i].v, a[i + 1].v);
  }
  for (int k = 0; k < 2; ++k) {
    a[k].v = _mm256_permute2f128_pd(c[k], c[2 + k], 0x20);
    a[2 + k].v = _mm256_permute2f128_pd(c[k], c[2 + k], 0x31);
  }
}

NAG_INLINE Vf widen(const uint8_t* p, Vf) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
NAG_INLINE Vd widen(const uint8_t* p, Vd) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return {_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)))};
}
NAG_INLINE Vf widen(const bf16* p, Vf) {
  return {_mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16))};
}
NAG_INLINE Vd widen(const bf16* p, Vd) {
  return {_mm256_cvtps_pd(
      _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))), 16)))};
}
NAG_INLINE Vd widen(const float* p, Vd) { return {_mm256_cvtps_pd(_mm_loadu_ps(p))}; }
NAG_INLINE Vf widen(const float* p, Vf) { return Vf::load(p); }
NAG_INLINE Vd widen(const double* p, Vd) { return Vd::load(p); }
NAG_INLINE Vf widen(const double* p, Vf) {
  return {_mm256_set_m128(_mm256_cvtpd_ps(_mm256_loadu_pd(p + 4)), _mm256_cvtpd_ps(_mm256_loadu_pd(p)))};
}

// `bytes` <= 8 at p, above them zeros; nothing past them is read: two loads that overlap.
NAG_INLINE uint64_t few_bytes(const char* p, int bytes) {
  if (bytes >= 4) {
    uint32_t low, high;
    __builtin_memcpy(&low, p, 4);
    __builtin_memcpy(&high, p + bytes - 4, 4);
    return low | static_cast<uint64_t>(high) << 8 * (bytes - 4);
  }
  if (bytes >= 2) {
    uint16_t low, high;
    __builtin_memcpy(&low, p, 2);
    __builtin_memcpy(&high, p + bytes - 2, 2);
    return low | static_cast<uint64_t>(high) << 8 * (bytes - 2);
  }
  return bytes > 0 ? static_cast<unsigned char>(*p) : 0;
}
NAG_INLINE __m128i some_bytes(const char* p, int bytes) {  // <= 16
  if (bytes < 8) return _mm_cvtsi64_si128(static_cast<long long>(few_bytes(p, bytes)));
  uint64_t low;
  __builtin_memcpy(&low, p, 8);
  return _mm_set_epi64x(static_cast<long long>(few_bytes(p + 8, bytes - 8)), static_cast<long long>(low));
}

// The first n lanes; the others are zero, and nothing past them is read.
template <class V, class S> NAG_INLINE V widen_n(const S* p, int n, V) {
  static_assert(sizeof(S) * V::N <= 16, "narrower than V's numbers");
  alignas(16) char lanes[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(lanes), some_bytes(reinterpret_cast<const char*>(p), n * static_cast<int>(sizeof(S))));
  return widen(reinterpret_cast<const S*>(lanes), V());
}
NAG_INLINE Vd widen_n(const float* p, int n, Vd) { return {_mm256_cvtps_pd(_mm_maskload_ps(p, _mm256_castsi256_si128(lane_mask32(n))))}; }
NAG_INLINE Vf widen_n(const float* p, int n, Vf) { return Vf::load_n(p, n); }
NAG_INLINE Vd widen_n(const double* p, int n, Vd) { return Vd::load_n(p, n); }

NAG_INLINE Vf gather_n(const float* base, const int32_t* i, int n) {
  const __m256i m = lane_mask32(n);
  return {_mm256_mask_i32gather_ps(_mm256_setzero_ps(), base, _mm256_maskload_epi32(i, m), _mm256_castsi256_ps(m), 4)};
}
NAG_INLINE Vf gather_n(const float* base, const int64_t* i, int n) {
  alignas(32) float t[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int j = 0; j < n; ++j) t[j] = base[i[j]];
  return {_mm256_load_ps(t)};
}
NAG_INLINE Vd gather_n(const double* base, const int32_t* i, int n) {
  alignas(32) double t[4] = {0, 0, 0, 0};
  for (int j = 0; j < n; ++j) t[j] = base[i[j]];
  return {_mm256_load_pd(t)};
}
NAG_INLINE Vd gather_n(const double* base, const int64_t* i, int n) {
  alignas(32) double t[4] = {0, 0, 0, 0};
  for (int j = 0; j < n; ++j) t[j] = base[i[j]];
  return {_mm256_load_pd(t)};
}
NAG_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
// Into the second-level cache, which has three times the lines in flight that the first has.
NAG_INLINE void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
