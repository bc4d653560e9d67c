// Finds two arrays of a call that share memory and of which at least one is written. Thousands of arrays are the common
// case, so it is one sweep over sorted extents; the sort is skipped where the extents already stand in order.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace nag {

class OverlapCheck {
 public:
  using Pair = std::pair<std::uint32_t, std::uint32_t>;

  explicit OverlapCheck(std::size_t arrays) { extents_.reserve(arrays); }

  // dense: every byte of [begin, end) belongs to the array.
  void add(const char* begin, const char* end, std::uint32_t id, bool written, bool dense) {
    const auto from = reinterpret_cast<std::uintptr_t>(begin);
    sorted_ = sorted_ && (extents_.empty() || extents_.back().begin <= from);
    all_dense_ = all_dense_ && dense;
    extents_.push_back({from, reinterpret_cast<std::uintptr_t>(end), id, written, dense});
  }

  // Whether two extents meet, though their elements may interleave without touching.
  bool find_extents(Pair* found) {
    if (!sorted_) sort();
    return sweep(found);
  }

  // object_of(id) gives the array, for NumPy's exact test of two interleaved views.
  template <class ObjectOf>
  bool find(Pair* found, ObjectOf object_of) {
    if (!sorted_) sort();
    if (!sweep(found)) return false;
    return all_dense_ || find_exactly(found, object_of);
  }

 private:
  struct Extent {
    std::uintptr_t begin;
    std::uintptr_t end;
    std::uint32_t id;
    bool written;
    bool dense;
  };

  // The extent that reaches furthest so far, among all and among the written ones.
  bool sweep(Pair* found) const {
    const Extent* furthest = nullptr;
    const Extent* furthest_written = nullptr;
    for (const Extent& e : extents_) {
      const Extent* rival = e.written ? furthest : furthest_written;
      if (rival != nullptr && e.begin < rival->end) {
        *found = {rival->id, e.id};
        return true;
      }
      if (furthest == nullptr || e.end > furthest->end) furthest = &e;
      if (e.written && (furthest_written == nullptr || e.end > furthest_written->end)) furthest_written = &e;
    }
    return false;
  }

  template <class ObjectOf>
  bool find_exactly(Pair* found, ObjectOf object_of) const {
    namespace py = pybind11;
    const py::object shares_memory = py::module_::import("numpy").attr("shares_memory");
    for (std::size_t i = 0; i < extents_.size(); ++i) {
      for (std::size_t j = i + 1; j < extents_.size() && extents_[j].begin < extents_[i].end; ++j) {
        const Extent& a = extents_[i];
        const Extent& b = extents_[j];
        if (!a.written && !b.written) continue;
        bool shared = a.dense && b.dense;
        if (!shared) {
          try {
            shared = py::cast<bool>(shares_memory(object_of(a.id), object_of(b.id), py::arg("max_work") = 1000000));
          } catch (const py::error_already_set& error) {
            if (!error.matches(py::module_::import("numpy").attr("exceptions").attr("TooHardError"))) throw;
            shared = true;  // undecided within a million steps: refused
          }
        }
        if (shared) {
          *found = {a.id, b.id};
          return true;
        }
      }
    }
    return false;
  }

  // Radix sort over the bits in which the addresses differ: a comparison sort of three thousand shuffled extents would
  // cost as much as checking the arrays.
  void sort() {
    std::uintptr_t differing = 0;
    for (const Extent& e : extents_) differing |= e.begin ^ extents_[0].begin;
    constexpr int kDigit = 11;
    constexpr std::size_t kBuckets = std::size_t{1} << kDigit;
    if (extents_.size() < 64) {
      std::sort(extents_.begin(), extents_.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
      return;
    }
    std::vector<Extent> other(extents_.size());
    std::vector<std::uint32_t> starts(kBuckets);
    for (int shift = 0; shift < static_cast<int>(sizeof(std::uintptr_t)) * 8; shift += kDigit) {
      while (((differing >> shift) & 1) == 0 && (differing >> shift) != 0) ++shift;
      if ((differing >> shift) == 0) break;
      std::fill(starts.begin(), starts.end(), 0);
      for (const Extent& e : extents_) ++starts[(e.begin >> shift) % kBuckets];
      std::uint32_t sum = 0;
      for (std::uint32_t& start : starts) sum += std::exchange(start, sum);
      for (const Extent& e : extents_) other[starts[(e.begin >> shift) % kBuckets]++] = e;
      extents_.swap(other);
    }
  }

  std::vector<Extent> extents_;
  bool sorted_ = true;
  bool all_dense_ = true;
};

}  // namespace nag
