// New NumPy arrays for rows: large ones in blocks that go from one array to the next (engine/aligned.h), since the system
// clears fresh pages at about the speed of a pass.
#pragma once
#include <pybind11/numpy.h>

#include <cstddef>
#include <vector>

#include "engine/aligned.h"

namespace nag {

template <class T>
pybind11::array_t<T> new_array(const std::vector<pybind11::ssize_t>& shape) {
  std::size_t count = 1;
  for (const pybind11::ssize_t size : shape) count *= static_cast<std::size_t>(size);
  if (count * sizeof(T) < HugeBlocks::kHuge / 8) return pybind11::array_t<T>(shape);
  auto* block = new Aligned<T>(count, Unset{});
  const pybind11::capsule owner(block, [](void* p) { delete static_cast<Aligned<T>*>(p); });
  return pybind11::array_t<T>(shape, block->data(), owner);
}

}  // namespace nag
