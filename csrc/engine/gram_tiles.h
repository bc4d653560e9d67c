// Gram matrices whose two digits are enough, on matrix tiles (kernels/tile_table.h): metrics, not results. sqrt(c) x is rounded
// to bfloat16, so what comes out is the Gram matrix of rows that are each off by 2^-9, and no eigenvalue is negative.
// A thread takes whole leaves of the rows, whose sums in float32 are added in a fixed tree: the bits do not depend on how many
// threads there are. Memory: up to kLeaves matrices of float32, half a matrix each, and 0.8 MB a thread.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/aligned.h"
#include "engine/threads.h"
#include "kernels/table.h"

namespace nag {

class TileSums {
 public:
  // Fewer columns or rows are as soon multiplied in vectors.
  static constexpr std::ptrdiff_t kFewestColumns = 48;
  static constexpr std::int64_t kFewestRows = 256;

  // Says where rows of the sample begin, and the square root of what each counts. `room` holds kTileDepth rows of d numbers
  // of a thread's own, for rows that do not lie in memory as they are packed.
  using Fill = std::function<void(std::int64_t row, std::ptrdiff_t rows, const void** lines, float* c, void* room)>;

  // `item` is the size of a number of a row, float or double; `room` whether rows are written there.
  TileSums(const TileKernels& kernels, std::int64_t m, std::ptrdiff_t d, bool ones, std::size_t item, bool room)
      : kernels_(kernels), m_(m), d_(d), ones_(ones), item_(item), room_(room), columns_(d + (ones ? 1 : 0)),
        blocks_((columns_ + kTileSide - 1) / kTileSide), pairs_(static_cast<std::size_t>(blocks_ * (blocks_ + 1) / 2 * kTilePairs)),
        panels_(std::clamp<std::ptrdiff_t>(kPackedBytes / (blocks_ * kTilePairs * 4), 8, kMostTogether)),
        seen_(static_cast<std::size_t>(blocks_)) {
    const std::int64_t panels = (m + kTileDepth - 1) / kTileDepth;
    const std::int64_t least = std::max<std::int64_t>(kLeafPanels, (panels + kLeaves - 1) / kLeaves);
    leaf_rows_ = std::min<std::int64_t>(least, kMostPanels) * kTileDepth;
    leaves_ = (m + leaf_rows_ - 1) / leaf_rows_;
    sums_ = Aligned<float>(static_cast<std::size_t>(std::min<std::int64_t>(leaves_, kLeaves)) * pairs_, Unset{});
  }

  // False where it was stopped, or where squares overflow, vanish or are not numbers: the sums hold nothing then.
  bool run(int n_threads, const Fill& fill, const std::function<bool(int)>& due) {
    std::vector<std::atomic<std::uint16_t>> seen(static_cast<std::size_t>(blocks_));
    std::atomic<std::int64_t> next{0};
    const int slots = static_cast<int>(std::min<std::int64_t>(leaves_, kLeaves));
    parallel_pass(std::min(n_threads, slots), [&](int thread, int) {
      Aligned<char> room(room_ ? static_cast<std::size_t>(d_ * kTileDepth) * item_ : 0);
      const void* lines[kMostTogether * kTileDepth];
      float c[kMostTogether * kTileDepth];
      const std::ptrdiff_t stride = panels_ * kTilePairs;
      Aligned<std::uint32_t> B(static_cast<std::size_t>(blocks_ * stride), Unset{}), A(static_cast<std::size_t>(2 * stride), Unset{});
      std::vector<std::uint16_t> mine(static_cast<std::size_t>(blocks_));
      kernels_.enter();
      for (std::int64_t slot; (slot = next++) < slots;) {
        TileProduct p{B.data(), stride, 0, blocks_, A.data(), sums_.data() + static_cast<std::size_t>(slot) * pairs_, false};
        // Leaves beyond the first kLeaves go on where an earlier one has ended.
        for (std::int64_t leaf = slot; leaf < leaves_; leaf += kLeaves) {
          const std::int64_t end = std::min(m_, (leaf + 1) * leaf_rows_);
          for (std::int64_t row = leaf * leaf_rows_; row < end && !due(thread); row += panels_ * kTileDepth, p.add = true) {
            const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(panels_ * kTileDepth, end - row));
            if (!room_) fill(row, rows, lines, c, nullptr);
            p.panels = (rows + kTileDepth - 1) / kTileDepth;
            for (std::ptrdiff_t i = 0; i < p.panels; ++i) {
              const std::ptrdiff_t at = i * kTileDepth, these = std::min(kTileDepth, rows - at);
              if (room_) fill(row + at, these, lines + at, c + at, room.data());
              const TilePack q{lines + at, !room_ && at + 2 * kTileDepth <= rows ? lines + at + kTileDepth : nullptr, c + at, these,
                               d_, ones_, B.data() + i * kTilePairs, stride, mine.data()};
              (item_ == sizeof(double) ? kernels_.pack_f64 : kernels_.pack_f32)(q);
            }
            kernels_.product(p);
          }
        }
      }
      kernels_.leave();
      for (std::size_t u = 0; u < seen.size(); ++u) seen[u] |= mine[u];
    });
    if (due(0)) return false;
    for (std::size_t u = 0; u < seen.size(); ++u) seen_[u] = seen[u];
    add_leaves(n_threads, slots);
    return hold();
  }

  // Row i of the sums, up to its diagonal.
  void copy_row(std::ptrdiff_t i, double* to) const {
    const std::ptrdiff_t I = i / kTileSide;
    const float* from = sums_.data() + I * (I + 1) / 2 * kTilePairs + i % kTileSide * kTileSide;
    for (std::ptrdiff_t J = 0; J <= I; ++J, from += kTilePairs, to += kTileSide)
      for (std::ptrdiff_t j = 0, end = std::min(kTileSide, i + 1 - J * kTileSide); j < end; ++j) to[j] = from[j];
  }

 private:
  static constexpr std::ptrdiff_t kPackedBytes = std::ptrdiff_t(768) << 10;  // of B: with two rows of A and sums in a second-level cache
  static constexpr std::int64_t kLeaves = 8, kLeafPanels = 16, kMostPanels = 512;
  static constexpr std::ptrdiff_t kMostTogether = 32;  // panels
  static constexpr float kSmallest = 1e-30f;  // of a sum of squares: smaller ones have lost terms in float32

  // All into the first: those a power of two apart, pair by pair.
  void add_leaves(int n_threads, int slots) {
    if (slots < 2) return;
    std::atomic<std::size_t> next{0};
    parallel_run(n_threads, [&](int, int) {
      constexpr std::size_t kPiece = std::size_t(1) << 14;
      for (std::size_t piece; (piece = next++) * kPiece < pairs_;) {
        const std::size_t end = std::min(pairs_, (piece + 1) * kPiece);
        for (int step = 1; step < slots; step *= 2)
          for (int i = 0; i + step < slots; i += 2 * step) {
            float* const to = sums_.data() + static_cast<std::size_t>(i) * pairs_;
            const float* const from = to + static_cast<std::size_t>(step) * pairs_;
            for (std::size_t j = piece * kPiece; j < end; ++j) to[j] += from[j];
          }
      }
    });
  }

  float squares(std::ptrdiff_t j) const {
    const std::ptrdiff_t J = j / kTileSide, at = j % kTileSide;
    return sums_[static_cast<std::size_t>((J * (J + 1) / 2 + J) * kTilePairs + at * kTileSide + at)];
  }

  bool hold() const {
    double bad = 0;  // stays zero while all are finite
    for (std::size_t j = 0; j < pairs_; ++j) bad += static_cast<double>(sums_[j]) * 0.0;
    if (!(bad == 0)) return false;
    for (std::ptrdiff_t j = 0; j < columns_; ++j)
      if ((seen_[static_cast<std::size_t>(j / kTileSide)] >> j % kTileSide & 1) && squares(j) < kSmallest) return false;
    return true;
  }

  const TileKernels& kernels_;
  std::int64_t m_;
  std::ptrdiff_t d_;
  bool ones_;
  std::size_t item_;
  bool room_;
  std::ptrdiff_t columns_, blocks_;
  std::size_t pairs_;  // numbers of a matrix of sums
  std::ptrdiff_t panels_;
  std::int64_t leaf_rows_ = 0, leaves_ = 0;
  Aligned<float> sums_;
  std::vector<std::uint16_t> seen_;
};

}  // namespace nag
