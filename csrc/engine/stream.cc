#include "engine/stream.h"

#include <atomic>

#include "engine/threads.h"

namespace nag {

std::uint64_t stream_read(const KernelTable& table, const unsigned char* p, std::size_t bytes, int n_threads) {
  std::atomic<std::uint64_t> total{0};
  parallel_run(n_threads, [&](int t, int count) {
    const std::size_t piece = (bytes / static_cast<std::size_t>(count)) & ~std::size_t(63);
    const std::size_t begin = static_cast<std::size_t>(t) * piece, end = t + 1 == count ? bytes : begin + piece;
    total += table.stream_read(p + begin, end - begin);
  });
  return total;
}

void stream_update(float* p, const float* g, float* b, std::int64_t n, int n_threads) {
  parallel_run(n_threads, [&](int t, int count) {
    for (std::int64_t i = n * t / count, end = n * (t + 1) / count; i < end; ++i) {
      b[i] = 0.9f * b[i] + g[i];
      p[i] -= 0.1f * (g[i] + 0.9f * b[i]);
    }
  });
}

}  // namespace nag
