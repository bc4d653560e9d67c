// Large pages for memory that the system mapped in small ones: the processor's own prefetching ends at every page, and each
// page costs a look-up of its address. New memory is advised; memory in use is moved, a little after each step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "engine/update.h"

namespace nag {

inline constexpr std::size_t kLargePage = std::size_t{2} << 20;
inline constexpr std::size_t kLargeArray = std::size_t{1} << 18;    // moved, with its neighbours
inline constexpr std::size_t kAdvisedArray = std::size_t{1} << 20;  // advised: neighbours fill pages together

// Advice to keep memory that has not been written yet in large pages, as NumPy gives it for arrays of this size and torch does
// not. What the system does not know or want, it leaves.
void advise_large_pages(std::uintptr_t address, std::size_t bytes);

// Moves the memory of one large page, aligned to it, at once and whoever allocated it; addresses and contents stay. False
// where the system refuses: not Linux from 6.1 on, large pages switched off, no page free, memory of a file.
bool move_into_large_page(void* begin);

// Moves the large arrays of an update's list, each of them once, by pages of which the list's arrays fill at least half: where
// one ends within a page, the next one begins there as a rule. State and parameters from their first step on; gradients when
// they have stayed at one address for kSettled steps, as many loops make new ones for every step. What moves away while its
// turn lasts, and what the system refuses once, is left alone from then on.
class PageMover {
 public:
  static constexpr std::uint64_t kSettled = 8;
  static constexpr double kShare = 0.25;  // of the steps' own time, but for the rest of the last page

  // What the arrays seen so far come to in bytes.
  struct Bytes {
    std::size_t moved = 0;
    std::size_t waiting = 0;
    std::size_t refused = 0;
  };

  // To be called after each step of `seconds`, while its arrays are alive; `layout` changes whenever the list does.
  void after_step(const UpdateList& list, std::size_t layout, double seconds);
  Bytes bytes() const;

 private:
  struct Array {
    std::uintptr_t data = 0;
    std::size_t bytes = 0;
    std::uint64_t due = 0;     // the step after which it is moved
    std::uintptr_t next = 0;   // large pages from here to `end`
    std::uintptr_t end = 0;
    bool begun = false;
    bool over = false;
  };

  void look_at(const UpdateList& list);
  void look_at(std::uint64_t key, const void* data, std::size_t bytes, std::uint64_t due);
  void choose_pages();
  double move(Array& array);  // one page; the seconds it took

  std::unordered_map<std::uint64_t, Array> arrays_;  // by tensor and role
  std::vector<Array*> listed_;                       // those of the list as it is
  std::vector<Array*> waiting_;                      // and of these, what is left to do
  std::size_t layout_ = 0;
  std::uint64_t steps_ = 0;
  double credit_ = 0.0;  // seconds
  std::size_t moved_ = 0;
  std::size_t refused_ = 0;
};

}  // namespace nag
