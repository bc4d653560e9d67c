// The sweep over long rows of bytes, with the sums of whole numbers of AVX512-VNNI: beside what else is compiled for AVX-512.
#include "isa/unit.h"

namespace nag {
namespace vnni {
namespace {

#include "base/simd.h"
#include "kernels/walks.h"
#include "kernels/rows.h"
#include "kernels/pipe.h"

}  // namespace

extern void (*const pipe_bytes)(const PipeBlock<float>&);
void (*const pipe_bytes)(const PipeBlock<float>&) = &pipe<Vf, uint8_t>;

}  // namespace vnni
}  // namespace nag
