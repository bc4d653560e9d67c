// Copies between a strided array and a dense scratch leaf. Only the update uses it, and only for
// tensors whose arrays do not share one dense layout: a transposed gradient must give right results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace nag {

// Calls visit(offset in bytes, run length, stride in bytes) for the runs along the last axis that
// cover the logical elements [start, start + count).
template <class Visit>
void for_each_run(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides,
                  std::size_t start, std::size_t count, Visit visit) {
  const std::size_t rank = shape.size();
  if (rank == 0) {
    if (count > 0) visit(std::int64_t{0}, std::size_t{1}, std::int64_t{0});
    return;
  }
  const auto inner = static_cast<std::size_t>(shape[rank - 1]);
  const std::int64_t step = strides[rank - 1];
  while (count > 0) {
    // Unravelled anew for each run: a division an axis, against the run's element copies.
    std::size_t rest = start / inner;
    const std::size_t column = start % inner;
    std::int64_t offset = static_cast<std::int64_t>(column) * step;
    for (std::size_t axis = rank - 1; axis-- > 0;) {
      const auto extent = static_cast<std::size_t>(shape[axis]);
      offset += static_cast<std::int64_t>(rest % extent) * strides[axis];
      rest /= extent;
    }
    const std::size_t run = inner - column < count ? inner - column : count;
    visit(offset, run, step);
    start += run;
    count -= run;
  }
}

template <std::size_t kBytes>
void gather_elements(char* dense, const char* base, const std::vector<std::int64_t>& shape,
                     const std::vector<std::int64_t>& strides, std::size_t start,
                     std::size_t count) {
  for_each_run(shape, strides, start, count,
               [&](std::int64_t offset, std::size_t run, std::int64_t step) {
                 const char* from = base + offset;
                 for (std::size_t i = 0; i < run; ++i, dense += kBytes, from += step) {
                   std::memcpy(dense, from, kBytes);
                 }
               });
}

template <std::size_t kBytes>
void scatter_elements(const char* dense, char* base, const std::vector<std::int64_t>& shape,
                      const std::vector<std::int64_t>& strides, std::size_t start,
                      std::size_t count) {
  for_each_run(shape, strides, start, count,
               [&](std::int64_t offset, std::size_t run, std::int64_t step) {
                 char* to = base + offset;
                 for (std::size_t i = 0; i < run; ++i, dense += kBytes, to += step) {
                   std::memcpy(to, dense, kBytes);
                 }
               });
}

inline void gather(std::size_t bytes, char* dense, const char* base,
                   const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides,
                   std::size_t start, std::size_t count) {
  if (bytes == 8) return gather_elements<8>(dense, base, shape, strides, start, count);
  if (bytes == 4) return gather_elements<4>(dense, base, shape, strides, start, count);
  return gather_elements<2>(dense, base, shape, strides, start, count);
}

inline void scatter(std::size_t bytes, const char* dense, char* base,
                    const std::vector<std::int64_t>& shape,
                    const std::vector<std::int64_t>& strides, std::size_t start,
                    std::size_t count) {
  if (bytes == 8) return scatter_elements<8>(dense, base, shape, strides, start, count);
  if (bytes == 4) return scatter_elements<4>(dense, base, shape, strides, start, count);
  return scatter_elements<2>(dense, base, shape, strides, start, count);
}

}  // namespace nag
