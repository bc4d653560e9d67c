// Long rows: the margins of the NEXT block and the gradient of the block BEFORE it in one sweep over the columns, so that
// main memory streams the next rows all the time while the previous ones are still in the second-level cache.
// Narrow storage is widened where it is read: that costs less than a widened copy, which would not fit that cache.
// Where that cache is tight, rows are copied as stored into memory that stays in it, over the rows just used.
// Bytes that go four or eight rows at a time meet their coefficients in whole numbers where those are given (FixedPanel): half of
// the arithmetic, and exact.
// Accumulators: a row's margin, kSweep lanes of T over at most kDotPanel columns, then double; the gradient, four rows a
// time, then T. The arithmetic of one side does not depend on whether the other is present.
// Included inside the per-ISA namespace.

#if NAG_SIMD == 512
constexpr int kSweep = 4;  // column vectors in flight: 4 rows x 4 sums in 32 registers
#else
constexpr int kSweep = 2;
#endif

// Without it compilers gather the requests of several lines, which then wait for each other.
#if defined(__GNUC__)
#define NAG_IN_ORDER __asm__ volatile("" ::: "memory")
#else
#define NAG_IN_ORDER (void)0
#endif

template <bool kValue>
struct Bool { static constexpr bool value = kValue; };
using Yes = Bool<true>;
using No = Bool<false>;

// A vector of what is stored at `from`, where v is what it was widened to.
template <class V, class S>
NAG_INLINE void keep(const S* from, const V& v, S* to) {
  if constexpr (sizeof(S) == sizeof(typename V::T)) v.store(to);
  else NAG_COPY(to, from, V::N * sizeof(S));
}

#if defined(__AVX512VNNI__)
// What `sweep` does with a panel, the columns from j0 to `end` of d, and to the same bits but for the margins.
template <int RN, int RC, bool kCopy>
NAG_INLINE void sweep_bytes(const uint8_t* X, const uint8_t* P, ptrdiff_t ldx, ptrdiff_t ldp, uint8_t* K, const FixedPanel& w, double* z, const Vf* rc,
                            float* g, ptrdiff_t j0, ptrdiff_t end, ptrdiff_t d, const uint8_t* after, ptrdiff_t ahead, ptrdiff_t soon) {
  constexpr ptrdiff_t kLine = 64;
  ByteSum sums[RN];
  const auto step = [&](ptrdiff_t j, auto whole, int n) NAG_ALWAYS {
    constexpr bool kWhole = decltype(whole)::value;
    for (int i = 0; i < RN; ++i) {
      const uint8_t* const x = X + i * ldx + j;
      const __m256i bytes = kWhole ? ByteSum::load(x) : ByteSum::load_n(x, n);
      sums[i].add(bytes, w.halves + 2 * (j - j0));
    }
    for (int u = 0; RC > 0 && u < n; u += Vf::N) {
      const auto row = [&](int i) NAG_ALWAYS {
        const uint8_t* const p = P + i * ldp + j + u;
        return kWhole || n - u >= Vf::N ? widen(p, Vf()) : widen_n(p, n - u, Vf());
      };
      Vf t = row(0) * rc[0];
      for (int i = 1; i < RC; ++i) t = fma(row(i), rc[i], t);
      (Vf::load(g + j + u) + t).store(g + j + u);
    }
    for (int i = 0; kCopy && i < RN; ++i) NAG_COPY(K + i * ldp + j, X + i * ldx + j, static_cast<size_t>(n));  // after P, which K may be
  };
  const auto ask = [&](ptrdiff_t j) NAG_ALWAYS {
    const uint8_t* const far = j + ahead < d ? X + j + ahead : after + (j + ahead - d);
    for (int i = 0; i < RN; ++i) prefetch_far(far + i * ldx);
    if (soon == 0) return;
    const uint8_t* const near = j + soon < d ? X + j + soon : after + (j + soon - d);
    for (int i = 0; i < RN; ++i) prefetch(near + i * ldx);
  };
  ptrdiff_t j = j0;
  for (; j + ByteSum::N <= end; j += ByteSum::N) {
    if ((j - j0) % kLine == 0) ask(j);
    step(j, Yes(), ByteSum::N);
  }
  if (j < end) {
    if ((j - j0) % kLine == 0) ask(j);
    step(j, No(), static_cast<int>(end - j));
  }
  for (int i = 0; i < RN; ++i) z[i] += w.unit * sums[i].total();
}
#endif

// RN rows of margins and RC rows of gradient over d columns; with kCopy the RN rows also go to K, which may be P.
template <class V, class S, int RN, int RC, bool kCopy>
NAG_INLINE void sweep(const S* X, const S* P, ptrdiff_t ldx, ptrdiff_t ldp, S* K, const typename V::T* w, double* z,
                      const typename V::T* r, typename V::T* g, ptrdiff_t d, const S* after, ptrdiff_t ahead, ptrdiff_t soon,
                      [[maybe_unused]] const FixedPanel* fixed) {
  constexpr int N = RN > 0 ? RN : 1, C = RC > 0 ? RC : 1;
  constexpr int kVectors = RN > 4 || RC > 4 ? 2 : kSweep;  // 8 rows x 2 sums leave registers for their factors
  constexpr ptrdiff_t kLine = 64 / static_cast<ptrdiff_t>(sizeof(S));
  // Beside copies, requests to memory come one by one with the lines read, and each line is brought from the second-level
  // cache `soon` entries early where that is asked for. Bytes are widened too slowly for either to pay.
  constexpr bool kEven = kCopy && RN > 0 && sizeof(S) > 1;
  V rc[C];
  for (int i = 0; i < C; ++i) rc[i] = V::set1(RC > 0 ? r[i] : 0);
  for (ptrdiff_t j0 = 0; j0 < d; j0 += kDotPanel) {
    const ptrdiff_t end = d - j0 < kDotPanel ? d : j0 + kDotPanel;
#if defined(__AVX512VNNI__)
    if constexpr (sizeof(S) == 1 && sizeof(typename V::T) == sizeof(float) && RN >= 4) {
      if (fixed != nullptr && fixed[j0 / kDotPanel].unit > 0) {
        sweep_bytes<RN, RC, kCopy>(X, P, ldx, ldp, K, fixed[j0 / kDotPanel], z, rc, g, j0, end, d, after, ahead, soon);
        continue;
      }
    }
#endif
    V acc[N][kVectors];
    for (int i = 0; i < N; ++i)
      for (int u = 0; u < kVectors; ++u) acc[i][u] = V::zero();
    ptrdiff_t j = j0;
    for (; j + kVectors * V::N <= end; j += kVectors * V::N) {
      if (RN > 0 && soon > 0 && !kEven) {
        const ptrdiff_t near = j + soon;
        const S* x = near < d ? X + near : after + (near - d);
        for (int i = 0; i < N; ++i)
          for (ptrdiff_t b = 0; b < kVectors * V::N; b += kLine) prefetch(x + i * ldx + b);
      }
      const S* const far = RN == 0 ? X : j + ahead < d ? X + j + ahead : after + (j + ahead - d);
      if (RN > 0 && !kEven)
        for (int i = 0; i < N; ++i)
          for (ptrdiff_t b = 0; b < kVectors * V::N; b += kLine) prefetch_far(far + i * ldx + b);
      for (int u = 0; u < kVectors; ++u) {
        const ptrdiff_t at = j + u * V::N;
        if (kEven && u * V::N % kLine == 0)
          for (int i = 0; i < N; ++i) {
            prefetch_far(far + i * ldx + u * V::N);
            if (soon > 0) prefetch(X + i * ldx + at + soon);
          }
        V x[N];
        if (RN > 0) {
          const V wj = V::load(w + at);
          for (int i = 0; i < N; ++i) {
            x[i] = widen(X + i * ldx + at, V());
            acc[i][u] = fma(x[i], wj, acc[i][u]);
          }
        }
        if (RC > 0) {
          V t = widen(P + at, V()) * rc[0];
          for (int i = 1; i < C; ++i) t = fma(widen(P + i * ldp + at, V()), rc[i], t);
          (V::load(g + at) + t).store(g + at);
        }
        if (kCopy)
          for (int i = 0; i < N; ++i) keep(X + i * ldx + at, x[i], K + i * ldp + at);
        if (kEven) NAG_IN_ORDER;
      }
    }
    if (RN > 0 && !kEven && j < end) {
      const S* const far = j + ahead < d ? X + j + ahead : after + (j + ahead - d);
      for (int i = 0; i < N; ++i)
        for (ptrdiff_t b = 0; b < end - j; b += kLine) prefetch_far(far + i * ldx + b);
    }
    for (; j < end; j += V::N) {
      const int n = end - j < V::N ? static_cast<int>(end - j) : V::N;
      if (RN > 0) {
        const V wj = V::load(w + j);
        for (int i = 0; i < N; ++i) acc[i][0] = fma(widen_n(X + i * ldx + j, n, V()), wj, acc[i][0]);
      }
      if (RC > 0) {
        V t = widen_n(P + j, n, V()) * rc[0];
        for (int i = 1; i < C; ++i) t = fma(widen_n(P + i * ldp + j, n, V()), rc[i], t);
        (V::load(g + j) + t).store(g + j);
      }
      if (kCopy)
        for (int i = 0; i < N; ++i)
          for (int m = 0; m < n; ++m) K[i * ldp + j + m] = X[i * ldx + j + m];
    }
    if (RN > 0)
      for (int i = 0; i < N; ++i) {
        V s = acc[i][0] + acc[i][1];
        if (kVectors == 4) s = s + (acc[i][kVectors - 2] + acc[i][kVectors - 1]);
        z[i] += static_cast<double>(reduce_add(s));
      }
  }
}

// One row alone over a panel, in pieces that stand pages apart: a single row is a single memory stream, and the hardware
// fetches few lines ahead within a page. `after` is the panel that comes next; a line of it is asked for with each line read,
// so that requests to memory come evenly.
constexpr int kPieces = 4;
template <class V, class S, bool kNext, bool kPrev, bool kCopy>
NAG_INLINE void sweep_pieces(const S* X, const S* P, S* K, const typename V::T* w, double* z, const typename V::T* r,
                             typename V::T* g, ptrdiff_t d, const S* after) {
  const ptrdiff_t piece = d / (kPieces * V::N) * V::N;
  const V rc = V::set1(kPrev ? r[0] : 0);
  V acc[kPieces];
  for (int u = 0; u < kPieces; ++u) acc[u] = V::zero();
  for (ptrdiff_t j = 0; j < piece; j += V::N)
    for (int u = 0; u < kPieces; ++u) {
      const ptrdiff_t at = u * piece + j;
      V x;
      if (kNext) {
        prefetch_far(after + at);
        x = widen(X + at, V());
        acc[u] = fma(x, V::load(w + at), acc[u]);
      }
      if (kPrev) (V::load(g + at) + widen(P + at, V()) * rc).store(g + at);
      if (kCopy) keep(X + at, x, K + at);
    }
  for (ptrdiff_t j = kPieces * piece; j < d; j += V::N) {
    const int n = d - j < V::N ? static_cast<int>(d - j) : V::N;
    if (kNext) acc[0] = fma(widen_n(X + j, n, V()), V::load(w + j), acc[0]);
    if (kPrev) (V::load(g + j) + widen_n(P + j, n, V()) * rc).store(g + j);
    if (kCopy)
      for (int m = 0; m < n; ++m) K[j + m] = X[j + m];
  }
  if (kNext) z[0] += static_cast<double>(reduce_add((acc[0] + acc[1]) + (acc[2] + acc[3])));
}

// Groups of R rows while either side has a whole one. Eight are not copied.
template <class V, class S, int R>
NAG_NOINLINE void pipe_groups(const PipeBlock<typename V::T>& b, ptrdiff_t& i, ptrdiff_t& q) {
  while (i + R <= b.next_rows || q + R <= b.prev_rows) {
    const S* x = static_cast<const S*>(b.next) + i * b.ldx;
    const S* p = static_cast<const S*>(b.prev) + q * b.ldp;
    S* copy = b.copy ? static_cast<S*>(b.copy) + i * b.ldp : nullptr;
    const bool n = i + R <= b.next_rows, c = q + R <= b.prev_rows;
    // By default, rows follow rows.
    const S* after = b.after ? static_cast<const S*>(b.after) + i * b.ldx : x + R * b.ldx;
    const ptrdiff_t ahead = b.far / static_cast<ptrdiff_t>(sizeof(S)), soon = b.near / static_cast<ptrdiff_t>(sizeof(S));
    double sums[R] = {};
    const auto whole = [&](auto next, auto prev, auto keeps) NAG_ALWAYS {
      constexpr bool kNext = decltype(next)::value, kPrev = decltype(prev)::value, kCopy = decltype(keeps)::value;
      if (R == 1 && b.pieces && b.d == kDotPanel)
        sweep_pieces<V, S, kNext, kPrev, kCopy>(x, p, copy, b.w, sums, b.r + q, b.g, kDotPanel, after);
      else if (R == 1 && b.pieces && b.d < kDotPanel)
        sweep_pieces<V, S, kNext, kPrev, kCopy>(x, p, copy, b.w, sums, b.r + q, b.g, b.d, after);
      else
        sweep<V, S, kNext ? R : 0, kPrev ? R : 0, kCopy>(x, p, b.ldx, b.ldp, copy, b.w, sums, b.r + q, b.g, b.d, after, ahead, soon, b.fixed);
    };
    if (n && c && b.copy && R < 8) whole(Yes(), Yes(), Bool<(R < 8)>());
    else if (n && c) whole(Yes(), Yes(), No());
    else if (n) whole(Yes(), No(), No());
    else whole(No(), Yes(), No());
    if (n && !c && b.copy)
      for (int u = 0; u < R; ++u) NAG_COPY(copy + u * b.ldp, x + u * b.ldx, static_cast<size_t>(b.d) * sizeof(S));
    if (n)
      for (int u = 0; u < R; ++u) b.z[i++] = static_cast<typename V::T>(sums[u]);
    if (c) q += R;
  }
}

template <class V, class S>
void pipe(const PipeBlock<typename V::T>& b) {
  ptrdiff_t i = 0, q = 0;
#if NAG_SIMD == 512
  if constexpr (sizeof(S) < sizeof(float) && sizeof(typename V::T) == sizeof(float)) {
    if (b.group == 8) pipe_groups<V, S, 8>(b, i, q);
  }
#endif
  if (b.group >= 4) pipe_groups<V, S, 4>(b, i, q);
  if (b.group >= 2) pipe_groups<V, S, 2>(b, i, q);
  pipe_groups<V, S, 1>(b, i, q);
}
