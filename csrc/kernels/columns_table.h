// What the products X X'v and X'v are made of: CSR turned around, a column at a time. Part of table.h.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace nag {

// Columns first to end: u_j = x_j'v, and z += sum_j x_j u_j'. Column j holds the entries ptr[j] to ptr[j + 1] of data and rows.
// v and z are n x k in C order.
template <class T>
struct ColumnsBlock {
  const void* data;
  const std::int32_t* rows;
  const std::int64_t* ptr;
  std::int64_t first, end;
  std::ptrdiff_t k;
  const T* v;
  T* z;       // or null, where u is wanted
  double* u;  // the rows u_j of X'v from column 0 on, d x k; or null
};

}  // namespace nag
