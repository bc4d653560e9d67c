// The momentum update: every instruction set against the formula in scalar form, to the bit; lengths and misalignments;
// the list engine's leaves, threads, walks and refusals.
#include <algorithm>
#include <cstring>

#include "engine/update.h"
#include "support.h"

namespace nag_test {
namespace {

using nag::UpdateConvention;
using nag::UpdateDecay;
using nag::UpdateForm;
using nag::UpdateLeaves;
using nag::UpdateNumber;
using nag::UpdateRule;
using nag::UpdateScalars;
using nag::UpdateSpan;

template <class T> constexpr UpdateNumber number_of() {
  return sizeof(T) == sizeof(double) ? UpdateNumber::f64 : UpdateNumber::f32;
}

void steps(const KernelTable& t, const UpdateSpan& s, const UpdateRule<float>& r, const UpdateLeaves& l) { t.update.step_f32(s, r, l); }
void steps(const KernelTable& t, const UpdateSpan& s, const UpdateRule<double>& r, const UpdateLeaves& l) { t.update.step_f64(s, r, l); }

// Of a span of one leaf; the sum of squares.
template <class T>
double step(const KernelTable& t, const UpdateSpan& s, const UpdateRule<T>& r, bool asks = false) {
  double sum = std::numeric_limits<double>::quiet_NaN();
  steps(t, s, r, {0, 1, &sum, nullptr, asks});
  return sum;
}

// What a fused multiply-add means on an instruction set: the x86-64 baseline has none and rounds twice.
struct Fma {
  bool fused;
  template <class T> T operator()(T a, T b, T c) const { return fused ? std::fma(a, b, c) : a * b + c; }
};

template <class T> struct Element { T p, b, e; };

// docs/maths.md, Updates: one element, written independently of the kernel.
template <class T>
Element<T> expected(const UpdateScalars& s, Fma fma, bool first, Element<T> x, T g) {
  const T lr = static_cast<T>(s.lr), mu = static_cast<T>(s.momentum), nu = static_cast<T>(s.lookahead);
  const T wd = static_cast<T>(s.weight_decay);
  const bool torch = s.convention == UpdateConvention::torch;
  const bool foreach = s.convention == UpdateConvention::keras_torch;
  const bool xla = s.convention == UpdateConvention::keras_jax;
  if (s.grad_scale != 1.0) g = g / static_cast<T>(s.grad_scale);
  if (s.maximize) g = -g;
  if (s.weight_decay != 0.0) {
    if (!s.decoupled)
      g = torch ? fma(wd, x.p, g) : g + wd * x.p;
    else if (foreach)
      x.p = x.p * static_cast<T>(1.0F - static_cast<float>(s.weight_decay) * static_cast<float>(s.lr));
    else if (xla)
      x.p = fma(-lr, x.p * wd, x.p);
    else
      x.p = torch ? x.p * static_cast<T>(1.0 - s.lr * s.weight_decay) : x.p - (x.p * wd) * lr;
  }
  if (torch) {
    T d = g;
    if (s.buffered) {
      x.b = first ? g : fma(static_cast<T>(1.0 - s.dampening), g, mu * x.b);
      d = s.nesterov ? fma(nu, x.b, g) : x.b;
    }
    x.p = fma(-lr, d, x.p);
  } else if (foreach) {
    if (s.buffered) x.b = fma(-lr, g, first ? T(0) : mu * x.b);
    if (s.buffered && !s.nesterov)
      x.p = x.p + x.b;
    else
      x.p = fma(-lr, g, x.p);
    if (s.buffered && s.nesterov) x.p = fma(nu, x.b, x.p);
  } else if (xla) {
    if (!s.buffered) {
      x.p = fma(-lr, g, x.p);
    } else {
      x.b = fma(mu, first ? T(0) : x.b, -(lr * g));
      x.p = x.p + (s.nesterov ? fma(nu, x.b, -(lr * g)) : x.b);
    }
  } else if (!s.buffered) {
    x.p = x.p - lr * g;
  } else {
    x.b = (first ? T(0) : mu * x.b) - lr * g;
    x.p = x.p + (s.nesterov ? nu * x.b - lr * g : x.b);
  }
  if (s.averaged) {
    const T keep = static_cast<T>(s.ema_decay), mix = torch ? static_cast<T>(1.0 - s.ema_decay) : T(1) - keep;
    if (first)
      x.e = x.p;
    else if (!torch)
      x.e = keep * x.e + mix * x.p;
    else
      x.e = mix < T(0.5) ? fma(mix, x.p - x.e, x.e) : fma(mix - T(1), x.p - x.e, x.p);
  }
  return x;
}

std::vector<UpdateScalars> all_scalars() {
  std::vector<UpdateScalars> all;
  for (const auto convention : {UpdateConvention::torch, UpdateConvention::keras, UpdateConvention::keras_torch,
                                UpdateConvention::keras_jax})
    for (int form = 0; form < 3; ++form)
      for (int decay = 0; decay < 3; ++decay)
        for (int extra = 0; extra < 4; ++extra) {
          UpdateScalars s;
          s.convention = convention;
          s.lr = 0.1;
          s.momentum = form == 0 ? 0.0 : 0.9;
          s.lookahead = 0.8;
          s.buffered = form != 0;
          s.nesterov = form == 2;
          s.dampening = form == 1 && convention == UpdateConvention::torch ? 0.25 : 0.0;
          s.weight_decay = decay == 0 ? 0.0 : 0.03;
          s.decoupled = decay == 2;
          s.maximize = extra == 1;
          s.grad_scale = extra == 2 ? 3.0 : 1.0;
          s.averaged = extra == 3;
          s.ema_decay = form == 0 ? 0.25 : 0.99;  // both ends of torch's lerp
          all.push_back(s);
        }
  return all;
}

class Update : public PerIsa {
 public:
  const KernelTable& table() { return ran(GetParam()); }
  Fma fma() const { return {std::strcmp(GetParam()->name, "baseline") != 0}; }

  template <class T>
  void matches_the_formula(const UpdateScalars& s, std::size_t n, std::size_t shift, bool first) {
    Random random(n * 8 + shift);
    Exact<T> p(n, shift, random), g(n, shift, random), b(n, shift, random), e(n, shift, random);
    if (first) std::fill_n(b.data(), n, std::numeric_limits<T>::quiet_NaN());  // must not be read
    std::vector<Element<T>> want(n);
    long double squares = 0;
    for (std::size_t i = 0; i < n; ++i) {
      want[i] = expected<T>(s, fma(), first, {p[i], b[i], e[i]}, g[i]);
      squares += static_cast<long double>(g[i]) * g[i];
    }
    UpdateSpan span{};
    span.param = p.data();
    span.grad = g.data();
    span.buffer = b.data();
    span.ema = e.data();
    span.count = n;
    span.param_number = span.grad_number = number_of<T>();
    span.first = first;
    const double before = table().update.sum_squares(g.data(), number_of<T>(), n);
    const bool asks = shift % 2 == 0;  // as tables of either kind do
    const double sum = step(table(), span, nag::make_update_rule<T>(s, 1.0), asks);
    EXPECT_EQ(sum, before) << "the norm must not depend on who asks";
    EXPECT_LE(ulps(sum, squares), 8.0);
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_EQ(p[i], want[i].p) << i << " of " << n;
      if (s.averaged) {
        ASSERT_EQ(e[i], want[i].e) << i << " of " << n;
      }
      if (s.buffered) {
        ASSERT_EQ(b[i], want[i].b) << i << " of " << n;
      }
    }
  }
};

TEST_P(Update, EqualsTheFormulaToTheBit) {
  for (const UpdateScalars& s : all_scalars())
    for (const bool first : {false, true}) {
      matches_the_formula<float>(s, 67, 0, first);
      matches_the_formula<double>(s, 67, 0, first);
    }
}

TEST_P(Update, AwkwardLengthsAndMisalignments) {
  UpdateScalars s;
  s.lr = 0.1;
  s.momentum = s.lookahead = 0.9;
  s.averaged = true;
  s.ema_decay = 0.9;
  for (const std::ptrdiff_t n : awkward_lengths(table().f32.lanes))
    for (std::size_t shift = 0; shift < 4; ++shift) {
      matches_the_formula<float>(s, static_cast<std::size_t>(n), shift, false);
      matches_the_formula<double>(s, static_cast<std::size_t>(n), shift, false);
    }
}

float widened(std::uint16_t h) {
  const std::uint32_t u = static_cast<std::uint32_t>(h) << 16;
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

TEST_P(Update, NarrowParametersRoundOnce) {
  for (const std::size_t n : {std::size_t{1}, std::size_t{511}, std::size_t{512}, std::size_t{1003}, std::size_t{4096}}) {
    Random random(n);
    Exact<std::uint16_t> p(n, 1), g(n, 1);
    Exact<float> b(n, 1, random), wide(n), wide_g(n), wide_b(n), master(n);
    for (std::size_t i = 0; i < n; ++i) {
      p[i] = static_cast<std::uint16_t>(0x3F80u + random.below(128));  // bfloat16 in [1, 2)
      g[i] = static_cast<std::uint16_t>(0xBF80u + random.below(128));
      wide[i] = master[i] = widened(p[i]);
      wide_g[i] = widened(g[i]);
      wide_b[i] = b[i];
    }
    UpdateScalars s;
    s.lr = 0.1;
    s.momentum = s.lookahead = 0.9;
    UpdateSpan span{};
    span.param = p.data();
    span.grad = g.data();
    span.buffer = b.data();
    span.count = n;
    span.param_number = span.grad_number = UpdateNumber::bf16;
    UpdateSpan plain = span;
    plain.param = wide.data();
    plain.grad = wide_g.data();
    plain.buffer = wide_b.data();
    plain.param_number = plain.grad_number = UpdateNumber::f32;
    const UpdateRule<float> rule = nag::make_update_rule<float>(s, 1.0);
    EXPECT_EQ(step(table(), span, rule), step(table(), plain, rule));
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_EQ(b[i], wide_b[i]);
      const float gap = std::fabs(widened(p[i]) - wide[i]);
      ASSERT_LE(gap, std::fabs(wide[i]) * 0x1p-8f);
    }
    // Through master weights the parameter's old value plays no part.
    std::fill_n(p.data(), n, std::uint16_t{0x7FC0});
    span.master = master.data();
    span.first = plain.first = true;
    for (std::size_t i = 0; i < n; ++i) wide[i] = master[i];
    step(table(), span, rule);
    step(table(), plain, rule);
    for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(master[i], wide[i]);
  }
}

// What the engine relies on where threads cut a tensor: leaves do not know who else is stepped in their call.
TEST_P(Update, LeavesOfOneCallAreThoseOfMany) {
  constexpr std::size_t kLeaves = 4, n = 3 * nag::kUpdateLeaf + 77;
  UpdateScalars s;
  s.lr = 0.1;
  s.momentum = s.lookahead = 0.9;
  s.seed = 7;
  for (const bool half : {false, true})
    for (const bool narrow : {false, true})
      for (const bool aligned : {false, true}) {
        if (half && narrow) continue;  // bfloat16 buffers are float32 parameters'
        std::vector<std::uint16_t> params[2], halves[2];
        std::vector<float> wide[2], buffers[2];
        std::vector<double> squares[2], dots[2];
        Random random(5);
        Exact<float> grads(n, 1, random);
        if (half) std::fill_n(grads.data(), n, 0.37F);  // then nothing but random bits tells elements apart
        std::vector<std::uint16_t> narrow_grads(n);
        for (std::size_t i = 0; i < n; ++i) narrow_grads[i] = static_cast<std::uint16_t>(0xBF80u + random.below(128));
        const nag::UpdateRule<float> rule = nag::make_update_rule<float>(s, 1.0);
        for (int way = 0; way < 2; ++way) {
          params[way].assign(n, 0x3F91);
          halves[way].assign(n, 0x3E15);
          wide[way].assign(n, 1.7F);
          buffers[way].assign(n, 0.3F);
          squares[way].assign(kLeaves, 0.0);
          dots[way].assign(kLeaves, 0.0);
          UpdateSpan span{};
          span.param = narrow ? static_cast<void*>(params[way].data()) : wide[way].data();
          span.grad = narrow ? static_cast<const void*>(narrow_grads.data()) : grads.data();
          span.buffer = half ? static_cast<void*>(halves[way].data()) : buffers[way].data();
          span.bf16_buffer = half;
          span.count = n;
          span.tensor = 3;
          span.param_number = span.grad_number = narrow ? UpdateNumber::bf16 : UpdateNumber::f32;
          const auto leaves = [&](std::size_t begin, std::size_t end) {
            return UpdateLeaves{begin, end, squares[way].data() + begin, aligned ? dots[way].data() + begin : nullptr, way == 0};
          };
          if (way == 0) steps(table(), span, rule, leaves(0, kLeaves));
          for (std::size_t l = kLeaves; way == 1 && l-- > 0;) steps(table(), span, rule, leaves(l, l + 1));
        }
        EXPECT_EQ(params[0], params[1]);
        EXPECT_EQ(halves[0], halves[1]);
        EXPECT_EQ(wide[0], wide[1]);
        EXPECT_EQ(buffers[0], buffers[1]);
        EXPECT_EQ(squares[0], squares[1]);
        EXPECT_EQ(dots[0], dots[1]);
        EXPECT_GT(squares[0].back(), 0.0);
        EXPECT_EQ(dots[0].back() != 0.0, aligned);
        if (half) {
          EXPECT_NE(std::vector<std::uint16_t>(halves[0].begin(), halves[0].begin() + nag::kUpdateLeaf),
                    std::vector<std::uint16_t>(halves[0].begin() + nag::kUpdateLeaf, halves[0].begin() + 2 * nag::kUpdateLeaf));
        }
      }
}

// ----- the list -----------------------------------------------------------------------------------------------------

struct Lists {
  std::vector<std::vector<float>> p, g, b;
  explicit Lists(const std::vector<std::size_t>& sizes) {
    Random random(99);
    for (const std::size_t n : sizes)
      for (auto* group : {&p, &g, &b}) {
        group->emplace_back(n);
        for (float& x : group->back()) x = static_cast<float>(random.uniform());
      }
  }
  nag::UpdateList list(bool walked) {
    nag::UpdateList out;
    for (std::size_t i = 0; i < p.size(); ++i) {
      UpdateSpan span{};
      span.param = p[i].data();
      span.grad = g[i].data();
      span.buffer = b[i].data();
      span.count = p[i].size();
      span.tensor = i;
      span.param_number = span.grad_number = UpdateNumber::f32;
      if (!walked) {
        out.add(span);
        continue;
      }
      // one axis read backwards in all three arrays: the same elements, reached one by one
      nag::UpdateWalk walk;
      const auto n = static_cast<std::int64_t>(span.count);
      walk.shape = {n};
      for (const int role : {nag::kParam, nag::kGrad, nag::kBuffer}) walk.strides[role] = {-4};
      if (n > 0) {
        span.param = p[i].data() + (n - 1);
        span.grad = g[i].data() + (n - 1);
        span.buffer = b[i].data() + (n - 1);
      }
      out.add(span, walk);
    }
    out.seal();
    return out;
  }
};

const std::vector<std::size_t> kSizes = {5, 100'003, 0, 4096, 4097, 1, 50'000, 33, 33, 33};

class UpdateLists : public PerIsa {};

TEST_P(UpdateLists, SameBitsOnAnyThreadsAndThroughWalks) {
  const KernelTable& table = ran(GetParam());
  UpdateScalars s;
  s.lr = 0.1;
  s.momentum = s.lookahead = 0.9;
  for (const bool read_first : {false, true}) {
    s.read_first = read_first;
    s.max_norm = read_first ? 0.5 : 0.0;
    Lists one(kSizes);
    nag::UpdateList list = one.list(false);
    const nag::UpdateReport want = nag::run_update(table.update, list, s, 1);
    EXPECT_EQ(want.clip_factor < 1.0, read_first);
    long double squares = 0;
    for (const auto& g : Lists(kSizes).g)
      for (const float x : g) squares += static_cast<long double>(x) * x;
    EXPECT_LE(ulps(want.grad_norm, std::sqrt(squares)), 16.0);
    for (const int threads : {2, 3, 4, 8, 64}) {
      Lists many(kSizes);
      nag::UpdateList again = many.list(false);
      const nag::UpdateReport got = nag::run_update(table.update, again, s, threads);
      EXPECT_EQ(got.grad_norm, want.grad_norm);
      EXPECT_EQ(got.clip_factor, want.clip_factor);
      EXPECT_TRUE(many.p == one.p && many.b == one.b && many.g == one.g) << threads;
    }
    if (read_first) continue;  // a walk sums the norm in its own order, so a clip may differ in its last bit
    for (const int threads : {1, 3}) {
      Lists walked(kSizes);
      nag::UpdateList backwards = walked.list(true);
      const nag::UpdateReport got = nag::run_update(table.update, backwards, s, threads);
      EXPECT_LE(ulps(got.grad_norm, static_cast<long double>(want.grad_norm)), 16.0);
      EXPECT_TRUE(walked.p == one.p && walked.b == one.b);
    }
  }
}

// Threads take pieces of a long list as they come to them, whoever is first.
TEST_P(UpdateLists, SameBitsWhoeverTakesAPiece) {
  const KernelTable& table = ran(GetParam());
  const std::vector<std::size_t> sizes = {900'001, 5, 0, 4097, 300'000};
  UpdateScalars s;
  s.lr = 0.1;
  s.momentum = s.lookahead = 0.9;
  s.read_first = true;
  s.max_norm = 0.5;
  Lists one(sizes);
  nag::UpdateList list = one.list(false);
  const nag::UpdateReport want = nag::run_update(table.update, list, s, 1);
  EXPECT_LT(want.clip_factor, 1.0);
  for (const int threads : {2, 3, 4, 8}) {
    Lists many(sizes);
    nag::UpdateList again = many.list(false);
    EXPECT_EQ(nag::update_norm(table.update, again, threads), want.grad_norm);
    const nag::UpdateReport got = nag::run_update(table.update, again, s, threads);
    EXPECT_EQ(got.grad_norm, want.grad_norm);
    EXPECT_TRUE(many.p == one.p && many.b == one.b && many.g == one.g) << threads;
  }
}

TEST_P(UpdateLists, NothingIsWrittenWhenAGradientIsNotFinite) {
  const KernelTable& table = ran(GetParam());
  UpdateScalars s;
  s.lr = 0.1;
  s.momentum = s.lookahead = 0.9;
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const int threads : {1, 4})
      for (const bool walked : {false, true}) {
        Lists x(kSizes), before(kSizes);
        x.g[6][49'999] = bad;
        nag::UpdateList list = x.list(walked);
        s.read_first = true;
        nag::UpdateReport report = nag::run_update(table.update, list, s, threads);
        EXPECT_TRUE(report.found_inf && !report.written);
        EXPECT_TRUE(x.p == before.p && x.b == before.b);
        s.read_first = false;
        report = nag::run_update(table.update, list, s, threads);
        EXPECT_TRUE(report.found_inf && report.written);
        EXPECT_FALSE(std::isfinite(x.p[6][49'999]));
        EXPECT_TRUE(std::isfinite(x.p[6][49'998]));
      }
}

TEST_P(UpdateLists, EmptyListsAreDone) {
  nag::UpdateList list;
  list.seal();
  UpdateScalars s;
  s.read_first = true;
  const nag::UpdateReport report = nag::run_update(ran(GetParam()).update, list, s, 4);
  EXPECT_EQ(report.grad_norm, 0.0);
  EXPECT_FALSE(report.found_inf);
}

NAG_PER_ISA(Update);
NAG_PER_ISA(UpdateLists);

}  // namespace
}  // namespace nag_test
