// New NumPy arrays for rows: large ones in blocks that go from one array to the next (engine/aligned.h), since the system
// clears fresh pages at about the speed of a pass.
#pragma once
#include <pybind11/numpy.h>

#include <cstddef>
#include <vector>

#include "engine/aligned.h"

namespace nag {

inline pybind11::array new_array(const pybind11::dtype& type, const std::vector<pybind11::ssize_t>& shape) {
  std::size_t bytes = static_cast<std::size_t>(type.itemsize());
  for (const pybind11::ssize_t size : shape) bytes *= static_cast<std::size_t>(size);
  if (bytes < HugeBlocks::kHuge / 8) return pybind11::array(type, shape);
  auto* block = new Aligned<char>(bytes, Unset{});
  const pybind11::capsule owner(block, [](void* p) { delete static_cast<Aligned<char>*>(p); });
  return pybind11::array(type, shape, block->data(), owner);
}

template <class T>
pybind11::array_t<T> new_array(const std::vector<pybind11::ssize_t>& shape) {
  return pybind11::array_t<T>(new_array(pybind11::dtype::of<T>(), shape));
}

}  // namespace nag
