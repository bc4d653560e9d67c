// X X'v, X'v and ||X'v||^2 from a copy of CSR by columns, against long double; and the vector operations beside them.
#include <algorithm>
#include <type_traits>

#include "engine/columns.h"
#include "engine/combine.h"
#include "support.h"

namespace nag_test {
namespace {

const std::function<bool()> kNever;

// A CSR whose columns have no entry, one, a few, and more than a chain of sums in T; `first` entries stand before row 0.
template <class S, class I>
struct Matrix {
  std::int64_t n, d;
  std::vector<std::int64_t> ptr;
  std::vector<I> idx;
  std::vector<S> data;
  nag::ProblemView view;

  Matrix(const KernelTable* table, std::int64_t n_, std::int64_t d_, double fill, std::int64_t first) : n(n_), d(d_), ptr{first} {
    Random random(static_cast<std::uint64_t>(n * 31 + d));
    idx.resize(static_cast<std::size_t>(first), I(0));
    data.resize(static_cast<std::size_t>(first), S(7));
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < d; ++j) {
        const double share = j % 7 == 0 ? 0.9 : j % 7 == 1 ? 0.0 : j % 7 == 2 ? (i == j % n ? 1.0 : 0.0) : fill;
        if (random.uniform(0, 1) >= share) continue;
        idx.push_back(static_cast<I>(j));
        data.push_back(static_cast<S>(random.uniform()));
      }
      ptr.push_back(static_cast<std::int64_t>(idx.size()));
    }
    view.table = &ran(table);
    view.storage = sizeof(S) == 4 ? nag::Storage::f32 : nag::Storage::f64;
    view.compute = sizeof(S) == 4 ? nag::Compute::f32 : nag::Compute::f64;
    view.n = n;
    view.d = d;
    view.sparse = true;
    view.wide_index = sizeof(I) == 8;
    view.data = data.data();
    view.indices = idx.data();
    view.indptr = ptr.data();
  }

  template <class T>
  void expect(const T* v, std::int64_t k, const T* product, const double* turned, double square) const {
    const std::size_t wide = static_cast<std::size_t>(k);
    std::vector<long double> u(static_cast<std::size_t>(d) * wide), usize(u.size()), z(static_cast<std::size_t>(n) * wide), zsize(z.size());
    const auto each = [&](const auto& body) {
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t e = ptr[static_cast<std::size_t>(i)]; e < ptr[static_cast<std::size_t>(i) + 1]; ++e)
          for (std::int64_t c = 0; c < k; ++c)
            body(static_cast<std::size_t>(i * k + c), static_cast<std::size_t>(static_cast<std::int64_t>(idx[static_cast<std::size_t>(e)]) * k + c),
                 static_cast<long double>(data[static_cast<std::size_t>(e)]));
    };
    each([&](std::size_t row, std::size_t column, long double x) { u[column] += x * v[row], usize[column] += std::fabs(x * v[row]); });
    each([&](std::size_t row, std::size_t column, long double x) { z[row] += x * u[column], zsize[row] += std::fabs(x) * usize[column]; });
    const long double eps = std::numeric_limits<T>::epsilon();
    long double whole = 0, off = 0;
    for (std::size_t j = 0; j < u.size(); ++j) {
      EXPECT_LE(std::fabs(turned[j] - u[j]), 256 * eps * usize[j]) << "column " << j / wide << " k " << k;
      whole += u[j] * u[j];
      off += 512 * eps * usize[j] * (std::fabs(u[j]) + 256 * eps * usize[j]);
    }
    EXPECT_LE(std::fabs(square - whole), off + 1e-13L * whole) << "k " << k;
    for (std::size_t i = 0; i < z.size(); ++i) EXPECT_LE(std::fabs(product[i] - z[i]), 512 * eps * zsize[i]) << "row " << i / wide << " k " << k;
  }
};

template <class T, class S, class I>
void check(const KernelTable* table, std::int64_t n, std::int64_t d, double fill, std::int64_t first,
           std::initializer_list<std::int64_t> widths = {1, 2, 4, 9, 16, 20, 27, 37}) {
  const Matrix<S, I> X(table, n, d, fill, first);
  Random random(5);
  for (const std::int64_t k : widths) {
    const Exact<T> v(static_cast<std::size_t>(n * k), 1, random);
    std::vector<std::vector<T>> products;
    std::vector<std::vector<double>> turned;
    std::vector<double> squares;
    for (const int threads : {1, 2, 3, 5}) {
      const nag::Columns columns(X.view, threads);
      Exact<T> out(static_cast<std::size_t>(n * k), 1, T(-77));
      Exact<double> u(static_cast<std::size_t>(d * k), 1, -77.0);
      double square = -77;
      EXPECT_TRUE(columns.product(v.data(), k, out.data(), threads, kNever));
      EXPECT_TRUE(columns.transposed(v.data(), k, u.data(), threads, kNever));
      EXPECT_TRUE(columns.square(v.data(), k, &square, threads, kNever));
      products.emplace_back(out.data(), out.data() + n * k);
      turned.emplace_back(u.data(), u.data() + d * k);
      squares.push_back(square);
      // The sums of one product must not stay in the next.
      EXPECT_TRUE(columns.product(v.data(), k, out.data(), threads, kNever));
      EXPECT_TRUE(std::equal(out.data(), out.data() + n * k, products.back().data()));
    }
    for (std::size_t t = 1; t < products.size(); ++t) {
      EXPECT_EQ(products[0], products[t]) << "k " << k;
      EXPECT_EQ(turned[0], turned[t]) << "k " << k;
      EXPECT_EQ(squares[0], squares[t]) << "k " << k;
    }
    X.template expect<T>(v.data(), k, products[0].data(), turned[0].data(), squares[0]);
  }
}

class ByColumns : public PerIsa {};
TEST_P(ByColumns, MatchWideSums) {
  for (const std::int64_t n : {1, 3, 90})
    for (const std::int64_t d : {1, 9, 70, 200}) {
      check<float, float, std::int32_t>(GetParam(), n, d, 0.1, 0);
      check<double, double, std::int64_t>(GetParam(), n, d, 0.1, 5);
      check<double, float, std::int32_t>(GetParam(), n, d, 0.1, 2);
    }
}
TEST_P(ByColumns, OfManyEntries) {  // several threads, several groups, columns longer than a chain
  check<float, float, std::int32_t>(GetParam(), 1100, 460, 0.4, 0, {1, 20});
  check<double, double, std::int32_t>(GetParam(), 1100, 460, 0.4, 3, {1, 20});
}
TEST_P(ByColumns, SayWhatTheyHold) {
  const Matrix<float, std::int32_t> X(GetParam(), 20, 30, 0.3, 4);
  const std::int64_t nnz = X.ptr.back() - X.ptr.front();
  EXPECT_EQ(nag::Columns(X.view, 1).nbytes(), 8 * nnz + 8 * 31 + 4 * 30 + 8 * 20);
}
NAG_PER_ISA(ByColumns);

template <class T>
void check_vectors(std::int64_t n, std::size_t m) {
  Random random(static_cast<std::uint64_t>(n));
  std::vector<Exact<T>> a;
  std::vector<const T*> from;
  std::vector<double> c;
  for (std::size_t j = 0; j < m; ++j) {
    a.emplace_back(static_cast<std::size_t>(n), 1, random);
    c.push_back(random.uniform(-3, 3));
  }
  for (const Exact<T>& x : a) from.push_back(x.data());
  const Exact<T> v(static_cast<std::size_t>(n), 1, random);
  const long double eps = std::numeric_limits<T>::epsilon();
  Exact<T> sum(static_cast<std::size_t>(n), 1);
  nag::combine(from, c, n, sum.data(), 2);
  for (std::int64_t i = 0; i < n; ++i) {
    long double want = 0, size = 0;
    for (std::size_t j = 0; j < m; ++j) {
      want += static_cast<long double>(c[j]) * from[j][i];
      size += std::fabs(static_cast<long double>(c[j]) * from[j][i]);
    }
    EXPECT_LE(std::fabs(sum.data()[i] - want), (static_cast<long double>(m) + 2) * eps * size) << i;
  }
  const std::vector<double> found = nag::inner_products(from, v.data(), n, 2);
  EXPECT_EQ(found, nag::inner_products(from, v.data(), n, 1));
  EXPECT_EQ(found, nag::inner_products(from, v.data(), n, 3));
  ASSERT_EQ(found.size(), m);
  for (std::size_t j = 0; j < m; ++j) {
    long double want = 0, size = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      want += static_cast<long double>(from[j][i]) * v.data()[i];
      size += std::fabs(static_cast<long double>(from[j][i]) * v.data()[i]);
    }
    EXPECT_LE(std::fabs(found[j] - want), 24 * eps * size) << j;
  }
  if (m == 0) return;
  // In place: the first of the arrays takes the sum.
  const std::vector<T> before(sum.data(), sum.data() + n);
  nag::combine(from, c, n, a[0].data(), 3);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), a[0].data()));
}

TEST(Vectors, CombineAndMultiply) {
  for (const std::int64_t n : {0, 1, 15, 16, 17, 1023, 1025, 40000})
    for (const std::size_t m : {std::size_t(0), std::size_t(1), std::size_t(2), std::size_t(5)}) {
      check_vectors<float>(n, m);
      check_vectors<double>(n, m);
    }
}

TEST(Vectors, TransposedCopy) {
  Random random(1);
  for (const std::int64_t rows : {1, 63, 130, 5000})
    for (const std::int64_t columns : {1, 3, 20}) {
      const Exact<double> a(static_cast<std::size_t>(rows * columns), 1, random);
      Exact<float> narrow(a.size(), 1);
      Exact<double> wide(a.size(), 1);
      nag::transposed_copy(a.data(), rows, columns, narrow.data(), 2);
      nag::transposed_copy(a.data(), rows, columns, wide.data(), 3);
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t c = 0; c < columns; ++c) {
          EXPECT_EQ(wide.data()[c * rows + i], a.data()[i * columns + c]);
          EXPECT_EQ(narrow.data()[c * rows + i], static_cast<float>(a.data()[i * columns + c]));
        }
    }
}

}  // namespace
}  // namespace nag_test
