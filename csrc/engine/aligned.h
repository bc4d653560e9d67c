// A zeroed array on a cache line, so that whole vectors never straddle two.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace nag {

template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(std::size_t count) : raw_(new char[count * sizeof(T) + 64]()) {
    void* p = raw_.get();
    std::size_t space = count * sizeof(T) + 64;
    data_ = static_cast<T*>(std::align(64, count * sizeof(T), p, space));
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  std::unique_ptr<char[]> raw_;
  T* data_ = nullptr;
};

inline std::ptrdiff_t pad_to(std::ptrdiff_t x, std::ptrdiff_t multiple) { return (x + multiple - 1) / multiple * multiple; }

}  // namespace nag
