// Plain trips through memory, split evenly over threads.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/table.h"

namespace nag {
std::uint64_t stream_read(const KernelTable& table, const unsigned char* p, std::size_t bytes, int n_threads);
void stream_update(float* p, const float* g, float* b, std::int64_t n, int n_threads);
}  // namespace nag
