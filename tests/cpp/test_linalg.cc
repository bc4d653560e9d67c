// Cholesky and triangular solves against long double products; the same bits for every number of threads.
#include "engine/linalg.h"

#include <cstring>

#include "support.h"

namespace nag_test {
namespace {

using Wide = long double;

// X X' + I, its strict upper triangle not a number: nothing may read it.
Exact<double> positive_definite(std::int64_t d, Random& random) {
  const std::size_t m = static_cast<std::size_t>(d);
  std::vector<double> X(m * m);
  for (double& x : X) x = random.uniform();
  Exact<double> A(m * m, 1, std::numeric_limits<double>::quiet_NaN());
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double s = i == j ? 1.0 : 0.0;
      for (std::size_t k = 0; k < m; ++k) s += X[i * m + k] * X[j * m + k];
      A[i * m + j] = s;
    }
  return A;
}

class Linalg : public PerIsa {};

TEST_P(Linalg, CholeskyGivesItsMatrixBack) {
  Random random(1);
  for (const std::int64_t d : {1, 2, 7, 8, 9, 63, 64, 65, 130, 201}) {
    const std::size_t m = static_cast<std::size_t>(d);
    Exact<double> A = positive_definite(d, random);
    const std::vector<double> before(A.data(), A.data() + m * m);
    Exact<double> L(m * m, 1);
    for (const int n_threads : {1, 2, 3, 5}) {
      Exact<double> again(m * m, 1);
      std::memcpy(again.data(), before.data(), m * m * sizeof(double));
      ASSERT_EQ(nag::cholesky(ran(GetParam()), again.data(), d, n_threads, {}), -1);
      if (n_threads == 1) std::memcpy(L.data(), again.data(), m * m * sizeof(double));
      EXPECT_EQ(std::memcmp(L.data(), again.data(), m * m * sizeof(double)), 0) << d << ", " << n_threads << " threads";
    }
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j < m; ++j) {
        if (j > i) {
          EXPECT_EQ(L[i * m + j], 0.0);
          continue;
        }
        Wide s = 0, size = 0;
        for (std::size_t k = 0; k <= j; ++k) {
          s += static_cast<Wide>(L[i * m + k]) * L[j * m + k];
          size += std::fabs(static_cast<Wide>(L[i * m + k]) * L[j * m + k]);
        }
        EXPECT_LE(std::fabs(s - before[i * m + j]), 8 * std::numeric_limits<double>::epsilon() * size) << i << ", " << j << " of " << d;
      }
  }
}

TEST_P(Linalg, CholeskyNamesTheFirstBadPivot) {
  for (const std::int64_t d : {1, 9, 64, 70, 200})
    for (const std::int64_t at : {std::int64_t(0), d / 2, d - 1})
      for (const double bad : {-1.0, 0.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        const std::size_t m = static_cast<std::size_t>(d);
        Exact<double> A(m * m);
        for (std::size_t i = 0; i < m; ++i) A[i * m + i] = 1;
        A[static_cast<std::size_t>(at) * (m + 1)] = bad;
        EXPECT_EQ(nag::cholesky(ran(GetParam()), A.data(), d, 2, {}), at);
      }
}

TEST_P(Linalg, TriangularSystemsAreSolved) {
  Random random(2);
  for (const std::int64_t d : {1, 3, 31, 32, 33, 65, 140})
    for (const std::int64_t columns : {1, 2, 17, 40}) {
      const std::size_t m = static_cast<std::size_t>(d), k = static_cast<std::size_t>(columns);
      Exact<double> L(m * m, 1, std::numeric_limits<double>::quiet_NaN());
      for (std::size_t i = 0; i < m; ++i)
        for (std::size_t j = 0; j <= i; ++j) L[i * m + j] = i == j ? 2.0 : random.uniform() / std::sqrt(static_cast<double>(m));
      const Exact<double> b(m * k, 1, random);
      for (const bool transposed : {false, true}) {
        Exact<double> x(m * k, 1), again(m * k, 1);
        std::memcpy(x.data(), b.data(), m * k * sizeof(double));
        std::memcpy(again.data(), b.data(), m * k * sizeof(double));
        nag::triangular(ran(GetParam()), nag::Triangular::solve, {L.data()}, d, x.data(), columns, transposed, 1);
        nag::triangular(ran(GetParam()), nag::Triangular::solve, {L.data()}, d, again.data(), columns, transposed, 3);
        EXPECT_EQ(std::memcmp(x.data(), again.data(), m * k * sizeof(double)), 0);
        for (std::size_t i = 0; i < m; ++i)
          for (std::size_t c = 0; c < k; ++c) {
            Wide s = 0, size = 0;
            for (std::size_t j = 0; j < m; ++j) {
              const bool stored = transposed ? j >= i : j <= i;
              const Wide term = stored ? static_cast<Wide>(transposed ? L[j * m + i] : L[i * m + j]) * x[j * k + c] : 0;
              s += term;
              size += std::fabs(term);
            }
            EXPECT_LE(std::fabs(s - b[i * k + c]), 8 * std::numeric_limits<double>::epsilon() * size) << i << ", " << c;
          }
      }
    }
}

TEST_P(Linalg, ProductsAndAMatrixForEachColumn) {
  Random random(3);
  for (const std::int64_t d : {1, 3, 32, 33, 140, 300})
    for (const std::size_t k : {1, 2, 3, 17})
      for (const bool transposed : {false, true}) {
        const std::size_t m = static_cast<std::size_t>(d);
        std::vector<Exact<double>> L;
        std::vector<const double*> all;
        for (std::size_t c = 0; c < k; ++c) {
          L.emplace_back(m * m, 1, std::numeric_limits<double>::quiet_NaN());
          for (std::size_t i = 0; i < m; ++i)
            for (std::size_t j = 0; j <= i; ++j) L[c][i * m + j] = i == j ? 2.0 : random.uniform() / std::sqrt(static_cast<double>(m));
          all.push_back(L[c].data());
        }
        const Exact<double> b(m * k, 1, random);
        Exact<double> x(m * k, 1), again(m * k, 1);
        std::memcpy(x.data(), b.data(), m * k * sizeof(double));
        std::memcpy(again.data(), b.data(), m * k * sizeof(double));
        nag::triangular(ran(GetParam()), nag::Triangular::product, all, d, x.data(), static_cast<std::int64_t>(k), transposed, 1);
        nag::triangular(ran(GetParam()), nag::Triangular::product, all, d, again.data(), static_cast<std::int64_t>(k), transposed, 3);
        EXPECT_EQ(std::memcmp(x.data(), again.data(), m * k * sizeof(double)), 0);
        for (std::size_t i = 0; i < m; ++i)
          for (std::size_t c = 0; c < k; ++c) {
            Wide s = 0, size = 0;
            for (std::size_t j = 0; j < m; ++j) {
              if (transposed ? j < i : j > i) continue;
              const Wide term = static_cast<Wide>(transposed ? L[c][j * m + i] : L[c][i * m + j]) * b[j * k + c];
              s += term;
              size += std::fabs(term);
            }
            EXPECT_LE(std::fabs(s - x[i * k + c]), 8 * std::numeric_limits<double>::epsilon() * size) << i << ", " << c;
          }
        nag::triangular(ran(GetParam()), nag::Triangular::solve, all, d, x.data(), static_cast<std::int64_t>(k), transposed, 2);
        for (std::size_t i = 0; i < m * k; ++i) EXPECT_NEAR(x[i], b[i], 1e-9);
      }
}

NAG_PER_ISA(Linalg);

}  // namespace
}  // namespace nag_test
