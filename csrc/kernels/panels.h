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

constexpr ptrdiff_t kAhead = 4;  // rows drawn from F order that are asked for in advance

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
    // F order reads `N` streams, each in order: by vectors of rows that change places with columns, or by numbers.
    const bool along = b.at == nullptr && b.row_stride == item && b.col_stride % item == 0 && reinterpret_cast<uintptr_t>(b.X) % sizeof(S) == 0;
    const ptrdiff_t turned = along ? b.rows / N * N : 0;
    for (ptrdiff_t v = 0; v * N < b.d; ++v) {
      const int width = static_cast<int>(v < whole ? N : left);
      T* to = P + v * panel;
      for (ptrdiff_t i = 0; i < turned; i += N, to += N * N) {
        const char* x = base + i * item + v * N * b.col_stride;
        V tile[N];
        for (int q = 0; q < N; ++q) {
          const char* from = x + (q < width ? q : 0) * b.col_stride;
          if (b.far != 0 && q < width) prefetch_far(from + b.far);
          tile[q] = q < width ? widen(reinterpret_cast<const S*>(from), V()) : V::zero();
        }
        transpose(tile);
        for (int q = 0; q < N; ++q) tile[q].store(to + q * N);
      }
      for (ptrdiff_t i = turned; i < b.rows; ++i, to += N) {
        const char* x = base + (b.at ? b.at[i] : i) * b.row_stride + v * N * b.col_stride;
        if (b.at && i + kAhead < b.rows)  // in F order each number has a cache line of its own
          for (int q = 0; q < width; ++q) prefetch(base + b.at[i + kAhead] * b.row_stride + (v * N + q) * b.col_stride);
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
    ptrdiff_t i = 0;
    for (; i + 4 <= rows; i += 4, p += 4 * N, q += 4 * N)
      for (int u = 0; u < 4; ++u) (V::load(p + u * N) * V::set1(c[i + u])).store(q + u * N);
    for (; i < rows; ++i, p += N, q += N) (V::load(p) * V::set1(c[i])).store(q);
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

// M rows times W vectors of columns over one chain of rows; sum is 3*N wide. Q's M numbers of a row lie side by side.
template <class V, int M, int W>
NAG_NOINLINE void tile(const typename V::T* P, const typename V::T* Q, ptrdiff_t panel, ptrdiff_t rows, typename V::T* sum, bool add,
                       const char* ahead, ptrdiff_t step) {
  constexpr ptrdiff_t N = V::N;
  V acc[M][W];
  for (int m = 0; m < M; ++m)
    for (int u = 0; u < W; ++u) acc[m][u] = V::zero();
  for (ptrdiff_t r = 0; r < rows; ++r, P += N, Q += N, ahead += step) {
    prefetch(ahead);
    V x[W];
    for (int u = 0; u < W; ++u) x[u] = V::load(P + u * panel);
    for (int m = 0; m < M; ++m) {
      const V s = V::set1(Q[m]);
      for (int u = 0; u < W; ++u) acc[m][u] = fma(x[u], s, acc[m][u]);
    }
  }
  for (int m = 0; m < M; ++m, sum += 3 * N)
    for (int u = 0; u < W; ++u) {
      if (add) acc[m][u] = V::load(sum + u * N) + acc[m][u];
      acc[m][u].store(sum + u * N);
    }
}

// `count` rows of C, no more than a vector's lanes: tiles of kTileRows, what is left in halves.
template <class V, int W>
NAG_INLINE void row_tiles(PanelProduct<typename V::T>& b, const typename V::T* P, const typename V::T* Q, ptrdiff_t rows,
                          ptrdiff_t count, typename V::T* sum, bool add) {
  constexpr int M = kTileRows < V::N ? kTileRows : V::N;
  const ptrdiff_t panel = b.ld * V::N;
  ptrdiff_t m = 0;
  const auto to = [&] { return sum + m * 3 * V::N; };
  const char* const here = reinterpret_cast<const char*>(P);
  for (; m + M <= count; m += M) {
    const bool ask = b.ahead_lines >= rows;
    tile<V, M, W>(P, Q + m, panel, rows, to(), add, ask ? b.ahead : here, ask ? 64 : 0);
    if (ask) b.ahead += 64 * rows, b.ahead_lines -= rows;
  }
  if constexpr (M > 4)
    if (m + 4 <= count) tile<V, 4, W>(P, Q + m, panel, rows, to(), add, here, 0), m += 4;
  if constexpr (M > 2)
    if (m + 2 <= count) tile<V, 2, W>(P, Q + m, panel, rows, to(), add, here, 0), m += 2;
  if (m < count) tile<V, 1, W>(P, Q + m, panel, rows, to(), add, here, 0);
}

template <class V>
void panel_product(PanelProduct<typename V::T>& b) {
  using T = typename V::T;
  constexpr ptrdiff_t N = V::N;
  constexpr ptrdiff_t kTogether = 8;  // vectors of rows: their sums, and a chain of P, stay in the first-level cache
  static_assert(PanelProduct<T>::kColumns == 3, "the switch below");
  const ptrdiff_t panel = b.ld * N, vectors = (b.col_count + N - 1) / N;
  alignas(64) T sums[kTogether * N * 3 * N];
  for (ptrdiff_t v0 = b.first_row < b.first_col ? b.first_col : b.first_row; v0 < b.end_row; v0 += kTogether) {
    const ptrdiff_t v1 = v0 + kTogether < b.end_row ? v0 + kTogether : b.end_row;
    const auto width = [&](ptrdiff_t v) {
      const ptrdiff_t last = (v + 1 < vectors ? v + 1 : vectors) - b.first_col;
      return last < 3 ? last : 3;
    };
    const auto height = [&](ptrdiff_t v) { return b.row_count - v * N < N ? b.row_count - v * N : N; };
    for (ptrdiff_t r = 0; r < b.rows; r += kChain) {
      const ptrdiff_t rows = b.rows - r < kChain ? b.rows - r : kChain;
      const T* const P = b.P + b.first_col * panel + r * N;
      for (ptrdiff_t v = v0; v < v1; ++v) {
        const T* const Q = b.Q + v * panel + r * N;
        T* const sum = sums + (v - v0) * N * 3 * N;
        switch (width(v)) {
          case 1: row_tiles<V, 1>(b, P, Q, rows, height(v), sum, r > 0); break;
          case 2: row_tiles<V, 2>(b, P, Q, rows, height(v), sum, r > 0); break;
          default: row_tiles<V, 3>(b, P, Q, rows, height(v), sum, r > 0); break;
        }
      }
    }
    if (b.rows <= 0) continue;
    for (ptrdiff_t v = v0; v < v1; ++v) {
      const ptrdiff_t ldc = b.ldc ? b.ldc : (v + 1) * N;
      double* C = b.C + (b.ldc ? v * N * b.ldc : N * N * v * (v + 1) / 2) + b.first_col * N;
      ptrdiff_t cols = width(v) * N;
      if (b.ldc && b.col_count - b.first_col * N < cols) cols = b.col_count - b.first_col * N;
      for (ptrdiff_t m = 0; m < height(v); ++m, C += ldc) add_wide(C, sums + ((v - v0) * N + m) * 3 * N, cols);
    }
  }
}
