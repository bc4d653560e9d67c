// The pipeline over long rows: margins of the next rows and gradient of the previous ones against long double loops, on every
// instruction set, for every storage, group and number of rows; and the promise that neither side's bits depend on the other.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "support.h"

namespace nag_test {
namespace {

using nag::PipeBlock;
using nag::Storage;
using nag::bf16;

template <class T> const RowKernels<T>& of(const KernelTable* t) { return nag::rows_of<T>(*t); }

double noise(std::uint64_t& state) {  // in (-1, 1)
  state = state * 6364136223846793005ULL + 1442695040888963407ULL;
  return static_cast<double>(static_cast<std::int64_t>(state) >> 11) / static_cast<double>(std::int64_t(1) << 52);
}

template <class T, class S>
void check(const KernelTable* table, std::ptrdiff_t d, std::ptrdiff_t next_rows, std::ptrdiff_t prev_rows, std::ptrdiff_t group) {
  const RowKernels<T>& kernel = of<T>(table);
  ASSERT_NE(kernel.pipe[static_cast<int>(Stored<S>::kind)], nullptr);
  const std::ptrdiff_t ld = d + 3, padded_d = (d + kernel.lanes - 1) / kernel.lanes * kernel.lanes;
  std::uint64_t state = static_cast<std::uint64_t>(d * 31 + next_rows * 7 + prev_rows + group);
  // Exactly as many elements as the kernel may touch, so that AddressSanitizer sees one read too many.
  const auto rows = [&](std::ptrdiff_t count) {
    std::vector<S> x(static_cast<std::size_t>(count > 0 ? (count - 1) * ld + d : 0));
    for (S& s : x) s = Stored<S>::make(noise(state));
    return x;
  };
  const std::vector<S> next = rows(next_rows), prev = rows(prev_rows);
  std::vector<T> w(static_cast<std::size_t>(padded_d)), g(static_cast<std::size_t>(padded_d)), z(static_cast<std::size_t>(next_rows)),
      r(static_cast<std::size_t>(prev_rows));
  for (std::ptrdiff_t j = 0; j < d; ++j) {
    w[static_cast<std::size_t>(j)] = static_cast<T>(noise(state));
    g[static_cast<std::size_t>(j)] = static_cast<T>(noise(state));
  }
  for (T& v : r) v = static_cast<T>(noise(state));
  const std::vector<T> before = g;
  const auto run = [&](std::ptrdiff_t n, std::ptrdiff_t p, std::vector<T>& to_z, std::vector<T>& to_g, std::vector<S>* slot = nullptr) {
    PipeBlock<T> b{};
    b.d = d;
    b.group = group;
    b.next = next.data();
    b.prev = slot ? slot->data() : prev.data();
    b.copy = slot ? slot->data() : nullptr;
    b.ldx = b.ldp = ld;
    b.next_rows = n;
    b.prev_rows = p;
    b.w = w.data();
    b.z = to_z.data();
    b.r = r.data();
    b.g = to_g.data();
    b.near = group == 4 ? 512 : group == 8 ? 2048 : 0;
    b.pieces = group == 1;
    kernel.pipe[static_cast<int>(Stored<S>::kind)](b);
  };
  run(next_rows, prev_rows, z, g);

  const double eps = std::numeric_limits<T>::epsilon();
  for (std::ptrdiff_t i = 0; i < next_rows; ++i) {
    long double want = 0, size = 0;
    for (std::ptrdiff_t j = 0; j < d; ++j) {
      const long double term = Stored<S>::wide(next[static_cast<std::size_t>(i * ld + j)]) * w[static_cast<std::size_t>(j)];
      want += term;
      size += std::fabs(term);
    }
    EXPECT_LE(std::fabs(static_cast<long double>(z[static_cast<std::size_t>(i)]) - want), 40 * eps * size) << "row " << i << " d " << d;
  }
  for (std::ptrdiff_t j = 0; j < d; ++j) {
    long double want = before[static_cast<std::size_t>(j)], size = std::fabs(want);
    for (std::ptrdiff_t i = 0; i < prev_rows; ++i) {
      const long double term = Stored<S>::wide(prev[static_cast<std::size_t>(i * ld + j)]) * r[static_cast<std::size_t>(i)];
      want += term;
      size += std::fabs(term);
    }
    EXPECT_LE(std::fabs(static_cast<long double>(g[static_cast<std::size_t>(j)]) - want), (4 + static_cast<double>(prev_rows)) * eps * size)
        << "column " << j << " d " << d;
  }
  for (std::ptrdiff_t j = d; j < padded_d; ++j) EXPECT_EQ(g[static_cast<std::size_t>(j)], T(0)) << "padding " << j;

  // Rows copied over those whose gradient the same call adds: both sides' bits stay, and the copy is what was read.
  if (next_rows <= prev_rows && group < 8) {
    std::vector<S> slot = prev;
    std::vector<T> z_copied(z.size()), g_copied = before;
    run(next_rows, prev_rows, z_copied, g_copied, &slot);
    EXPECT_EQ(z, z_copied);
    EXPECT_EQ(g, g_copied);
    for (std::ptrdiff_t i = 0; i < next_rows; ++i)
      EXPECT_EQ(std::memcmp(&slot[static_cast<std::size_t>(i * ld)], &next[static_cast<std::size_t>(i * ld)], static_cast<std::size_t>(d) * sizeof(S)), 0)
          << "row " << i << " d " << d;
  }

  // Each side alone gives the same bits.
  std::vector<T> z_alone(z.size()), g_alone = before, unused_z(z.size()), unused_g = before;
  run(next_rows, 0, z_alone, unused_g);
  run(0, prev_rows, unused_z, g_alone);
  EXPECT_EQ(unused_g, before);
  EXPECT_EQ(z, z_alone);
  EXPECT_EQ(g, g_alone);
}

class Pipe : public PerIsa {};
TEST_P(Pipe, MatchesWideSumsAndSidesAreIndependent) {
  const std::ptrdiff_t n = GetParam()->f32.lanes;
  for (const std::ptrdiff_t d : {std::ptrdiff_t(1), std::ptrdiff_t(3), n - 1, n, n + 1, 4 * n, 8 * n + 5, std::ptrdiff_t(2048), std::ptrdiff_t(2051),
                                 std::ptrdiff_t(5000)})
    for (const std::ptrdiff_t group : {1, 2, 4, 8})
      for (const auto& [next, prev] : std::vector<std::pair<std::ptrdiff_t, std::ptrdiff_t>>{{4, 4}, {1, 0}, {0, 3}, {7, 16}, {16, 5}}) {
        check<float, float>(GetParam(), d, next, prev, group);
        check<float, bf16>(GetParam(), d, next, prev, group);
        check<float, std::uint8_t>(GetParam(), d, next, prev, group);
        check<double, double>(GetParam(), d, next, prev, group);
        check<double, float>(GetParam(), d, next, prev, group);
        check<double, bf16>(GetParam(), d, next, prev, group);
        check<double, std::uint8_t>(GetParam(), d, next, prev, group);
      }
}
TEST_P(Pipe, WiderStorageThanComputeIsAbsent) {
  EXPECT_EQ(GetParam()->f32.pipe[static_cast<int>(Storage::f64)], nullptr);
}
NAG_PER_ISA(Pipe);

}  // namespace
}  // namespace nag_test
