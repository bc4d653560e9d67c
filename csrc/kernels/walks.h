// Walks through what comes after a block while that is read (table.h, Ahead), so that main memory stays busy: `rows` at each vector
// of V::N rows of `dot`, `pair` at each C vectors of two rows of `outer`, of numbers stored as S. Where both kernels read a block,
// either asks for half of the lines; a kernel that reads it alone, for all (of one column of W; of several, half).
// Included inside the per-ISA namespace.

constexpr ptrdiff_t kLineBytes = 64;

// C order: in one piece. What comes after it is asked for too, into the second-level cache: the first has 16 lines in flight, too
// few for the distance to main memory, and the hardware's own streams end at every page.
constexpr ptrdiff_t kFar = 16384;  // bytes; 4096 to 16384 are within a hundredth of each other
struct Along {
  const char* at;
  ptrdiff_t far;
  bool all;
  Along(const Ahead& a, const void* here) : at(static_cast<const char*>(a.next ? a.next : here)), far(a.next ? kFar : 0), all(a.all) {}
  template <class V, class S> NAG_INLINE void rows(const S*, ptrdiff_t) { half<V, V::N / 2 * V::N * sizeof(S)>(); }
  template <class V, int C, class S> NAG_INLINE void pair(const S*, ptrdiff_t) { half<V, C * V::N * sizeof(S)>(); }

 private:
  template <class V, size_t Bytes> NAG_INLINE void half() {
    lines<V, Bytes>();
    if (all) lines<V, Bytes>();
  }
  // In vectors of 32 bytes a line is asked for twice. On Zen 4, which they are for, a pass in which each line is asked for once takes a
  // tenth longer (measured; perhaps requests that find too many others on their way are dropped).
  template <class V, size_t Bytes> NAG_INLINE void lines() {
    for (size_t b = 0; b < Bytes; b += V::N * sizeof(typename V::T)) {
      prefetch(at + b);
      prefetch_far(at + b + far);
    }
    at += Bytes;
  }
};

// F order: a row of the kernels is a piece of a column, which goes on `apart` bytes later. `outer` asks for every second piece,
// `dot` for the others. A line is asked for with the vector that ends in it: where it begins lies with what was read before.
struct Beside {
  ptrdiff_t apart;
  bool all;
  Beside(const Ahead& a, const void*) : apart(a.apart), all(a.all) {}
  template <class V, class S> NAG_INLINE void rows(const S* x, ptrdiff_t ldx) {
    constexpr uintptr_t kBytes = V::N * sizeof(S);
    const char* const end = reinterpret_cast<const char*>(x) + apart + kBytes - 1;
    if (reinterpret_cast<uintptr_t>(end) % kLineBytes >= kBytes) return;  // another vector of this line has asked
    const ptrdiff_t row = ldx * static_cast<ptrdiff_t>(sizeof(S));
    for (int i = 1; i < V::N; i += 2) prefetch_far(end + i * row);
    if (!all) return;
    for (int i = 0; i < V::N; i += 2) prefetch_far(end + i * row);
  }
  template <class V, int C, class S> NAG_INLINE void pair(const S* x, ptrdiff_t ldx) {
    ask<C * V::N * sizeof(S)>(x);
    if (all) ask<C * V::N * sizeof(S)>(x + ldx);
  }

 private:
  template <size_t Bytes> NAG_INLINE void ask(const void* x) {
    constexpr size_t kStep = Bytes < kLineBytes ? Bytes : kLineBytes;
    for (size_t b = kStep; b <= Bytes; b += kStep) prefetch_far(static_cast<const char*>(x) + apart + b - 1);
  }
};

// Either, whichever is asked for: a branch that always goes the same way costs less than twice as many kernels.
struct Walk {
  Along along;
  Beside beside;
  Walk(const Ahead& a, const void* here) : along(a, here), beside(a, here) {}
  template <class V, class S> NAG_INLINE void rows(const S* x, ptrdiff_t ldx) {
    if (beside.apart != 0) beside.rows<V>(x, ldx);
    else along.rows<V>(x, ldx);
  }
  template <class V, int C, class S> NAG_INLINE void pair(const S* x, ptrdiff_t ldx) {
    if (beside.apart != 0) beside.pair<V, C>(x, ldx);
    else along.pair<V, C>(x, ldx);
  }
};

// Several columns of W: a line at each vector of rows, into the second-level cache, which is half of the next block.
struct HalfWalk {
  const char* at;
  ptrdiff_t step, apart;
  template <class V> static NAG_INLINE HalfWalk through(const Ahead& a, const void* here) {
    const bool asks = a.next != nullptr || a.apart != 0;
    return {static_cast<const char*>(a.next ? a.next : here), asks ? static_cast<ptrdiff_t>(sizeof(typename V::T) * V::N) : 0, a.apart};
  }
  NAG_INLINE void row(const void* x) {
    if (apart != 0) at = static_cast<const char*>(x) + apart + (kLineBytes - 1);
  }
  NAG_INLINE void ask() {
    prefetch_far(at);
    at += step;
  }
};
