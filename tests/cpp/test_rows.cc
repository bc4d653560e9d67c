// Z = X W and G += R X against long double loops, over awkward lengths, misalignments, leading dimensions and columns.
#include "support.h"

namespace nag_test {
namespace {

constexpr std::ptrdiff_t kColumns[] = {1, 2, 5, 10, 11, 23};

struct Case {
  std::ptrdiff_t rows, d, k, gap;  // gap: elements between the end of a row of X and the next
  std::size_t shift;
};

template <class Check>
void for_each_case(int lanes, const Check& check) {
  for (const std::ptrdiff_t d : awkward_lengths(lanes))
    for (const std::ptrdiff_t rows : awkward_lengths(lanes))
      for (const std::ptrdiff_t k : kColumns)
        for (const std::size_t shift : {std::size_t(0), std::size_t(1), std::size_t(3)})
          check(Case{rows, d, k, shift == 1 ? 5 : 0, shift});
  // Past the short-row cutoff, and past one panel of columns.
  for (const std::ptrdiff_t d : {std::ptrdiff_t(32 * lanes + 1), std::ptrdiff_t(2048), std::ptrdiff_t(4999)})
    for (const std::ptrdiff_t k : {1, 3}) check(Case{9, d, k, 1, 1});
  check(Case{333, 19, 1, 0, 1});  // more rows than one chain of `outer` adds
  check(Case{333, 19, 4, 0, 1});
}

template <class T>
void check_dot(const KernelTable* table, const Case& c, bool accumulate, bool as_rows = false) {
  const RowKernels<T>& kernel = kernels<T>(table);
  const int lanes = kernel.lanes;
  Random random(static_cast<std::uint64_t>(c.rows * 7919 + c.d * 31 + c.k));
  const std::ptrdiff_t ldx = c.d + c.gap, ldz = c.rows + 2, ldw = static_cast<std::ptrdiff_t>(padded(c.d, lanes));
  Exact<T> X(static_cast<std::size_t>((c.rows - 1) * ldx + c.d), c.shift, random);
  Exact<T> W(static_cast<std::size_t>(c.k * ldw), c.shift);
  for (std::ptrdiff_t q = 0; q < c.k; ++q)
    for (std::ptrdiff_t j = 0; j < c.d; ++j) W[static_cast<std::size_t>(q * ldw + j)] = static_cast<T>(random.uniform());
  Exact<T> Z(static_cast<std::size_t>((c.k - 1) * ldz + c.rows), c.shift, random);
  const Exact<T> before = [&] {
    Exact<T> copy(Z.size());
    for (std::size_t i = 0; i < Z.size(); ++i) copy[i] = Z[i];
    return copy;
  }();
  const int own = static_cast<int>(Stored<T>::kind);
  if (as_rows) kernel.row_dot[own](X.data(), ldx, c.rows, c.d, W.data(), Z.data(), accumulate, {});
  else kernel.dot(X.data(), ldx, c.rows, c.d, W.data(), ldw, c.k, Z.data(), ldz, accumulate, {});

  const double chain = static_cast<double>(std::min<std::ptrdiff_t>(c.d, 2048) / (as_rows ? kernel.row_lanes : lanes)) + 8;
  for (std::ptrdiff_t q = 0; q < c.k; ++q)
    for (std::ptrdiff_t i = 0; i < (q + 1 < c.k ? ldz : c.rows); ++i) {
      const std::size_t at = static_cast<std::size_t>(q * ldz + i);
      if (i >= c.rows) {
        EXPECT_EQ(Z[at], before[at]) << "wrote between the columns of Z";
        continue;
      }
      long double want = accumulate ? before[at] : T(0), size = std::fabs(want);
      for (std::ptrdiff_t j = 0; j < c.d; ++j) {
        const long double term = static_cast<long double>(X[static_cast<std::size_t>(i * ldx + j)]) * W[static_cast<std::size_t>(q * ldw + j)];
        want += term;
        size += std::fabs(term);
      }
      EXPECT_LE(std::fabs(static_cast<long double>(Z[at]) - want), chain * std::numeric_limits<T>::epsilon() * size)
          << "row " << i << " column " << q << " of rows " << c.rows << " d " << c.d << " k " << c.k;
    }
}

template <class T>
void check_outer(const KernelTable* table, const Case& c, bool as_rows = false) {
  const RowKernels<T>& kernel = kernels<T>(table);
  Random random(static_cast<std::uint64_t>(c.rows * 104729 + c.d * 37 + c.k));
  const std::ptrdiff_t ldx = c.d + c.gap, ldr = c.rows + 1, ldg = static_cast<std::ptrdiff_t>(padded(c.d, kernel.lanes));
  Exact<T> X(static_cast<std::size_t>((c.rows - 1) * ldx + c.d), c.shift, random);
  Exact<T> R(static_cast<std::size_t>((c.k - 1) * ldr + c.rows), c.shift, random);
  Exact<T> G(static_cast<std::size_t>(c.k * ldg), c.shift, random);
  std::vector<T> before(G.data(), G.data() + G.size());
  if (as_rows) kernel.row_outer[static_cast<int>(Stored<T>::kind)](X.data(), ldx, c.rows, c.d, R.data(), G.data(), {});
  else kernel.outer(X.data(), ldx, c.rows, c.d, R.data(), ldr, c.k, G.data(), ldg, {});

  const double chain = 16 + 8 + static_cast<double>(c.rows) / 32;
  for (std::ptrdiff_t q = 0; q < c.k; ++q)
    for (std::ptrdiff_t j = 0; j < c.d; ++j) {
      const std::size_t at = static_cast<std::size_t>(q * ldg + j);
      long double want = before[at], size = std::fabs(want);
      for (std::ptrdiff_t i = 0; i < c.rows; ++i) {
        const long double term = static_cast<long double>(X[static_cast<std::size_t>(i * ldx + j)]) * R[static_cast<std::size_t>(q * ldr + i)];
        want += term;
        size += std::fabs(term);
      }
      EXPECT_LE(std::fabs(static_cast<long double>(G[at]) - want), chain * std::numeric_limits<T>::epsilon() * size)
          << "coefficient " << j << " column " << q << " of rows " << c.rows << " d " << c.d << " k " << c.k;
    }
}

// One column of W: X as stored gives the bits of its widened copy, and what is asked for ahead of time changes none.
template <class T, class S>
void check_stored(const KernelTable* table, const Case& c, bool accumulate) {
  const RowKernels<T>& kernel = kernels<T>(table);
  const int stored = static_cast<int>(Stored<S>::kind);
  Random random(static_cast<std::uint64_t>(c.rows * 31337 + c.d * 41));
  const std::ptrdiff_t ldx = c.d + c.gap, ldc = c.d + 3;
  const std::size_t rows = static_cast<std::size_t>(c.rows), ldw = padded(c.d, kernel.lanes);
  Exact<S> X(static_cast<std::size_t>((c.rows - 1) * ldx + c.d), c.shift);
  for (std::size_t i = 0; i < X.size(); ++i) X[i] = Stored<S>::make(random.uniform());
  Exact<T> copy(static_cast<std::size_t>((c.rows - 1) * ldc + c.d), 0, T(0)), W(ldw, 0), R(rows, c.shift, random);
  for (std::ptrdiff_t j = 0; j < c.d; ++j) W[static_cast<std::size_t>(j)] = static_cast<T>(random.uniform());
  kernel.decode[stored](X.data(), ldx * static_cast<std::ptrdiff_t>(sizeof(S)), sizeof(S), c.rows, c.d, copy.data(), ldc, 0);
  Exact<T> z(rows, 0, T(0.5)), g(ldw, 0, T(0.5));
  kernel.dot(copy.data(), ldc, c.rows, c.d, W.data(), static_cast<std::ptrdiff_t>(ldw), 1, z.data(), c.rows, accumulate, {});
  kernel.outer(copy.data(), ldc, c.rows, c.d, R.data(), c.rows, 1, g.data(), static_cast<std::ptrdiff_t>(ldw), {});

  const bool elsewhere = sizeof(S) == sizeof(T) && kernel.row_lanes != kernel.lanes;  // rows in narrower vectors: other bits
  Exact<T> z0(rows, 0, T(0.5)), g0(ldw, 0, T(0.5));
  kernel.row_dot[stored](X.data(), ldx, c.rows, c.d, W.data(), z0.data(), accumulate, {});
  kernel.row_outer[stored](X.data(), ldx, c.rows, c.d, R.data(), g0.data(), {});
  const T *want_z = elsewhere ? z0.data() : z.data(), *want_g = elsewhere ? g0.data() : g.data();
  for (const bool all : {false, true})
    for (int kind = 0; kind < 3; ++kind) {
      nag::Ahead ahead;
      ahead.all = all;
      if (kind == 1) ahead.next = X.data();
      if (kind == 2) ahead.apart = c.rows * static_cast<std::ptrdiff_t>(sizeof(S));
      Exact<T> z1(rows, 0, T(0.5)), g1(ldw, 0, T(0.5));
      kernel.row_dot[stored](X.data(), ldx, c.rows, c.d, W.data(), z1.data(), accumulate, ahead);
      kernel.row_outer[stored](X.data(), ldx, c.rows, c.d, R.data(), g1.data(), ahead);
      for (std::size_t i = 0; i < rows; ++i) ASSERT_EQ(z1[i], want_z[i]) << "row " << i << " of " << c.rows << " d " << c.d << " item " << sizeof(S);
      for (std::ptrdiff_t j = 0; j < c.d; ++j)
        ASSERT_EQ(g1[static_cast<std::size_t>(j)], want_g[j]) << "coefficient " << j << " of rows " << c.rows << " d " << c.d << " item " << sizeof(S);
    }
}

class Rows : public PerIsa {};
TEST_P(Rows, DotMatchesWideSums) {
  for (const bool accumulate : {false, true}) {
    for_each_case(GetParam()->f32.lanes, [&](const Case& c) { check_dot<float>(GetParam(), c, accumulate); });
    for_each_case(GetParam()->f64.lanes, [&](const Case& c) { check_dot<double>(GetParam(), c, accumulate); });
  }
}
TEST_P(Rows, OuterMatchesWideSums) {
  for_each_case(GetParam()->f32.lanes, [&](const Case& c) { check_outer<float>(GetParam(), c); });
  for_each_case(GetParam()->f64.lanes, [&](const Case& c) { check_outer<double>(GetParam(), c); });
}
TEST_P(Rows, OfOneColumnMatchWideSums) {
  const auto both = [&](const Case& c, auto number) {
    using T = decltype(number);
    if (c.k != 1) return;
    check_dot<T>(GetParam(), c, true, true);
    check_outer<T>(GetParam(), c, true);
  };
  for_each_case(GetParam()->f32.row_lanes, [&](const Case& c) { both(c, 0.0f); });
  for_each_case(GetParam()->f64.row_lanes, [&](const Case& c) { both(c, 0.0); });
}
TEST_P(Rows, StoredNumbersGiveTheBitsOfTheirCopy) {
  const auto all = [&](const Case& c, auto number) {
    using T = decltype(number);
    if (c.k != 1) return;
    for (const bool accumulate : {false, true}) {
      check_stored<T, std::uint8_t>(GetParam(), c, accumulate);
      check_stored<T, nag::bf16>(GetParam(), c, accumulate);
      check_stored<T, float>(GetParam(), c, accumulate);
      if constexpr (sizeof(T) == sizeof(double)) check_stored<T, double>(GetParam(), c, accumulate);
    }
  };
  for_each_case(GetParam()->f32.lanes, [&](const Case& c) { all(c, 0.0f); });
  for_each_case(GetParam()->f64.lanes, [&](const Case& c) { all(c, 0.0); });
}

// One NaN belongs to one margin and, through the gradient, to one column: lanes do not leak into each other.
TEST_P(Rows, NanStaysInItsRowAndColumn) {
  const RowKernels<float>& kernel = kernels<float>(GetParam());
  const std::ptrdiff_t rows = 2 * kernel.lanes + 3, d = kernel.lanes + 5, ld = static_cast<std::ptrdiff_t>(padded(d, kernel.lanes));
  for (const std::ptrdiff_t bad : {std::ptrdiff_t(0), rows / 2, rows - 1}) {
    Exact<float> X(static_cast<std::size_t>(rows * d), 0, 1.0f), W(static_cast<std::size_t>(ld), 0, 0.0f);
    Exact<float> Z(static_cast<std::size_t>(rows)), R(static_cast<std::size_t>(rows), 0, 1.0f), G(static_cast<std::size_t>(ld));
    for (std::ptrdiff_t j = 0; j < d; ++j) W[static_cast<std::size_t>(j)] = 1.0f;
    X[static_cast<std::size_t>(bad * d + d - 1)] = std::numeric_limits<float>::quiet_NaN();
    kernel.dot(X.data(), d, rows, d, W.data(), ld, 1, Z.data(), rows, false, {});
    kernel.outer(X.data(), d, rows, d, R.data(), rows, 1, G.data(), ld, {});
    for (std::ptrdiff_t i = 0; i < rows; ++i) EXPECT_EQ(std::isnan(Z[static_cast<std::size_t>(i)]), i == bad);
    for (std::ptrdiff_t j = 0; j < d; ++j) EXPECT_EQ(std::isnan(G[static_cast<std::size_t>(j)]), j == d - 1);
  }
}
NAG_PER_ISA(Rows);

}  // namespace
}  // namespace nag_test
