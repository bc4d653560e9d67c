// Narrow, strided or misaligned storage to a dense block of the compute type. Included inside the per-ISA namespace.

template <class S> NAG_INLINE S read_element(const char* p) {
  S s;
  NAG_COPY(&s, p, sizeof(S));  // a view may stand at any byte
  return s;
}
NAG_INLINE double to_wide(double x) { return x; }
NAG_INLINE float to_wide(float x) { return x; }
NAG_INLINE float to_wide(uint8_t x) { return static_cast<float>(x); }
NAG_INLINE float to_wide(bf16 x) {
  const uint32_t u = static_cast<uint32_t>(x.bits) << 16;
  float f;
  NAG_COPY(&f, &u, 4);
  return f;
}

template <class V, class S>
void decode(const void* X, ptrdiff_t row_stride, ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t d, typename V::T* dst,
            ptrdiff_t ldd, ptrdiff_t far) {
  using T = typename V::T;
  const char* base = static_cast<const char*>(X);
  const bool dense = col_stride == static_cast<ptrdiff_t>(sizeof(S)) && row_stride % static_cast<ptrdiff_t>(sizeof(S)) == 0 &&
                     reinterpret_cast<uintptr_t>(X) % sizeof(S) == 0;
  if (!dense && row_stride >= 0 && row_stride < col_stride) {
    // Rows are the nearer neighbours: walk them inside, so that a cache line is used whole.
    for (ptrdiff_t j = 0; j < d; ++j)
      for (ptrdiff_t i = 0; i < rows; ++i)
        dst[i * ldd + j] = static_cast<T>(to_wide(read_element<S>(base + i * row_stride + j * col_stride)));
    return;
  }
  // So many bytes on from what is read here, the next rows are asked for.
  const ptrdiff_t line = rows > 1 ? 64 : 0, bytes = d * static_cast<ptrdiff_t>(sizeof(S));
  const char* asked = base;
  for (ptrdiff_t i = 0; i < rows; ++i) {
    const char* row = base + i * row_stride;
    T* out = dst + i * ldd;
    ptrdiff_t j = 0;
    if (dense) {
      if (row_stride > bytes + line) asked = row;
      for (; line > 0 && asked < row + bytes; asked += line) prefetch_far(asked + far);
      const S* x = reinterpret_cast<const S*>(row);
      for (; j + 4 * V::N <= d; j += 4 * V::N) {
        const V a = widen(x + j, V()), b = widen(x + j + V::N, V());
        const V c = widen(x + j + 2 * V::N, V()), e = widen(x + j + 3 * V::N, V());
        a.store(out + j);
        b.store(out + j + V::N);
        c.store(out + j + 2 * V::N);
        e.store(out + j + 3 * V::N);
      }
      for (; j + V::N <= d; j += V::N) widen(x + j, V()).store(out + j);
    }
    for (; j < d; ++j) out[j] = static_cast<T>(to_wide(read_element<S>(row + j * col_stride)));
  }
}
