// Tensors of another library, read without linking it: the C function table of the DLPack standard, version 1.3
// (dmlc.github.io/dlpack), of which this declares the part that lends a tensor's shape and address. torch has it since 2.10;
// before that the same facts come from a Python function.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

namespace nag::exchange {

enum : std::int32_t { kCpu = 1 };
enum : std::uint8_t { kFloat = 2, kBfloat = 4, kComplex = 5 };

struct Tensor {
  void* data;
  std::int32_t device_type;
  std::int32_t device_id;
  std::int32_t rank;
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;  // elements
  std::uint64_t byte_offset;
};

// A tensor with a handle of its own on the memory, until `release` is called.
struct Managed {
  std::uint32_t major;
  std::uint32_t minor;
  void* context;
  void (*release)(Managed* self);
  std::uint64_t flags;
  Tensor tensor;
};

struct Header {
  std::uint32_t major;
  std::uint32_t minor;
  Header* previous;
};

struct Table {
  Header header;
  void* allocate;
  int (*managed_from_object)(void* object, Managed** out);  // a Python error is set on failure
  void* managed_to_object;
  int (*tensor_from_object)(void* object, Tensor* out);  // borrows; a Python error is set on failure
  void* work_stream;
};

// The functions of a capsule, or null where it is None or of a major version that this does not know.
inline const Table* table_of(pybind11::handle capsule) {
  if (capsule.is_none()) return nullptr;
  auto* header = static_cast<Header*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (header == nullptr) throw pybind11::error_already_set();
  while (header != nullptr && header->major != 1) header = header->previous;
  return reinterpret_cast<const Table*>(header);
}

// A second handle on a tensor beside Python's. Where there is none, torch takes Python's lock anew each time that the tensor
// is read, which is much of what reading costs.
class Handle {
 public:
  Handle() = default;
  Handle(const Table* table, PyObject* tensor) {
    if (table != nullptr && table->managed_from_object(tensor, &managed_) != 0) {
      managed_ = nullptr;
      PyErr_Clear();
    }
  }
  Handle(Handle&& other) noexcept : managed_(std::exchange(other.managed_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(managed_, other.managed_);
    return *this;
  }
  ~Handle() {
    if (managed_ != nullptr && managed_->release != nullptr) managed_->release(managed_);
  }

 private:
  Managed* managed_ = nullptr;
};

}  // namespace nag::exchange
