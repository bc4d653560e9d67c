// X X'v a column at a time: u = x_j'v is gathered and handed out again while the column is at hand, so that nothing of the
// size of X'v exists. Included inside the per-ISA namespace. Where z is wanted k is one or a multiple of four: a masked load
// of the last lanes would wait for the stores to the rows that share its cache line.
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

// u alone, from column c0 of v on: NV vectors, the last of them with n lanes.
template <class V, class S, int NV>
void columns_panel(const ColumnsBlock<typename V::T>& b, ptrdiff_t c0, int n) {
  using T = typename V::T;
  const S* data = static_cast<const S*>(b.data);
  alignas(64) T lanes[NV * V::N];
  for (int64_t j = b.first; j < b.end; ++j) {
    double wide[NV * V::N] = {};
    for (int64_t c = b.ptr[j]; c < b.ptr[j + 1]; c += kColumnChain) {
      const int64_t stop = b.ptr[j + 1] - c < kColumnChain ? b.ptr[j + 1] : c + kColumnChain;
      V a[NV];
      for (int u = 0; u < NV; ++u) a[u] = V::zero();
      for (int64_t e = c; e < stop; ++e) {
        const V x = V::set1(static_cast<T>(data[e]));
        const T* v = b.v + static_cast<ptrdiff_t>(b.rows[e]) * b.k + c0;
        for (int u = 0; u < NV - 1; ++u) a[u] = fma(x, V::load(v + u * V::N), a[u]);
        a[NV - 1] = fma(x, V::load_n(v + (NV - 1) * V::N, n), a[NV - 1]);
      }
      for (int u = 0; u < NV; ++u) a[u].store(lanes + u * V::N);
      for (int q = 0; q < NV * V::N; ++q) wide[q] += static_cast<double>(lanes[q]);
    }
    for (int q = 0; q < (NV - 1) * V::N + n; ++q) b.u[j * b.k + c0 + q] = wide[q];
  }
}

// Four lanes, loaded and stored whole.
template <class T>
struct Four {
  T x[4];
  NAG_INLINE void add(T s, const T* p) {
    for (int q = 0; q < 4; ++q) x[q] += s * p[q];
  }
};

// z alone, from column c0 of v on: NV vectors and NQ times four lanes.
template <class V, class S, int NV, int NQ>
void columns_through(const ColumnsBlock<typename V::T>& b, ptrdiff_t c0) {
  using T = typename V::T;
  constexpr int kLanes = NV * V::N + 4 * NQ;
  // By value: stores to z might change what the block points at, for all that a compiler can tell.
  const S* const data = static_cast<const S*>(b.data);
  const int32_t* const rows = b.rows;
  const T* const v0 = b.v + c0;
  T* const z0 = b.z + c0;
  const ptrdiff_t k = b.k;
  for (int64_t j = b.first; j < b.end; ++j) {
    const int64_t begin = b.ptr[j], end = b.ptr[j + 1];
    V a[NV + 1];
    Four<T> f[NQ + 1];
    const auto clear = [&]() NAG_ALWAYS {
      for (int u = 0; u < NV; ++u) a[u] = V::zero();
      for (int q = 0; q < NQ; ++q) f[q] = Four<T>{};
    };
    const auto gather = [&](int64_t from, int64_t to) NAG_ALWAYS {
      for (int64_t e = from; e < to; ++e) {
        const T x = static_cast<T>(data[e]);
        const T* v = v0 + static_cast<ptrdiff_t>(rows[e]) * k;
        for (int u = 0; u < NV; ++u) a[u] = fma(V::set1(x), V::load(v + u * V::N), a[u]);
        for (int q = 0; q < NQ; ++q) f[q].add(x, v + NV * V::N + 4 * q);
      }
    };
    clear();
    if (end - begin <= kColumnChain) {
      gather(begin, end);
    } else {
      alignas(64) T lanes[kLanes];
      double wide[kLanes] = {};
      for (int64_t c = begin; c < end; c += kColumnChain) {
        gather(c, end - c < kColumnChain ? end : c + kColumnChain);
        for (int u = 0; u < NV; ++u) a[u].store(lanes + u * V::N);
        NAG_COPY(lanes + NV * V::N, f, NQ * sizeof(Four<T>));
        for (int q = 0; q < kLanes; ++q) wide[q] += static_cast<double>(lanes[q]);
        clear();
      }
      for (int q = 0; q < kLanes; ++q) lanes[q] = static_cast<T>(wide[q]);
      for (int u = 0; u < NV; ++u) a[u] = V::load(lanes + u * V::N);
      NAG_COPY(f, lanes + NV * V::N, NQ * sizeof(Four<T>));
    }
    for (int64_t e = begin; e < end; ++e) {
      const T x = static_cast<T>(data[e]);
      T* z = z0 + static_cast<ptrdiff_t>(rows[e]) * k;
      for (int u = 0; u < NV; ++u) fma(V::set1(x), a[u], V::load(z + u * V::N)).store(z + u * V::N);
      for (int q = 0; q < NQ; ++q) {
        Four<T> t;
        NAG_COPY(&t, z + NV * V::N + 4 * q, sizeof t);
        t.add(x, f[q].x);
        NAG_COPY(z + NV * V::N + 4 * q, &t, sizeof t);
      }
    }
  }
}

template <class V, class S>
void columns_through_any(const ColumnsBlock<typename V::T>& b) {
  for (ptrdiff_t c = 0; c < b.k; c += 2 * V::N) {
    const ptrdiff_t left = b.k - c;
    if (left >= 2 * V::N) {
      columns_through<V, S, 2, 0>(b, c);
      continue;
    }
    if constexpr (V::N >= 4) {
      const int fours = static_cast<int>(left % V::N) / 4;
      if (left >= V::N && fours == 0) columns_through<V, S, 1, 0>(b, c);
      if constexpr (V::N >= 8) {
        if (fours == 1) left >= V::N ? columns_through<V, S, 1, 1>(b, c) : columns_through<V, S, 0, 1>(b, c);
      }
      if constexpr (V::N >= 16) {
        if (fours == 2) left >= V::N ? columns_through<V, S, 1, 2>(b, c) : columns_through<V, S, 0, 2>(b, c);
        if (fours == 3) left >= V::N ? columns_through<V, S, 1, 3>(b, c) : columns_through<V, S, 0, 3>(b, c);
      }
    }
  }
}

template <class V, class S>
void columns_product(const ColumnsBlock<typename V::T>& b) {
  if (b.k == 1) return columns_one<V, S>(b);
  if (b.z != nullptr) return columns_through_any<V, S>(b);
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
