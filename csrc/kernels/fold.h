// Leaves into nodes of the summation tree, and the plain read that bandwidth is measured by. Inside the per-ISA namespace.

template <class T> void fold(double* node, const T* leaf, ptrdiff_t m, bool add) {
  ptrdiff_t j = 0;
  if (add) {
    for (; j + Vd::N <= m; j += Vd::N) (Vd::load(node + j) + widen(leaf + j, Vd())).store(node + j);
    for (; j < m; ++j) node[j] += static_cast<double>(leaf[j]);
  } else {
    for (; j + Vd::N <= m; j += Vd::N) widen(leaf + j, Vd()).store(node + j);
    for (; j < m; ++j) node[j] = static_cast<double>(leaf[j]);
  }
}

template <class T> double sum(const T* x, ptrdiff_t m) {
  Vd a = Vd::zero(), b = Vd::zero();
  ptrdiff_t i = 0;
  for (; i + 2 * Vd::N <= m; i += 2 * Vd::N) {
    a = a + widen(x + i, Vd());
    b = b + widen(x + i + Vd::N, Vd());
  }
  double tail = 0;
  for (; i < m; ++i) tail += static_cast<double>(x[i]);
  return reduce_add(a + b) + tail;
}

// Touches every byte once with whole vectors; the sum keeps the loads alive.
inline uint64_t stream_read(const unsigned char* p, size_t bytes) {
  constexpr size_t kStep = 8 * sizeof(Vf);
  Vf acc[8];
  for (int u = 0; u < 8; ++u) acc[u] = Vf::zero();
  size_t i = 0;
  for (; i + kStep <= bytes; i += kStep)
    for (int u = 0; u < 8; ++u) acc[u] = max(acc[u], Vf::load(reinterpret_cast<const float*>(p + i) + u * Vf::N));
  for (int u = 1; u < 8; ++u) acc[0] = max(acc[0], acc[u]);
  float lanes[Vf::N];
  acc[0].store(lanes);
  uint64_t sum = 0;
  for (int u = 0; u < Vf::N; ++u) {
    uint32_t b;
    NAG_COPY(&b, lanes + u, 4);
    sum += b;
  }
  for (; i < bytes; ++i) sum += p[i];
  return sum;
}
