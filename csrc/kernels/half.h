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
NAG_INLINE RandomKey random_key(uint64_t seed, uint64_t tensor, uint64_t leaf) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;
  uint64_t h = mix64(seed + kGolden);
  h = mix64(h + tensor * kGolden + 1);
  h = mix64(h + leaf * kGolden + 2);
  return {static_cast<uint32_t>(h), static_cast<uint32_t>(h >> 32)};
}
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

// A bfloat16 buffer goes in blocks of this many elements, whose elements j and j + 256 take the two halves of one draw: half
// the hashing, and the same bits whatever the width of the vectors.
constexpr size_t kDitherBlock = 512;

// from[0..n) → to, n ≤ kDitherBlock, with the draws of the block that begins at element `first` of its leaf.
NAG_NOINLINE void dither_block(const float* from, uint16_t* to, size_t n, RandomKey key, size_t first) {
  constexpr size_t kHalf = kDitherBlock / 2;
  const uint32_t base = static_cast<uint32_t>(first / 2);
  if (n == kDitherBlock) {
    for (size_t j = 0; j < kHalf; ++j) {
      const uint32_t draw = random_bits(key, base + static_cast<uint32_t>(j));
      to[j] = Bfloat16::dithered(from[j], draw & 0xFFFFu);
      to[j + kHalf] = Bfloat16::dithered(from[j + kHalf], draw >> 16);
    }
    return;
  }
  const size_t low = n < kHalf ? n : kHalf;
  for (size_t j = 0; j < low; ++j) {
    to[j] = Bfloat16::dithered(from[j], random_bits(key, base + static_cast<uint32_t>(j)) & 0xFFFFu);
  }
  for (size_t j = kHalf; j < n; ++j) {
    to[j] = Bfloat16::dithered(from[j], random_bits(key, base + static_cast<uint32_t>(j - kHalf)) >> 16);
  }
}
