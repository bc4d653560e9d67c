// 128-bit vectors in portable form: the x86-64 baseline (SSE2), aarch64 (NEON, with its fma) and anything else.
// GCC and Clang turn `vector_size` arithmetic into the processor's own instructions; other compilers get arrays.
// Included inside the per-ISA namespace.

#if defined(__GNUC__)
typedef float RawF __attribute__((vector_size(16)));
typedef double RawD __attribute__((vector_size(16)));
typedef int32_t RawI __attribute__((vector_size(16)));
typedef int64_t RawL __attribute__((vector_size(16)));
#else
template <class E, int K> struct RawArray {
  E a[K];
  E& operator[](int i) { return a[i]; }
  const E& operator[](int i) const { return a[i]; }
};
#define NAG_RAW_OP(op)                                                                         \
  template <class E, int K> NAG_INLINE RawArray<E, K> operator op(RawArray<E, K> x, RawArray<E, K> y) { \
    for (int i = 0; i < K; ++i) x.a[i] = x.a[i] op y.a[i];                                      \
    return x;                                                                                   \
  }
NAG_RAW_OP(+) NAG_RAW_OP(-) NAG_RAW_OP(*) NAG_RAW_OP(/)
#undef NAG_RAW_OP
typedef RawArray<float, 4> RawF;
typedef RawArray<double, 2> RawD;
typedef RawArray<int32_t, 4> RawI;
typedef RawArray<int64_t, 2> RawL;
#endif

struct Vf {
  using T = float;
  static constexpr int N = 4;
  RawF v;
  static NAG_INLINE Vf zero() { return {RawF{0, 0, 0, 0}}; }
  static NAG_INLINE Vf set1(float x) { return {RawF{x, x, x, x}}; }
  static NAG_INLINE Vf load(const float* p) { Vf r; NAG_COPY(&r.v, p, 16); return r; }
  static NAG_INLINE Vf load_n(const float* p, int n) {
    Vf r = zero();
    for (int i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  NAG_INLINE void store(float* p) const { NAG_COPY(p, &v, 16); }
  NAG_INLINE void store_n(float* p, int n) const { for (int i = 0; i < n; ++i) p[i] = v[i]; }
};
struct Vd {
  using T = double;
  static constexpr int N = 2;
  RawD v;
  static NAG_INLINE Vd zero() { return {RawD{0, 0}}; }
  static NAG_INLINE Vd set1(double x) { return {RawD{x, x}}; }
  static NAG_INLINE Vd load(const double* p) { Vd r; NAG_COPY(&r.v, p, 16); return r; }
  static NAG_INLINE Vd load_n(const double* p, int n) {
    Vd r = zero();
    for (int i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  NAG_INLINE void store(double* p) const { NAG_COPY(p, &v, 16); }
  NAG_INLINE void store_n(double* p, int n) const { for (int i = 0; i < n; ++i) p[i] = v[i]; }
};
struct Mf { RawI m; };
struct Md { RawL m; };

NAG_INLINE Vf operator+(Vf a, Vf b) { return {a.v + b.v}; }
NAG_INLINE Vf operator-(Vf a, Vf b) { return {a.v - b.v}; }
NAG_INLINE Vf operator*(Vf a, Vf b) { return {a.v * b.v}; }
NAG_INLINE Vf operator/(Vf a, Vf b) { return {a.v / b.v}; }
NAG_INLINE Vd operator+(Vd a, Vd b) { return {a.v + b.v}; }
NAG_INLINE Vd operator-(Vd a, Vd b) { return {a.v - b.v}; }
NAG_INLINE Vd operator*(Vd a, Vd b) { return {a.v * b.v}; }
NAG_INLINE Vd operator/(Vd a, Vd b) { return {a.v / b.v}; }

#if defined(__aarch64__) && defined(__GNUC__)
NAG_INLINE Vf fma(Vf a, Vf b, Vf c) { return {(RawF)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v)}; }
NAG_INLINE Vd fma(Vd a, Vd b, Vd c) { return {(RawD)vfmaq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v)}; }
NAG_INLINE Vf fnma(Vf a, Vf b, Vf c) { return {(RawF)vfmsq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v)}; }
NAG_INLINE Vd fnma(Vd a, Vd b, Vd c) { return {(RawD)vfmsq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v)}; }
#else
// Baseline x86 has no fma instruction and the library call is a hundred times slower: two roundings here.
NAG_INLINE Vf fma(Vf a, Vf b, Vf c) { return {a.v * b.v + c.v}; }
NAG_INLINE Vd fma(Vd a, Vd b, Vd c) { return {a.v * b.v + c.v}; }
NAG_INLINE Vf fnma(Vf a, Vf b, Vf c) { return {c.v - a.v * b.v}; }
NAG_INLINE Vd fnma(Vd a, Vd b, Vd c) { return {c.v - a.v * b.v}; }
#endif

#define NAG_LANES(V, expr) \
  V r;                     \
  for (int i = 0; i < V::N; ++i) r.v[i] = (expr); \
  return r
#if defined(__GNUC__)
NAG_INLINE Mf operator<(Vf a, Vf b) { return {a.v < b.v}; }
NAG_INLINE Md operator<(Vd a, Vd b) { return {a.v < b.v}; }
NAG_INLINE Mf operator==(Vf a, Vf b) { return {a.v == b.v}; }
NAG_INLINE Md operator==(Vd a, Vd b) { return {a.v == b.v}; }
NAG_INLINE Vf select(Mf m, Vf a, Vf b) { return {(RawF)((m.m & (RawI)a.v) | (~m.m & (RawI)b.v))}; }
NAG_INLINE Vd select(Md m, Vd a, Vd b) { return {(RawD)((m.m & (RawL)a.v) | (~m.m & (RawL)b.v))}; }
NAG_INLINE Vf abs(Vf a) { return {(RawF)((RawI)a.v & 0x7FFFFFFF)}; }
NAG_INLINE Vd abs(Vd a) { return {(RawD)((RawL)a.v & 0x7FFFFFFFFFFFFFFFLL)}; }
#else
NAG_INLINE Mf operator<(Vf a, Vf b) { Mf r; for (int i = 0; i < 4; ++i) r.m[i] = a.v[i] < b.v[i] ? -1 : 0; return r; }
NAG_INLINE Md operator<(Vd a, Vd b) { Md r; for (int i = 0; i < 2; ++i) r.m[i] = a.v[i] < b.v[i] ? -1 : 0; return r; }
NAG_INLINE Mf operator==(Vf a, Vf b) { Mf r; for (int i = 0; i < 4; ++i) r.m[i] = a.v[i] == b.v[i] ? -1 : 0; return r; }
NAG_INLINE Md operator==(Vd a, Vd b) { Md r; for (int i = 0; i < 2; ++i) r.m[i] = a.v[i] == b.v[i] ? -1 : 0; return r; }
NAG_INLINE Vf select(Mf m, Vf a, Vf b) { NAG_LANES(Vf, m.m[i] ? a.v[i] : b.v[i]); }
NAG_INLINE Vd select(Md m, Vd a, Vd b) { NAG_LANES(Vd, m.m[i] ? a.v[i] : b.v[i]); }
NAG_INLINE Vf abs(Vf a) { NAG_LANES(Vf, a.v[i] < 0 ? -a.v[i] : (a.v[i] == 0 ? 0.0f : a.v[i])); }
NAG_INLINE Vd abs(Vd a) { NAG_LANES(Vd, a.v[i] < 0 ? -a.v[i] : (a.v[i] == 0 ? 0.0 : a.v[i])); }
#endif
// The second operand when either is NaN, as x86's own max and min.
NAG_INLINE Vf max(Vf a, Vf b) { return select(b < a, a, b); }
NAG_INLINE Vd max(Vd a, Vd b) { return select(b < a, a, b); }
NAG_INLINE Vf min(Vf a, Vf b) { return select(a < b, a, b); }
NAG_INLINE Vd min(Vd a, Vd b) { return select(a < b, a, b); }

// Adding 1.5*2^(mantissa bits) leaves the nearest integer (ties to even) in the low bits; |a| must stay below 2^22 / 2^51.
NAG_INLINE Vf round_even(Vf a) { const Vf magic = Vf::set1(12582912.0f); return (a + magic) - magic; }
NAG_INLINE Vd round_even(Vd a) { const Vd magic = Vd::set1(6755399441055744.0); return (a + magic) - magic; }

NAG_INLINE int32_t bits_of(float x) { int32_t i; NAG_COPY(&i, &x, 4); return i; }
NAG_INLINE int64_t bits_of(double x) { int64_t i; NAG_COPY(&i, &x, 8); return i; }
NAG_INLINE float of_bits(int32_t i) { float x; NAG_COPY(&x, &i, 4); return x; }
NAG_INLINE double of_bits(int64_t i) { double x; NAG_COPY(&x, &i, 8); return x; }

// 2^n for integral n inside the normal range, by moving the magic sum's low bits into the exponent field.
NAG_INLINE Vf exp2_normal(Vf n) {
  const Vf m = n + Vf::set1(12582912.0f + 127.0f);
#if defined(__GNUC__)
  return {(RawF)((RawI)m.v << 23)};
#else
  NAG_LANES(Vf, of_bits(static_cast<int32_t>(static_cast<uint32_t>(bits_of(m.v[i])) << 23)));
#endif
}
NAG_INLINE Vd exp2_normal(Vd n) {
  const Vd m = n + Vd::set1(6755399441055744.0 + 1023.0);
#if defined(__GNUC__)
  return {(RawD)((RawL)m.v << 52)};
#else
  NAG_LANES(Vd, of_bits(static_cast<int64_t>(static_cast<uint64_t>(bits_of(m.v[i])) << 52)));
#endif
}
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
  Vf e;
  for (int i = 0; i < 4; ++i) {
    const int32_t b = bits_of(x.v[i]), k = (b - 0x3F400000) >> 23;
    m.v[i] = of_bits(b - k * (1 << 23));
    e.v[i] = static_cast<float>(k);
  }
  return e;
}
NAG_INLINE Vd split2(Vd x, Vd& m) {
  Vd e;
  for (int i = 0; i < 2; ++i) {
    const int64_t b = bits_of(x.v[i]), k = (b - 0x3FE8000000000000LL) >> 52;
    m.v[i] = of_bits(b - k * (int64_t(1) << 52));
    e.v[i] = static_cast<double>(k);
  }
  return e;
}

NAG_INLINE float reduce_add(Vf a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
NAG_INLINE double reduce_add(Vd a) { return a.v[0] + a.v[1]; }
NAG_INLINE Vf transpose_sum(const Vf* a) { NAG_LANES(Vf, reduce_add(a[i])); }
NAG_INLINE Vd transpose_sum(const Vd* a) { NAG_LANES(Vd, reduce_add(a[i])); }

// Lane j of a[i] changes places with lane i of a[j].
template <class V> NAG_INLINE void transpose(V* a) {
  typename V::T rows[V::N * V::N], columns[V::N * V::N];
  for (int i = 0; i < V::N; ++i) a[i].store(rows + i * V::N);
  for (int i = 0; i < V::N; ++i)
    for (int j = 0; j < V::N; ++j) columns[i * V::N + j] = rows[j * V::N + i];
  for (int i = 0; i < V::N; ++i) a[i] = V::load(columns + i * V::N);
}

NAG_INLINE Vf widen(const uint8_t* p, Vf) { NAG_LANES(Vf, static_cast<float>(p[i])); }
NAG_INLINE Vd widen(const uint8_t* p, Vd) { NAG_LANES(Vd, static_cast<double>(p[i])); }
NAG_INLINE Vf widen(const bf16* p, Vf) { NAG_LANES(Vf, of_bits(static_cast<int32_t>(static_cast<uint32_t>(p[i].bits) << 16))); }
NAG_INLINE Vd widen(const bf16* p, Vd) {
  NAG_LANES(Vd, static_cast<double>(of_bits(static_cast<int32_t>(static_cast<uint32_t>(p[i].bits) << 16))));
}
NAG_INLINE Vd widen(const float* p, Vd) { NAG_LANES(Vd, static_cast<double>(p[i])); }
NAG_INLINE Vf widen(const float* p, Vf) { return Vf::load(p); }
NAG_INLINE Vd widen(const double* p, Vd) { return Vd::load(p); }
NAG_INLINE Vf widen(const double* p, Vf) { NAG_LANES(Vf, static_cast<float>(p[i])); }

// The first n lanes; the others are zero, and nothing past them is read.
template <class V, class S> NAG_INLINE V widen_n(const S* p, int n, V) {
  S lanes[V::N] = {};
  for (int i = 0; i < V::N; ++i)
    if (i < n) lanes[i] = p[i];
  return widen(lanes, V());
}

template <class I> NAG_INLINE Vf gather_n(const float* base, const I* j, int n) {
  Vf r = Vf::zero();
  for (int i = 0; i < n; ++i) r.v[i] = base[j[i]];
  return r;
}
template <class I> NAG_INLINE Vd gather_n(const double* base, const I* j, int n) {
  Vd r = Vd::zero();
  for (int i = 0; i < n; ++i) r.v[i] = base[j[i]];
  return r;
}
#undef NAG_LANES
#if defined(__GNUC__)
NAG_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
NAG_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }
#else
NAG_INLINE void prefetch(const void*) {}
NAG_INLINE void prefetch_far(const void*) {}
#endif
