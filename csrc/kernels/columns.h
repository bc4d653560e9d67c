// X X'v a column at a time: u = x_j'v is gathered and handed out again while the column is at hand, so that nothing of the
// size of X'v exists. Included inside the per-ISA namespace.
// Accumulators: T over at most kColumnChain entries of a column, chains in double; T for z, as for every margin.

constexpr int64_t kColumnChain = 512;

template <class V, class S>
void columns_one(const ColumnsBlock<typename V::T>& b) {
  using T = typename V::T;
  const S* data = static_cast<const S*>(b.data);
  for (int64_t j = b.first; j < b.end; ++j) {
    const int64_t begin = b.ptr[j], end = b.ptr[j + 1];
    double sum = 0;
    for (int64_t c = begin; c < end; c += kColumnChain) {
      const int64_t stop = end - c < kColumnChain ? end : c + kColumnChain;
      V a = V::zero();
      for (int64_t e = c; e < stop; e += V::N) {
        const int n = stop - e < V::N ? static_cast<int>(stop - e) : V::N;
        a = fma(widen_n(data + e, n, V()), gather_n(b.v, b.rows + e, n), a);
      }
      sum += static_cast<double>(reduce_add(a));
    }
    if (b.u != nullptr) b.u[j] = sum;
    if (b.z == nullptr) continue;
    const T u = static_cast<T>(sum);
    int64_t e = begin;
    // A column's rows differ, so four of them need not wait for each other's stores.
    for (; e + 4 <= end; e += 4) {
      T* z[4];
      T t[4];
      for (int q = 0; q < 4; ++q) z[q] = b.z + b.rows[e + q];
      for (int q = 0; q < 4; ++q) t[q] = *z[q] + u * static_cast<T>(data[e + q]);
      for (int q = 0; q < 4; ++q) *z[q] = t[q];
    }
    for (; e < end; ++e) b.z[b.rows[e]] += u * static_cast<T>(data[e]);
  }
}

// The columns of v and z from c0 on: NV vectors, the last of them with n lanes.
template <class V, class S, int NV>
void columns_panel(const ColumnsBlock<typename V::T>& b, ptrdiff_t c0, int n) {
  using T = typename V::T;
  const S* data = static_cast<const S*>(b.data);
  alignas(64) double wide[NV * V::N];
  alignas(64) T lanes[NV * V::N];
  for (int64_t j = b.first; j < b.end; ++j) {
    const int64_t begin = b.ptr[j], end = b.ptr[j + 1];
    V a[NV];
    for (int u = 0; u < NV; ++u) a[u] = V::zero();
    const bool exact = b.u != nullptr || end - begin > kColumnChain;
    if (exact)
      for (double& x : wide) x = 0;
    for (int64_t c = begin; c < end; c += kColumnChain) {
      const int64_t stop = end - c < kColumnChain ? end : c + kColumnChain;
      for (int64_t e = c; e < stop; ++e) {
        const V x = V::set1(static_cast<T>(data[e]));
        const T* v = b.v + static_cast<ptrdiff_t>(b.rows[e]) * b.k + c0;
        for (int u = 0; u < NV - 1; ++u) a[u] = fma(x, V::load(v + u * V::N), a[u]);
        a[NV - 1] = fma(x, V::load_n(v + (NV - 1) * V::N, n), a[NV - 1]);
      }
      if (!exact) break;
      for (int u = 0; u < NV; ++u) {
        a[u].store(lanes + u * V::N);
        a[u] = V::zero();
      }
      for (int q = 0; q < NV * V::N; ++q) wide[q] += static_cast<double>(lanes[q]);
    }
    if (exact) {
      if (b.u != nullptr)
        for (int q = 0; q < (NV - 1) * V::N + n; ++q) b.u[j * b.k + c0 + q] = wide[q];
      if (b.z == nullptr) continue;
      for (int q = 0; q < NV * V::N; ++q) lanes[q] = static_cast<T>(wide[q]);
      for (int u = 0; u < NV; ++u) a[u] = V::load(lanes + u * V::N);
    }
    for (int64_t e = begin; e < end; ++e) {
      const V x = V::set1(static_cast<T>(data[e]));
      T* z = b.z + static_cast<ptrdiff_t>(b.rows[e]) * b.k + c0;
      for (int u = 0; u < NV - 1; ++u) fma(x, a[u], V::load(z + u * V::N)).store(z + u * V::N);
      T* last = z + (NV - 1) * V::N;
      fma(x, a[NV - 1], V::load_n(last, n)).store_n(last, n);
    }
  }
}

template <class V, class S>
void columns_product(const ColumnsBlock<typename V::T>& b) {
  if (b.k == 1) return columns_one<V, S>(b);
  for (ptrdiff_t c = 0; c < b.k; c += 4 * V::N) {
    const ptrdiff_t left = b.k - c < 4 * V::N ? b.k - c : 4 * V::N;
    const int n = static_cast<int>((left - 1) % V::N + 1);
    switch ((left + V::N - 1) / V::N) {
      case 1: columns_panel<V, S, 1>(b, c, n); break;
      case 2: columns_panel<V, S, 2>(b, c, n); break;
      case 3: columns_panel<V, S, 3>(b, c, n); break;
      default: columns_panel<V, S, 4>(b, c, n); break;
    }
  }
}
