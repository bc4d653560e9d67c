// A column strip of a symmetric matrix as panels (kernels/panel_table.h): lane q of vector v, line k, is the element of row
// v*N + q and column k, so that every step below runs across N rows at once. Lanes above the diagonal hold what they may:
// nothing reads them. Accumulators: T.
// Included inside the per-ISA namespace.

// The leading `width` columns of the leading block, factored in place: L in its lower triangle. Returns the first column
// whose pivot is no positive finite number, or -1.
template <class V>
ptrdiff_t panel_factor(typename V::T* P, ptrdiff_t ld, ptrdiff_t width) {
  using T = typename V::T;
  constexpr ptrdiff_t N = V::N;
  const ptrdiff_t vectors = (width + N - 1) / N;
  for (ptrdiff_t k = 0; k < width; ++k) {
    T& pivot = P[(k / N * ld + k) * N + k % N];
    if (!(pivot > 0) || pivot - pivot != 0) return k;
    const T root = sqrt(pivot);
    const V inverse = V::set1(1 / root);
    for (ptrdiff_t v = k / N; v < vectors; ++v) {
      T* p = P + (v * ld + k) * N;
      (V::load(p) * inverse).store(p);
    }
    pivot = root;
    for (ptrdiff_t m = k + 1; m < width; ++m) {
      const V s = V::set1(P[(m / N * ld + k) * N + m % N]);
      for (ptrdiff_t v = m / N; v < vectors; ++v) {
        T* p = P + (v * ld + m) * N;
        fnma(V::load(P + (v * ld + k) * N), s, V::load(p)).store(p);
      }
    }
  }
  return -1;
}

// Columns [k, k + M) of W vectors of rows: what the columns before them take away, then the M x M triangle.
template <class V, int M, int W>
NAG_INLINE void solve_columns(const typename V::T* L, typename V::T* P, ptrdiff_t ld, ptrdiff_t k) {
  constexpr ptrdiff_t N = V::N;
  const ptrdiff_t panel = ld * N;
  const auto row = [&](int m) { return L + (k + m) / N * panel + (k + m) % N; };  // of L, its column c at c*N
  V acc[M][W];
  for (int m = 0; m < M; ++m)
    for (int u = 0; u < W; ++u) acc[m][u] = V::load(P + u * panel + (k + m) * N);
  for (ptrdiff_t c = 0; c < k; ++c) {
    V x[W];
    for (int u = 0; u < W; ++u) x[u] = V::load(P + u * panel + c * N);
    for (int m = 0; m < M; ++m) {
      const V s = V::set1(row(m)[c * N]);
      for (int u = 0; u < W; ++u) acc[m][u] = fnma(x[u], s, acc[m][u]);
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int c = 0; c < m; ++c) {
      const V s = V::set1(row(m)[(k + c) * N]);
      for (int u = 0; u < W; ++u) acc[m][u] = fnma(acc[c][u], s, acc[m][u]);
    }
    const V inverse = V::set1(1 / row(m)[(k + m) * N]);
    for (int u = 0; u < W; ++u) {
      acc[m][u] = acc[m][u] * inverse;
      acc[m][u].store(P + u * panel + (k + m) * N);
    }
  }
}

// P := P L^-T for `vectors` vectors of rows below the factored block L of `width` columns, a multiple of the lanes.
template <class V>
void panel_solve(const typename V::T* L, typename V::T* P, ptrdiff_t ld, ptrdiff_t width, ptrdiff_t vectors) {
  constexpr int M = 4;
  ptrdiff_t v = 0;
  for (; v + 3 <= vectors; v += 3)
    for (ptrdiff_t k = 0; k < width; k += M) solve_columns<V, M, 3>(L, P + v * ld * V::N, ld, k);
  for (; v < vectors; ++v)
    for (ptrdiff_t k = 0; k < width; k += M) solve_columns<V, M, 1>(L, P + v * ld * V::N, ld, k);
}
