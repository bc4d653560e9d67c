// Threads of one parallel_run that tell each other how far they are. Unlike a barrier, a thread waits only for what it is
// about to read; work between telling and asking hides the others' delay.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

namespace nag {

class Handshake {
 public:
  explicit Handshake(int threads) : steps_(new Step[static_cast<std::size_t>(threads)]) {}

  void arrive(int thread, std::int64_t step) { at(thread).done.store(step, std::memory_order_release); }

  // Until the first `count` threads have arrived at `step`; false as soon as a thread has left for good.
  bool wait(int count, std::int64_t step) const {
    for (int t = 0; t < count; ++t)
      for (int spins = 0; at(t).done.load(std::memory_order_acquire) < step; ++spins) {
        if (left_.load(std::memory_order_relaxed)) return false;
        if (spins < 4096) relax();
        else std::this_thread::yield();  // there may be more threads than cores
      }
    return true;
  }
  void leave() { left_.store(true, std::memory_order_relaxed); }

 private:
  struct Step {
    alignas(128) std::atomic<std::int64_t> done{-1};  // two lines: they are fetched in pairs
  };
  Step& at(int thread) const { return steps_[static_cast<std::size_t>(thread)]; }
  static void relax() {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_ia32_pause();
#endif
  }
  std::unique_ptr<Step[]> steps_;
  std::atomic<bool> left_{false};
};

}  // namespace nag
