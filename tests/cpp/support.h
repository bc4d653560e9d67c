// What the kernel tests share: instruction sets as a test parameter, arrays that end where their memory ends,
// distances in units in the last place, and random numbers that are the same everywhere.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "dispatch/dispatch.h"
#include "kernels/table.h"

namespace nag_test {

using nag::KernelTable;
using nag::RowKernels;

// Notes that a test ran this instruction set's kernels. A program that ends without having run each usable one fails.
const KernelTable& ran(const KernelTable* table);
template <class T> const RowKernels<T>& kernels(const KernelTable* table) { return nag::rows_of<T>(ran(table)); }

// A test with one case for each instruction set that this build and processor have.
class PerIsa : public ::testing::TestWithParam<const KernelTable*> {};
std::string isa_name(const ::testing::TestParamInfo<const KernelTable*>& info);
#define NAG_PER_ISA(Suite) \
  INSTANTIATE_TEST_SUITE_P(Isa, Suite, ::testing::ValuesIn(nag::usable_tables()), nag_test::isa_name)

// SplitMix64 (Steele, Lea & Flood 2014): std's distributions differ between libraries.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double uniform(double lo = -1.0, double hi = 1.0) {
    return lo + (hi - lo) * static_cast<double>(bits() >> 11) * 0x1p-53;
  }
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(n)); }

 private:
  std::uint64_t state_;
};

// `count` elements that start `shift` elements into their allocation and end exactly with it: AddressSanitizer sees a
// read of one element too many, and a kernel that wants alignment faults.
template <class T>
class Exact {
 public:
  explicit Exact(std::size_t count, std::size_t shift = 0, T fill = T()) : size_(count), shift_(shift), raw_(new T[count + shift]) {
    for (std::size_t i = 0; i < count + shift; ++i) raw_[i] = fill;
  }
  Exact(std::size_t count, std::size_t shift, Random& random, double lo = -1.0, double hi = 1.0) : Exact(count, shift) {
    for (std::size_t i = 0; i < count; ++i) data()[i] = static_cast<T>(random.uniform(lo, hi));
  }
  T* data() { return raw_.get() + shift_; }
  const T* data() const { return raw_.get() + shift_; }
  T& operator[](std::size_t i) { return data()[i]; }
  const T& operator[](std::size_t i) const { return data()[i]; }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_, shift_;
  std::unique_ptr<T[]> raw_;
};

inline std::size_t padded(std::ptrdiff_t count, int lanes) {
  return static_cast<std::size_t>((count + lanes - 1) / lanes * lanes);
}

// X as it is stored.
template <class S> struct Stored;
template <> struct Stored<double> {
  static constexpr nag::Storage kind = nag::Storage::f64;
  static double make(double x) { return x; }
  static long double wide(double s) { return s; }
};
template <> struct Stored<float> {
  static constexpr nag::Storage kind = nag::Storage::f32;
  static float make(double x) { return static_cast<float>(x); }
  static long double wide(float s) { return s; }
};
template <> struct Stored<nag::bf16> {
  static constexpr nag::Storage kind = nag::Storage::bf16;
  static nag::bf16 make(double x) {
    const float f = static_cast<float>(x);
    std::uint32_t u;
    std::memcpy(&u, &f, 4);
    return {static_cast<std::uint16_t>(u >> 16)};
  }
  static long double wide(nag::bf16 s) {
    const std::uint32_t u = static_cast<std::uint32_t>(s.bits) << 16;
    float f;
    std::memcpy(&f, &u, 4);
    return f;
  }
};
template <> struct Stored<std::uint8_t> {
  static constexpr nag::Storage kind = nag::Storage::u8;
  static std::uint8_t make(double x) { return static_cast<std::uint8_t>(std::fabs(x) * 200); }
  static long double wide(std::uint8_t s) { return s; }
};

// {1, 3, 7, N/2, N, N+1, 8N+2}: below, at and above every loop's step, for N lanes.
std::vector<std::ptrdiff_t> awkward_lengths(int lanes);

// |got - want| in units of want's last place in T; subnormals have the spacing they have.
template <class T>
double ulps(T got, long double want) {
  using L = std::numeric_limits<T>;
  if (std::isnan(want)) return std::isnan(got) ? 0.0 : std::numeric_limits<double>::infinity();
  if (std::fabs(want) > static_cast<long double>(L::max())) {
    // Half a unit above the largest number is where rounding turns to infinity.
    const bool same = std::isinf(got) ? std::signbit(got) == std::signbit(want) : false;
    return same ? 0.0 : std::numeric_limits<double>::infinity();
  }
  if (std::isinf(got) || std::isnan(got)) return std::numeric_limits<double>::infinity();
  int exponent = 0;
  std::frexp(want, &exponent);
  const int low = L::min_exponent - L::digits;
  const long double unit = std::ldexp(1.0L, std::max(exponent - L::digits, low));
  return static_cast<double>(std::fabs(static_cast<long double>(got) - want) / unit);
}

}  // namespace nag_test
