// A block of at most one huge page that is to stay in a core's second-level cache. Under a hypervisor a huge page may be
// 4 KiB pages scattered over the host's memory: some blocks then crowd a part of the cache's sets and miss at two thirds of
// its size. Which ones cannot be asked, but a read of them tells, and it tells the same every time.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/aligned.h"

namespace nag {

class EvenBlock {
 public:
  // Uninitialised. With `search`, the first of up to kCandidates blocks that reads like a small one, or the fastest of them.
  using Read = std::uint64_t (*)(const unsigned char*, std::size_t);
  EvenBlock(std::size_t bytes, bool search, Read read) {
    if (!search || bytes > HugeBlocks::kHuge - 64) {
      plain_ = Aligned<char>(bytes, Unset{});
      return;
    }
    auto& kept = kept_by_this_thread();
    if (kept.empty()) {
      block_ = choose(bytes, read);
    } else {
      block_ = static_cast<Aligned<char>&&>(kept.back());
      kept.pop_back();
    }
  }
  EvenBlock(EvenBlock&&) = default;
  EvenBlock& operator=(EvenBlock&&) = delete;
  ~EvenBlock() {
    auto& kept = kept_by_this_thread();
    if (block_.data() != nullptr && kept.size() < kept.capacity()) kept.push_back(static_cast<Aligned<char>&&>(block_));
  }
  char* data() { return block_.data() != nullptr ? block_.data() : plain_.data(); }

 private:
  static constexpr int kCandidates = 16;
  static constexpr std::size_t kSmall = 128 * 1024;

  static Aligned<char> choose(std::size_t bytes, Read read) {
    // Two fifths more than is wanted: what streams past takes its share of the sets.
    const std::size_t region = std::min(bytes + bytes / 5 * 2, HugeBlocks::kHuge - 64) / 64 * 64;
    std::vector<Aligned<char>> tried;  // kept till the end, so that each is another one
    std::size_t best = 0;
    double best_rate = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(kCandidates); ++i) {
      tried.emplace_back(HugeBlocks::kHuge - 64);
      const unsigned char* const p = reinterpret_cast<const unsigned char*>(tried.back().data());
      const double rate = rate_of(p, region, region, read);
      if (rate > best_rate) {
        best = i;
        best_rate = rate;
      }
      if (rate >= 0.9 * rate_of(p, kSmall, region, read)) break;
    }
    return static_cast<Aligned<char>&&>(tried[best]);
  }

  // Bytes a second of the fastest of a few reads of the first `size` bytes over and over, `total` in all.
  static double rate_of(const unsigned char* p, std::size_t size, std::size_t total, Read read) {
    using Clock = std::chrono::steady_clock;
    double best = 0;
    for (int turn = 0; turn < 4; ++turn) {  // the first brings it into the cache
      std::uint64_t sum = 0;
      std::size_t done = 0;
      const Clock::time_point start = Clock::now();
      for (; done < total; done += size) sum += read(p, size);
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      // The blocks are all zeros; a sum that is used cannot be left out.
      if (sum == 0 && seconds > 0) best = std::max(best, static_cast<double>(done) / seconds);
    }
    return best;
  }

  static std::vector<Aligned<char>>& kept_by_this_thread() {
    thread_local std::vector<Aligned<char>> kept = [] {
      Aligned<char>(HugeBlocks::kHuge / 8, Unset{});  // this thread's HugeBlocks must outlive these
      std::vector<Aligned<char>> v;
      v.reserve(8);
      return v;
    }();
    return kept;
  }

  Aligned<char> block_, plain_;
};

}  // namespace nag
