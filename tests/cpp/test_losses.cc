// Every registered loss: against long double formulas where this file has one, and for all of them, the next one
// included, against its own difference quotient.
#include <functional>
#include <map>

#include "support.h"

namespace nag_test {
namespace {

using Wide = long double;
struct Formula {
  std::function<Wide(Wide z, Wide y, Wide c)> value, residual;
};

Wide sigmoid(Wide t) { return t >= 0 ? 1 / (1 + std::exp(-t)) : std::exp(t) / (1 + std::exp(t)); }
Wide clip(Wide x, Wide c) { return std::max(-c, std::min(c, x)); }

const std::map<std::string, Formula>& formulas() {
  static const std::map<std::string, Formula> all = {
      {"squared", {[](Wide z, Wide y, Wide) { return (z - y) * (z - y) / 2; }, [](Wide z, Wide y, Wide) { return z - y; }}},
      {"logistic",
       {[](Wide z, Wide y, Wide) { return std::max(-y * z, Wide(0)) + std::log1p(std::exp(-std::fabs(z))); },
        [](Wide z, Wide y, Wide) { return -y * sigmoid(-y * z); }}},
      {"huber",
       {[](Wide z, Wide y, Wide c) {
          const Wide u = std::fabs(z - y);
          return u <= c ? u * u / 2 : c * (u - c / 2);
        },
        [](Wide z, Wide y, Wide c) { return clip(z - y, c); }}},
      {"poisson", {[](Wide z, Wide y, Wide) { return std::exp(z) - y * z; }, [](Wide z, Wide y, Wide) { return std::exp(z) - y; }}},
      {"squared_hinge",
       {[](Wide z, Wide y, Wide) {
          const Wide u = std::max(Wide(0), 1 - y * z);
          return u * u / 2;
        },
        [](Wide z, Wide y, Wide) { return -y * std::max(Wide(0), 1 - y * z); }}}};
  return all;
}

double target(nag::Domain domain, Random& random) {
  switch (domain) {
    case nag::Domain::binary: return random.bits() & 1 ? 1.0 : -1.0;
    case nag::Domain::nonnegative: return static_cast<double>(random.below(20));
    default: return random.uniform(-5, 5);
  }
}

template <class T>
struct Block {
  Exact<T> zdot, offset, y, s, z, r, sr;
  nag::MarginBlock<T> args;
  Block(std::ptrdiff_t rows, int lanes, std::size_t shift, nag::Domain domain, double reach, Random& random)
      : zdot(padded(rows, lanes), shift), offset(static_cast<std::size_t>(rows), shift, random), y(static_cast<std::size_t>(rows), shift),
        s(static_cast<std::size_t>(rows), shift, random, 0.1, 3.0), z(static_cast<std::size_t>(rows), shift),
        r(static_cast<std::size_t>(rows), shift), sr(padded(rows, lanes), shift),
        args{rows, zdot.data(), T(0.25), offset.data(), y.data(), s.data(), T(1.5), z.data(), r.data(), sr.data(), nullptr} {
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
      zdot[i] = static_cast<T>(random.uniform(-reach, reach));
      y[i] = static_cast<T>(target(domain, random));
    }
  }
};

template <class T>
void check_against_formulas(const KernelTable* table) {
  const RowKernels<T>& kernel = kernels<T>(table);
  const Wide eps = std::numeric_limits<T>::epsilon();
  for (int l = 0; l < nag::kLossCount; ++l) {
    const auto formula = formulas().find(nag::kLosses[l].name);
    if (kernel.loss[l] == nullptr || formula == formulas().end()) continue;
    for (const std::ptrdiff_t rows : awkward_lengths(kernel.lanes))
      for (const std::size_t shift : {std::size_t(0), std::size_t(1)})
        for (const double reach : {3.0, 30.0}) {
          Random random(static_cast<std::uint64_t>(rows * 10 + l));
          Block<T> b(rows, kernel.lanes, shift, nag::kLosses[l].targets, reach, random);
          const double total = kernel.loss[l](b.args);
          Wide want = 0, size = 0;
          for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
            const T z = b.z[i];
            EXPECT_LE(std::fabs(Wide(z) - (Wide(b.zdot[i]) + b.args.bias + b.offset[i])),
                      2 * eps * (std::fabs(Wide(b.zdot[i])) + 0.25L + std::fabs(Wide(b.offset[i]))));
            const Wide value = formula->second.value(z, b.y[i], b.args.c), residual = formula->second.residual(z, b.y[i], b.args.c);
            // e^z and y are what Poisson subtracts, z and y the others: their rounding is in any result.
            const Wide operands = std::string(nag::kLosses[l].name) == "poisson" ? std::exp(Wide(z)) + std::fabs(Wide(b.y[i]))
                                                                                 : std::fabs(residual);
            EXPECT_LE(std::fabs(Wide(b.r[i]) - residual), 4 * eps * (operands + (operands == 0 ? 1 : 0)))
                << nag::kLosses[l].name << " z " << z << " y " << b.y[i];
            EXPECT_EQ(b.sr[i], static_cast<T>(b.r[i] * b.s[i]));
            want += b.s[i] * value;
            size += b.s[i] * (std::fabs(value) + (operands + 1) * (1 + std::fabs(Wide(z) * b.y[i])));
          }
          EXPECT_LE(std::fabs(total - want), 12 * eps * size) << nag::kLosses[l].name << " rows " << rows;
        }
  }
}

class Losses : public PerIsa {};
TEST_P(Losses, MatchWideFormulas) {
  check_against_formulas<float>(GetParam());
  check_against_formulas<double>(GetParam());
}

// The residual is the derivative of the value, for whatever the registry holds.
TEST_P(Losses, ResidualIsTheDerivative) {
  const RowKernels<double>& kernel = kernels<double>(GetParam());
  for (int l = 0; l < nag::kLossCount; ++l) {
    if (kernel.loss[l] == nullptr) continue;
    Random random(static_cast<std::uint64_t>(l));
    for (int trial = 0; trial < 200; ++trial) {
      const double h = 1e-5, y = target(nag::kLosses[l].targets, random), z = random.uniform(-4, 4);
      double at[3], r[3];
      for (int side = 0; side < 3; ++side) {
        std::vector<double> zdot(padded(1, kernel.lanes), z + (side - 1) * h), sr(zdot.size());
        const nag::MarginBlock<double> args{1, zdot.data(), 0.0, nullptr, &y, nullptr, 1.5, nullptr, r + side, sr.data(), nullptr};
        at[side] = kernel.loss[l](args);
      }
      // The curvature is bounded near here, but may jump where a loss changes its piece: then by h times the jump.
      EXPECT_NEAR((at[2] - at[0]) / (2 * h), r[1], 1e-4 * (1 + std::fabs(r[1]))) << nag::kLosses[l].name << " z " << z << " y " << y;
      if (std::isfinite(nag::kLosses[l].curvature_bound)) {
        EXPECT_LE((r[2] - r[0]) / (2 * h), nag::kLosses[l].curvature_bound * (1 + 1e-6)) << nag::kLosses[l].name;
      }
    }
  }
}

template <class T>
void check_nan(const KernelTable* table) {
  const RowKernels<T>& kernel = kernels<T>(table);
  const std::ptrdiff_t rows = 2 * kernel.lanes + 3;
  for (int l = 0; l < nag::kLossCount; ++l) {
    if (kernel.loss[l] == nullptr) continue;
    for (const std::size_t bad : {std::size_t(0), static_cast<std::size_t>(kernel.lanes), static_cast<std::size_t>(rows - 1)}) {
      Random random(3);
      Block<T> b(rows, kernel.lanes, 0, nag::kLosses[l].targets, 3.0, random);
      b.zdot[bad] = std::numeric_limits<T>::quiet_NaN();
      EXPECT_TRUE(std::isnan(kernel.loss[l](b.args))) << nag::kLosses[l].name;
      for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i)
        EXPECT_EQ(std::isnan(b.r[i]), i == bad) << nag::kLosses[l].name << " row " << i;
    }
  }
}
TEST_P(Losses, NanIsSeenAndStaysInItsRow) {
  check_nan<float>(GetParam());
  check_nan<double>(GetParam());
}

template <class T>
void check_softmax(const KernelTable* table) {
  const RowKernels<T>& kernel = kernels<T>(table);
  const Wide eps = std::numeric_limits<T>::epsilon();
  for (const std::ptrdiff_t rows : awkward_lengths(kernel.lanes))
    for (const std::ptrdiff_t k : {2, 3, 10})
      for (const bool probabilities : {false, true})
        for (const double reach : {2.0, 2000.0}) {
          Random random(static_cast<std::uint64_t>(rows * 100 + k));
          const std::ptrdiff_t ld = static_cast<std::ptrdiff_t>(padded(rows, kernel.lanes));
          const std::size_t nk = static_cast<std::size_t>(rows * k), n = static_cast<std::size_t>(rows);
          Exact<T> zdot(static_cast<std::size_t>(k * ld)), bias(static_cast<std::size_t>(k), 0, random), offset(nk, 1, random), y(n, 1), p(nk, 1, random, 0.0, 1.0);
          Exact<T> s(n, 1, random, 0.1, 3.0), z(nk, 1), r(nk, 1), sr(static_cast<std::size_t>(k * ld));
          for (std::size_t i = 0; i < n; ++i) {
            y[i] = static_cast<T>(random.below(k));
            Wide sum = 0;
            for (std::ptrdiff_t c = 0; c < k; ++c) sum += p[i * static_cast<std::size_t>(k) + static_cast<std::size_t>(c)];
            for (std::ptrdiff_t c = 0; c < k; ++c) {
              T& one = p[i * static_cast<std::size_t>(k) + static_cast<std::size_t>(c)];
              one = static_cast<T>(one / sum);
              zdot[static_cast<std::size_t>(c * ld) + i] = static_cast<T>(random.uniform(-reach, reach));
            }
          }
          const nag::SoftmaxBlock<T> args{rows, k, ld, zdot.data(), bias.data(), offset.data(), probabilities ? nullptr : y.data(),
                                          probabilities ? p.data() : nullptr, s.data(), z.data(), r.data(), sr.data()};
          const double total = kernel.softmax(args);
          Wide want = 0, size = 0;
          for (std::size_t i = 0; i < n; ++i) {
            const T* zi = z.data() + i * static_cast<std::size_t>(k);
            const Wide top = *std::max_element(zi, zi + k);
            Wide t = 0, picked = 0;
            for (std::ptrdiff_t c = 0; c < k; ++c) {
              t += std::exp(zi[c] - top);
              const Wide e = probabilities ? Wide(p[i * static_cast<std::size_t>(k) + static_cast<std::size_t>(c)]) : Wide(y[i] == static_cast<T>(c));
              picked += e * zi[c];
            }
            for (std::ptrdiff_t c = 0; c < k; ++c) {
              const std::size_t at = i * static_cast<std::size_t>(k) + static_cast<std::size_t>(c);
              const Wide e = probabilities ? Wide(p[at]) : Wide(y[i] == static_cast<T>(c));
              const Wide share = std::exp(zi[c] - top) / t;
              EXPECT_LE(std::fabs(r[at] - (share - e)), eps * ((8 + std::fabs(zi[c] - top)) * share + 4 * e) + std::numeric_limits<T>::min())
                  << "k " << k << " class " << c;
              EXPECT_EQ(sr[static_cast<std::size_t>(c * ld) + i], static_cast<T>(r[at] * s[i]));
            }
            const Wide value = std::log(t) + top - picked;
            want += s[i] * value;
            size += s[i] * (std::fabs(value) + std::fabs(top) + std::fabs(picked) + 1);
          }
          EXPECT_LE(std::fabs(total - want), 16 * eps * size) << "rows " << rows << " k " << k;
          zdot[static_cast<std::size_t>((k - 1) * ld)] = std::numeric_limits<T>::quiet_NaN();
          EXPECT_TRUE(std::isnan(kernel.softmax(args)));
        }
}
TEST_P(Losses, SoftmaxMatchesWideFormula) {
  check_softmax<float>(GetParam());
  check_softmax<double>(GetParam());
}
NAG_PER_ISA(Losses);

}  // namespace
}  // namespace nag_test
