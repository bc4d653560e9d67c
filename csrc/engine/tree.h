// Sums in a fixed binary tree over leaves, whatever the number of threads.
// Node (l, i) = node (l-1, 2i) + node (l-1, 2i+1); a node without a right sibling passes up unchanged. A thread takes an
// aligned subtree (all leaves under one node), so cutting the leaves differently never changes a bit of the root.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/aligned.h"

namespace nag {

inline int ceil_log2(std::int64_t x) {
  int l = 0;
  while ((std::int64_t(1) << l) < x) ++l;
  return l;
}

// Adds up the leaves of one subtree as they come, holding one node a level (a binary counter).
class TreeSum {
 public:
  // Nodes of `size` doubles, at most 2^levels leaves.
  TreeSum(std::size_t size, int levels) : size_(size), slots_(static_cast<std::size_t>(levels) + 1) {}

  // `put(node, add)` writes (or adds) the leaf into a node of doubles.
  template <class Put>
  void push(Put&& put) {
    std::size_t level = 0;
    if ((count_ & 1) == 0) {
      put(slot(0), false);
    } else {
      put(slot(0), true);
      // Carry: each full level moves into the one above, by exchange where that is free.
      for (level = 1; (count_ >> level) & 1; ++level) add(slot(level), slot(level - 1));
      std::swap(slots_[level], slots_[level - 1]);
    }
    ++count_;
  }

  // The subtree's root into out (size doubles; zeros when nothing was pushed).
  void finish(double* out) {
    const double* acc = nullptr;
    for (std::size_t level = 0; level < slots_.size(); ++level)
      if ((count_ >> level) & 1) {
        double* node = slot(level);
        if (acc != nullptr) add(node, acc);
        acc = node;
      }
    for (std::size_t j = 0; j < size_; ++j) out[j] = acc == nullptr ? 0.0 : acc[j];
    count_ = 0;
  }

 private:
  double* slot(std::size_t level) {
    if (slots_[level].data() == nullptr) slots_[level] = Aligned<double>(size_);
    return slots_[level].data();
  }
  void add(double* to, const double* from) {
    for (std::size_t j = 0; j < size_; ++j) to[j] += from[j];
  }

  std::size_t size_;
  std::uint64_t count_ = 0;
  std::vector<Aligned<double>> slots_;
};

// The same rule above the subtrees: nodes[0] becomes the root.
inline void combine_nodes(double* nodes, std::size_t count, std::size_t size) {
  for (std::size_t step = 1; step < count; step *= 2)
    for (std::size_t i = 0; i + step < count; i += 2 * step) {
      double *to = nodes + i * size, *from = nodes + (i + step) * size;
      for (std::size_t j = 0; j < size; ++j) to[j] += from[j];
    }
}

}  // namespace nag
