// THE table of what exists: one instance per instruction set, filled in isa/kernels.cc, chosen in dispatch/.
// Plain C structs and function pointers; nothing here is compiled per instruction set.
#pragma once
#include "base/types.h"
#include "kernels/columns_table.h"
#include "kernels/momentum_table.h"
#include "kernels/panel_table.h"
#include "kernels/tile_table.h"
#include "losses/info.h"

namespace nag {

// One block of margins: z = zdot + bias + offset, then value and residual of `rows` samples.
template <class T>
struct MarginBlock {
  std::ptrdiff_t rows;
  const T* zdot;    // X w, padded to whole vectors
  T bias;           // intercept, and shift*sum(w) of scaled integer storage
  const T* offset;  // or null
  const T* y;
  const T* s;  // sample weights, or null for ones
  T c;         // the loss's parameter
  T* z;        // margins out, or null
  T* r;        // residuals out, or null
  T* sr;       // s*r out, what the gradient needs; padded to whole vectors
  T* h;        // s*phi'' out, for `second` alone; padded to whole vectors
};
// The same for softmax: k columns, class-major with leading dimension ld.
template <class T>
struct SoftmaxBlock {
  std::ptrdiff_t rows, k, ld;
  const T* zdot;         // [k][ld]
  const T* bias;         // [k]
  const T* offset;       // rows x k in C order, or null
  const T* y;            // class numbers as T, or null where p is given
  const T* p;            // rows x k probabilities in C order, or null
  const T* s;
  T* z;   // rows x k in C order, or null
  T* r;   // rows x k in C order, or null
  T* sr;  // [k][ld]
};

// Coefficients of a panel as whole numbers of 32 bits, whose halves meet bytes in exact sums: w = (65536 high + low) unit.
struct FixedPanel {
  static constexpr std::ptrdiff_t kColumns = 2048, kTogether = 32;
  std::int16_t halves[2 * kColumns];  // kTogether low ones, then their high ones; zero beyond the last column
  double unit;                                 // 0 where w is to be taken as it is
};

// One step of the pipeline over long rows: z of the next rows, g += of the previous ones. Either side may have no rows.
template <class T>
struct PipeBlock {
  std::ptrdiff_t d, group;  // rows that share each load of w and g: 1, 2 or 4; 8 of narrow storage, where that is compiled
  const void* next;         // as stored, unit column stride
  const void* prev;
  std::ptrdiff_t ldx, next_rows, prev_rows;
  std::ptrdiff_t ldp;       // of prev
  void* copy;               // the next rows as stored, ldp apart, or null; prev itself is fine where it has no fewer rows
  const T* w;  // padded to whole vectors
  T* z;
  const T* r;
  T* g;  // padded to whole vectors
  const void* after;        // what will be read after the next rows, row for row; or null
  std::ptrdiff_t far;       // bytes of each row to ask for ahead, into the second-level cache
  std::ptrdiff_t near;      // and into the first, or 0
  bool pieces;              // a row alone: a panel (d <= kPanel) in pieces side by side, asking for `after` instead of `far`
  const FixedPanel* fixed;  // w beside bytes, a panel of columns after the other; or null
};

// What will be read after a block of rows, and is asked for meanwhile: `next`, in one piece, or so many bytes on from each row
// (`apart`), where a row goes on. All of it, or half in either kernel where both read the block. Neither: nothing.
struct Ahead {
  const void* next = nullptr;
  std::ptrdiff_t apart = 0;
  bool all = false;
};

template <class T>
struct RowKernels {
  // Columns that are summed in T before double takes over; the unit in which threads share the columns of wide rows.
  static constexpr std::ptrdiff_t kPanel = FixedPanel::kColumns;
  // Z[c*ldz + i] = sum_j X[i*ldx + j] W[c*ldw + j]; adds to Z when `accumulate`.
  // W is zero-padded to whole vectors. Sums: lanes of T over at most kDotPanel columns, panels in double.
  void (*dot)(const T* X, std::ptrdiff_t ldx, std::ptrdiff_t rows, std::ptrdiff_t d, const T* W, std::ptrdiff_t ldw,
              std::ptrdiff_t k, T* Z, std::ptrdiff_t ldz, bool accumulate, const Ahead& ahead);
  // G[c*ldg + j] += sum_i R[c*ldr + i] X[i*ldx + j]. Sums: T over at most kOuterChain rows a group, then into G.
  void (*outer)(const T* X, std::ptrdiff_t ldx, std::ptrdiff_t rows, std::ptrdiff_t d, const T* R, std::ptrdiff_t ldr,
                std::ptrdiff_t k, T* G, std::ptrdiff_t ldg, const Ahead& ahead);
  // The two for one column of W and X as stored, in vectors as wide as pays there (row_lanes for T itself). Null where the storage is wider than T.
  void (*row_dot[kStorageCount])(const void* X, std::ptrdiff_t ldx, std::ptrdiff_t rows, std::ptrdiff_t d, const T* w, T* z,
                                 bool accumulate, const Ahead& ahead);
  void (*row_outer[kStorageCount])(const void* X, std::ptrdiff_t ldx, std::ptrdiff_t rows, std::ptrdiff_t d, const T* r, T* g,
                                   const Ahead& ahead);
  void (*pipe[kStorageCount])(const PipeBlock<T>&);  // null there, too
  bool fixed_bytes;                                  // whether that of bytes takes `fixed`
  // dst[i*ldd + j] = X(i, j) widened to T, any byte strides; asks for what lies `far` bytes on.
  void (*decode[kStorageCount])(const void* X, std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, std::ptrdiff_t rows,
                                std::ptrdiff_t d, T* dst, std::ptrdiff_t ldd, std::ptrdiff_t far);
  double (*loss[kLossCount])(const MarginBlock<T>&);    // null where the loss couples columns
  double (*second[kLossCount])(const MarginBlock<T>&);  // the same, with the curvature
  double (*softmax)(const SoftmaxBlock<T>&);
  double (*sum)(const T* x, std::ptrdiff_t m);  // lanes of double
  // node[j] += leaf[j] and node[j] = leaf[j], into double; and node += other node.
  void (*fold)(double* node, const T* leaf, std::ptrdiff_t m, bool add);
  // CSR, by [storage of the data][64-bit indices]. Row i holds the entries ptr[i] to ptr[i+1] of data and idx.
  // Z[c*ldz + i] = sum of X(i, j) W[j*k + c]. Null where the storage is wider than T.
  using CsrDot = void (*)(const void* data, const void* idx, const std::int64_t* ptr, std::ptrdiff_t rows, const T* W,
                          std::ptrdiff_t k, T* Z, std::ptrdiff_t ldz);
  CsrDot csr_dot[2][2];
  CsrDot csr_dot_near[2][2];       // for one column of W that stays in the first-level cache or nearly so; to the same bits
  CsrDot csr_dot_by_number[2][2];  // what the one before is where gathers are slow; or null
  // G[j*k + c] += R[c*ldr + i] X(i, j) in double, for the entries cuts[i*stride] to cuts[i*stride + 1] of row i.
  void (*csr_outer[2][2])(const void* data, const void* idx, const std::int64_t* cuts, std::ptrdiff_t stride,
                          std::ptrdiff_t rows, const T* R, std::ptrdiff_t ldr, std::ptrdiff_t k, double* G);
  // Where each owner's entries of each row begin and end, for csr_outer with stride owners + 1.
  void (*csr_split[2])(const void* idx, const std::int64_t* ptr, std::ptrdiff_t rows, const std::int64_t* bounds, int owners,
                       std::int64_t* cuts);
  // u[j] += v[i] X(i, j) in T. Null where the storage is wider than T.
  void (*csr_scatter[2][2])(const void* data, const void* idx, const std::int64_t* ptr, std::ptrdiff_t rows, const T* v, T* u);
  void (*csr_gram[2][2])(const CsrGramBlock<T>&);
  // X X'v by columns, by [storage of the data]. Null where the storage is wider than T.
  void (*columns[2])(const ColumnsBlock<T>&);
  PanelKernels<T> panel;
  int lanes, row_lanes;
};

// How passes go over rows that a sweep shares (kernels/pipe.h): what suits a processor's caches and streams, here Intel's.
struct LongRows {
  // How many rows share each load of w and g, and how many bytes of each are asked for ahead, into either cache.
  struct Sweep {
    std::ptrdiff_t group, near, far;
  };
  // Rows of fewer bytes, stored as T, and the bytes of a block of them.
  std::int64_t few_pages = 16384, few_block = 128 * 1024;
  Sweep few{4, 512, 2048};
  // Longer rows, as T: read again for the gradient, or for margins alone.
  Sweep longer{4, 0, 2048}, margins{4, 0, 2048};
  // Rows stored narrower than T: up to kFixedAheadRowBytes, and longer.
  Sweep narrow_few{4, 0, 2048}, narrow{4, 0, 2048};
  // Rows whose columns threads share: from how many bytes of T; up to how many, as stored, four (or narrow.group) go together,
  // and two; what is asked for where the gradient reads copies, and where it does not.
  std::int64_t wide = 160 * 1024, four_rows = 256 * 1024, two_rows = 512 * 1024;
  Sweep beside_copies{4, 128, 2048}, in_place{4, 0, 2048};
  // Up to how many bytes rows are copied, with w and g: of one core, or of all that share a cache.
  std::int64_t copied = 1792 * 1024;
  bool copied_by_all = false, copies_narrow = true;
};

struct KernelTable {
  const char* name;
  RowKernels<float> f32;
  RowKernels<double> f64;
  std::uint64_t (*stream_read)(const unsigned char* p, std::size_t bytes);
  UpdateTable update;
  LongRows long_rows;
};

template <class T> inline const RowKernels<T>& rows_of(const KernelTable& t);
template <> inline const RowKernels<float>& rows_of<float>(const KernelTable& t) { return t.f32; }
template <> inline const RowKernels<double>& rows_of<double>(const KernelTable& t) { return t.f64; }

}  // namespace nag
