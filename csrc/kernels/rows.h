// Dense rows: Z = X W and G += R X on a block that stays in cache, for any number of columns of W.
// F order is C order of the transpose, so `dot` and `outer` change places there (engine/dense.cc): two kernels serve both.
// Accumulators: T lanes; `dot` folds panels of kDotPanel columns in double, `outer` at most kOuterChain rows a chain.
// Included inside the per-ISA namespace.

constexpr ptrdiff_t kDotPanel = RowKernels<float>::kPanel;
constexpr ptrdiff_t kOuterChain = 16;  // rows a chain adds before G is touched: 16 u of relative error at worst
#if NAG_SIMD == 512
constexpr int kTile = 10;     // classes a tile holds at once: 2 rows x 10 sums in 32 registers
constexpr int kRowGroups = 4; // independent chains of `outer`
#else
constexpr int kTile = 5;
constexpr int kRowGroups = 2;
#endif

template <class V> NAG_INLINE V load_tail(const typename V::T* p, ptrdiff_t left) {
  return left >= V::N ? V::load(p) : V::load_n(p, static_cast<int>(left));
}

template <class V, class S> NAG_INLINE V widen_tail(const S* p, ptrdiff_t left) {
  return left >= V::N ? widen(p, V()) : widen_n(p, static_cast<int>(left), V());
}

// ---- one column of W: X as stored, S, is widened where it is read

// V::N rows at once, one accumulator a row, summed across lanes by one transpose: for short rows the sums across lanes
// would otherwise cost more than the products.
template <class V, class S>
NAG_INLINE V dot_rows_short(const S* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d, const typename V::T* w, Walk& ahead) {
  V acc[V::N];
  for (int i = 0; i < V::N; ++i) acc[i] = V::zero();
  ptrdiff_t j = 0;
  if (rows >= V::N) {
    for (; j + V::N <= d; j += V::N) {
      const V wj = V::load(w + j);
      ahead.template rows<V>(X + j, ldx);
      for (int i = 0; i < V::N; ++i) acc[i] = fma(widen(X + i * ldx + j, V()), wj, acc[i]);
    }
    if (j < d) {
      const V wj = V::load(w + j);
      const int left = static_cast<int>(d - j);
      if (2 * left >= V::N) ahead.template rows<V>(X + j, ldx);
      for (int i = 0; i < V::N; ++i) acc[i] = fma(widen_n(X + i * ldx + j, left, V()), wj, acc[i]);
    }
  } else {
    for (; j < d; j += V::N) {
      const V wj = V::load(w + j);
      for (int i = 0; i < V::N; ++i)
        if (i < rows) acc[i] = fma(widen_tail<V>(X + i * ldx + j, d - j), wj, acc[i]);
    }
  }
  return transpose_sum(acc);
}

// R rows x U vectors of a panel.
template <class V, int R, class S>
NAG_INLINE void dot_rows_long(const S* X, ptrdiff_t ldx, ptrdiff_t d, const typename V::T* w, double* z) {
  constexpr int U = 4;
  V acc[R][U];
  for (int i = 0; i < R; ++i)
    for (int u = 0; u < U; ++u) acc[i][u] = V::zero();
  ptrdiff_t j = 0;
  for (; j + U * V::N <= d; j += U * V::N)
    for (int u = 0; u < U; ++u) {
      const V wj = V::load(w + j + u * V::N);
      for (int i = 0; i < R; ++i) acc[i][u] = fma(widen(X + i * ldx + j + u * V::N, V()), wj, acc[i][u]);
    }
  for (; j < d; j += V::N) {
    const V wj = V::load(w + j);
    for (int i = 0; i < R; ++i) acc[i][0] = fma(widen_tail<V>(X + i * ldx + j, d - j), wj, acc[i][0]);
  }
  for (int i = 0; i < R; ++i) z[i] += reduce_add((acc[i][0] + acc[i][1]) + (acc[i][2] + acc[i][3]));
}

template <class V, class S>
NAG_NOINLINE void dot_short(const S* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d, const typename V::T* w, typename V::T* z,
                            bool accumulate, const Ahead& next) {
  Walk ahead(next, X);
  for (ptrdiff_t i = 0; i < rows; i += V::N) {
    V s = dot_rows_short<V>(X + i * ldx, ldx, rows - i, d, w, ahead);
    const ptrdiff_t left = rows - i;
    if (accumulate) s = s + load_tail<V>(z + i, left);
    if (left >= V::N) s.store(z + i);
    else s.store_n(z + i, static_cast<int>(left));
  }
}

template <class V, class S>
NAG_NOINLINE void dot_long(const S* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d, const typename V::T* w, typename V::T* z,
                           bool accumulate) {
  using T = typename V::T;
  for (ptrdiff_t i = 0; i < rows; i += 4) {
    const ptrdiff_t m = rows - i < 4 ? rows - i : 4;
    double sums[4] = {0, 0, 0, 0};
    if (accumulate)
      for (ptrdiff_t q = 0; q < m; ++q) sums[q] = static_cast<double>(z[i + q]);
    for (ptrdiff_t j = 0; j < d; j += kDotPanel) {
      const ptrdiff_t p = d - j < kDotPanel ? d - j : kDotPanel;
      const S* x = X + i * ldx + j;
      if (m == 4) dot_rows_long<V, 4>(x, ldx, p, w + j, sums);
      else
        for (ptrdiff_t q = 0; q < m; ++q) dot_rows_long<V, 1>(x + q * ldx, ldx, p, w + j, sums + q);
    }
    for (ptrdiff_t q = 0; q < m; ++q) z[i + q] = static_cast<T>(sums[q]);
  }
}

template <class V, class S>
void dot_one(const void* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d, const typename V::T* w, typename V::T* z, bool accumulate,
             const Ahead& next) {
  const S* const x = static_cast<const S*>(X);
  if (d > 32 * V::N) return dot_long<V>(x, ldx, rows, d, w, z, accumulate);
  dot_short<V>(x, ldx, rows, d, w, z, accumulate, next);
}

// G's C vectors of columns from `rows` rows: kRowGroups independent chains, at most kOuterChain rows each.
template <class V, int C, bool Tail, class S>
NAG_INLINE void outer_chunk(const S* X, ptrdiff_t ldx, ptrdiff_t rows, const typename V::T* r, typename V::T* g, int tail,
                            Walk& ahead) {
  constexpr int Q = kRowGroups;
  const auto read = [tail](const S* x, int c) NAG_ALWAYS {
    return Tail && c == C - 1 ? widen_n(x + c * V::N, tail, V()) : widen(x + c * V::N, V());
  };
  for (ptrdiff_t i0 = 0; i0 < rows; i0 += Q * kOuterChain) {
    const ptrdiff_t end = rows - i0 < Q * kOuterChain ? rows : i0 + Q * kOuterChain;
    V acc[Q][C];
    for (int q = 0; q < Q; ++q)
      for (int c = 0; c < C; ++c) acc[q][c] = V::zero();
    ptrdiff_t i = i0;
    const S* x = X + i * ldx;
    for (; i + Q <= end; i += Q)
      for (int q = 0; q < Q; ++q, x += ldx) {
        const V ri = V::set1(r[i + q]);
        if (q % 2 == 0) ahead.template pair<V, C>(x, ldx);
        for (int c = 0; c < C; ++c) acc[q][c] = fma(read(x, c), ri, acc[q][c]);
      }
    for (int q = 0; i < end; ++i, ++q, x += ldx) {
      const V ri = V::set1(r[i]);
      for (int c = 0; c < C; ++c) acc[0][c] = fma(read(x, c), ri, acc[0][c]);
    }
    for (int c = 0; c < C; ++c) {
      V s = acc[0][c] + acc[1][c];
      if (Q == 4) s = s + (acc[Q - 2][c] + acc[Q - 1][c]);
      (V::load(g + c * V::N) + s).store(g + c * V::N);  // g is padded to whole vectors
    }
  }
}

template <class V, class S>
void outer_one(const void* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d, const typename V::T* r, typename V::T* g, const Ahead& next) {
  const S* const x = static_cast<const S*>(X);
  Walk ahead(next, X);
  ptrdiff_t j = 0;
  const ptrdiff_t step = 4 * V::N;
  for (; j + step <= d; j += step) outer_chunk<V, 4, false>(x + j, ldx, rows, r, g + j, 0, ahead);
  const ptrdiff_t left = d - j;
  if (left == 0) return;
  const int full = static_cast<int>(left / V::N), tail = static_cast<int>(left % V::N);
  switch (full * 2 + (tail > 0)) {
    case 1: return outer_chunk<V, 1, true>(x + j, ldx, rows, r, g + j, tail, ahead);
    case 2: return outer_chunk<V, 1, false>(x + j, ldx, rows, r, g + j, 0, ahead);
    case 3: return outer_chunk<V, 2, true>(x + j, ldx, rows, r, g + j, tail, ahead);
    case 4: return outer_chunk<V, 2, false>(x + j, ldx, rows, r, g + j, 0, ahead);
    case 5: return outer_chunk<V, 3, true>(x + j, ldx, rows, r, g + j, tail, ahead);
    case 6: return outer_chunk<V, 3, false>(x + j, ldx, rows, r, g + j, 0, ahead);
    default: return outer_chunk<V, 4, true>(x + j, ldx, rows, r, g + j, tail, ahead);
  }
}

// ---- several columns of W

// K columns of W at once. Two rows x K accumulators; V::N rows are stashed, then each column's lanes are summed by a transpose.
template <class V, int K>
NAG_NOINLINE void dot_tile(const typename V::T* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d, const typename V::T* W,
                           ptrdiff_t ldw, typename V::T* Z, ptrdiff_t ldz, const Ahead& next) {
  HalfWalk ahead = HalfWalk::through<V>(next, X);
  V stash[K][V::N];
  for (ptrdiff_t i0 = 0; i0 < rows; i0 += V::N) {
    const ptrdiff_t m = rows - i0 < V::N ? rows - i0 : V::N;
    for (ptrdiff_t i = 0; i < V::N; i += 2) {
      V a[K], b[K];
      for (int c = 0; c < K; ++c) a[c] = b[c] = V::zero();
      if (i < m) {
        const typename V::T* x0 = X + (i0 + i) * ldx;
        const typename V::T* x1 = i + 1 < m ? x0 + ldx : x0;
        ahead.row(x1);
        ptrdiff_t j = 0;
        for (; j + V::N <= d; j += V::N) {
          const V u = V::load(x0 + j), v = V::load(x1 + j);
          ahead.ask();
          for (int c = 0; c < K; ++c) {
            const V w = V::load(W + c * ldw + j);
            a[c] = fma(u, w, a[c]);
            b[c] = fma(v, w, b[c]);
          }
        }
        if (j < d) {
          const int left = static_cast<int>(d - j);
          const V u = V::load_n(x0 + j, left), v = V::load_n(x1 + j, left);
          for (int c = 0; c < K; ++c) {
            const V w = V::load(W + c * ldw + j);
            a[c] = fma(u, w, a[c]);
            b[c] = fma(v, w, b[c]);
          }
        }
      }
      for (int c = 0; c < K; ++c) {
        stash[c][i] = a[c];
        stash[c][i + 1] = b[c];
      }
    }
    for (int c = 0; c < K; ++c) {
      const V s = transpose_sum(stash[c]) + load_tail<V>(Z + c * ldz + i0, m);
      if (m == V::N) s.store(Z + c * ldz + i0);
      else s.store_n(Z + c * ldz + i0, static_cast<int>(m));
    }
  }
}

template <class V, int K, bool Tail>
NAG_INLINE void outer_tile_chunk(const typename V::T* X, ptrdiff_t ldx, ptrdiff_t rows, const typename V::T* R,
                                 ptrdiff_t ldr, typename V::T* G, ptrdiff_t ldg, ptrdiff_t left, HalfWalk& ahead) {
  for (ptrdiff_t i0 = 0; i0 < rows; i0 += 2 * kOuterChain) {
    const ptrdiff_t end = rows - i0 < 2 * kOuterChain ? rows : i0 + 2 * kOuterChain;
    V a[K], b[K];
    for (int c = 0; c < K; ++c) a[c] = b[c] = V::zero();
    for (ptrdiff_t i = i0; i < end; ++i) {
      const typename V::T* x = X + i * ldx;
      if (i % 2 == 0) ahead.row(x);
      const V u = Tail ? load_tail<V>(x, left) : V::load(x);
      const V v = Tail ? (left > V::N ? load_tail<V>(x + V::N, left - V::N) : V::zero()) : V::load(x + V::N);
      ahead.ask();
      for (int c = 0; c < K; ++c) {
        const V r = V::set1(R[c * ldr + i]);
        a[c] = fma(u, r, a[c]);
        b[c] = fma(v, r, b[c]);
      }
    }
    for (int c = 0; c < K; ++c) {
      typename V::T* g = G + c * ldg;
      (V::load(g) + a[c]).store(g);
      if (!Tail || left > V::N) (V::load(g + V::N) + b[c]).store(g + V::N);
    }
  }
}
template <class V, int K>
NAG_NOINLINE void outer_tile(const typename V::T* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d, const typename V::T* R,
                             ptrdiff_t ldr, typename V::T* G, ptrdiff_t ldg, const Ahead& next) {
  HalfWalk ahead = HalfWalk::through<V>(next, X);
  ptrdiff_t j = 0;
  for (; j + 2 * V::N <= d; j += 2 * V::N) outer_tile_chunk<V, K, false>(X + j, ldx, rows, R, ldr, G + j, ldg, 0, ahead);
  if (j < d) outer_tile_chunk<V, K, true>(X + j, ldx, rows, R, ldr, G + j, ldg, d - j, ahead);
}

// Calls f<K> for the K (1..kTile) that is asked for at run time.
template <class V, int K>
struct TileOf {
  static void dot(ptrdiff_t k, const typename V::T* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d,
                  const typename V::T* W, ptrdiff_t ldw, typename V::T* Z, ptrdiff_t ldz, const Ahead& next) {
    if (k == K) dot_tile<V, K>(X, ldx, rows, d, W, ldw, Z, ldz, next);
    else TileOf<V, K - 1>::dot(k, X, ldx, rows, d, W, ldw, Z, ldz, next);
  }
  static void outer(ptrdiff_t k, const typename V::T* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d,
                    const typename V::T* R, ptrdiff_t ldr, typename V::T* G, ptrdiff_t ldg, const Ahead& next) {
    if (k == K) outer_tile<V, K>(X, ldx, rows, d, R, ldr, G, ldg, next);
    else TileOf<V, K - 1>::outer(k, X, ldx, rows, d, R, ldr, G, ldg, next);
  }
};
template <class V> struct TileOf<V, 0> {
  template <class... A> static void dot(A...) {}
  template <class... A> static void outer(A...) {}
};

// Tiles of near-equal width, none wider than kTile.
NAG_INLINE ptrdiff_t tile_width(ptrdiff_t k) {
  const ptrdiff_t tiles = (k + kTile - 1) / kTile;
  return (k + tiles - 1) / tiles;
}

template <class V>
void dot(const typename V::T* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d, const typename V::T* W, ptrdiff_t ldw,
         ptrdiff_t k, typename V::T* Z, ptrdiff_t ldz, bool accumulate, const Ahead& ahead) {
  if (k == 1) return dot_one<V, typename V::T>(X, ldx, rows, d, W, Z, accumulate, ahead);
  const ptrdiff_t width = tile_width(k);
  for (ptrdiff_t c = 0; c < k; c += width) {
    const ptrdiff_t m = k - c < width ? k - c : width;
    if (!accumulate)
      for (ptrdiff_t q = 0; q < m; ++q)
        for (ptrdiff_t i = 0; i < rows; ++i) Z[(c + q) * ldz + i] = 0;
    TileOf<V, kTile>::dot(m, X, ldx, rows, d, W + c * ldw, ldw, Z + c * ldz, ldz, c == 0 ? ahead : Ahead{});
  }
}
template <class V>
void outer(const typename V::T* X, ptrdiff_t ldx, ptrdiff_t rows, ptrdiff_t d, const typename V::T* R, ptrdiff_t ldr,
           ptrdiff_t k, typename V::T* G, ptrdiff_t ldg, const Ahead& ahead) {
  if (k == 1) return outer_one<V, typename V::T>(X, ldx, rows, d, R, G, ahead);
  const ptrdiff_t width = tile_width(k);
  for (ptrdiff_t c = 0; c < k; c += width)
    TileOf<V, kTile>::outer(k - c < width ? k - c : width, X, ldx, rows, d, R + c * ldr, ldr, G + c * ldg, ldg, c == 0 ? ahead : Ahead{});
}
