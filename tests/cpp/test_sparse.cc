// CSR margins and gradients against long double loops: 32- and 64-bit indices, both storages, empty rows, slices, owners.
#include <algorithm>
#include <type_traits>

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

class Sparse : public PerIsa {};
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
