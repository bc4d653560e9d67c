// Tensors of another library, read without linking it: the C function table of the DLPack standard, version 1.3
// (dmlc.github.io/dlpack), of which this declares the part that lends a tensor's shape and address. torch has it since 2.10;
// before that the same facts come from a Python function.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

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

struct Header {
  std::uint32_t major;
  std::uint32_t minor;
  Header* previous;
};

struct Table {
  Header header;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  int (*tensor_from_object)(void* object, Tensor* out);  // borrows; a Python error is set on failure
  void* work_stream;
};

// The function that reads a tensor, or null where the capsule is None or of a major version that this does not know.
inline auto reader_of(pybind11::handle capsule) -> decltype(Table::tensor_from_object) {
  if (capsule.is_none()) return nullptr;
  auto* header = static_cast<Header*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (header == nullptr) throw pybind11::error_already_set();
  while (header != nullptr && header->major != 1) header = header->previous;
  return header == nullptr ? nullptr : reinterpret_cast<Table*>(header)->tensor_from_object;
}

}  // namespace nag::exchange
