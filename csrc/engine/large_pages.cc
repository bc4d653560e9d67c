#include "engine/large_pages.h"

#ifdef __linux__
#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#endif

#include <algorithm>
#include <chrono>
#include <new>

namespace nag {
namespace {

#ifdef __linux__
// Known to the kernel from 6.1 on, to the C library's header later; an older kernel refuses the number.
constexpr int kCollapse = 25;

// What stands in a file under the system's settings of large pages; empty where there is none.
void read_setting(const char* path, char (&text)[64]) {
  text[0] = '\0';
  if (std::FILE* file = std::fopen(path, "r")) {
    text[std::fread(text, 1, sizeof text - 1, file)] = '\0';
    std::fclose(file);
  }
}

// The call moves memory even where the system's owner has said never.
bool system_has_large_pages() {
  char enabled[64], size[64];
  read_setting("/sys/kernel/mm/transparent_hugepage/enabled", enabled);
  read_setting("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", size);
  return enabled[0] != '\0' && std::strstr(enabled, "[never]") == nullptr && std::strncmp(size, "2097152\n", 8) == 0;
}
#endif

constexpr std::size_t bytes_of(UpdateNumber n) { return n == UpdateNumber::f64 ? 8 : n == UpdateNumber::f32 ? 4 : 2; }

}  // namespace

void advise_large_pages([[maybe_unused]] std::uintptr_t address, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::size_t kPage = 4096;
  if (bytes < kAdvisedArray) return;
  // The pages at both ends as well: arrays that follow each other then share the large page between them.
  const std::uintptr_t begin = address / kPage * kPage;
  const std::uintptr_t end = (address + bytes + kPage - 1) / kPage * kPage;
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

bool move_into_large_page([[maybe_unused]] void* begin) {
#ifdef __linux__
  static const bool allowed = system_has_large_pages();
  return allowed && madvise(begin, kLargePage, kCollapse) == 0;
#else
  return false;
#endif
}

void PageMover::look_at(std::uint64_t key, const void* data, std::size_t bytes, std::uint64_t due) {
  if (data == nullptr || bytes < kLargeArray) return;
  Array& array = arrays_[key];
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  if (array.data != address || array.bytes != bytes) {
    if (array.begun) {
      array.over = true;
    } else {
      array = Array{address, bytes, due, 0, 0, false, false};
    }
  }
  // Where one that was begun has moved away, nothing is known of its memory any more.
  if (array.data == address) listed_.push_back(&array);
}

// For each array the pages that are its own: all that it fills, and of those that it shares with neighbours the first, where
// nobody before it has taken it, and the last, where they fill at least half of it together.
void PageMover::choose_pages() {
  std::sort(listed_.begin(), listed_.end(), [](const Array* a, const Array* b) { return a->data < b->data; });
  std::uintptr_t taken = 0;  // pages below it
  for (std::size_t i = 0; i < listed_.size(); ++i) {
    Array& array = *listed_[i];
    const std::uintptr_t first = array.data / kLargePage * kLargePage;
    const std::uintptr_t last = (array.data + array.bytes - 1) / kLargePage * kLargePage;
    const auto worth = [&](std::uintptr_t page) {
      if (page < taken) return false;
      std::size_t filled = 0;
      const auto add = [&](const Array& other) {
        const std::uintptr_t from = std::max(page, other.data), to = std::min(page + kLargePage, other.data + other.bytes);
        if (from < to) filled += to - from;
      };
      for (std::size_t k = i; k < listed_.size() && listed_[k]->data < page + kLargePage; ++k) add(*listed_[k]);
      for (std::size_t k = i; k-- > 0 && listed_[k]->data + listed_[k]->bytes > page;) add(*listed_[k]);
      return filled >= kLargePage / 2;
    };
    const std::uintptr_t begin = worth(first) ? first : first + kLargePage;
    const std::uintptr_t end = std::max(begin, worth(last) ? last + kLargePage : last);
    taken = std::max(taken, end);
    if (array.over || array.begun) continue;
    array.next = begin;
    array.end = end;
    array.over = begin == end;
  }
  for (Array* array : listed_) {
    if (!array->over) waiting_.push_back(array);
  }
}

void PageMover::look_at(const UpdateList& list) {
  waiting_.clear();
  listed_.clear();
  for (std::size_t i = 0; i < list.size(); ++i) {
    const UpdateTensor& tensor = list.tensor(i);
    const UpdateSpan& s = tensor.whole;
    if (tensor.walk >= 0 || s.count * sizeof(double) < kLargeArray) continue;  // strided arrays end elsewhere
    const std::size_t state = s.param_number == UpdateNumber::f64 ? 8 : 4;
    const std::uint64_t key = s.tensor * kUpdateRoles;
    look_at(key + kParam, s.param, s.count * bytes_of(s.param_number), steps_);
    look_at(key + kBuffer, s.buffer, s.count * (s.bf16_buffer ? 2 : state), steps_);
    look_at(key + kEma, s.ema, s.count * state, steps_);
    look_at(key + kMaster, s.master, s.count * sizeof(float), steps_);
    look_at(key + kGrad, s.grad, s.count * bytes_of(s.grad_number), steps_ + kSettled - 1);
  }
  choose_pages();
}

double PageMover::move(Array& array) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const std::uintptr_t page = array.next;
  array.begun = true;
  array.next += kLargePage;
  if (move_into_large_page(reinterpret_cast<void*>(page))) {
    moved_ += kLargePage;
  } else {
    // What lies beyond an end may be a mapping of its own, which says nothing of the pages between.
    const bool filled = page >= array.data && page + kLargePage <= array.data + array.bytes;
    if (filled) array.next = array.end;
    refused_ += array.next - page;
  }
  array.over = array.next == array.end;
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void PageMover::after_step(const UpdateList& list, std::size_t layout, double seconds) {
  if (layout != layout_) {
    layout_ = layout;
    try {
      look_at(list);
    } catch (const std::bad_alloc&) {  // the step has been taken: it goes on without
      waiting_.clear();
    }
  }
  if (!waiting_.empty()) {
    credit_ = std::min(credit_, 0.0) + kShare * seconds;
    for (Array* array : waiting_) {
      while (credit_ > 0.0 && steps_ >= array->due && !array->over) credit_ -= move(*array);
    }
    waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), [](const Array* a) { return a->over; }), waiting_.end());
  }
  ++steps_;
}

PageMover::Bytes PageMover::bytes() const {
  Bytes found{moved_, 0, refused_};
  for (const Array* array : waiting_) found.waiting += array->end - array->next;
  return found;
}

}  // namespace nag
