// The momentum update of docs/maths.md (Updates), one trip through memory: decay, buffer, step and EMA of one leaf.
// Arithmetic in T, the compute type (double for double, else float), each operation rounded where the convention's
// library rounds it. The sum of squares of the gradients, in double, rides along: arithmetic, but no memory traffic.
// Included inside the per-ISA namespace.

// Σ g² in two accumulators of double lanes; the same order wherever it is called from.
struct SquareSum {
  Vd a, b;
  static NAG_INLINE SquareSum zero() { return {Vd::zero(), Vd::zero()}; }
  NAG_INLINE void add(const float* g) {  // Vf::N of them; exact products, as 2*24 bits fit in 53
    const Vd low = widen(g, Vd()), high = widen(g + Vd::N, Vd());
    a = fma(low, low, a);
    b = fma(high, high, b);
  }
  NAG_INLINE void add(const double* g) {
    const Vd x = Vd::load(g);
    a = fma(x, x, a);
  }
  template <class V> NAG_INLINE void add_n(const typename V::T* g, int n) {
    typename V::T padded[V::N];
    V::load_n(g, n).store(padded);
    add(padded);
  }
  NAG_INLINE double total() const { return reduce_add(a + b); }
};
// Σ g·b in double lanes, for the alignment of a gradient with the step that is taken on it.
struct DotSum {
  Vd a;
  static NAG_INLINE DotSum zero() { return {Vd::zero()}; }
  NAG_INLINE void add(Vf g, Vf b) {
    float gs[Vf::N], bs[Vf::N];
    g.store(gs);
    b.store(bs);
    a = fma(widen(gs, Vd()), widen(bs, Vd()), a);
    a = fma(widen(gs + Vd::N, Vd()), widen(bs + Vd::N, Vd()), a);
  }
  NAG_INLINE void add(Vd g, Vd b) { a = fma(g, b, a); }
  NAG_INLINE double total() const { return reduce_add(a); }
};
static_assert(Vf::N == 2 * Vd::N, "SquareSum::add reads one float vector as two double vectors");

// The rule with each scalar in every lane. A local copy, or the stores would force a reload at each step.
template <class V>
struct RuleLanes {
  V lr, minus_lr, momentum, lookahead, gain, decay, keep, ema_keep, ema_mix, unscale, clip;
  UpdateDecay decay_kind;
  bool scaled, clipped, averaged, ema_near;
  NAG_INLINE explicit RuleLanes(const UpdateRule<typename V::T>& r)
      : lr(V::set1(r.lr)), minus_lr(V::set1(-r.lr)), momentum(V::set1(r.momentum)), lookahead(V::set1(r.lookahead)),
        gain(V::set1(r.gain)), decay(V::set1(r.decay)), keep(V::set1(r.keep)), ema_keep(V::set1(r.ema_keep)),
        ema_mix(V::set1(r.ema_mix)), unscale(V::set1(r.unscale)), clip(V::set1(r.clip)), decay_kind(r.decay_kind),
        scaled(r.scaled), clipped(r.clipped), averaged(r.averaged), ema_near(r.ema_mix < typename V::T(0.5)) {}
};

// What a run adds up on its way.
struct RunSums {
  SquareSum squares = SquareSum::zero();
  DotSum dot = DotSum::zero();
  bool aligned = false;  // whether dot is asked for
};

// A run of elements in the compute type, whole leaves from the first on, or a part of one; the buffer may be bfloat16 instead.
template <class T>
struct MomentumRun {
  T* p;
  const T* g;
  T* b;
  T* e;
  size_t n;
  size_t asked;        // elements from the first on, of this run and those behind it, that are worth asking for ahead of time
  double* squares;     // of UpdateLeaves: one sum for each leaf
  double* alignments;  // likewise, or null
  RunSums* part;       // in place of both where the run is a part of a leaf: what is added up of it so far
  uint16_t* half;      // the bfloat16 buffer, or null; the rest says how it is rounded
  RandomKeys keys;
  uint64_t leaf;       // of element 0, and
  uint32_t index;      // its place there, a multiple of kDitherBlock
  NAG_INLINE bool aligned() const { return part != nullptr ? part->aligned : alignments != nullptr; }
  NAG_INLINE RunSums sums() const { return part != nullptr ? *part : RunSums(); }
  NAG_INLINE void keep(const RunSums& sums, size_t l) const {
    if (part != nullptr) {
      part->squares = sums.squares;
      part->dot = sums.dot;
      return;
    }
    squares[l] = sums.squares.total();
    if (alignments != nullptr) alignments[l] = sums.dot.total();
  }
};

template <class V, UpdateConvention kConvention>
NAG_INLINE V decayed_parameter(const RuleLanes<V>& r, V p) {
  if (kConvention == UpdateConvention::keras) return p - (p * r.decay) * r.lr;
  if (kConvention == UpdateConvention::keras_jax) return fma(r.minus_lr, p * r.decay, p);
  return p * r.keep;
}

// θ and, through b, the buffer.
template <class V, UpdateConvention kConvention, UpdateForm kForm>
NAG_INLINE V momentum_step(const RuleLanes<V>& r, V p, V g, V& b, bool first) {
  if (kConvention == UpdateConvention::torch) {
    V step = g;
    if (kForm != UpdateForm::plain) {
      b = first ? g : fma(r.gain, g, r.momentum * b);
      step = kForm == UpdateForm::nesterov ? fma(r.lookahead, b, g) : b;
    }
    return fma(r.minus_lr, step, p);
  }
  if (kConvention == UpdateConvention::keras_torch) {
    if (kForm == UpdateForm::plain) return fma(r.minus_lr, g, p);
    b = fma(r.minus_lr, g, r.momentum * b);  // b is zero on a first step
    return kForm == UpdateForm::nesterov ? fma(r.lookahead, b, fma(r.minus_lr, g, p)) : p + b;
  }
  if (kConvention == UpdateConvention::keras_jax) {
    if (kForm == UpdateForm::plain) return fma(r.minus_lr, g, p);
    const V push = g * r.minus_lr;
    b = fma(r.momentum, b, push);  // b is zero on a first step
    return kForm == UpdateForm::nesterov ? p + fma(r.lookahead, b, push) : p + b;
  }
  const V pull = g * r.lr;
  if (kForm == UpdateForm::plain) return p - pull;
  b = b * r.momentum - pull;  // b is zero on a first step
  return kForm == UpdateForm::nesterov ? p + (b * r.lookahead - pull) : p + b;
}

template <class V, UpdateConvention kConvention>
NAG_INLINE V moving_average(const RuleLanes<V>& r, V e, V p) {
  if (kConvention != UpdateConvention::torch) return r.ema_keep * e + r.ema_mix * p;
  // torch.lerp: from the nearer end
  return r.ema_near ? fma(r.ema_mix, p - e, e) : fma(r.ema_mix - V::set1(1), p - e, p);
}

// kGeneral also unscales, clips, decays decoupled, averages, aligns and takes first steps; its branches are the same for a
// whole leaf. The common step is compiled without them. Returns θ, and leaves in g the gradient as scaled and decayed.
template <class V, UpdateConvention kConvention, UpdateForm kForm, bool kGeneral>
NAG_INLINE V update_lanes(const RuleLanes<V>& r, V p, V& g, V& b, V& e, bool first) {
  if (kGeneral) {
    if (r.scaled) g = g / r.unscale;
    if (r.clipped) g = g * r.clip;
    if (r.decay_kind == UpdateDecay::decoupled) p = decayed_parameter<V, kConvention>(r, p);
  }
  if (r.decay_kind == UpdateDecay::coupled)
    g = kConvention == UpdateConvention::torch ? fma(r.decay, p, g) : g + r.decay * p;
  p = momentum_step<V, kConvention, kForm>(r, p, g, b, kGeneral && first);
  if (kGeneral && r.averaged) e = first ? p : moving_average<V, kConvention>(r, e, p);
  return p;
}

// How far ahead the next lines are asked for. The processor's own streams end at each page of 4 KiB, and three or four of them
// begin anew at every one.
constexpr size_t kAskedBytes = 2048;
// Arrays of one allocator begin at the same place within their pages, and memory is slower where it is asked for the same
// place of all of them at once: on large pages a step in float32 takes 4 to 6 % less so.
constexpr size_t kAskedGrad = 3072, kAskedBuffer = 2560, kAskedEma = 3584;

// Elements up to which a run asks: beyond the arrays' end there is nothing to ask for.
template <class T> NAG_INLINE size_t asking_end(const MomentumRun<T>& run, size_t ahead) {
  return run.asked < ahead ? 0 : run.asked - ahead < run.n ? run.asked - ahead : run.n;
}

// All leaves of the run in one loop, whose state stays in registers: what one leaf leaves in memory for the next, the
// processor finds behind all the stores between them.
template <class V, UpdateConvention kConvention, UpdateForm kForm, bool kGeneral>
NAG_NOINLINE void momentum_run(const MomentumRun<typename V::T>& run, const UpdateRule<typename V::T>& rule, bool first) {
  using T = typename V::T;
  const RuleLanes<V> r(rule);
  T* const ps = run.p;
  T* const bs = run.b;
  T* const es = run.e;
  const T* const gs = run.g;
  const size_t count = run.n;
  const bool aligned = kGeneral && run.aligned();
  const bool reads_b = kForm != UpdateForm::plain && !(kGeneral && first);
  const bool writes_e = kGeneral && r.averaged;
  const bool reads_e = writes_e && !first;
  const size_t asking = asking_end(run, kAskedEma / sizeof(T));
  size_t i = 0;
  for (size_t l = 0; i < count; ++l) {
    RunSums sums = run.sums();
    const size_t end = count - i < kUpdateLeaf ? count : i + kUpdateLeaf;
    const auto whole = [&](size_t at) NAG_ALWAYS {
      sums.squares.add(gs + at);
      V b = reads_b ? V::load(bs + at) : V::zero();
      V e = reads_e ? V::load(es + at) : V::zero();
      const V p = V::load(ps + at);
      V g = V::load(gs + at);
      update_lanes<V, kConvention, kForm, kGeneral>(r, p, g, b, e, first).store(ps + at);
      if (kForm != UpdateForm::plain) b.store(bs + at);
      if (writes_e) e.store(es + at);
      if (aligned) sums.dot.add(g, kForm == UpdateForm::plain ? g : b);
    };
    for (const size_t asked = asking < end ? asking : end; i + V::N <= asked; i += V::N) {
      prefetch(ps + i + kAskedBytes / sizeof(T));
      prefetch(gs + i + kAskedGrad / sizeof(T));
      if (reads_b) prefetch(bs + i + kAskedBuffer / sizeof(T));
      if (reads_e) prefetch(es + i + kAskedEma / sizeof(T));
      whole(i);
    }
    for (; i + V::N <= end; i += V::N) whole(i);
    if (i < end) {
      const int n = static_cast<int>(end - i);
      sums.squares.template add_n<V>(gs + i, n);
      V b = reads_b ? V::load_n(bs + i, n) : V::zero();
      V e = reads_e ? V::load_n(es + i, n) : V::zero();
      const V p = V::load_n(ps + i, n);
      V g = V::load_n(gs + i, n);
      update_lanes<V, kConvention, kForm, kGeneral>(r, p, g, b, e, first).store_n(ps + i, n);
      if (kForm != UpdateForm::plain) b.store_n(bs + i, n);
      if (writes_e) e.store_n(es + i, n);
      if (aligned) {
        // Lanes beyond n hold zeros of g, p and b and so decay, scale and clip to zero.
        sums.dot.add(g, kForm == UpdateForm::plain ? g : b);
      }
      i = end;
    }
    run.keep(sums, l);
  }
}

// The same with a bfloat16 buffer, kDitherBlock elements at a time; the last ones in a padded copy.
template <UpdateConvention kConvention, UpdateForm kForm, bool kGeneral>
NAG_NOINLINE void momentum_run_half(const MomentumRun<float>& run, const UpdateRule<float>& rule, bool first) {
  const RuleLanes<Vf> r(rule);
  const MomentumRun<float> x = run;
  const bool stochastic = rule.seed != 0;
  const bool aligned = kGeneral && x.aligned();
  const bool reads_b = !(kGeneral && first);
  const bool writes_e = kGeneral && r.averaged;
  const bool reads_e = writes_e && !first;
  constexpr size_t kHalfAhead = kAskedBytes / sizeof(uint16_t);
  const size_t asking = asking_end(x, kAskedEma / sizeof(float)), asking_half = asking_end(x, kHalfAhead);
  size_t i = 0;
  for (size_t l = 0; i < x.n; ++l) {
    RunSums sums = x.sums();
    const size_t end = x.n - i < kUpdateLeaf ? x.n : i + kUpdateLeaf;
    const RandomKey key = x.keys.of(~(x.leaf + l));  // not the parameter's
    const uint32_t index = x.index - static_cast<uint32_t>(i);
    const auto block = [&](float* ps, const float* gs, uint16_t* hs, float* es, size_t at) NAG_ALWAYS {
      const Draws draws(key, (index + static_cast<uint32_t>(at)) / 2);
      for (int j = 0; j < kDitherBlock; j += Vf::N) {
        sums.squares.add(gs + j);
        Vf b = reads_b ? widen(reinterpret_cast<const bf16*>(hs + j), Vf()) : Vf::zero();
        Vf e = reads_e ? Vf::load(es + j) : Vf::zero();
        const Vf p = Vf::load(ps + j);
        Vf g = Vf::load(gs + j);
        update_lanes<Vf, kConvention, kForm, kGeneral>(r, p, g, b, e, first).store(ps + j);
        stochastic ? draws.store(b, hs + j, j) : Draws::store_nearest(b, hs + j);
        if (writes_e) e.store(es + j);
        if (aligned) sums.dot.add(g, b);
      }
    };
    for (; i + kDitherBlock <= end; i += kDitherBlock) {
      if (i < asking) {
        for (size_t j = i; j < i + kDitherBlock; j += 64 / sizeof(float)) {
          prefetch(x.p + j + kAskedBytes / sizeof(float));
          prefetch(x.g + j + kAskedGrad / sizeof(float));
          if (reads_e) prefetch(x.e + j + kAskedEma / sizeof(float));
        }
      }
      if (i < asking_half) prefetch(x.half + i + kHalfAhead);
      block(x.p + i, x.g + i, x.half + i, writes_e ? x.e + i : nullptr, i);
    }
    if (i < end) {
      const size_t n = end - i;
      float ps[kDitherBlock] = {}, gs[kDitherBlock] = {}, es[kDitherBlock] = {};
      uint16_t hs[kDitherBlock] = {};
      NAG_COPY(ps, x.p + i, n * sizeof(float));
      NAG_COPY(gs, x.g + i, n * sizeof(float));
      NAG_COPY(hs, x.half + i, n * sizeof(uint16_t));
      if (writes_e) NAG_COPY(es, x.e + i, n * sizeof(float));
      block(ps, gs, hs, es, i);
      NAG_COPY(x.p + i, ps, n * sizeof(float));
      NAG_COPY(x.half + i, hs, n * sizeof(uint16_t));
      if (writes_e) NAG_COPY(x.e + i, es, n * sizeof(float));
      i = end;
    }
    x.keep(sums, l);
  }
}
static_assert(kDitherBlock % Vf::N == 0, "a block is whole vectors");

template <class V, UpdateConvention kConvention, UpdateForm kForm, bool kGeneral>
void momentum_buffered(const MomentumRun<typename V::T>& run, const UpdateRule<typename V::T>& rule, bool first) {
  if constexpr (V::N == Vf::N) {
    if (run.half != nullptr) return momentum_run_half<kConvention, kForm, kGeneral>(run, rule, first);
  }
  momentum_run<V, kConvention, kForm, kGeneral>(run, rule, first);
}

template <class V, UpdateConvention kConvention, bool kGeneral>
void momentum_form(const MomentumRun<typename V::T>& run, const UpdateRule<typename V::T>& rule, bool first) {
  switch (rule.form) {
    case UpdateForm::plain: return momentum_run<V, kConvention, UpdateForm::plain, kGeneral>(run, rule, first);
    case UpdateForm::heavy_ball:
      return momentum_buffered<V, kConvention, UpdateForm::heavy_ball, kGeneral>(run, rule, first);
    case UpdateForm::nesterov:
      return momentum_buffered<V, kConvention, UpdateForm::nesterov, kGeneral>(run, rule, first);
  }
}

template <class V, UpdateConvention kConvention>
void momentum_chosen(const MomentumRun<typename V::T>& run, const UpdateRule<typename V::T>& rule, bool first,
                     bool general) {
  general ? momentum_form<V, kConvention, true>(run, rule, first)
          : momentum_form<V, kConvention, false>(run, rule, first);
}

template <class V>
void momentum_any(const MomentumRun<typename V::T>& run, const UpdateRule<typename V::T>& rule, bool first) {
  const bool general = first || rule.scaled || rule.clipped || rule.averaged || run.aligned() ||
                       rule.decay_kind == UpdateDecay::decoupled;
  switch (rule.convention) {
    case UpdateConvention::torch: return momentum_chosen<V, UpdateConvention::torch>(run, rule, first, general);
    case UpdateConvention::keras: return momentum_chosen<V, UpdateConvention::keras>(run, rule, first, general);
    case UpdateConvention::keras_torch:
      return momentum_chosen<V, UpdateConvention::keras_torch>(run, rule, first, general);
    case UpdateConvention::keras_jax:
      return momentum_chosen<V, UpdateConvention::keras_jax>(run, rule, first, general);
  }
}

// Narrow arrays pass through float blocks of this many elements: small enough to stay in the first-level cache.
constexpr size_t kNarrowBlock = 512;
static_assert(kNarrowBlock % kDitherBlock == 0, "a narrow block is whole blocks of draws");

template <class T> NAG_INLINE T* ahead(T* p, size_t i) { return p == nullptr ? nullptr : p + i; }

NAG_INLINE const float* widened(UpdateNumber number, const void* from, size_t i, size_t n, float* block) {
  if (number == UpdateNumber::f32) return static_cast<const float*>(from) + i;
  const uint16_t* const h = static_cast<const uint16_t*>(from) + i;
  number == UpdateNumber::bf16 ? widen_block<Bfloat16>(h, block, n) : widen_block<Float16>(h, block, n);
  return block;
}

template <class H>
NAG_INLINE void round_block(const float* from, uint16_t* to, size_t n, bool stochastic, RandomKey key, size_t first) {
  stochastic ? round_stochastic<H>(from, to, n, key, first) : round_nearest<H>(from, to, n);
}

// The elements of a span from leaf `begin` on, up to leaf `end`.
struct Extent {
  size_t from, count;
  NAG_INLINE Extent(const UpdateSpan& s, size_t begin, size_t end)
      : from(begin * kUpdateLeaf), count((end * kUpdateLeaf < s.count ? end * kUpdateLeaf : s.count) - from) {}
};

// The run of n elements from element i on, with p and g in the compute type.
template <class T>
NAG_INLINE MomentumRun<T> run_of(const UpdateSpan& s, const UpdateRule<T>& rule, size_t i, size_t n, T* p, const T* g) {
  return {p, g, s.bf16_buffer ? nullptr : ahead(static_cast<T*>(s.buffer), i), ahead(static_cast<T*>(s.ema), i), n, 0,
          nullptr, nullptr, nullptr, s.bf16_buffer ? ahead(static_cast<uint16_t*>(s.buffer), i) : nullptr,
          s.bf16_buffer ? RandomKeys(rule.seed, s.tensor) : RandomKeys(), s.leaf + i / kUpdateLeaf, static_cast<uint32_t>(i % kUpdateLeaf)};
}

// Parameters that are narrower than the arithmetic, a block at a time.
template <class H>
void momentum_narrow(const UpdateSpan& s, const UpdateRule<float>& rule, const UpdateLeaves& leaves) {
  float params[kNarrowBlock], grads[kNarrowBlock];
  uint16_t* const out = static_cast<uint16_t*>(s.param);
  const bool stochastic = rule.seed != 0 && s.master == nullptr;
  const RandomKeys keys(rule.seed, s.tensor);
  for (size_t l = leaves.begin; l < leaves.end; ++l) {
    const Extent leaf(s, l, l + 1);
    const RandomKey key = keys.of(s.leaf + l);
    RunSums sums;
    sums.aligned = leaves.alignments != nullptr;
    for (size_t done = 0; done < leaf.count; done += kNarrowBlock) {
      const size_t i = leaf.from + done, n = leaf.count - done < kNarrowBlock ? leaf.count - done : kNarrowBlock;
      float* const p = s.master != nullptr ? s.master + i : params;
      if (s.master == nullptr) widen_block<H>(out + i, params, n);
      MomentumRun<float> run = run_of(s, rule, i, n, p, widened(s.grad_number, s.grad, i, n, grads));
      run.part = &sums;
      momentum_any<Vf>(run, rule, s.first);
      round_block<H>(p, out + i, n, stochastic, key, done);
    }
    leaves.squares[l - leaves.begin] = sums.squares.total();
    if (sums.aligned) leaves.alignments[l - leaves.begin] = sums.dot.total();
  }
}

template <class V>
NAG_INLINE void momentum_leaves(const UpdateSpan& s, const UpdateRule<typename V::T>& rule, const UpdateLeaves& leaves) {
  using T = typename V::T;
  const Extent all(s, leaves.begin, leaves.end);
  MomentumRun<T> run = run_of(s, rule, all.from, all.count, static_cast<T*>(s.param) + all.from,
                              static_cast<const T*>(s.grad) + all.from);
  // Where random bits are made between the loads, every processor gains by asking.
  if (leaves.asks || s.bf16_buffer) run.asked = s.count - all.from;
  run.squares = leaves.squares;
  run.alignments = leaves.alignments;
  momentum_any<V>(run, rule, s.first);
}

inline void momentum_f64(const UpdateSpan& s, const UpdateRule<double>& rule, const UpdateLeaves& leaves) {
  momentum_leaves<Vd>(s, rule, leaves);
}

inline void momentum_f32(const UpdateSpan& s, const UpdateRule<float>& rule, const UpdateLeaves& leaves) {
  switch (s.param_number) {
    case UpdateNumber::bf16: return momentum_narrow<Bfloat16>(s, rule, leaves);
    case UpdateNumber::f16: return momentum_narrow<Float16>(s, rule, leaves);
    default: return momentum_leaves<Vf>(s, rule, leaves);
  }
}

template <class V>
NAG_INLINE void add_all_squares(const typename V::T* g, size_t n, SquareSum& sum) {
  size_t i = 0;
  for (; i + V::N <= n; i += V::N) sum.add(g + i);
  if (i < n) sum.template add_n<V>(g + i, static_cast<int>(n - i));
}

inline double sum_squares(const void* grad, UpdateNumber number, size_t count) {
  SquareSum sum = SquareSum::zero();
  if (number == UpdateNumber::f64) {
    add_all_squares<Vd>(static_cast<const double*>(grad), count, sum);
    return sum.total();
  }
  float block[kNarrowBlock];
  for (size_t i = 0; i < count; i += kNarrowBlock) {
    const size_t n = count - i < kNarrowBlock ? count - i : kNarrowBlock;
    add_all_squares<Vf>(widened(number, grad, i, n, block), n, sum);
  }
  return sum.total();
}
