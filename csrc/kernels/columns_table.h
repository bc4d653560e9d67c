// What the products X X'v and X'v are made of: CSR turned around, a column at a time. Part of table.h.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace nag {

// Columns first to end: z += sum_j (x_j - m_j 1) u_j' less the part that `back` holds, u_j = (x_j - m_j 1)' v.
// Column j holds the entries ptr[j] to ptr[j + 1] of data and rows. v and z are n x k in C order.
template <class T>
struct ColumnsBlock {
  const void* data;
  const std::int32_t* rows;
  const std::int64_t* ptr;
  std::int64_t first, end;
  std::ptrdiff_t k;
  const T* v;
  T* z;                  // or null, where u is wanted
  double* u;             // the rows u_j of (X - 1 m')'v from column 0 on, d x k; or null
  const double* centre;  // m, or null for zero
  const double* sums;    // 1'v, k numbers; with centre alone
  double* back;          // k numbers: += sum_j m_j u_j, which every row of z then lacks; with centre alone
};

}  // namespace nag
