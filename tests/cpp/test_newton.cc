// Newton's iteration: stationary where it ends, the same bits for every number of threads, and honest about what it met.
// Its pieces: the factor solves with H, and softmax's Hessian equals its formula in long double.
#include "engine/newton.h"

#include <algorithm>

#include "engine/class_hessian.h"
#include "engine/shifted.h"
#include "passes.h"

namespace nag_test {
namespace {

using Wide = long double;

std::int64_t loss_named(const std::string& name) {
  for (int i = 0; i < nag::kLossCount; ++i)
    if (name == nag::kLosses[i].name) return i;
  ADD_FAILURE() << name << " is not registered";
  return 0;
}

nag::SmoothProblem newton_problem(const nag::ProblemView& view, double l2, int n_threads) {
  nag::SmoothProblem q;
  q.table = view.table;
  q.compute = view.compute;
  q.n = view.n, q.d = view.d, q.k = view.k;
  q.fit_intercept = view.fit_intercept;
  q.l2 = l2;
  q.n_threads = n_threads;
  q.pass = [&view, n_threads](const double* w, double* grad, double* H, void* z) {
    if (H == nullptr) {
      nag::PassRequest lean;
      lean.w = w;
      lean.grad = grad;
      lean.z = z;
      lean.n_threads = n_threads;
      return nag::run_pass(view, lean).value;
    }
    nag::SecondRequest request;
    request.w = w;
    request.grad = grad;
    request.out = H;
    request.z = z;
    request.n_threads = n_threads;
    return (view.k == 1 ? nag::run_second(view, request) : nag::class_hessian(view, request)).value;
  };
  q.slope = [&view, n_threads](const void* z, const void* z_end, double t) { return nag::slope_along(view, z, z_end, t, n_threads); };
  q.residual_size = [&view, n_threads](const void* z) {
    const std::vector<double> sizes = nag::shifted_loss(view, z, nullptr, nullptr, nullptr, n_threads).size;
    return *std::max_element(sizes.begin(), sizes.end());
  };
  return q;
}

struct End {
  std::vector<double> w, g;
  std::size_t passes = 0;
  bool operator==(const End& o) const {
    return passes == o.passes && std::memcmp(w.data(), o.w.data(), w.size() * sizeof(double)) == 0 &&
           std::memcmp(g.data(), o.g.data(), g.size() * sizeof(double)) == 0;
  }
};

End run(const Data& data, double l2, int n_threads, std::int64_t steps, bool one_by_one) {
  const std::size_t count = static_cast<std::size_t>(data.view.w_rows() * data.view.k);
  const std::size_t bytes = static_cast<std::size_t>(data.view.n * data.view.k) * sizeof(double);
  nag::Aligned<unsigned char> z0(bytes), z1(bytes);
  nag::Newton newton(newton_problem(data.view, l2, n_threads), std::vector<double>(count).data(), z0.data(), z1.data());
  End end;
  while (end.passes < static_cast<std::size_t>(steps)) {
    nag::SmoothLimits limits;
    limits.steps = one_by_one ? 1 : steps - static_cast<std::int64_t>(end.passes);
    const nag::NewtonTrace trace = newton.run(limits);
    end.passes += trace.records.size();
    end.w.assign(trace.w.end() - static_cast<std::ptrdiff_t>(count), trace.w.end());
    end.g.assign(trace.g.end() - static_cast<std::ptrdiff_t>(count), trace.g.end());
  }
  return end;
}

class NewtonLoop : public PerIsa {};

TEST_P(NewtonLoop, EndsWhereTheGradientVanishes) {
  for (int loss = 0; loss < nag::kLossCount; ++loss)
    for (const bool extras : {false, true})
      for (const bool wide : {false, true}) {
        const std::int64_t k = nag::kLosses[loss].targets == nag::Domain::classes ? 3 : 1;
        SCOPED_TRACE(std::string(nag::kLosses[loss].name) + (extras ? " with weights, offset and intercept" : "") + (wide ? "" : " in float32"));
        const Data data(GetParam(), loss, Shape{301, 7, k}, wide ? nag::Storage::f64 : nag::Storage::f32,
                        wide ? nag::Compute::f64 : nag::Compute::f32, Order::c, extras);
        const End end = run(data, 0.01, 2, 25, false);
        for (const double g : end.g) EXPECT_LE(std::fabs(g), wide ? 1e-13 : 2e-6);
      }
}

TEST_P(NewtonLoop, ThreadsAndCallsGiveTheSameBits) {
  for (const std::string name : {"logistic", "poisson", "softmax"}) {
    const int loss = static_cast<int>(loss_named(name));
    const Data data(GetParam(), loss, Shape{9001, 6, name == "softmax" ? 3 : 1}, nag::Storage::f32, nag::Compute::f32, Order::c, true);
    const End one = run(data, 1e-3, 1, 9, false);
    for (const int n_threads : {2, 3}) EXPECT_TRUE(one == run(data, 1e-3, n_threads, 9, false)) << name << ", " << n_threads << " threads";
    EXPECT_TRUE(one == run(data, 1e-3, 2, 9, true)) << name << ", a pass a call";
  }
}

TEST_P(NewtonLoop, ComesBackFromFarStarts) {
  const int loss = static_cast<int>(loss_named("poisson"));
  const Data data(GetParam(), loss, Shape{200, 5, 1}, nag::Storage::f64, nag::Compute::f64, Order::c, true);
  const std::vector<double> w{0, 0, 0, 0, 0, -8};  // the first step overshoots by e^8
  std::vector<double> z0(200), z1(200);
  nag::Newton newton(newton_problem(data.view, 1e-2, 1), w.data(), z0.data(), z1.data());
  double last = std::numeric_limits<double>::infinity();
  int cut = 0;
  bool arrived = false;
  for (int i = 0; i < 60 && !arrived; ++i) {
    nag::SmoothLimits limits;
    const nag::NewtonTrace trace = newton.run(limits);
    const nag::NewtonRecord& r = trace.records.front();
    cut += !r.moved;
    if (!r.moved) continue;
    EXPECT_LE(r.f, last + 1e-12 * std::fabs(last));
    last = r.f;
    arrived = r.decrement < 1e-20;
  }
  EXPECT_TRUE(arrived);
  EXPECT_GT(cut, 0);
}

TEST_P(NewtonLoop, StopsWhereTheGapIsSmallEnough) {
  const Data data(GetParam(), static_cast<int>(loss_named("logistic")), Shape{400, 4, 1}, nag::Storage::f64, nag::Compute::f64, Order::c, false);
  const std::vector<double> w(4, 0.0);
  std::vector<double> z0(400), z1(400);
  nag::Newton newton(newton_problem(data.view, 0.1, 1), w.data(), z0.data(), z1.data());
  nag::SmoothLimits limits;
  limits.steps = 100;
  limits.floor = 1e-9;
  const nag::NewtonTrace trace = newton.run(limits);
  ASSERT_GT(trace.records.size(), 1u);
  for (std::size_t i = 0; i + 1 < trace.records.size(); ++i) EXPECT_GT(trace.records[i].bound, 1e-9);
  EXPECT_LE(trace.records.back().bound, 1e-9);
  // The last step was seen to be it: a gradient alone. Asked for more, the loop takes the Hessian there first.
  EXPECT_TRUE(trace.records.front().hessian);
  EXPECT_FALSE(trace.records.back().hessian);
  const nag::NewtonTrace more = newton.run({2, 0.0, 0.0, 0.0});
  ASSERT_EQ(more.records.size(), 1u);
  EXPECT_TRUE(more.records.front().hessian);
  EXPECT_FALSE(more.records.front().moved);
  EXPECT_NEAR(more.records.front().f, trace.records.back().f, 1e-14);
}

TEST_P(NewtonLoop, FactorSolvesWithHoweverManyIntercepts) {
  for (const std::int64_t k : {1, 3})
    for (const bool intercept : {false, true}) {
      nag::SmoothProblem problem;
      problem.table = &ran(GetParam());
      problem.d = 5, problem.k = k;
      problem.fit_intercept = intercept;
      const std::int64_t p = problem.p(), size = p * k;
      Random random(11);
      std::vector<double> H(static_cast<std::size_t>(size * size));
      // Of softmax's kind where k > 1: blocks add up to zero along rows, and to it l2.
      for (int row = 0; row < 60; ++row) {
        std::vector<double> x(static_cast<std::size_t>(p)), share(static_cast<std::size_t>(k));
        double sum = 0;
        for (double& v : x) v = random.uniform(-1, 3);
        if (intercept) x[static_cast<std::size_t>(p - 1)] = 1;
        for (double& v : share) sum += v = random.uniform(0.1, 1);
        for (double& v : share) v /= sum;
        for (std::int64_t a = 0; a < k; ++a)
          for (std::int64_t b = 0; b < k; ++b) {
            const double c = k == 1 ? 1.0 : share[static_cast<std::size_t>(a)] * ((a == b) - share[static_cast<std::size_t>(b)]);
            for (std::int64_t i = 0; i < p; ++i)
              for (std::int64_t j = 0; j < p; ++j)
                H[static_cast<std::size_t>(((a * p + i) * k + b) * p + j)] += c * x[static_cast<std::size_t>(i)] * x[static_cast<std::size_t>(j)];
          }
      }
      std::vector<double> g(static_cast<std::size_t>(size)), h(g.size());
      for (std::int64_t i = 0; i < p; ++i) {
        double mean = 0;
        for (std::int64_t a = 0; a < k; ++a) mean += (g[static_cast<std::size_t>(i * k + a)] = random.uniform()) / static_cast<double>(k);
        for (std::int64_t a = 0; k > 1 && a < k; ++a) g[static_cast<std::size_t>(i * k + a)] -= mean;
      }
      const std::vector<double> whole = H;
      nag::NewtonFactor factor(problem);
      factor.build(H.data(), 0.0);
      factor.solve(g.data(), h.data());
      Wide square = 0;
      for (std::int64_t i = 0; i < p; ++i)
        for (std::int64_t a = 0; a < k; ++a) {
          Wide sum = 0;
          for (std::int64_t j = 0; j < p; ++j)
            for (std::int64_t b = 0; b < k; ++b)
              sum += static_cast<Wide>(whole[static_cast<std::size_t>(((a * p + i) * k + b) * p + j)]) * h[static_cast<std::size_t>(j * k + b)];
          EXPECT_NEAR(static_cast<double>(sum), g[static_cast<std::size_t>(i * k + a)], 1e-9) << "k " << k << ", row " << i;
          square += static_cast<Wide>(g[static_cast<std::size_t>(i * k + a)]) * h[static_cast<std::size_t>(i * k + a)];
        }
      EXPECT_NEAR(factor.norm(g.data()), static_cast<double>(std::sqrt(square)), 1e-9 * factor.norm(g.data()));
    }
}

TEST_P(NewtonLoop, ClassHessianEqualsItsFormula) {
  const std::int64_t n = 70, d = 4, k = 3;
  const Data data(GetParam(), static_cast<int>(loss_named("softmax")), Shape{n, d, k}, nag::Storage::f64, nag::Compute::f64, Order::c, true);
  const std::int64_t p = data.view.w_rows();
  std::vector<double> H(static_cast<std::size_t>(k * p * k * p)), grad(static_cast<std::size_t>(p * k)), z(static_cast<std::size_t>(n * k));
  nag::SecondRequest q;
  q.w = data.w.data();
  q.out = H.data();
  q.grad = grad.data();
  q.z = z.data();
  EXPECT_EQ(nag::class_hessian(data.view, q).value, pass(data, 1).value);
  EXPECT_EQ(std::memcmp(grad.data(), pass(data, 1).grad.data(), grad.size() * sizeof(double)), 0);
  std::vector<Wide> want(H.size());
  for (std::int64_t row = 0; row < n; ++row) {
    Wide share[3], sum = 0;
    for (std::int64_t a = 0; a < k; ++a) sum += share[a] = std::exp(static_cast<Wide>(z[static_cast<std::size_t>(row * k + a)]));
    for (Wide& v : share) v /= sum;
    for (std::int64_t a = 0; a < k; ++a)
      for (std::int64_t b = 0; b < k; ++b)
        for (std::int64_t i = 0; i < p; ++i)
          for (std::int64_t j = 0; j < p; ++j)
            want[static_cast<std::size_t>(((a * p + i) * k + b) * p + j)] +=
                data.s[static_cast<std::size_t>(row)] * share[a] * ((a == b) - share[b]) * (i < d ? data.x(row, i) : 1) * (j < d ? data.x(row, j) : 1) /
                data.view.weight_sum;
  }
  for (std::size_t e = 0; e < H.size(); ++e) EXPECT_NEAR(H[e], static_cast<double>(want[e]), 1e-14);
}

TEST_P(NewtonLoop, RefusesWhatIsNotFinite) {
  const Data data(GetParam(), static_cast<int>(loss_named("poisson")), Shape{20, 2, 1}, nag::Storage::f64, nag::Compute::f64, Order::c, false);
  const std::vector<double> far(2, 1e5);
  std::vector<double> z0(20), z1(20);
  nag::Newton newton(newton_problem(data.view, 0.1, 1), far.data(), z0.data(), z1.data());
  EXPECT_THROW(newton.run(nag::SmoothLimits{}), std::domain_error);
  nag::SmoothProblem problem;
  problem.table = &ran(GetParam());
  problem.d = 2;
  std::vector<double> H{1.0, 0.0, std::numeric_limits<double>::quiet_NaN(), 1.0};
  nag::NewtonFactor factor(problem);
  EXPECT_THROW(factor.build(H.data(), 0.0), std::domain_error);
}

NAG_PER_ISA(NewtonLoop);

}  // namespace
}  // namespace nag_test
