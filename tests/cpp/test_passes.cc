// A whole pass against the long double sum of its own residuals, over storage, layout, loss, extras and awkward shapes.
// The loss's maths has its own test; here the residuals that the pass hands out are taken as given, and the margins,
// the gradient and the value must follow from X, w, s and them.
#include "engine/threads.h"
#include "passes.h"

namespace nag_test {
namespace {

template <class T>
void check(const Data& data) {
  const nag::ProblemView& v = data.view;
  const std::size_t k = static_cast<std::size_t>(v.k), n = static_cast<std::size_t>(v.n), d = static_cast<std::size_t>(v.d);
  const long double eps = std::numeric_limits<T>::epsilon(), chain = 8 + static_cast<long double>(std::min<std::size_t>(d, 2048)) / 4;
  std::vector<T> z(n * k), r(n * k);
  const Answer got = pass(data, 2, z.data(), r.data());

  std::vector<long double> grad(data.w.size()), size(data.w.size());
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t c = 0; c < k; ++c) {
      long double want = data.offset[i * k + c], reach = std::fabs(want);
      if (v.fit_intercept) want += data.w[d * k + c], reach += std::fabs(static_cast<long double>(data.w[d * k + c]));
      const long double sr = static_cast<long double>(data.s[i]) * r[i * k + c];
      for (std::size_t j = 0; j < d; ++j) {
        const long double x = data.x(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j)), w = data.w[j * k + c];
        want += x * w;
        // scale and shift are folded into w: the terms that are rounded are those of the stored number.
        reach += (std::fabs(x - v.shift) + std::fabs(static_cast<long double>(v.shift))) * std::fabs(w);
        grad[j * k + c] += sr * x;
        size[j * k + c] += std::fabs(sr) * (std::fabs(x - v.shift) + std::fabs(static_cast<long double>(v.shift)));
      }
      if (v.fit_intercept) grad[d * k + c] += sr, size[d * k + c] += std::fabs(sr);
      EXPECT_LE(std::fabs(z[i * k + c] - want), chain * eps * reach) << "margin of row " << i << " column " << c;
    }
  for (std::size_t j = 0; j < grad.size(); ++j)
    EXPECT_LE(std::fabs(got.grad[j] * v.weight_sum - grad[j]), 32 * eps * size[j] + std::numeric_limits<T>::min()) << "coefficient " << j;

  // From margins alone: the same loss and residuals, without X.
  std::vector<T> again(n * k);
  const double value = nag::loss_from_margins(v, z.data(), again.data(), 2);
  EXPECT_NEAR(value, got.value, 16 * static_cast<double>(eps) * (1 + std::fabs(got.value)));
  EXPECT_EQ(again, r);

  nag::PassRequest request;
  request.kind = nag::PassRequest::Kind::margins;
  request.w = data.w.data();
  request.z = again.data();
  request.n_threads = 2;
  nag::run_pass(v, request);
  for (std::size_t i = 0; i < n * k; ++i) EXPECT_EQ(again[i], z[i]);

  std::vector<double> back(data.w.size());
  request.kind = nag::PassRequest::Kind::rmatvec;
  request.w = nullptr;
  request.z = nullptr;
  request.v = r.data();
  request.grad = back.data();
  nag::run_pass(v, request);
  EXPECT_EQ(back, got.grad);
}

class Passes : public PerIsa {};

TEST_P(Passes, EveryStorageAndLayout) {
  for (int storage = 0; storage < nag::kStorageCount; ++storage)
    for (const Order order : kOrders)
      for (const Shape shape : {Shape{1, 1, 1}, Shape{3, 7, 1}, Shape{37, 16, 1}, Shape{300, 33, 1}, Shape{41, 700, 1}, Shape{70, 5001, 1}})
        for (const bool extras : {false, true}) {
          SCOPED_TRACE(std::string(nag::kStorageName[storage]) + " order " + std::to_string(static_cast<int>(order)) + " n " +
                       std::to_string(shape.n) + " d " + std::to_string(shape.d));
          check<double>(Data(GetParam(), 1, shape, static_cast<nag::Storage>(storage), nag::Compute::f64, order, extras));
          if (storage == 0) continue;  // float64 is never narrowed
          check<float>(Data(GetParam(), 1, shape, static_cast<nag::Storage>(storage), nag::Compute::f32, order, extras));
        }
}

TEST_P(Passes, EveryLoss) {
  for (int loss = 0; loss < nag::kLossCount; ++loss)
    for (const std::int64_t k : {1, 2, 3, 11}) {
      if ((nag::kLosses[loss].targets == nag::Domain::classes) != (k > 1)) continue;
      for (const Order order : {Order::c, Order::f}) {
        SCOPED_TRACE(nag::kLosses[loss].name);
        check<float>(Data(GetParam(), loss, {530, 19, k}, nag::Storage::f32, nag::Compute::f32, order, true));
        check<double>(Data(GetParam(), loss, {530, 19, k}, nag::Storage::f64, nag::Compute::f64, order, true));
      }
    }
}

TEST_P(Passes, NonFiniteElementIsNamed) {
  Data data(GetParam(), 1, {40, 9, 1}, nag::Storage::f32, nag::Compute::f32, Order::f, false);
  std::int64_t row = -1, col = -1;
  EXPECT_FALSE(nag::find_non_finite(data.view, &row, &col));
  float bad = std::numeric_limits<float>::infinity();
  std::memcpy(static_cast<char*>(const_cast<void*>(data.view.X)) + 31 * data.view.row_stride + 4 * data.view.col_stride, &bad, sizeof bad);
  EXPECT_TRUE(nag::find_non_finite(data.view, &row, &col));
  EXPECT_EQ(row, 31);
  EXPECT_EQ(col, 4);
  EXPECT_FALSE(std::isfinite(pass(data, 1).value) && std::isfinite(pass(data, 1).grad[4]));
}
NAG_PER_ISA(Passes);

}  // namespace
}  // namespace nag_test
