// One kernel source, compiled once per instruction set. CMake defines NAG_ISA (the namespace), NAG_ISA_NAME and NAG_SIMD.
// Every header below that holds code is included INSIDE the namespace, and this unit uses no STL: whatever the linker
// keeps of it can then never be another instruction set's copy (docs/numerics.md, Instruction sets).
#include "isa/unit.h"

namespace nag {
namespace NAG_ISA {
namespace {

#include "base/simd.h"
#include "base/simd_math.h"
#include "losses/losses.h"
#include "kernels/walks.h"
#include "kernels/rows.h"
#include "kernels/loss_map.h"
#include "kernels/softmax.h"
#include "kernels/decode.h"
#include "kernels/pipe.h"
#include "kernels/sparse.h"
#include "kernels/columns.h"
#include "kernels/panels.h"
#include "kernels/cholesky.h"
#include "kernels/fold.h"
#include "kernels/half.h"
#include "kernels/momentum.h"

template <class V>
constexpr PanelKernels<typename V::T> panel_kernels() {
  PanelKernels<typename V::T> k{};
  k.pack[static_cast<int>(Storage::f32)] = &pack<V, float>;
  k.pack[static_cast<int>(Storage::bf16)] = &pack<V, bf16>;
  k.pack[static_cast<int>(Storage::u8)] = &pack<V, uint8_t>;
  k.pack_csr[1][0] = &pack_csr<V, float, int32_t>;
  k.pack_csr[1][1] = &pack_csr<V, float, int64_t>;
  if constexpr (sizeof(typename V::T) == sizeof(double)) {
    k.pack[static_cast<int>(Storage::f64)] = &pack<V, double>;
    k.pack_csr[0][0] = &pack_csr<V, double, int32_t>;
    k.pack_csr[0][1] = &pack_csr<V, double, int64_t>;
  }
  k.dot = &panel_dot<V>;
  k.scale = &panel_scale<V>;
  k.product = &panel_product<V>;
  k.factor = &panel_factor<V>;
  k.solve = &panel_solve<V>;
  return k;
}

template <class V, class S>
constexpr void put_rows(RowKernels<typename V::T>& k, Storage storage) {
  const int s = static_cast<int>(storage);
  k.row_dot[s] = &dot_one<V, S>;
  k.row_outer[s] = &outer_one<V, S>;
  k.pipe[s] = &pipe<V, S>;
}

template <class V, class S>
constexpr void put_csr_dot(RowKernels<typename V::T>& k) {
  const int s = sizeof(S) == sizeof(double) ? 0 : 1;
  k.csr_dot[s][0] = k.csr_dot_near[s][0] = &csr_dot<V, S, int32_t, false>;
  k.csr_dot[s][1] = k.csr_dot_near[s][1] = &csr_dot<V, S, int64_t, false>;
#if NAG_SIMD == 512
  k.csr_dot_by_number[s][0] = &csr_dot<V, S, int32_t, true>;
  k.csr_dot_by_number[s][1] = &csr_dot<V, S, int64_t, true>;
#endif
}

template <class V>
constexpr RowKernels<typename V::T> row_kernels() {
  using T = typename V::T;
  RowKernels<T> k{};
  k.lanes = k.row_lanes = V::N;
  k.dot = &dot<V>;
  k.outer = &outer<V>;
  put_rows<V, float>(k, Storage::f32);
  put_rows<V, bf16>(k, Storage::bf16);
  put_rows<V, uint8_t>(k, Storage::u8);
  if constexpr (sizeof(T) == sizeof(double)) put_rows<V, double>(k, Storage::f64);
  k.decode[static_cast<int>(Storage::f64)] = &decode<V, double>;
  k.decode[static_cast<int>(Storage::f32)] = &decode<V, float>;
  k.decode[static_cast<int>(Storage::bf16)] = &decode<V, bf16>;
  k.decode[static_cast<int>(Storage::u8)] = &decode<V, uint8_t>;
  int i = 0;
#define NAG_ELEMENTWISE_LOSS(L, section) \
  k.loss[i] = &loss_map<V, L, false>;    \
  k.second[i++] = &loss_map<V, L, true>;
#define NAG_ROW_LOSS(L, section) k.second[i] = k.loss[i] = nullptr, ++i;
#include "losses/registry.h"
#undef NAG_ROW_LOSS
#undef NAG_ELEMENTWISE_LOSS
  k.softmax = &softmax_map<V>;
  k.sum = &sum<T>;
  k.fold = &fold<T>;
  k.csr_split[0] = &csr_split<int32_t>;
  k.csr_split[1] = &csr_split<int64_t>;
  put_csr_dot<V, float>(k);
  k.csr_outer[1][0] = &csr_outer<T, float, int32_t>;
  k.csr_outer[1][1] = &csr_outer<T, float, int64_t>;
  k.csr_scatter[1][0] = &csr_scatter<T, float, int32_t>;
  k.csr_scatter[1][1] = &csr_scatter<T, float, int64_t>;
  k.csr_gram[1][0] = &csr_gram<T, float, int32_t>;
  k.csr_gram[1][1] = &csr_gram<T, float, int64_t>;
  k.columns[1] = &columns_product<V, float>;
  if constexpr (sizeof(T) == sizeof(double)) {
    k.columns[0] = &columns_product<V, double>;
    put_csr_dot<V, double>(k);
    k.csr_outer[0][0] = &csr_outer<T, double, int32_t>;
    k.csr_outer[0][1] = &csr_outer<T, double, int64_t>;
    k.csr_scatter[0][0] = &csr_scatter<T, double, int32_t>;
    k.csr_scatter[0][1] = &csr_scatter<T, double, int64_t>;
    k.csr_gram[0][0] = &csr_gram<T, double, int32_t>;
    k.csr_gram[0][1] = &csr_gram<T, double, int64_t>;
  }
  k.panel = panel_kernels<V>();
  return k;
}

}  // namespace

extern const KernelTable table;
const KernelTable table = {NAG_ISA_NAME, row_kernels<Vf>(), row_kernels<Vd>(), &stream_read,
                           {&momentum_f64, &momentum_f32, &sum_squares, true},
                           LongRows{}};

}  // namespace NAG_ISA
}  // namespace nag
