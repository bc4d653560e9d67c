// Element types, storage kinds and the small vocabulary every other room shares. No code runs here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>

namespace nag {

// bfloat16 as stored: the upper half of a float32. Arithmetic happens after widening.
struct bf16 { uint16_t bits; };

enum class Storage : int { f64 = 0, f32 = 1, bf16 = 2, u8 = 3 };
constexpr int kStorageCount = 4;
constexpr std::size_t kStorageBytes[kStorageCount] = {8, 4, 2, 1};
constexpr const char* kStorageName[kStorageCount] = {"float64", "float32", "bfloat16", "uint8"};

enum class Compute : int { f32 = 0, f64 = 1 };

// What a loss accepts as targets.
enum class Domain : int { real = 0, binary = 1, classes = 2, nonnegative = 3 };
constexpr const char* kDomainName[4] = {"real", "binary", "class", "nonnegative"};


constexpr double kUnbounded = std::numeric_limits<double>::infinity();

}  // namespace nag
