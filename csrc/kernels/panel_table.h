// What second-order passes are made of: rows of X as panels of whole vectors, and products of panels. Part of table.h.
// A panel holds `lanes` columns of a block of rows, row after row:
//   P[(v*ld + i)*lanes + q] = X(i, v*lanes + q),   zero past the last column, ld >= the block's rows.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace nag {

// Rows of X to be packed. With `ones` a column of ones follows the last.
struct PackBlock {
  const void* X;
  std::ptrdiff_t row_stride, col_stride;  // bytes
  const std::int64_t* at;                 // which rows of X, or null for the first `rows`
  std::ptrdiff_t rows, d, ld;
  bool ones;
  std::ptrdiff_t far;  // F order: so many bytes on, each column is asked for; 0: not
};
struct CsrPackBlock {
  const void* data;
  const void* indices;
  const std::int64_t* indptr;
  const std::int64_t* at;
  std::ptrdiff_t rows, d, ld;
  bool ones;
};

// C(i, j) += sum_r Q(r, i) P(r, j) for the rows i of the vectors [first_row, end_row) and the columns j of the vectors
// from `first_col` on, at most kColumns of them and none beyond its row's own: the lower triangle. Rows end at
// `row_count`, columns at `col_count`.
template <class T>
struct PanelProduct {
  static constexpr std::ptrdiff_t kColumns = 3;  // vectors of columns whose sums stay in registers together
  const T* P;
  const T* Q;
  std::ptrdiff_t ld, rows;
  std::ptrdiff_t first_row, end_row, first_col, row_count, col_count;
  double* C;
  // Row i of C begins at i*ldc; with ldc = 0 the rows of vector v are (v + 1)*lanes long and follow each other.
  std::ptrdiff_t ldc;
  // Cache lines that will be packed next, asked for while the product runs; the product moves them on as it goes.
  const char* ahead;
  std::ptrdiff_t ahead_lines;
};

template <class T>
struct PanelKernels {
  // Null where the storage is wider than T; CSR by [storage of the data][64-bit indices].
  void (*pack[kStorageCount])(const PackBlock&, T* P);
  void (*pack_csr[2][2])(const CsrPackBlock&, T* P);
  // z[i] = sum_j P(i, j) w[j]; chains of at most 32 products, whose sums are added in T.
  void (*dot)(const T* P, std::ptrdiff_t ld, std::ptrdiff_t rows, std::ptrdiff_t vectors, const T* w, T* z);
  // Q(i, j) = c[i] P(i, j)
  void (*scale)(const T* P, std::ptrdiff_t ld, std::ptrdiff_t rows, std::ptrdiff_t vectors, const T* c, T* Q);
  // Sums: T over at most kChain rows, those in T over the block, blocks in double.
  void (*product)(PanelProduct<T>&);
  // Cholesky, a strip of `width` columns: the factor of its leading block (returns its first bad pivot, or -1), then
  // P := P L^-T for the `vectors` vectors of rows below. `width` is a multiple of 4 there.
  std::ptrdiff_t (*factor)(T* P, std::ptrdiff_t ld, std::ptrdiff_t width);
  void (*solve)(const T* L, T* P, std::ptrdiff_t ld, std::ptrdiff_t width, std::ptrdiff_t vectors);
};

// The same product for rows of few entries.
template <class T>
struct CsrGramBlock {
  const void* data;
  const void* indices;
  const std::int64_t* indptr;
  const std::int64_t* at;  // the rows, or null: first_row and those after it
  std::int64_t first_row;
  std::ptrdiff_t rows, d;
  bool ones;
  std::int64_t first, end;  // columns x whose products with themselves and those after them are wanted
  const T* c;
  const T* r;  // or null
  double* G;
  std::ptrdiff_t ldg;
  double* g;
};

}  // namespace nag
