// Panels of rows (kernels/panel_table.h) and their products, the inner loop of every Gram matrix and of the Cholesky
// factorisation. A tile of C stays in registers while the rows of a block go by: kTileRows numbers of Q, each in all
// lanes, times kColumns vectors of P. Both are read in order, so the hardware's streams keep the first level filled.
// Accumulators: T over kChain rows, chains in T, blocks in double.
// Included inside the per-ISA namespace.

constexpr ptrdiff_t kChain = 64;  // rows: 64 u at worst in a chain, u being T's rounding
#if NAG_SIMD == 512
constexpr int kTileRows = 8;  // 8 x 3 sums, 3 vectors of P, one of Q: 28 of 32 registers
#else
constexpr int kTileRows = 4;  // 4 x 3 sums, 3 vectors of P, one of Q: all 16 registers
#endif

// ---- packing

template <class V, class S>
void pack(const PackBlock& b, typename V::T* P) {
  using T = typename V::T;
  constexpr ptrdiff_t N = V::N;
  const ptrdiff_t item = static_cast<ptrdiff_t>(sizeof(S)), panel = b.ld * N;
  const char* base = static_cast<const char*>(b.X);
  const ptrdiff_t whole = b.d / N, left = b.d % N;
  const bool near = b.col_stride == item && b.row_stride % item == 0 && reinterpret_cast<uintptr_t>(b.X) % sizeof(S) == 0;
  if (near) {
    for (ptrdiff_t i = 0; i < b.rows; ++i) {
      const S* x = reinterpret_cast<const S*>(base + (b.at ? b.at[i] : i) * b.row_stride);
      T* to = P + i * N;
      ptrdiff_t v = 0;
      for (; v < whole; ++v) widen(x + v * N, V()).store(to + v * panel);
      if (left > 0) widen_n(x + v * N, static_cast<int>(left), V()).store(to + v * panel);
    }
  } else {
    // Column by column inside a vector's width: F order reads `N` streams, each in order.
    for (ptrdiff_t v = 0; v * N < b.d; ++v) {
      const int width = static_cast<int>(v < whole ? N : left);
      T* to = P + v * panel;
      for (ptrdiff_t i = 0; i < b.rows; ++i, to += N) {
        const char* x = base + (b.at ? b.at[i] : i) * b.row_stride + v * N * b.col_stride;
        int q = 0;
        for (; q < width; ++q) to[q] = static_cast<T>(to_wide(read_element<S>(x + q * b.col_stride)));
        for (; q < N; ++q) to[q] = 0;
      }
    }
  }
  if (!b.ones) return;
  T* to = P + whole * panel;
  for (ptrdiff_t i = 0; i < b.rows; ++i, to += N) {
    if (left == 0) V::zero().store(to);
    to[left] = 1;
  }
}

template <class V, class S, class I>
void pack_csr(const CsrPackBlock& b, typename V::T* P) {
  using T = typename V::T;
  constexpr ptrdiff_t N = V::N;
  const S* data = static_cast<const S*>(b.data);
  const I* idx = static_cast<const I*>(b.indices);
  const ptrdiff_t vectors = (b.d + (b.ones ? 1 : 0) + N - 1) / N;
  for (ptrdiff_t v = 0; v < vectors; ++v)
    for (ptrdiff_t i = 0; i < b.rows; ++i) V::zero().store(P + (v * b.ld + i) * N);
  for (ptrdiff_t i = 0; i < b.rows; ++i) {
    const int64_t row = b.at ? b.at[i] : i;
    for (int64_t e = b.indptr[row]; e < b.indptr[row + 1]; ++e) {
      const ptrdiff_t j = static_cast<ptrdiff_t>(idx[e]);
      P[(j / N * b.ld + i) * N + j % N] = static_cast<T>(data[e]);
    }
    if (b.ones) P[(b.d / N * b.ld + i) * N + b.d % N] = 1;
  }
}

// ---- margins and weights

template <class V>
void panel_dot(const typename V::T* P, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t vectors, const typename V::T* w,
               typename V::T* z) {
  constexpr ptrdiff_t N = V::N;
  for (ptrdiff_t i0 = 0; i0 < rows; i0 += N) {
    const int m = rows - i0 < N ? static_cast<int>(rows - i0) : V::N;
    V total = V::zero();
    for (ptrdiff_t v0 = 0; v0 < vectors; v0 += 32) {
      const ptrdiff_t end = vectors - v0 < 32 ? vectors : v0 + 32;
      V acc[V::N];
      for (int i = 0; i < V::N; ++i) acc[i] = V::zero();
      for (ptrdiff_t v = v0; v < end; ++v) {
        const V wv = V::load(w + v * N);
        const typename V::T* p = P + (v * ld + i0) * N;
        if (m == V::N)
          for (int i = 0; i < V::N; ++i) acc[i] = fma(V::load(p + i * N), wv, acc[i]);
        else
          for (int i = 0; i < V::N; ++i)
            if (i < m) acc[i] = fma(V::load(p + i * N), wv, acc[i]);
      }
      total = total + transpose_sum(acc);
    }
    if (m == V::N) total.store(z + i0);
    else total.store_n(z + i0, m);
  }
}

template <class V>
void panel_scale(const typename V::T* P, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t vectors, const typename V::T* c,
                 typename V::T* Q) {
  constexpr ptrdiff_t N = V::N;
  for (ptrdiff_t v = 0; v < vectors; ++v) {
    const typename V::T* p = P + v * ld * N;
    typename V::T* q = Q + v * ld * N;
    for (ptrdiff_t i = 0; i < rows; ++i) {
      const V s = V::set1(c[i]);
      (V::load(p + i * N) * s).store(q + i * N);
    }
  }
}

// ---- products

// out[0..cols) += x[0..cols)
template <class T>
NAG_INLINE void add_wide(double* out, const T* x, ptrdiff_t cols) {
  ptrdiff_t j = 0;
  for (; j + Vd::N <= cols; j += Vd::N) (Vd::load(out + j) + widen(x + j, Vd())).store(out + j);
  for (; j < cols; ++j) out[j] += static_cast<double>(x[j]);
}

// M rows of C times W vectors of columns. Q's M numbers of a row lie in panels of N: M is at most N or a multiple of it.
template <class V, int M, int W>
NAG_NOINLINE void tile(const typename V::T* P, const typename V::T* Q, ptrdiff_t ld, ptrdiff_t rows, double* C, ptrdiff_t ldc,
                       ptrdiff_t cols) {
  using T = typename V::T;
  constexpr ptrdiff_t N = V::N;
  const ptrdiff_t panel = ld * N;
  alignas(64) T sum[M][W * V::N];
  for (ptrdiff_t r0 = 0; r0 < rows; r0 += kChain) {
    const ptrdiff_t end = rows - r0 < kChain ? rows : r0 + kChain;
    V acc[M][W];
    for (int m = 0; m < M; ++m)
      for (int u = 0; u < W; ++u) acc[m][u] = V::zero();
    const T *p = P + r0 * N, *q = Q + r0 * N;
    for (ptrdiff_t r = r0; r < end; ++r, p += N, q += N) {
      V x[W];
      for (int u = 0; u < W; ++u) x[u] = V::load(p + u * panel);
      for (int m = 0; m < M; ++m) {
        const V s = V::set1(q[m / N * panel + m % N]);
        for (int u = 0; u < W; ++u) acc[m][u] = fma(x[u], s, acc[m][u]);
      }
    }
    for (int m = 0; m < M; ++m)
      for (int u = 0; u < W; ++u) {
        const V a = r0 == 0 ? acc[m][u] : V::load(sum[m] + u * N) + acc[m][u];
        a.store(sum[m] + u * N);
      }
  }
  if (rows > 0)
    for (int m = 0; m < M; ++m) add_wide(C + m * ldc, sum[m], cols);
}

// The rows of one vector of C against W vectors of columns: tiles of kTileRows, what is left in halves.
template <class V, int W>
NAG_INLINE void row_tiles(const PanelProduct<typename V::T>& b, const typename V::T* P, ptrdiff_t row, ptrdiff_t end, double* C,
                          ptrdiff_t ldc, ptrdiff_t cols) {
  constexpr ptrdiff_t N = V::N;
  const auto q = [&b](ptrdiff_t i) { return b.Q + (i / N * b.ld) * N + i % N; };
  constexpr int kMost = kTileRows < V::N ? kTileRows : V::N;
  for (; row + kMost <= end; row += kMost, C += kMost * ldc) tile<V, kMost, W>(P, q(row), b.ld, b.rows, C, ldc, cols);
  if constexpr (kMost > 4)
    if (row + 4 <= end) {
      tile<V, 4, W>(P, q(row), b.ld, b.rows, C, ldc, cols);
      row += 4;
      C += 4 * ldc;
    }
  if constexpr (kMost > 2)
    if (row + 2 <= end) {
      tile<V, 2, W>(P, q(row), b.ld, b.rows, C, ldc, cols);
      row += 2;
      C += 2 * ldc;
    }
  if (row < end) tile<V, 1, W>(P, q(row), b.ld, b.rows, C, ldc, cols);
}

template <class V>
void panel_product(const PanelProduct<typename V::T>& b) {
  constexpr ptrdiff_t N = V::N;
  static_assert(PanelProduct<typename V::T>::kColumns == 3, "the switch below");
  const ptrdiff_t vectors = (b.col_count + N - 1) / N;
  const typename V::T* P = b.P + b.first_col * b.ld * N;
  for (ptrdiff_t v = b.first_row < b.first_col ? b.first_col : b.first_row; v < b.end_row; ++v) {
    const ptrdiff_t last = v + 1 < vectors ? v + 1 : vectors;
    const ptrdiff_t width = last - b.first_col < 3 ? last - b.first_col : 3;
    if (width <= 0) continue;
    const ptrdiff_t ldc = b.ldc ? b.ldc : (v + 1) * N;
    double* C = b.C + (b.ldc ? v * N * b.ldc : N * N * v * (v + 1) / 2) + b.first_col * N;
    const ptrdiff_t row = v * N, end = row + N < b.row_count ? row + N : b.row_count;
    ptrdiff_t cols = width * N;
    if (b.ldc && b.col_count - b.first_col * N < cols) cols = b.col_count - b.first_col * N;
    switch (width) {
      case 1: row_tiles<V, 1>(b, P, row, end, C, ldc, cols); break;
      case 2: row_tiles<V, 2>(b, P, row, end, C, ldc, cols); break;
      default: row_tiles<V, 3>(b, P, row, end, C, ldc, cols); break;
    }
  }
}
