// Threads: how many, and one way to run a function on each. With tree.h's fixed order this is all of OpenMP there is here.
#pragma once
#include <functional>

namespace nag {

bool openmp_enabled();
// Affinity, cgroup quota, OMP_NUM_THREADS and threadpoolctl's limits, whichever is least; 1 in a child whose fork the
// OpenMP runtime cannot survive.
int default_threads();
// n_threads as a caller gave it (0 or less: default_threads()).
int resolve_threads(int n_threads);

// Calls body(t, count) for t = 0..count-1, count <= n_threads, t = 0 on the calling thread. The first exception is
// rethrown on the calling thread after all have ended; none leaves the parallel region.
void parallel_run(int n_threads, const std::function<void(int t, int count)>& body);
// The same for passes over data: results below the smallest normal number become zero while body runs. Residuals of rows
// that are far on the right side are such numbers, and each costs the processor a hundred others.
void parallel_pass(int n_threads, const std::function<void(int t, int count)>& body);
// Between the threads of one parallel_run; every one of them must call it.
void parallel_barrier();

}  // namespace nag
