// Softmax (L3) on a class-major block: every step runs across V::N rows at once. Included inside the per-ISA namespace.
//   m = max_c z_c,  t = sum_c e^(z_c - m),  phi = (m - sum_c p_c z_c) + log t,  r_c = e^(z_c - m)/t - p_c

template <class V>
double softmax_map(const SoftmaxBlock<typename V::T>& b) {
  using T = typename V::T;
  V total = V::zero();
  alignas(64) T lanes[V::N];
  for (ptrdiff_t i = 0; i < b.rows; i += V::N) {
    const ptrdiff_t left = b.rows - i;
    const int n = left < V::N ? static_cast<int>(left) : V::N;
    const V y = b.y ? load_tail<V>(b.y + i, left) : V::zero();
    const V s = b.s ? load_tail<V>(b.s + i, left) : V::set1(1);
    V m = V::zero(), picked = V::zero();
    for (ptrdiff_t c = 0; c < b.k; ++c) {
      V z = V::load(b.zdot + c * b.ld + i) + V::set1(b.bias[c]);
      if (b.offset) {
        for (int q = 0; q < n; ++q) lanes[q] = b.offset[(i + q) * b.k + c];
        z = z + V::load_n(lanes, n);
      }
      z.store(b.sr + c * b.ld + i);
      m = c == 0 ? z : max(m, z);
      V p;
      if (b.y) {
        p = select(y == V::set1(static_cast<T>(c)), V::set1(1), V::zero());
        picked = picked + select(y == V::set1(static_cast<T>(c)), z, V::zero());
      } else {
        for (int q = 0; q < n; ++q) lanes[q] = b.p[(i + q) * b.k + c];
        p = V::load_n(lanes, n);
        picked = fma(p, z, picked);
      }
    }
    V t = V::zero();
    for (ptrdiff_t c = 0; c < b.k; ++c) {
      const V z = V::load(b.sr + c * b.ld + i);
      if (b.z) {
        z.store(lanes);
        for (int q = 0; q < n; ++q) b.z[(i + q) * b.k + c] = lanes[q];
      }
      const V e = exp(z - m);
      e.store(b.sr + c * b.ld + i);
      t = t + e;
    }
    const V inverse = V::set1(1) / t;
    for (ptrdiff_t c = 0; c < b.k; ++c) {
      V p;
      if (b.y) p = select(y == V::set1(static_cast<T>(c)), V::set1(1), V::zero());
      else {
        for (int q = 0; q < n; ++q) lanes[q] = b.p[(i + q) * b.k + c];
        p = V::load_n(lanes, n);
      }
      const V r = V::load(b.sr + c * b.ld + i) * inverse - p;
      if (b.r) {
        r.store(lanes);
        for (int q = 0; q < n; ++q) b.r[(i + q) * b.k + c] = lanes[q];
      }
      (r * s).store(b.sr + c * b.ld + i);
    }
    // A NaN margin must not hide in `max`: t is NaN then, and so is its log's bit pattern made here.
    const V value = ((m - picked) + select(t == t, log(t), t)) * s;
    value.store(lanes);
    for (int q = n; q < V::N; ++q) lanes[q] = 0;
    total = total + V::load(lanes);
  }
  return static_cast<double>(reduce_add(total));
}
