// Long rows: the margins of the NEXT block and the gradient of the block BEFORE it in one sweep over the columns, so that
// main memory streams the next rows all the time while the previous ones are still in the second-level cache.
// Narrow storage is widened on the way and kept as T for its own turn as `previous`.
// Accumulators: a row's margin, kSweep lanes of T over at most kDotPanel columns, then double; the gradient, four rows a
// time, then T. The arithmetic of one side does not depend on whether the other is present.
// Included inside the per-ISA namespace.

#if NAG_SIMD == 512
constexpr int kSweep = 4;  // column vectors in flight: 4 rows x 4 sums in 32 registers
#else
constexpr int kSweep = 2;
#endif

template <class V, class S> NAG_INLINE V widen_tail(const S* p, int n) {
  alignas(64) typename V::T lanes[V::N] = {};
  for (int i = 0; i < n; ++i) lanes[i] = static_cast<typename V::T>(to_wide(p[i]));
  return V::load(lanes);
}
template <class V> NAG_INLINE V widen_tail(const typename V::T* p, int n) { return V::load_n(p, n); }

// RN rows of margins and RC rows of gradient over d columns; RN, RC in {0, 1, 4}.
template <class V, class S, int RN, int RC>
NAG_INLINE void sweep(const S* X, ptrdiff_t ldx, typename V::T* keep, ptrdiff_t ldk, const typename V::T* w, double* z,
                      const typename V::T* P, ptrdiff_t ldp, const typename V::T* r, typename V::T* g, ptrdiff_t d) {
  constexpr int N = RN > 0 ? RN : 1, C = RC > 0 ? RC : 1;
  V rc[C];
  for (int i = 0; i < C; ++i) rc[i] = V::set1(RC > 0 ? r[i] : 0);
  for (ptrdiff_t j0 = 0; j0 < d; j0 += kDotPanel) {
    const ptrdiff_t end = d - j0 < kDotPanel ? d : j0 + kDotPanel;
    V acc[N][kSweep];
    for (int i = 0; i < N; ++i)
      for (int u = 0; u < kSweep; ++u) acc[i][u] = V::zero();
    ptrdiff_t j = j0;
    for (; j + kSweep * V::N <= end; j += kSweep * V::N)
      for (int u = 0; u < kSweep; ++u) {
        const ptrdiff_t at = j + u * V::N;
        if (RN > 0) {
          const V wj = V::load(w + at);
          for (int i = 0; i < N; ++i) {
            const V x = widen(X + i * ldx + at, V());
            if (keep) x.store(keep + i * ldk + at);
            acc[i][u] = fma(x, wj, acc[i][u]);
          }
        }
        if (RC > 0) {
          V t = V::load(P + at) * rc[0];
          for (int i = 1; i < C; ++i) t = fma(V::load(P + i * ldp + at), rc[i], t);
          (V::load(g + at) + t).store(g + at);
        }
      }
    for (; j < end; j += V::N) {
      const int n = end - j < V::N ? static_cast<int>(end - j) : V::N;
      if (RN > 0) {
        const V wj = V::load(w + j);
        for (int i = 0; i < N; ++i) {
          const V x = widen_tail<V>(X + i * ldx + j, n);
          if (keep) x.store(keep + i * ldk + j);  // rows of `keep` are padded to whole vectors
          acc[i][0] = fma(x, wj, acc[i][0]);
        }
      }
      if (RC > 0) {
        V t = V::load_n(P + j, n) * rc[0];
        for (int i = 1; i < C; ++i) t = fma(V::load_n(P + i * ldp + j, n), rc[i], t);
        (V::load(g + j) + t).store(g + j);
      }
    }
    if (RN > 0)
      for (int i = 0; i < N; ++i) {
        V s = acc[i][0] + acc[i][1];
        if (kSweep == 4) s = s + (acc[i][kSweep - 2] + acc[i][kSweep - 1]);
        z[i] += static_cast<double>(reduce_add(s));
      }
  }
}

template <class V, class S>
NAG_NOINLINE void pipe(const PipeBlock<typename V::T>& b) {
  using T = typename V::T;
  const S* X = static_cast<const S*>(b.next);
  ptrdiff_t i = 0, q = 0;
  const auto store = [&](const double* sums, int rows) {
    for (int u = 0; u < rows; ++u) b.z[i + u] = static_cast<T>(sums[u]);
    i += rows;
  };
  const auto kept = [&]() { return b.keep ? b.keep + i * b.ldk : nullptr; };
  while (i + 4 <= b.next_rows || q + 4 <= b.prev_rows) {
    double sums[4] = {0, 0, 0, 0};
    const bool n = i + 4 <= b.next_rows, c = q + 4 <= b.prev_rows;
    const S* x = X + i * b.ldx;
    const T* p = b.prev + q * b.ldp;
    if (n && c) sweep<V, S, 4, 4>(x, b.ldx, kept(), b.ldk, b.w, sums, p, b.ldp, b.r + q, b.g, b.d);
    else if (n) sweep<V, S, 4, 0>(x, b.ldx, kept(), b.ldk, b.w, sums, p, b.ldp, b.r + q, b.g, b.d);
    else sweep<V, S, 0, 4>(x, b.ldx, nullptr, b.ldk, b.w, sums, p, b.ldp, b.r + q, b.g, b.d);
    if (n) store(sums, 4);
    if (c) q += 4;
  }
  while (i < b.next_rows) {
    double sums[1] = {0};
    sweep<V, S, 1, 0>(X + i * b.ldx, b.ldx, kept(), b.ldk, b.w, sums, b.prev, b.ldp, b.r, b.g, b.d);
    store(sums, 1);
  }
  for (; q < b.prev_rows; ++q)
    sweep<V, S, 0, 1>(X, b.ldx, nullptr, b.ldk, b.w, nullptr, b.prev + q * b.ldp, b.ldp, b.r + q, b.g, b.d);
}
