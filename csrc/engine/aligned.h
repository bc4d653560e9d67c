// A zeroed array on a cache line, so that whole vectors never straddle two. A large one asks for huge pages: 4 KiB pages
// land on the sets of a second-level cache at random and overflow some of them long before it is full.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace nag {

// Large blocks come in multiples of a huge page and go back to the thread that frees them, up to kKept bytes: a pass would
// otherwise spend a tenth of its time on pages that the kernel clears for it anew. A list per thread needs no lock, so a fork
// at any moment finds none held.
class HugeBlocks {
 public:
  static constexpr std::size_t kHuge = std::size_t(2) << 20;
  static constexpr std::size_t kKept = std::size_t(24) << 20;

  static void* take(std::size_t bytes) {
    if (gone()) return ::operator new(bytes, std::align_val_t(kHuge));
    HugeBlocks& mine = of_this_thread();
    for (std::size_t i = mine.free_.size(); i-- > 0;)  // what was given back last may still be in cache
      if (mine.free_[i].second == bytes) {
        void* p = mine.free_[i].first;
        mine.free_.erase(mine.free_.begin() + static_cast<std::ptrdiff_t>(i));
        mine.kept_ -= bytes;
        return p;
      }
    mine.make_room(bytes);  // blocks of other sizes must not add to what a fit takes
    void* p = ::operator new(bytes, std::align_val_t(kHuge));
#if defined(__linux__)
    madvise(p, bytes, MADV_HUGEPAGE);  // advice: its failure costs speed alone
#endif
    return p;
  }
  static void give(void* p, std::size_t bytes) noexcept {
    if (gone()) return ::operator delete(p, std::align_val_t(kHuge));
    HugeBlocks& mine = of_this_thread();
    mine.make_room(bytes);
    if (bytes <= kKept && mine.free_.size() < mine.free_.capacity()) {
      mine.free_.emplace_back(p, bytes);
      mine.kept_ += bytes;
    } else {
      ::operator delete(p, std::align_val_t(kHuge));
    }
  }

 private:
  HugeBlocks() { free_.reserve(16); }
  ~HugeBlocks() {
    gone() = true;
    for (const auto& block : free_) ::operator delete(block.first, std::align_val_t(kHuge));
  }
  // Whether this thread's list has ended before all that it served: statics outlive it.
  static bool& gone() {
    thread_local bool is_gone = false;  // never destroyed itself
    return is_gone;
  }
  static HugeBlocks& of_this_thread() {
    thread_local HugeBlocks blocks;
    return blocks;
  }
  // Lets go of the blocks that have lain here longest, until so many bytes more are within kKept.
  void make_room(std::size_t bytes) noexcept {
    std::size_t gone = 0;
    for (; gone < free_.size() && (kept_ + bytes > kKept || free_.size() - gone == free_.capacity()); ++gone) {
      ::operator delete(free_[gone].first, std::align_val_t(kHuge));
      kept_ -= free_[gone].second;
    }
    free_.erase(free_.begin(), free_.begin() + static_cast<std::ptrdiff_t>(gone));
  }
  std::vector<std::pair<void*, std::size_t>> free_;
  std::size_t kept_ = 0;
};

struct Unset {};  // for memory that is written before it is read

template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(std::size_t count) : Aligned(count, Unset{}) { std::memset(static_cast<void*>(data_), 0, count * sizeof(T)); }
  Aligned(std::size_t count, Unset) {
    const std::size_t wanted = count * sizeof(T) + 64;
    huge_ = wanted >= HugeBlocks::kHuge / 8;
    const std::size_t unit = huge_ ? HugeBlocks::kHuge : 64;
    bytes_ = (wanted + unit - 1) / unit * unit;
    data_ = static_cast<T*>(huge_ ? HugeBlocks::take(bytes_) : ::operator new(bytes_, std::align_val_t(64)));
  }
  Aligned(Aligned&& o) noexcept : data_(std::exchange(o.data_, nullptr)), bytes_(o.bytes_), huge_(o.huge_) {}
  Aligned& operator=(Aligned&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(bytes_, o.bytes_);
    std::swap(huge_, o.huge_);
    return *this;
  }
  ~Aligned() {
    if (data_ == nullptr) return;
    if (huge_) HugeBlocks::give(data_, bytes_);
    else ::operator delete(static_cast<void*>(data_), std::align_val_t(64));
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  std::size_t bytes_ = 0;
  bool huge_ = false;
};

inline std::ptrdiff_t pad_to(std::ptrdiff_t x, std::ptrdiff_t multiple) { return (x + multiple - 1) / multiple * multiple; }

}  // namespace nag
