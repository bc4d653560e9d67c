// Coefficients as whole numbers beside bytes: what they round to, where they are left alone, and that the sweep's sums of them
// are exact, up to the largest numbers there are.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "engine/fixed_point.h"
#include "support.h"

namespace nag_test {
namespace {

using nag::FixedPanel;
using nag::FixedPoint;
using nag::PipeBlock;

constexpr std::ptrdiff_t kColumns = FixedPanel::kColumns;
constexpr std::int64_t kLargest = (std::int64_t(1) << 31) - (1 << 16);

std::int64_t number(const FixedPanel& panel, std::ptrdiff_t j) {
  const std::int16_t* const low = panel.halves + j / FixedPanel::kTogether * 2 * FixedPanel::kTogether + j % FixedPanel::kTogether;
  return 65536 * std::int64_t(low[FixedPanel::kTogether]) + *low;
}

void put(FixedPanel& panel, std::ptrdiff_t j, std::int64_t number) {
  std::int16_t* const low = panel.halves + j / FixedPanel::kTogether * 2 * FixedPanel::kTogether + j % FixedPanel::kTogether;
  *low = static_cast<std::int16_t>(static_cast<std::uint16_t>(number & 0xFFFF));
  low[FixedPanel::kTogether] = static_cast<std::int16_t>((number - *low) / 65536);
}

FixedPoint of(std::int64_t rows, std::int64_t panels = 1, bool taken = true) {
  nag::ProblemView v;
  v.storage = nag::Storage::u8;
  v.n = rows;
  nag::RowKernels<float> kernels{};
  kernels.fixed_bytes = taken;
  return FixedPoint(v, kernels, panels);
}

std::vector<float> normal(std::ptrdiff_t m, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> w;
  for (std::ptrdiff_t j = 0; j < m; ++j) w.push_back(static_cast<float>(random.uniform(-1, 1) * random.uniform(0, 1)));
  return w;
}

TEST(FixedPoint, RoundsToThirtyOneBitsOfThePanelsLargest) {
  for (const std::ptrdiff_t m : {std::ptrdiff_t(1), std::ptrdiff_t(31), std::ptrdiff_t(33), std::ptrdiff_t(1000), kColumns}) {
    std::vector<float> w = normal(m, static_cast<std::uint64_t>(m));
    w[static_cast<std::size_t>(m / 2)] = -2.0f;  // the largest
    FixedPoint fixed = of(FixedPoint::kRows);
    fixed.set(0, w.data(), m);
    const FixedPanel& panel = *fixed.from(0);
    ASSERT_GT(panel.unit, 0);
    EXPECT_EQ(number(panel, m / 2), -kLargest);
    for (std::ptrdiff_t j = 0; j < m; ++j)
      EXPECT_LE(std::fabs(static_cast<double>(number(panel, j)) * panel.unit - static_cast<double>(w[static_cast<std::size_t>(j)])),
                2.0 / static_cast<double>(kLargest) * 0.5001)
          << j << " of " << m;
    for (std::ptrdiff_t j = m; j < kColumns; ++j) EXPECT_EQ(number(panel, j), 0) << j << " of " << m;
  }
}

TEST(FixedPoint, LeavesAloneWhatWouldLoseDigitsOrIsNoNumber) {
  const auto unit = [](std::vector<float> w) {
    FixedPoint fixed = of(FixedPoint::kRows, 2);
    fixed.set(1, w.data(), static_cast<std::ptrdiff_t>(w.size()));
    EXPECT_EQ(fixed.from(0)->unit, 0);  // nobody has set it
    return fixed.from(1)->unit;
  };
  std::vector<float> w = normal(1000, 3);
  EXPECT_GT(unit(w), 0);
  w[17] = 1e4f;  // 40 000 times the mean of the others
  EXPECT_EQ(unit(w), 0);
  w[17] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(unit(w), 0);
  w[17] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(unit(w), 0);
  EXPECT_EQ(unit(std::vector<float>(100, 0.0f)), 0);
  EXPECT_GT(unit(std::vector<float>(100, 1e-44f)), 0);
  EXPECT_GT(unit(std::vector<float>(100, 3e38f)), 0);
}

TEST(FixedPoint, IsForManyRowsOfBytes) {
  EXPECT_NE(of(FixedPoint::kRows).from(0), nullptr);
  EXPECT_EQ(of(FixedPoint::kRows - 1).from(0), nullptr);
  EXPECT_EQ(of(FixedPoint::kRows, 1, false).from(0), nullptr);
}

class ByteSums : public PerIsa {};

struct Kind {
  bool extreme;  // lanes as full as they can be, and low halves as far from zero as they go
  bool mixed;    // every second panel in float32
  bool copied;   // rows copied over those whose gradient is added
};

void check_sums(const nag::RowKernels<float>& kernels, std::ptrdiff_t d, std::ptrdiff_t group, Kind kind) {
  Random random(static_cast<std::uint64_t>(d * 16 + group + kind.extreme));
  const std::ptrdiff_t panels = (d + kColumns - 1) / kColumns, ld = d + 3;
  const std::size_t padded = static_cast<std::size_t>((d + 31) / 32 * 32), bytes = static_cast<std::size_t>((group - 1) * ld + d);
  const double unit = std::ldexp(1.0, -31);
  std::vector<FixedPanel> fixed(static_cast<std::size_t>(panels));
  for (std::ptrdiff_t i = 0; i < panels; ++i) fixed[static_cast<std::size_t>(i)].unit = kind.mixed && i % 2 == 0 ? 0 : unit;
  std::vector<float> w(padded), g(padded), r(static_cast<std::size_t>(group));
  std::vector<std::int64_t> q;
  for (std::ptrdiff_t j = 0; j < d; ++j) {
    std::int64_t n = kind.extreme ? (j < d / 2 ? kLargest : -kLargest) - 32768
                                  : static_cast<std::int64_t>(random.uniform(-1, 1) * static_cast<double>(kLargest));
    if (kind.mixed) n = n / 65536 * 256;  // a float32 as well
    q.push_back(n);
    put(fixed[static_cast<std::size_t>(j / kColumns)], j % kColumns, n);
    w[static_cast<std::size_t>(j)] = static_cast<float>(static_cast<double>(n) * unit);
    g[static_cast<std::size_t>(j)] = static_cast<float>(random.uniform(-1, 1));
  }
  Exact<std::uint8_t> x(bytes, 0, 255);
  std::vector<std::uint8_t> p(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    if (!kind.extreme) x[i] = static_cast<std::uint8_t>(random.below(256));
    p[i] = static_cast<std::uint8_t>(random.below(256));
  }
  for (float& v : r) v = static_cast<float>(random.uniform(-1, 1));
  const auto run = [&](const FixedPanel* with, std::ptrdiff_t prev, std::vector<float>& to, std::uint8_t* slot) {
    std::vector<float> z(static_cast<std::size_t>(group));
    PipeBlock<float> b{};
    b.d = d;
    b.group = group;
    b.next = x.data();
    b.prev = slot ? slot : p.data();
    b.copy = slot;
    b.ldx = b.ldp = ld;
    b.next_rows = group;
    b.prev_rows = prev;
    b.w = w.data();
    b.z = z.data();
    b.r = r.data();
    b.g = to.data();
    b.far = 2048;
    b.near = group == 8 ? 512 : 0;
    b.fixed = with;
    kernels.pipe[static_cast<int>(nag::Storage::u8)](b);
    return z;
  };
  std::vector<float> in_float = g, in_fixed = g, alone = g;
  std::vector<std::uint8_t> slot = p;
  run(nullptr, group, in_float, nullptr);
  const std::vector<float> z = run(fixed.data(), group, in_fixed, kind.copied ? slot.data() : nullptr);
  EXPECT_EQ(in_fixed, in_float) << "the gradient, d " << d;
  EXPECT_EQ(run(fixed.data(), 0, alone, nullptr), z) << "without the gradient, d " << d;
  EXPECT_EQ(alone, g);
  for (std::ptrdiff_t i = 0; i < group; ++i) {
    if (kind.copied) {
      EXPECT_EQ(std::memcmp(slot.data() + i * ld, x.data() + i * ld, static_cast<std::size_t>(d)), 0) << "row " << i << " d " << d;
    }
    long double exact = 0, size = 0;
    for (std::ptrdiff_t j = 0; j < d; ++j) {
      const long double term = static_cast<long double>(x[static_cast<std::size_t>(i * ld + j)]) * static_cast<long double>(q[static_cast<std::size_t>(j)]) * unit;
      exact += term;
      size += std::fabs(term);
    }
    const float got = z[static_cast<std::size_t>(i)];
    if (kind.mixed) {
      EXPECT_LE(std::fabs(static_cast<long double>(got) - exact), 40 * std::numeric_limits<float>::epsilon() * size) << "row " << i << " d " << d;
    } else {
      EXPECT_EQ(got, static_cast<float>(static_cast<double>(exact))) << "row " << i << " d " << d << " group " << group;
    }
  }
}

TEST_P(ByteSums, AreExactAndLeaveTheGradientAsItIs) {
  const nag::RowKernels<float>& kernels = nag_test::kernels<float>(GetParam());
  if (!kernels.fixed_bytes) GTEST_SKIP() << GetParam()->name << " sums bytes in float32";
  for (const std::ptrdiff_t d : {std::ptrdiff_t(5), std::ptrdiff_t(64), std::ptrdiff_t(300), kColumns - 1, kColumns, kColumns + 33, 3 * kColumns + 17})
    for (const std::ptrdiff_t group : {4, 8})
      for (const bool extreme : {false, true})
        for (const bool mixed : {false, true})
          for (const bool copied : {false, true})
            if (!copied || group < 8) check_sums(kernels, d, group, {extreme, mixed, copied});
}
NAG_PER_ISA(ByteSums);

}  // namespace
}  // namespace nag_test
