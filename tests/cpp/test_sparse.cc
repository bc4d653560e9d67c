// CSR margins and gradients against long double loops: 32- and 64-bit indices, both storages, empty rows, slices, owners.
#include <algorithm>
#include <type_traits>

#include "engine/column_order.h"
#include "engine/gram.h"
#include "support.h"

namespace nag_test {
namespace {

template <class S, class I>
struct Rows {
  std::int64_t d;
  std::vector<std::int64_t> ptr;
  std::vector<I> idx;
  std::vector<S> data;
  // `first` stands before row 0: a slice of a larger matrix starts in the middle of its arrays.
  Rows(std::int64_t n, std::int64_t d_, std::int64_t first, Random& random) : d(d_), ptr{first} {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t fill = i % 5 == 1 ? 0 : i % 5 == 2 ? 40 : random.below(9);
      for (std::int64_t j = 0; j < d; ++j)
        if (random.below(d) < fill) {
          idx.push_back(static_cast<I>(j));
          data.push_back(static_cast<S>(random.uniform()));
        }
      ptr.push_back(first + static_cast<std::int64_t>(idx.size()));
    }
  }
};

template <class T, class S, class I>
void check(const KernelTable* table, std::int64_t n, std::int64_t d, std::int64_t k) {
  const RowKernels<T>& kernel = kernels<T>(table);
  const int storage = sizeof(S) == 4 ? 1 : 0, wide_index = sizeof(I) == 8;
  Random random(static_cast<std::uint64_t>(n * 100 + d * 10 + k));
  const Rows<S, I> rows(n, d, 0, random);
  // Exactly as long as they are: the last gather and the last load must not read on.
  Exact<S> data(rows.data.size(), 1);
  Exact<I> idx(rows.idx.size(), 1);
  std::copy(rows.data.begin(), rows.data.end(), data.data());
  std::copy(rows.idx.begin(), rows.idx.end(), idx.data());
  const std::int64_t ldz = n + 1;
  Exact<T> W(static_cast<std::size_t>(d * k), 1, random), R(static_cast<std::size_t>(k * ldz), 1, random), Z(static_cast<std::size_t>(k * ldz), 1);
  Exact<double> G(static_cast<std::size_t>(d * k), 1, random), owned(static_cast<std::size_t>(d * k), 1);
  std::vector<double> before(G.data(), G.data() + G.size());
  std::copy(before.begin(), before.end(), owned.data());
  kernel.csr_dot[storage][wide_index](data.data(), idx.data(), rows.ptr.data(), n, W.data(), k, Z.data(), ldz);
  // By gathers or by loads, whichever this set takes where: the same bits.
  for (const auto& other : {kernel.csr_dot_near, kernel.csr_dot_by_number}) {
    if (other[storage][wide_index] == nullptr) continue;
    Exact<T> z(static_cast<std::size_t>(k * ldz), 1);
    other[storage][wide_index](data.data(), idx.data(), rows.ptr.data(), n, W.data(), k, z.data(), ldz);
    for (std::int64_t c = 0; c < k; ++c)
      for (std::int64_t i = 0; i < n; ++i) EXPECT_EQ(z[static_cast<std::size_t>(c * ldz + i)], Z[static_cast<std::size_t>(c * ldz + i)]);
  }
  kernel.csr_outer[storage][wide_index](data.data(), idx.data(), rows.ptr.data(), 1, n, R.data(), ldz, k, G.data());
  // Three owners of columns, the middle one empty, give the bits of one.
  const std::int64_t bounds[4] = {0, d / 3, d / 3, d};
  std::vector<std::int64_t> cuts(static_cast<std::size_t>(4 * n));
  kernel.csr_split[wide_index](idx.data(), rows.ptr.data(), n, bounds, 3, cuts.data());
  for (int owner = 0; owner < 3; ++owner) {
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t e = cuts[static_cast<std::size_t>(4 * i + owner)]; e < cuts[static_cast<std::size_t>(4 * i + owner + 1)]; ++e) {
        EXPECT_GE(static_cast<std::int64_t>(idx[static_cast<std::size_t>(e)]), bounds[owner]);
        EXPECT_LT(static_cast<std::int64_t>(idx[static_cast<std::size_t>(e)]), bounds[owner + 1]);
      }
    kernel.csr_outer[storage][wide_index](data.data(), idx.data(), cuts.data() + owner, 4, n, R.data(), ldz, k, owned.data());
  }

  // Products taken by vectors are added one by one, row after row: the bits of this loop on every instruction set.
  if (k == 1) {
    std::vector<double> one_by_one = before;
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t e = rows.ptr[static_cast<std::size_t>(i)]; e < rows.ptr[static_cast<std::size_t>(i) + 1]; ++e) {
        const std::size_t at = static_cast<std::size_t>(e);
        const volatile double product = static_cast<double>(R[static_cast<std::size_t>(i)]) * static_cast<double>(rows.data[at]);
        one_by_one[static_cast<std::size_t>(rows.idx[at])] += product;
      }
    for (std::size_t j = 0; j < one_by_one.size(); ++j) EXPECT_EQ(G[j], one_by_one[j]) << "column " << j;
  }

  std::vector<long double> g(before.begin(), before.end()), gsize(g.size(), 1.0L);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t c = 0; c < k; ++c) {
      long double z = 0, size = 0;
      for (std::int64_t e = rows.ptr[static_cast<std::size_t>(i)]; e < rows.ptr[static_cast<std::size_t>(i) + 1]; ++e) {
        const std::size_t at = static_cast<std::size_t>(e), to = static_cast<std::size_t>(rows.idx[at] * k + c);
        z += static_cast<long double>(rows.data[at]) * W[to];
        size += std::fabs(static_cast<long double>(rows.data[at]) * W[to]);
        const long double term = static_cast<long double>(rows.data[at]) * R[static_cast<std::size_t>(c * ldz + i)];
        g[to] += term;
        gsize[to] += std::fabs(term);
      }
      EXPECT_LE(std::fabs(static_cast<long double>(Z[static_cast<std::size_t>(c * ldz + i)]) - z), 48 * std::numeric_limits<T>::epsilon() * size)
          << "row " << i << " column " << c << " k " << k;
    }
  for (std::size_t j = 0; j < g.size(); ++j) {
    EXPECT_LE(std::fabs(static_cast<long double>(G[j]) - g[j]), static_cast<double>(n + 2) * std::numeric_limits<double>::epsilon() * gsize[j]) << "coefficient " << j;
    EXPECT_EQ(G[j], owned[j]) << "coefficient " << j;
  }
}

// X' diag(v) X with an intercept by both roads: pairs of entries, and panels of whole rows.
template <class T, class S, class I>
void check_gram(const KernelTable* table, std::int64_t n, std::int64_t d) {
  Random random(static_cast<std::uint64_t>(n * 10 + d));
  const Rows<S, I> rows(n, d, 0, random);
  Exact<S> data(rows.data.size(), 1);
  Exact<I> idx(rows.idx.size(), 1);
  std::copy(rows.data.begin(), rows.data.end(), data.data());
  std::copy(rows.idx.begin(), rows.idx.end(), idx.data());
  Exact<T> v(static_cast<std::size_t>(n), 1, random);
  const std::size_t p = static_cast<std::size_t>(d) + 1;
  std::vector<long double> sum(p * p), size(p * p), x(p);
  for (std::int64_t i = 0; i < n; ++i) {
    std::fill(x.begin(), x.end(), 0.0L);
    for (std::int64_t e = rows.ptr[static_cast<std::size_t>(i)]; e < rows.ptr[static_cast<std::size_t>(i) + 1]; ++e)
      x[static_cast<std::size_t>(rows.idx[static_cast<std::size_t>(e)])] = rows.data[static_cast<std::size_t>(e)];
    x[p - 1] = 1;
    for (std::size_t a = 0; a < p; ++a)
      for (std::size_t b = 0; b < p; ++b) {
        sum[a * p + b] += x[a] * x[b] * v[static_cast<std::size_t>(i)];
        size[a * p + b] += std::fabs(x[a] * x[b] * v[static_cast<std::size_t>(i)]);
      }
  }
  nag::ProblemView view;
  view.table = &ran(table);
  view.storage = sizeof(S) == 4 ? nag::Storage::f32 : nag::Storage::f64;
  view.compute = sizeof(T) == 4 ? nag::Compute::f32 : nag::Compute::f64;
  view.n = n;
  view.d = d;
  view.fit_intercept = view.sparse = true;
  view.wide_index = sizeof(I) == 8;
  view.weight_sum = 1;
  view.data = data.data();
  view.indices = idx.data();
  view.indptr = rows.ptr.data();
  nag::SecondRequest q;
  q.v = v.data();
  for (const auto run : {&nag::run_second_sparse, &nag::run_second}) {
    std::vector<double> one(p * p, -77.0), three(p * p, -77.0);
    q.out = one.data();
    q.n_threads = 1;
    EXPECT_TRUE(run(view, q).finite);
    q.out = three.data();
    q.n_threads = 3;
    EXPECT_TRUE(run(view, q).finite);
    EXPECT_EQ(one, three);
    for (std::size_t j = 0; j < p * p; ++j)
      EXPECT_LE(std::fabs(one[j] - sum[j]), 16 * std::numeric_limits<T>::epsilon() * size[j]) << j / p << ", " << j % p << " of " << p;
  }
}

// A gradient summed in parts of the rows, through X's own indices and through new numbers: the bits are the same.
template <class S, class I>
void check_parts(const KernelTable* table) {
  constexpr std::int64_t n = 400, d = 16400, per_row = 512;
  Random random(9);
  std::vector<std::int64_t> ptr{0};
  std::vector<I> idx;
  std::vector<S> data, y;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t q = 0; q < per_row; ++q) {  // ascending, in strides of 32 columns; some columns stay empty
      idx.push_back(static_cast<I>(q * 32 + random.below(q % 4 == 0 ? 32 : 5) + (i > 200 && q == per_row - 1 ? 20 : 0)));
      data.push_back(static_cast<S>(random.uniform()));
    }
    ptr.push_back(static_cast<std::int64_t>(idx.size()));
    y.push_back(random.bits() & 1 ? S(1) : S(-1));
  }
  nag::ProblemView view;
  view.table = &ran(table);
  view.loss = 0;
  view.storage = sizeof(S) == 4 ? nag::Storage::f32 : nag::Storage::f64;
  view.compute = sizeof(S) == 4 ? nag::Compute::f32 : nag::Compute::f64;
  view.n = n;
  view.d = d;
  view.sparse = view.fit_intercept = true;
  view.wide_index = sizeof(I) == 8;
  view.weight_sum = n;
  view.data = data.data();
  view.indices = idx.data();
  view.indptr = ptr.data();
  view.y = y.data();
  std::vector<double> w, want, g(d + 1);
  for (std::int64_t j = 0; j <= d; ++j) w.push_back(random.uniform());
  nag::PassRequest q;
  q.w = w.data();
  q.grad = g.data();
  double value = 0;
  for (const int threads : {1, 3}) {
    view.order = std::make_shared<nag::LazyColumnOrder>();
    for (int pass = 0; pass < 12; ++pass) {
      q.n_threads = threads;
      std::fill(g.begin(), g.end(), -77.0);
      const double got = nag::run_pass(view, q).value;
      if (want.empty()) want = g, value = got;
      EXPECT_EQ(got, value);
      EXPECT_EQ(g, want) << "pass " << pass << " on " << threads << " threads";
    }
  }
}

class Sparse : public PerIsa {};
TEST_P(Sparse, RowPartsKeepTheirBits) {
  check_parts<float, std::int32_t>(GetParam());
  check_parts<double, std::int64_t>(GetParam());
}
TEST_P(Sparse, GramMatchesWideSums) {
  for (const std::int64_t n : {1, 17, 300, 2300})
    for (const std::int64_t d : {1, 7, 100}) {
      if (n * d > 50000) continue;  // long double sums take their time
      check_gram<float, float, std::int32_t>(GetParam(), n, d);
      check_gram<float, float, std::int64_t>(GetParam(), n, d);
      check_gram<double, double, std::int32_t>(GetParam(), n, d);
      check_gram<double, float, std::int64_t>(GetParam(), n, d);
    }
}
TEST_P(Sparse, MatchesWideSums) {
  for (const std::int64_t n : {1, 3, 16, 17, 70})
    for (const std::int64_t d : {1, 7, 100})
      for (const std::int64_t k : {1, 2, 9, 65}) {
        check<float, float, std::int32_t>(GetParam(), n, d, k);
        check<float, float, std::int64_t>(GetParam(), n, d, k);
        check<double, double, std::int32_t>(GetParam(), n, d, k);
        check<double, double, std::int64_t>(GetParam(), n, d, k);
        check<double, float, std::int32_t>(GetParam(), n, d, k);
        check<double, float, std::int64_t>(GetParam(), n, d, k);
      }
}
NAG_PER_ISA(Sparse);

}  // namespace
}  // namespace nag_test
