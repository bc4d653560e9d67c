// Products of rows rounded to bfloat16, for matrices of which two digits are enough: on the processor's own matrix tiles
// (AMX), sixteen times the multiplications of its vectors, filled in isa/tiles.cc; or in vectors of pairs (AVX512-BF16), twice
// as many as of float32 and four times those of double, filled in isa/dots.cc.
//
// A block of X's rows is cut into panels of 32 rows and blocks of 16 columns, each such piece a tile of 1 KiB:
//   B[k][j] = (x[2k][j], x[2k+1][j]),   pairs of bfloat16, k < 16, j < 16.
// With its transpose A[j][k] as 16 x 16 numbers of 32 bits, C(I, J) += A_I B_J adds 32 rows to 256 sums in float32. Vectors
// take the numbers of A_I from B_I, one at a time.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nag {

constexpr std::ptrdiff_t kTileSide = 16;               // columns of a tile
constexpr std::ptrdiff_t kTileDepth = 32;               // rows of X in a panel
constexpr std::ptrdiff_t kTilePairs = 16 * kTileSide;  // 32-bit numbers of a tile

// 32 rows or fewer (the others count nothing), times c and rounded to nearest, even: the tile of block u is written at
// B + u*stride. seen[u] gains a bit for each column that holds a number other than zero.
struct TilePack {
  const void* const* lines;  // where each row begins: d numbers, float or double as the kernel says
  const void* const* next;   // where those that will be packed next begin, 32 of them, or null
  const float* c;
  std::ptrdiff_t rows, d;
  bool ones;  // a column of ones follows the last
  std::uint32_t* B;
  std::ptrdiff_t stride;
  std::uint16_t* seen;
};

// C(I, J) = or += the sum over `panels` of A_I B_J for all J <= I < blocks. Pair (I, J) has its 256 sums at I(I + 1)/2 + J.
struct TileProduct {
  const std::uint32_t* B;
  std::ptrdiff_t stride, panels, blocks;
  std::uint32_t* A;  // room for two blocks of columns: 2*panels tiles
  float* sums;
  bool add;
};

struct TileKernels {
  const char* name;       // "amx" or "bf16", as NAGCORE_ISA says it
  void (*enter)();  // before a thread's first product
  void (*leave)();  // after its last: what the tiles hold is no longer saved with the thread
  void (*pack_f32)(const TilePack&);
  void (*pack_f64)(const TilePack&);
  void (*product)(const TileProduct&);
};

}  // namespace nag
