#include "engine/threads.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <mutex>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <pthread.h>
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
#pragma omp parallel num_threads(n_threads)
    {
      try {
        body(omp_get_thread_num(), omp_get_num_threads());
      } catch (...) {
        const std::lock_guard<std::mutex> lock(guard);
        if (!first) first = std::current_exception();
      }
    }
    if (first) std::rethrow_exception(first);
    return;
  }
#endif
  (void)n_threads;
  body(0, 1);
}

void parallel_pass(int n_threads, const std::function<void(int, int)>& body) {
  parallel_run(n_threads, [&body](int thread, int count) {
    const FlushToZero flush;
    body(thread, count);
  });
}

void parallel_barrier() {
#if defined(_OPENMP)
#pragma omp barrier
#endif
}

}  // namespace nag
