// Chooses the vectors of this translation unit's instruction set. Included INSIDE the per-ISA namespace (isa/kernels.cc),
// so that no two instruction sets ever share an inline function the linker could merge.

#if NAG_SIMD == 512
#include "base/simd_avx512.h"
#elif NAG_SIMD == 256
#include "base/simd_avx2.h"
#else
#include "base/simd_portable.h"
#endif

// The vector whose lanes are T.
template <class T> struct VecOf;
template <> struct VecOf<float> { using type = Vf; };
template <> struct VecOf<double> { using type = Vd; };
template <class T> using Vec = typename VecOf<T>::type;
