// Gram matrices and Hessians against long double sums, over storage, layout and awkward shapes; the same bits for every
// number of threads, whether leaves add up or threads share one matrix.
#include "engine/gram.h"
#include "passes.h"

namespace nag_test {
namespace {

using Wide = long double;

struct Second {
  double value = 0;
  std::vector<double> H, grad;
  bool operator==(const Second& o) const {
    return std::memcmp(&value, &o.value, sizeof value) == 0 && std::memcmp(H.data(), o.H.data(), H.size() * sizeof(double)) == 0 &&
           std::memcmp(grad.data(), o.grad.data(), grad.size() * sizeof(double)) == 0;
  }
};

Second second(const Data& data, bool hessian, const void* v, const std::vector<std::int64_t>* rows, int n_threads, void* z = nullptr,
              bool rounded = false) {
  const std::size_t p = static_cast<std::size_t>(data.view.w_rows());
  Second out{0.0, std::vector<double>(p * p, -77.0), std::vector<double>(p, -77.0)};
  nag::SecondRequest q;
  q.v = v;
  if (rows) q.rows = rows->data(), q.count = static_cast<std::int64_t>(rows->size());
  q.w = hessian ? data.w.data() : nullptr;
  q.rounded = rounded;
  q.out = out.H.data();
  q.grad = hessian ? out.grad.data() : nullptr;
  q.z = z;
  q.n_threads = n_threads;
  const nag::SecondResult result = nag::run_second(data.view, q);
  EXPECT_TRUE(result.finite);
  out.value = result.value;
  return out;
}

template <class T>
void expect_gram(const Data& data, const std::vector<double>& c, const std::vector<std::int64_t>& rows, const std::vector<double>& H) {
  const nag::ProblemView& v = data.view;
  const std::size_t p = static_cast<std::size_t>(v.w_rows());
  const Wide eps = std::numeric_limits<T>::epsilon(), shift = std::fabs(static_cast<Wide>(v.shift));
  std::vector<Wide> sum(p * p), size(p * p), x(p), reach(p);
  for (const std::int64_t i : rows) {
    for (std::size_t j = 0; j < p; ++j) {
      const bool one = j == static_cast<std::size_t>(v.d);
      x[j] = one ? 1 : data.x(i, static_cast<std::int64_t>(j));
      reach[j] = one ? 1 : std::fabs(x[j] - v.shift) + shift;
    }
    const Wide ci = c[static_cast<std::size_t>(i)];
    for (std::size_t a = 0; a < p; ++a)
      for (std::size_t b = 0; b <= a; ++b) {
        sum[a * p + b] += ci * x[a] * x[b];
        size[a * p + b] += std::fabs(ci) * reach[a] * reach[b];
      }
  }
  for (std::size_t a = 0; a < p; ++a)
    for (std::size_t b = 0; b <= a; ++b) {
      EXPECT_LE(std::fabs(H[a * p + b] * v.weight_sum - sum[a * p + b]), 16 * eps * size[a * p + b] + std::numeric_limits<T>::min())
          << a << ", " << b;
      EXPECT_EQ(H[a * p + b], H[b * p + a]);
    }
}

template <class T>
void check(const Data& data) {
  const std::size_t n = static_cast<std::size_t>(data.view.n);
  Random random(7);
  std::vector<T> v(n), h(n), z(n);
  std::vector<double> c(n);
  std::vector<std::int64_t> all, some;
  for (std::size_t i = 0; i < n; ++i) {
    v[i] = i % 5 == 3 ? T(0) : static_cast<T>(random.uniform(-1, 2));
    c[i] = data.s[i] * static_cast<double>(v[i]);
    all.push_back(static_cast<std::int64_t>(i));
    some.push_back(random.below(data.view.n));
  }
  expect_gram<T>(data, c, all, second(data, false, v.data(), nullptr, 2).H);
  expect_gram<T>(data, data.s, all, second(data, false, nullptr, nullptr, 3).H);
  expect_gram<T>(data, c, some, second(data, false, v.data(), &some, 2).H);

  const Second got = second(data, true, nullptr, nullptr, 2, z.data());
  nag::curvature_from_margins(data.view, z.data(), h.data(), 2);
  for (std::size_t i = 0; i < n; ++i) c[i] = data.s[i] * static_cast<double>(h[i]);
  expect_gram<T>(data, c, all, got.H);
  const Answer first = pass(data, 1);
  EXPECT_NEAR(got.value, first.value, 64 * static_cast<double>(std::numeric_limits<T>::epsilon()) * (1 + std::fabs(first.value)));
  for (std::size_t j = 0; j < got.grad.size(); ++j)
    EXPECT_NEAR(got.grad[j], first.grad[j], 512 * static_cast<double>(std::numeric_limits<T>::epsilon()) * (1 + std::fabs(first.value)));
}

class Gram : public PerIsa {};

TEST_P(Gram, EqualsItsSumInEveryStorageAndLayout) {
  for (const Shape shape : {Shape{1, 1, 1}, Shape{3, 7, 1}, Shape{65, 16, 1}, Shape{130, 33, 1}})
    for (const Order order : kOrders)
      for (const bool extras : {false, true})
        for (int storage = 0; storage < nag::kStorageCount; ++storage) {
          SCOPED_TRACE(std::string(nag::kStorageName[storage]) + " " + std::to_string(shape.n) + " x " + std::to_string(shape.d) + " order " +
                       std::to_string(static_cast<int>(order)));
          if (storage != 0) check<float>(Data(GetParam(), 1, shape, static_cast<nag::Storage>(storage), nag::Compute::f32, order, extras));
          check<double>(Data(GetParam(), 1, shape, static_cast<nag::Storage>(storage), nag::Compute::f64, order, extras));
        }
}

TEST_P(Gram, OfManyColumns) {
  const Data narrow(GetParam(), 1, Shape{40, 300, 1}, nag::Storage::f32, nag::Compute::f32, Order::c, true);
  check<float>(narrow);
  const Data wide(GetParam(), 1, Shape{40, 260, 1}, nag::Storage::f64, nag::Compute::f64, Order::f, true);
  check<double>(wide);
}

TEST_P(Gram, ThreadsGiveTheSameBits) {
  for (const Shape shape : {Shape{5001, 9, 1}, Shape{2100, 40, 1}, Shape{600, 300, 1}}) {
    const Data data(GetParam(), 1, shape, nag::Storage::f32, nag::Compute::f32, Order::c, true);
    for (const bool hessian : {false, true}) {
      const Second one = second(data, hessian, nullptr, nullptr, 1);
      for (const int n_threads : {2, 3, 5}) EXPECT_TRUE(one == second(data, hessian, nullptr, nullptr, n_threads)) << n_threads << " threads";
    }
  }
}

// On matrix tiles where this processor has them: several leaves, blocks of panels, and ragged ends of both.
TEST_P(Gram, RoundedHasTwoDigitsAndTheSameBitsForAllThreads) {
  for (const Shape shape : {Shape{300, 60, 1}, Shape{5003, 50, 1}, Shape{1290, 301, 1}})
    for (const Order order : {Order::c, Order::f}) {
      const Data data(GetParam(), 1, shape, nag::Storage::f32, nag::Compute::f32, order, true);
      const Second exact = second(data, false, nullptr, nullptr, 2), got = second(data, false, nullptr, nullptr, 1, nullptr, true);
      const std::size_t p = static_cast<std::size_t>(data.view.w_rows());
      for (std::size_t i = 0; i < p; ++i)
        for (std::size_t j = 0; j < p; ++j)
          EXPECT_NEAR(got.H[i * p + j], exact.H[i * p + j], 0.01 * std::sqrt(exact.H[i * p + i] * exact.H[j * p + j])) << i << ", " << j;
      for (const int n_threads : {2, 3}) EXPECT_TRUE(got == second(data, false, nullptr, nullptr, n_threads, nullptr, true)) << n_threads;
    }
}

TEST_P(Gram, EndsEarlyWhenAsked) {
  const Data data(GetParam(), 1, Shape{6000, 300, 1}, nag::Storage::f32, nag::Compute::f32, Order::c, false);
  std::vector<double> H(300 * 300);
  std::vector<std::int64_t> rows(4'000'000);  // again and again: more than a tenth of a second, after which it is asked
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i % 6000);
  nag::SecondRequest q;
  q.rows = rows.data();
  q.count = static_cast<std::int64_t>(rows.size());
  q.out = H.data();
  q.n_threads = 2;
  int asked = 0;
  q.interrupted = [&asked] { return ++asked > 0; };
  EXPECT_TRUE(nag::run_second(data.view, q).interrupted);
  EXPECT_EQ(asked, 1);
}

NAG_PER_ISA(Gram);

}  // namespace
}  // namespace nag_test
