// A block of margins to values and residuals, and curvatures where `Second`, for every registered loss. Included inside the per-ISA namespace.
// Accumulator: lanes of T over one block (at most a few hundred rows), then double in the engine.

template <class V, class L, bool Second>
double loss_map(const MarginBlock<typename V::T>& b) {
  using T = typename V::T;
  const V bias = V::set1(b.bias), c = V::set1(b.c);
  V total = V::zero();
  for (ptrdiff_t i = 0; i < b.rows; i += V::N) {
    const ptrdiff_t left = b.rows - i;
    const int n = left < V::N ? static_cast<int>(left) : V::N;
    const bool full = n == V::N;
    V z = (full ? V::load(b.zdot + i) : V::load_n(b.zdot + i, n)) + bias;
    if (b.offset) z = z + load_tail<V>(b.offset + i, left);
    const LossTerms<V> e = L::eval(z, load_tail<V>(b.y + i, left), c);
    V value = e.value, sr = e.residual, h = e.curvature;
    if (b.s) {
      const V s = load_tail<V>(b.s + i, left);
      value = value * s;
      sr = sr * s;
      h = h * s;
    }
    if (full) {
      if (b.z) z.store(b.z + i);
      if (b.r) e.residual.store(b.r + i);
      sr.store(b.sr + i);
      if (Second) h.store(b.h + i);
      total = total + value;
    } else {
      if (b.z) z.store_n(b.z + i, n);
      if (b.r) e.residual.store_n(b.r + i, n);
      sr.store_n(b.sr + i, n);
      if (Second) h.store_n(b.h + i, n);
      alignas(64) T lanes[V::N];
      value.store(lanes);
      for (int q = n; q < V::N; ++q) lanes[q] = 0;  // lanes past the end hold the loss of margins that do not exist
      total = total + V::load(lanes);
    }
  }
  return static_cast<double>(reduce_add(total));
}
