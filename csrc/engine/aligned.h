// A zeroed array on a cache line, so that whole vectors never straddle two. A large one asks for huge pages: 4 KiB pages
// land on the sets of a second-level cache at random and overflow some of them long before it is full.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace nag {

template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(std::size_t count) {
    std::size_t bytes = count * sizeof(T), alignment = 64;
#if defined(__linux__)
    if (bytes >= kHuge / 8) alignment = kHuge;
#endif
    bytes = (bytes + alignment - 1) / alignment * alignment;
    if (bytes == 0) bytes = alignment;
    data_ = static_cast<T*>(::operator new(bytes, std::align_val_t(alignment)));
    alignment_ = alignment;
#if defined(__linux__)
    if (alignment == kHuge) madvise(data_, bytes, MADV_HUGEPAGE);  // advice: its failure costs speed alone
#endif
    std::memset(static_cast<void*>(data_), 0, count * sizeof(T));
  }
  Aligned(Aligned&& o) noexcept : data_(std::exchange(o.data_, nullptr)), alignment_(o.alignment_) {}
  Aligned& operator=(Aligned&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(alignment_, o.alignment_);
    return *this;
  }
  ~Aligned() {
    if (data_ != nullptr) ::operator delete(static_cast<void*>(data_), std::align_val_t(alignment_));
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  static constexpr std::size_t kHuge = std::size_t(2) << 20;
  T* data_ = nullptr;
  std::size_t alignment_ = 64;
};

inline std::ptrdiff_t pad_to(std::ptrdiff_t x, std::ptrdiff_t multiple) { return (x + multiple - 1) / multiple * multiple; }

}  // namespace nag
