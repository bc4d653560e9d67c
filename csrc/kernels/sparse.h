// CSR rows: margins by gathers, gradients by scatters. Included inside the per-ISA namespace.
// Accumulators: T lanes for a row's margin; double for the gradient, whose scatter has no block to sum in first.

constexpr int64_t kRowsAhead = 12;  // entries

// The lines of k elements at p.
template <class T> NAG_INLINE void ask_row(const T* p, ptrdiff_t k) {
  const char* at = reinterpret_cast<const char*>(p);
  const ptrdiff_t bytes = k * static_cast<ptrdiff_t>(sizeof(T));
  for (ptrdiff_t b = 0; b < bytes; b += 64) prefetch(at + b);
  prefetch(at + bytes - 1);
}

// base[i] for n indices of an array that ends at `end`: gathered, or loaded one by one.
template <class V, bool kByNumber, class I>
NAG_INLINE V take_n(const typename V::T* base, const I* i, int n, const I* end) {
#if NAG_SIMD == 512
  if (kByNumber && end - i >= V::N) return load_each_n(base, i, n);
#else
  static_assert(!kByNumber, "for vectors of 512 bits alone");
  (void)end;
#endif
  return gather_n(base, i, n);
}

// kByNumber: for one column of W, a load for each number in place of gathers; to the same bits.
template <class V, class S, class I, bool kByNumber>
void csr_dot(const void* data_at, const void* idx_at, const int64_t* ptr, ptrdiff_t rows, const typename V::T* W,
             ptrdiff_t k, typename V::T* Z, ptrdiff_t ldz) {
  using T = typename V::T;
  const S* data = static_cast<const S*>(data_at);
  const I* idx = static_cast<const I*>(idx_at);
  const int64_t stored = ptr[rows];
  if (k == 1) {
    const auto take = [&](int64_t e, int n) NAG_ALWAYS { return take_n<V, kByNumber>(W, idx + e, n, idx + stored); };
    for (ptrdiff_t i0 = 0; i0 < rows; i0 += V::N) {
      V acc[V::N];
      const ptrdiff_t m = rows - i0 < V::N ? rows - i0 : V::N;
      for (int i = 0; i < V::N; ++i) {
        V a = V::zero(), b = V::zero();
        if (i < m) {
          int64_t e = ptr[i0 + i];
          const int64_t end = ptr[i0 + i + 1];
          for (; e + 2 * V::N <= end; e += 2 * V::N) {
            a = fma(widen(data + e, V()), take(e, V::N), a);
            b = fma(widen(data + e + V::N, V()), take(e + V::N, V::N), b);
          }
          for (; e < end; e += V::N) {
            const int n = end - e < V::N ? static_cast<int>(end - e) : V::N;
            a = fma(widen_n(data + e, n, V()), take(e, n), a);
          }
        }
        acc[i] = a + b;
      }
      const V s = transpose_sum(acc);
      if (m == V::N) s.store(Z + i0);
      else s.store_n(Z + i0, static_cast<int>(m));
    }
    return;
  }
  for (ptrdiff_t i = 0; i < rows; ++i)
    for (ptrdiff_t c = 0; c < k; c += V::N) {  // W's row j holds the k columns side by side
      const int n = k - c < V::N ? static_cast<int>(k - c) : V::N;
      V a = V::zero();
      for (int64_t e = ptr[i]; e < ptr[i + 1]; ++e) {
        // Rows of W are too many for the caches, and the entries say early which come next.
        if (c == 0 && e + kRowsAhead < stored) ask_row(W + static_cast<ptrdiff_t>(idx[e + kRowsAhead]) * k, k);
        a = fma(V::set1(static_cast<T>(data[e])), load_tail<V>(W + static_cast<ptrdiff_t>(idx[e]) * k + c, n), a);
      }
      alignas(64) T lanes[V::N];
      a.store(lanes);
      for (int q = 0; q < n; ++q) Z[(c + q) * ldz + i] = lanes[q];
    }
}

// The first of the sorted idx[begin, end) that is at least `bound`; no branch depends on the data.
template <class I> NAG_INLINE int64_t first_at_least(const I* idx, int64_t begin, int64_t end, int64_t bound) {
  int64_t left = end - begin;
  while (left > 1) {
    const int64_t half = left / 2;
    begin = static_cast<int64_t>(idx[begin + half - 1]) < bound ? begin + half : begin;
    left -= half;
  }
  return left == 1 && static_cast<int64_t>(idx[begin]) < bound ? begin + 1 : begin;
}

// cuts[i*(owners+1) + t] is where owner t's entries of row i begin: its columns are bounds[t] <= j < bounds[t+1].
template <class I>
void csr_split(const void* idx_at, const int64_t* ptr, ptrdiff_t rows, const int64_t* bounds, int owners, int64_t* cuts) {
  const I* idx = static_cast<const I*>(idx_at);
  for (ptrdiff_t i = 0; i < rows; ++i, cuts += owners + 1) {
    cuts[0] = ptr[i];
    for (int t = 1; t < owners; ++t) cuts[t] = first_at_least(idx, cuts[t - 1], ptr[i + 1], bounds[t]);
    cuts[owners] = ptr[i + 1];
  }
}

template <class T, class S, class I>
void csr_scatter(const void* data_at, const void* idx_at, const int64_t* ptr, ptrdiff_t rows, const T* v, T* u) {
  const S* data = static_cast<const S*>(data_at);
  const I* idx = static_cast<const I*>(idx_at);
  for (ptrdiff_t i = 0; i < rows; ++i) {
    const T r = v[i];
    int64_t e = ptr[i];
    const int64_t end = ptr[i + 1];
    // A row's columns differ, so the sums of eight entries need not wait for each other's stores.
    for (; e + 8 <= end; e += 8) {
      T t[8];
      for (int q = 0; q < 8; ++q) t[q] = u[idx[e + q]] + r * static_cast<T>(data[e + q]);
      for (int q = 0; q < 8; ++q) u[idx[e + q]] = t[q];
    }
    for (; e < end; ++e) u[idx[e]] += r * static_cast<T>(data[e]);
  }
}

template <class T, class S, class I>
void csr_outer(const void* data_at, const void* idx_at, const int64_t* cuts, ptrdiff_t stride, ptrdiff_t rows, const T* R,
               ptrdiff_t ldr, ptrdiff_t k, double* G) {
  const S* data = static_cast<const S*>(data_at);
  const I* idx = static_cast<const I*>(idx_at);
  for (ptrdiff_t i = 0; i < rows; ++i) {
    int64_t e = cuts[i * stride];
    const int64_t end = cuts[i * stride + 1];
    if (k == 1) {
      const double r = static_cast<double>(R[i]);
      // Products by vectors: to widen and multiply entries one by one is half of the instructions. A row's columns differ, so
      // the sums of four entries need not wait for each other's stores.
      const Vd rs = Vd::set1(r);
      alignas(64) double p[Vd::N];
      constexpr int kAtOnce = Vd::N < 4 ? Vd::N : 4;
      for (; e + Vd::N <= end; e += Vd::N) {
        (rs * widen(data + e, Vd())).store(p);
        for (int v = 0; v < Vd::N; v += kAtOnce) {
          double* g[kAtOnce];
          double t[kAtOnce];
          for (int u = 0; u < kAtOnce; ++u) g[u] = G + idx[e + v + u];
          for (int u = 0; u < kAtOnce; ++u) t[u] = *g[u] + p[v + u];
          for (int u = 0; u < kAtOnce; ++u) *g[u] = t[u];
        }
      }
      for (; e < end; ++e) G[idx[e]] += r * static_cast<double>(data[e]);
    } else {
      double r[64];
      for (ptrdiff_t c0 = 0; c0 < k; c0 += 64) {
        const ptrdiff_t m = k - c0 < 64 ? k - c0 : 64;
        for (ptrdiff_t c = 0; c < m; ++c) r[c] = static_cast<double>(R[(c0 + c) * ldr + i]);
        for (int64_t q = e; q < end; ++q) {
          if (c0 == 0 && q + kRowsAhead < end) ask_row(G + static_cast<ptrdiff_t>(idx[q + kRowsAhead]) * k, k);
          double* g = G + static_cast<ptrdiff_t>(idx[q]) * k + c0;
          const Vd x = Vd::set1(static_cast<double>(data[q]));
          ptrdiff_t c = 0;
          for (; c + Vd::N <= m; c += Vd::N) fma(x, Vd::load(r + c), Vd::load(g + c)).store(g + c);
          if (c < m) {
            const int n = static_cast<int>(m - c);
            fma(x, Vd::load_n(r + c, n), Vd::load_n(g + c, n)).store_n(g + c, n);
          }
        }
      }
    }
  }
}

// Rows first to end of the upper triangle of G += sum c x x', and g += sum r x for the same columns; double throughout. With
// `ones` x has a last entry 1, at column d. Each number of G is added to in the order of the rows.
template <class T, class S, class I>
void csr_gram(const CsrGramBlock<T>& b) {
  const S* data = static_cast<const S*>(b.data);
  const I* idx = static_cast<const I*>(b.indices);
  for (ptrdiff_t i = 0; i < b.rows; ++i) {
    const int64_t row = b.at ? b.at[i] : b.first_row + i;
    const double c = static_cast<double>(b.c[i]), r = b.r ? static_cast<double>(b.r[i]) : 0.0;
    if (c == 0 && r == 0) continue;
    const int64_t end = b.indptr[row + 1];
    for (int64_t e = first_at_least(idx, b.indptr[row], end, b.first); e < end && idx[e] < b.end; ++e) {
      const double x = static_cast<double>(data[e]);
      if (b.r) b.g[idx[e]] += r * x;
      if (c == 0) continue;
      const double a = c * x;
      double* G = b.G + static_cast<ptrdiff_t>(idx[e]) * b.ldg;
      for (int64_t q = e; q < end; ++q) G[idx[q]] += a * static_cast<double>(data[q]);
      if (b.ones) G[b.d] += a;
    }
    if (b.ones && b.end > b.d) {
      b.G[b.d * b.ldg + b.d] += c;
      if (b.r) b.g[b.d] += r;
    }
  }
}
