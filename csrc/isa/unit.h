// What stands before the namespace of a unit that is compiled for one instruction set: no STL (isa/kernels.cc).
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if NAG_SIMD >= 256
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>
#endif

#include "base/types.h"
#include "kernels/table.h"

#if defined(__GNUC__)
#define NAG_INLINE inline __attribute__((always_inline))
#define NAG_NOINLINE __attribute__((noinline))
#define NAG_ALWAYS __attribute__((always_inline))  // behind the parameters of a lambda
#define NAG_COPY(to, from, n) __builtin_memcpy(to, from, n)
#else
#define NAG_INLINE inline
#define NAG_NOINLINE
#define NAG_ALWAYS
#define NAG_COPY(to, from, n) memcpy(to, from, n)
#endif
