// exp, log1p and log in units in the last place, read out of the losses that are made of them:
// poisson's residual at y = 0 is e^z, logistic's value at y z > 0 is log1p(e^-|z|), softmax's value holds log.
#include "support.h"

namespace nag_test {
namespace {

int loss_number(const char* name) {
  for (int l = 0; l < nag::kLossCount; ++l)
    if (std::string(nag::kLosses[l].name) == name) return l;
  return -1;
}

template <class T>
std::vector<T> exp_of(const RowKernels<T>& kernel, const std::vector<T>& z) {
  const std::size_t n = z.size();
  std::vector<T> zdot(padded(static_cast<std::ptrdiff_t>(n), kernel.lanes)), y(n, T(0)), r(n), sr(zdot.size());
  std::copy(z.begin(), z.end(), zdot.begin());
  const nag::MarginBlock<T> args{static_cast<std::ptrdiff_t>(n), zdot.data(), T(0), nullptr, y.data(), nullptr, T(0), nullptr, r.data(), sr.data(), nullptr};
  kernel.loss[loss_number("poisson")](args);
  return r;
}

template <class T>
T logistic_at(const RowKernels<T>& kernel, T z) {
  std::vector<T> zdot(static_cast<std::size_t>(kernel.lanes)), sr(zdot.size());
  zdot[0] = z;
  const T y = 1;
  const nag::MarginBlock<T> args{1, zdot.data(), T(0), nullptr, &y, nullptr, T(0), nullptr, nullptr, sr.data(), nullptr};
  return static_cast<T>(kernel.loss[loss_number("logistic")](args));
}

// The two ranges cover what overflows, what is normal, what is subnormal and what is zero.
template <class T>
void check_exp(const KernelTable* table, double lo, double hi, double bound) {
  const RowKernels<T>& kernel = kernels<T>(table);
  Random random(11);
  std::vector<T> z;
  for (int i = 0; i < 60000; ++i) z.push_back(static_cast<T>(random.uniform(lo, hi)));
  for (int i = 0; i < 20000; ++i) z.push_back(static_cast<T>(random.uniform(-1, 1)));
  // Where the reduction changes its integer: odd multiples of ln2/2, from both sides.
  for (int n = -60; n <= 60; ++n) {
    const T edge = static_cast<T>((n + 0.5) * 0.693147180559945309417232);
    for (const T side : {std::nextafter(edge, T(-1e9)), edge, std::nextafter(edge, T(1e9))}) z.push_back(side);
  }
  const std::vector<T> e = exp_of(kernel, z);
  double worst = 0, at = 0;
  for (std::size_t i = 0; i < z.size(); ++i)
    if (const double error = ulps(e[i], std::exp(static_cast<long double>(z[i]))); error > worst) {
      worst = error;
      at = static_cast<double>(z[i]);
    }
  EXPECT_LE(worst, bound) << "exp is worst at " << at;
  ::testing::Test::RecordProperty(sizeof(T) == 4 ? "exp_f32_milliulps" : "exp_f64_milliulps", static_cast<int>(worst * 1000));
}

template <class T>
void check_exp_specials(const KernelTable* table) {
  const RowKernels<T>& kernel = kernels<T>(table);
  using L = std::numeric_limits<T>;
  const T top = std::log(L::max());
  const std::vector<T> e = exp_of<T>(kernel, {T(0), -T(0), L::denorm_min(), -L::denorm_min(), L::infinity(), -L::infinity(),
                                              L::quiet_NaN(), top + T(0.01) * top, L::max(), L::lowest(), T(-1e4)});
  for (const std::size_t one : {0, 1, 2, 3}) EXPECT_EQ(e[one], T(1));
  EXPECT_EQ(e[4], L::infinity());
  EXPECT_EQ(e[5], T(0));
  EXPECT_TRUE(std::isnan(e[6]));
  EXPECT_EQ(e[7], L::infinity());
  EXPECT_EQ(e[8], L::infinity());
  EXPECT_EQ(e[9], T(0));
  EXPECT_EQ(e[10], T(0));
}

template <class T>
void check_log1p(const KernelTable* table, double hi, double bound) {
  const RowKernels<T>& kernel = kernels<T>(table);
  Random random(13);
  double worst = 0, at = 0;
  for (int i = 0; i < 30000; ++i) {
    const T z = static_cast<T>(i % 2 ? random.uniform(0, 3) : random.uniform(0, hi));
    const double error = ulps(logistic_at(kernel, z), std::log1p(std::exp(-static_cast<long double>(z))));
    if (error > worst) {
      worst = error;
      at = static_cast<double>(z);
    }
  }
  EXPECT_LE(worst, bound) << "log1p(e^-z) is worst at " << at;
  EXPECT_LE(ulps(logistic_at(kernel, T(0)), std::log(2.0L)), 1.0);
}

// log of the sum of k exponentials that are all one: log k, for every k in a vector's reach and past a power of two.
template <class T>
void check_log(const KernelTable* table) {
  const RowKernels<T>& kernel = kernels<T>(table);
  for (std::ptrdiff_t k = 2; k <= 300; ++k) {
    const std::ptrdiff_t ld = kernel.lanes;
    std::vector<T> zdot(static_cast<std::size_t>(k * ld)), sr(zdot.size()), bias(static_cast<std::size_t>(k));
    const T y = 0;
    const nag::SoftmaxBlock<T> args{1, k, ld, zdot.data(), bias.data(), nullptr, &y, nullptr, nullptr, nullptr, nullptr, sr.data()};
    EXPECT_LE(ulps(static_cast<T>(kernel.softmax(args)), std::log(static_cast<long double>(k))), 2.0) << "log " << k;
  }
}

class Math : public PerIsa {};
// The baseline of x86-64 has no fused multiply-add: each step of the polynomials rounds twice.
bool fused(const KernelTable* table) { return std::string(table->name) != "baseline"; }
TEST_P(Math, ExpIsAccurateInItsWholeRange) {
  check_exp<float>(GetParam(), -110, 95, fused(GetParam()) ? 1.1 : 1.6);
  check_exp<double>(GetParam(), -750, 715, fused(GetParam()) ? 1.1 : 1.6);
}
TEST_P(Math, ExpOfSpecialValues) {
  check_exp_specials<float>(GetParam());
  check_exp_specials<double>(GetParam());
}
TEST_P(Math, Log1pOfExpIsAccurate) {
  check_log1p<float>(GetParam(), 80, 4.0);
  check_log1p<double>(GetParam(), 700, 4.0);
}
TEST_P(Math, LogIsAccurate) {
  check_log<float>(GetParam());
  check_log<double>(GetParam());
}
NAG_PER_ISA(Math);

}  // namespace
}  // namespace nag_test
