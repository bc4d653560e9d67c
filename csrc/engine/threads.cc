#include "engine/threads.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif
#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#define NAG_MXCSR
#endif

#if defined(_OPENMP) && defined(__linux__)
// OpenMP 5.0; an older runtime lacks it, and a weak symbol is then null.
extern "C" int omp_pause_resource_all(omp_pause_resource_t kind) __attribute__((weak));
#endif

namespace nag {
namespace {

std::atomic<bool> child_must_be_serial{false};

#if defined(_OPENMP) && defined(__linux__)
// libgomp's idle threads do not exist in a forked child, and its next parallel region waits for them forever. Pausing
// the runtime before the fork makes both sides start new ones.
std::atomic<bool> pause_failed{false};
void before_fork() { pause_failed = omp_pause_resource_all == nullptr || omp_pause_resource_all(omp_pause_soft) != 0; }
void after_fork_in_child() { if (pause_failed) child_must_be_serial = true; }
const int registered = pthread_atfork(before_fork, nullptr, after_fork_in_child);
#endif

// Of this thread, while it lives. Inputs below the smallest normal number stay what they are.
class FlushToZero {
#if defined(NAG_MXCSR)
 public:
  FlushToZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8000); }
  ~FlushToZero() { _mm_setcsr(before_); }
  FlushToZero(const FlushToZero&) = delete;
  FlushToZero& operator=(const FlushToZero&) = delete;

 private:
  unsigned before_;
#else
 public:
  ~FlushToZero() {}  // other processors take such numbers at full speed
#endif
};

// Where the threads of a region wait for each other. The runtime's own barrier spins for milliseconds before it lets go of
// its core, and where the system has put two of the threads on one core it is the other thread that this keeps waiting.
class Meeting {
 public:
  void meet(int count) {
    if (count == 1) return;
    const int turn = turn_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; turn_.load(std::memory_order_acquire) == turn; ++spins)
      if (spins < kSpins) relax();
      else std::this_thread::yield();
  }

 private:
  static constexpr int kSpins = 1024;  // some 50 µs
  static void relax() {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_ia32_pause();
#endif
  }
  std::atomic<int> arrived_{0}, turn_{0};
};

// The cores on which threads of a region are. The system at times wakes one where another is at work, though a core next to
// it is idle, and leaves it there for some 4 ms: more than a small pass takes. Such a thread moves itself, once.
class Cores {
#if defined(__linux__) && defined(_GNU_SOURCE)
 public:
  void settle() {
    const int here = sched_getcpu();
    if (here < 0 || here >= kMost || !taken(here)) return;
    cpu_set_t allowed, free;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    free = allowed;
    for (int i = 0; i < kMost; ++i)
      if (CPU_ISSET(i, &free) && ((taken_[i / 64].load(std::memory_order_relaxed) >> (i % 64)) & 1) != 0) CPU_CLR(i, &free);
    // Moving is at once; the set of cores that the caller's system allows stands again right after.
    if (CPU_COUNT(&free) == 0 || sched_setaffinity(0, sizeof free, &free) != 0) return;
    sched_setaffinity(0, sizeof allowed, &allowed);
    const int there = sched_getcpu();
    if (there >= 0 && there < kMost) taken(there);
  }

 private:
  static constexpr int kMost = CPU_SETSIZE;
  bool taken(int core) {  // and from now on it is
    const std::uint64_t bit = std::uint64_t(1) << (core % 64);
    return (taken_[core / 64].fetch_or(bit, std::memory_order_relaxed) & bit) != 0;
  }
  std::atomic<std::uint64_t> taken_[kMost / 64] = {};
#else
 public:
  void settle() {}
#endif
};

struct Region {
  Meeting* meeting = nullptr;
  int count = 1;
};
thread_local Region this_region;

int cgroup_quota() {
  static const int quota = [] {
    double limit = 0, period = 0;
    if (std::FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
      if (std::fscanf(f, "%lf %lf", &limit, &period) != 2) limit = 0;  // "max" leaves it without a number
      std::fclose(f);
    }
    return limit > 0 && period > 0 ? std::max(1, static_cast<int>(limit / period + 0.999)) : 1 << 20;
  }();
  return quota;
}

}  // namespace

bool openmp_enabled() {
#if defined(_OPENMP)
  return true;
#else
  return false;
#endif
}

int default_threads() {
#if defined(_OPENMP)
  if (child_must_be_serial) return 1;
  // The runtime's count, not this thread's affinity: under OMP_PROC_BIND the runtime has bound this thread to one place.
  return std::max(1, std::min({omp_get_max_threads(), omp_get_num_procs(), cgroup_quota()}));
#else
  (void)cgroup_quota;
  return 1;
#endif
}

int resolve_threads(int n_threads) {
  if (n_threads <= 0) return default_threads();
#if defined(_OPENMP)
  return child_must_be_serial ? 1 : n_threads;
#else
  return 1;
#endif
}

void parallel_run(int n_threads, const std::function<void(int, int)>& body) {
#if defined(_OPENMP)
  if (n_threads > 1) {
    std::exception_ptr first;
    std::mutex guard;
    Meeting meeting;
    Cores cores;
    cores.settle();  // the calling thread first: it stays where it is
#pragma omp parallel num_threads(n_threads)
    {
      const Region outer = this_region;
      const int count = omp_get_num_threads();
      this_region = {&meeting, count};
      if (omp_get_thread_num() != 0) cores.settle();
      try {
        body(omp_get_thread_num(), count);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(guard);
        if (!first) first = std::current_exception();
      }
      meeting.meet(count);  // ahead of the runtime's barrier, where nobody then waits
      this_region = outer;
    }
    if (first) std::rethrow_exception(first);
    return;
  }
#endif
  (void)n_threads;
  const Region outer = this_region;
  this_region = {};
  try {
    body(0, 1);
  } catch (...) {
    this_region = outer;
    throw;
  }
  this_region = outer;
}

void parallel_pass(int n_threads, const std::function<void(int, int)>& body) {
  parallel_run(n_threads, [&body](int thread, int count) {
    const FlushToZero flush;
    body(thread, count);
  });
}

void parallel_barrier() {
  if (this_region.meeting != nullptr) this_region.meeting->meet(this_region.count);
}

}  // namespace nag
