// bfloat16 and float16 of the update: widened exactly, rounded once, to nearest even or stochastically. Plain loops over
// a block that is in cache: integer work on 32-bit lanes, which every compiler here turns into vectors.
// Included inside the per-ISA namespace.

NAG_INLINE uint32_t bits_of_float(float x) {
  uint32_t u;
  NAG_COPY(&u, &x, 4);
  return u;
}
NAG_INLINE float float_of_bits(uint32_t u) {
  float x;
  NAG_COPY(&x, &u, 4);
  return x;
}

// Counter-based random bits: two keys from (seed, tensor, leaf), then a hash of the element's place in its leaf. No state
// passes from one element to the next, so no thread count, instruction set or block size can change a bit.
struct RandomKey {
  uint32_t before, between;
};
NAG_INLINE uint64_t mix64(uint64_t x) {  // the finaliser of splitmix64 (Steele, Lea and Flood 2014)
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}
// What the leaves of a tensor share of it.
class RandomKeys {
 public:
  RandomKeys() = default;
  NAG_INLINE RandomKeys(uint64_t seed, uint64_t tensor) : h_(mix64(mix64(seed + kGolden) + tensor * kGolden + 1)) {}
  NAG_INLINE RandomKey of(uint64_t leaf) const {
    const uint64_t h = mix64(h_ + leaf * kGolden + 2);
    return {static_cast<uint32_t>(h), static_cast<uint32_t>(h >> 32)};
  }

 private:
  static constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;
  uint64_t h_ = 0;
};
NAG_INLINE uint32_t random_bits(RandomKey key, uint32_t index) {
  uint32_t x = index + key.before;
  x = (x ^ (x >> 16)) * 0x21F0AAADu;
  x = (x ^ (x >> 15) ^ key.between) * 0x735A2D97u;
  return x ^ (x >> 15);
}

struct Bfloat16 {
  static NAG_INLINE float widen(uint16_t h) { return float_of_bits(static_cast<uint32_t>(h) << 16); }
  static NAG_INLINE uint16_t nearest(float x) {
    const uint32_t u = bits_of_float(x);
    const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    const uint32_t quiet = (u >> 16) | 0x40u;
    return static_cast<uint16_t>((u & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
  }
  // The 16 bits that fall off are the chance of rounding away from zero; `random` has 16 bits. Infinity ends in 16 zeros and
  // stays; a NaN's payload might carry into its sign.
  static NAG_INLINE uint16_t dithered(float x, uint32_t random) {
    const uint32_t u = bits_of_float(x);
    const uint32_t quiet = (u >> 16) | 0x40u;
    return static_cast<uint16_t>((u & 0x7FFFFFFFu) > 0x7F800000u ? quiet : (u + random) >> 16);
  }
  static NAG_INLINE uint16_t stochastic(float x, uint32_t random) { return dithered(x, random >> 16); }
};

struct Float16 {
  static constexpr uint32_t kSmallestNormal = 0x38800000u;  // 2^-14
  static constexpr uint32_t kRebias = 112u << 23;

  static NAG_INLINE float widen(uint16_t h) {
    const uint32_t sign = (static_cast<uint32_t>(h) & 0x8000u) << 16;
    const uint32_t m = h & 0x7FFFu;
    const uint32_t normal = (m << 13) + kRebias;
    const uint32_t special = (m << 13) | 0x7F800000u;
    const uint32_t subnormal = bits_of_float(static_cast<float>(static_cast<int32_t>(m)) * 0x1p-24f);
    const uint32_t a = m >= 0x7C00u ? special : normal;
    return float_of_bits(sign | (m < 0x400u ? subnormal : a));
  }
  // a is a finite or infinite magnitude with the rounding already added; beyond 65504 everything is infinity.
  static NAG_INLINE uint32_t normal(uint32_t a) {
    const uint32_t h = (a - kRebias) >> 13;
    return h < 0x7C00u ? h : 0x7C00u;
  }
  static NAG_INLINE uint16_t pick(uint32_t u, uint32_t normal, uint32_t subnormal) {
    const uint32_t a = u & 0x7FFFFFFFu;
    const uint32_t quiet = 0x7E00u | ((a >> 13) & 0x3FFu);
    const uint32_t number = a < kSmallestNormal ? subnormal : normal;
    return static_cast<uint16_t>(((u >> 16) & 0x8000u) | (a > 0x7F800000u ? quiet : number));
  }
  static NAG_INLINE uint16_t nearest(float x) {
    const uint32_t u = bits_of_float(x), a = u & 0x7FFFFFFFu;
    // The ulp of 1/2 is 2^-24, the quantum of subnormal halves: the addition rounds, the low bits are the answer.
    const uint32_t below = bits_of_float(float_of_bits(a) + 0.5f) - bits_of_float(0.5f);
    return pick(u, normal(a + 0xFFFu + ((a >> 13) & 1u)), below);
  }
  static NAG_INLINE uint16_t stochastic(float x, uint32_t random) {
    const uint32_t u = bits_of_float(x), a = u & 0x7FFFFFFFu;
    const float chance = static_cast<float>(static_cast<int32_t>(random >> 8)) * 0x1p-24f;
    // Clamped for the lanes that take the other branch: a conversion out of range is undefined.
    const float quanta = a < kSmallestNormal ? float_of_bits(a) * 0x1p24f : 0.0f;
    const uint32_t below = static_cast<uint32_t>(static_cast<int32_t>(quanta + chance));
    return pick(u, normal(a + (random >> 19)), below);
  }
};

template <class H>
NAG_NOINLINE void widen_block(const uint16_t* from, float* to, size_t n) {
  for (size_t i = 0; i < n; ++i) to[i] = H::widen(from[i]);
}
template <class H>
NAG_NOINLINE void round_nearest(const float* from, uint16_t* to, size_t n) {
  for (size_t i = 0; i < n; ++i) to[i] = H::nearest(from[i]);
}
// `first` is the place of from[0] in its leaf.
template <class H>
NAG_NOINLINE void round_stochastic(const float* from, uint16_t* to, size_t n, RandomKey key, size_t first) {
  const uint32_t base = static_cast<uint32_t>(first);
  for (size_t i = 0; i < n; ++i) to[i] = H::stochastic(from[i], random_bits(key, base + static_cast<uint32_t>(i)));
}

// A bfloat16 buffer goes in blocks of this many elements, which share 16 draws of 32 bits: element j and j + 16 take the low
// and the high half of one. Half the hashing, and the same bits whatever the width of the vectors. Written out for the wide
// instruction sets, since compilers make shuffles of the loop below, and rounding must not outweigh the memory it saves.
constexpr int kDitherBlock = 32;

#if NAG_SIMD == 512
struct Draws {
  __m512i v;
  NAG_INLINE Draws(RandomKey key, uint32_t first) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i x = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first + key.before)), lanes);
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x21F0AAAD));
    x = _mm512_xor_si512(_mm512_xor_si512(x, _mm512_srli_epi32(x, 15)), _mm512_set1_epi32(static_cast<int>(key.between)));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x735A2D97));
    v = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
  }
  // The vector of elements [j, j + N) of the block.
  NAG_INLINE void store(Vf b, uint16_t* to, int j) const {
    put(b, to, j < 16 ? _mm512_and_si512(v, _mm512_set1_epi32(0xFFFF)) : _mm512_srli_epi32(v, 16));
  }
  static NAG_INLINE void store_nearest(Vf b, uint16_t* to) {
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(b.v), 16), _mm512_set1_epi32(1));
    put(b, to, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  }
  static NAG_INLINE void put(Vf b, uint16_t* to, __m512i random) {
    const __m512i u = _mm512_castps_si512(b.v);
    const __mmask16 nan = _mm512_cmp_ps_mask(b.v, b.v, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(_mm512_add_epi32(u, random), nan, u, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
  }
};
#elif NAG_SIMD == 256
struct Draws {
  __m256i v[2];
  NAG_INLINE Draws(RandomKey key, uint32_t first) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int half = 0; half < 2; ++half) {
      __m256i x = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first + key.before) + 8 * half), lanes);
      x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
      x = _mm256_mullo_epi32(x, _mm256_set1_epi32(0x21F0AAAD));
      x = _mm256_xor_si256(_mm256_xor_si256(x, _mm256_srli_epi32(x, 15)), _mm256_set1_epi32(static_cast<int>(key.between)));
      x = _mm256_mullo_epi32(x, _mm256_set1_epi32(0x735A2D97));
      v[half] = _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
    }
  }
  NAG_INLINE void store(Vf b, uint16_t* to, int j) const {
    const __m256i draw = v[j % 16 / 8];
    put(b, to, j < 16 ? _mm256_and_si256(draw, _mm256_set1_epi32(0xFFFF)) : _mm256_srli_epi32(draw, 16));
  }
  static NAG_INLINE void store_nearest(Vf b, uint16_t* to) {
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(_mm256_castps_si256(b.v), 16), _mm256_set1_epi32(1));
    put(b, to, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  }
  static NAG_INLINE void put(Vf b, uint16_t* to, __m256i random) {
    const __m256i u = _mm256_castps_si256(b.v);
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, random), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(b.v, b.v, _CMP_UNORD_Q));
    const __m256i kept = _mm256_blendv_epi8(rounded, quiet, nan);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(kept, kept), 0xD8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
  }
};
#else
struct Draws {
  uint32_t v[kDitherBlock / 2];
  NAG_INLINE Draws(RandomKey key, uint32_t first) {
    for (uint32_t j = 0; j < kDitherBlock / 2; ++j) v[j] = random_bits(key, first + j);
  }
  NAG_INLINE void store(Vf b, uint16_t* to, int j) const {
    float lanes[Vf::N];
    b.store(lanes);
    for (int k = 0; k < Vf::N; ++k) {
      const uint32_t draw = v[(j + k) % (kDitherBlock / 2)];
      to[k] = Bfloat16::dithered(lanes[k], j < kDitherBlock / 2 ? draw & 0xFFFFu : draw >> 16);
    }
  }
  static NAG_INLINE void store_nearest(Vf b, uint16_t* to) {
    float lanes[Vf::N];
    b.store(lanes);
    for (int k = 0; k < Vf::N; ++k) to[k] = Bfloat16::nearest(lanes[k]);
  }
};
#endif
