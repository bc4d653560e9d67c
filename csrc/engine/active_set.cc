// Block pivoting (Portugal, Judice & Vicente 1994). It may cycle, hence the limit: coordinate descent goes on from there.
#include "engine/active_set.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/coordinates.h"
#include "engine/linalg.h"

namespace nag {
namespace {

constexpr double kMostRidge = 1e8;

// x becomes K^-1 x for the symmetric K of m rows, scaled to a unit diagonal, with a ridge where it is not definite.
bool solve_scaled(const KernelTable& table, std::vector<double>& K, std::int64_t m, std::vector<double>& x) {
  std::vector<double> scale(static_cast<std::size_t>(m)), L(K.size());
  for (std::int64_t i = 0; i < m; ++i) scale[static_cast<std::size_t>(i)] = 1 / std::sqrt(K[static_cast<std::size_t>(i * m + i)]);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < i; ++j) K[static_cast<std::size_t>(i * m + j)] *= scale[static_cast<std::size_t>(i)] * scale[static_cast<std::size_t>(j)];
    K[static_cast<std::size_t>(i * m + i)] = 1.0;
    x[static_cast<std::size_t>(i)] *= scale[static_cast<std::size_t>(i)];
  }
  for (double ridge = 0;;) {
    L = K;
    for (std::int64_t i = 0; i < m; ++i) L[static_cast<std::size_t>(i * m + i)] += ridge;
    if (cholesky(table, L.data(), m, 1, nullptr) == -1) break;
    ridge = std::max(100 * ridge, 1e-16);
    if (!(ridge < kMostRidge)) return false;
  }
  for (const bool transposed : {false, true}) triangular(table, Triangular::solve, {L.data()}, m, x.data(), 1, transposed, 1);
  for (std::int64_t i = 0; i < m; ++i) x[static_cast<std::size_t>(i)] *= scale[static_cast<std::size_t>(i)];
  return true;
}

}  // namespace

bool settle_on_gram(const KernelTable& table, const double* C, std::int64_t p, const double* g, const double* w, double l1, bool positive,
                    double accuracy, int rounds, double* v) {
  std::vector<double> b(static_cast<std::size_t>(p)), q(b.size()), found(b.size()), K, x;
  std::vector<std::int64_t> set;
  std::vector<double> sign;
  for (std::int64_t i = 0; i < p; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < p; ++j) sum += C[i * p + j] * w[j];
    b[static_cast<std::size_t>(i)] = sum - g[i];
    if (w[i] != 0) {
      set.push_back(i);
      sign.push_back(w[i] > 0 ? 1.0 : -1.0);
    }
  }
  for (int round = 0; round < rounds; ++round) {
    const std::size_t m = set.size();
    K.resize(m * m);
    x.resize(m);
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j <= i; ++j) K[i * m + j] = C[set[i] * p + set[j]];
      x[i] = b[static_cast<std::size_t>(set[i])] - l1 * sign[i];
    }
    if (m > 0 && !solve_scaled(table, K, static_cast<std::int64_t>(m), x)) return false;
    std::size_t right = 0;
    for (std::size_t i = 0; i < m; ++i)
      if (x[i] * sign[i] > 0) {
        set[right] = set[i];
        sign[right++] = sign[i];
      }
    if (right < m) {
      set.resize(right);
      sign.resize(right);
      continue;
    }
    std::fill(found.begin(), found.end(), 0.0);
    for (std::size_t j = 0; j < b.size(); ++j) q[j] = -b[j];
    for (std::size_t i = 0; i < m; ++i) {
      found[static_cast<std::size_t>(set[i])] = x[i];
      for (std::int64_t j = 0; j < p; ++j) q[static_cast<std::size_t>(j)] += x[i] * C[set[i] * p + j];
    }
    bool settled = true;
    for (std::int64_t j = 0; j < p; ++j) {
      const double slope = q[static_cast<std::size_t>(j)], at = found[static_cast<std::size_t>(j)];
      const double offence = at != 0 ? std::fabs(slope + (at > 0 ? l1 : -l1)) : std::max((positive ? -slope : std::fabs(slope)) - l1, 0.0);
      if (offence <= accuracy) continue;
      settled = false;  // NaN, too
      if (at == 0 && offence > accuracy) {
        set.push_back(j);
        sign.push_back(slope > 0 ? -1.0 : 1.0);
      }
    }
    if (settled) {
      std::copy(found.begin(), found.end(), v);
      return true;
    }
  }
  return false;
}

void signed_step(const KernelTable& table, const double* C, std::int64_t p, double l1, double* w, double* q) {
  std::vector<std::int64_t> set;
  for (std::int64_t j = 0; j < p; ++j)
    if (w[j] != 0 && C[j * p + j] > 0) set.push_back(j);
  const std::size_t m = set.size();
  if (m == 0) return;
  std::vector<double> K(m * m), x(m), push(m), change(static_cast<std::size_t>(p), 0.0);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j <= i; ++j) K[i * m + j] = C[set[i] * p + set[j]];
    push[i] = q[set[i]] + (w[set[i]] > 0 ? l1 : -l1);
    x[i] = -push[i];
  }
  if (!solve_scaled(table, K, static_cast<std::int64_t>(m), x)) return;
  double t = 1.0;
  std::size_t first = m;
  for (std::size_t i = 0; i < m; ++i) {
    const double at = w[set[i]];
    if ((at + x[i]) * at >= 0 || -at / x[i] >= t) continue;
    t = -at / x[i];
    first = i;
  }
  double slope = 0, bend = 0;
  for (std::size_t i = 0; i < m; ++i) {
    x[i] = i == first ? -w[set[i]] : t * x[i];
    slope += x[i] * push[i];
    for (std::int64_t j = 0; j < p; ++j) change[static_cast<std::size_t>(j)] += x[i] * C[set[i] * p + j];
  }
  for (std::size_t i = 0; i < m; ++i) bend += x[i] * change[static_cast<std::size_t>(set[i])];
  if (!(slope + 0.5 * bend <= 0)) return;
  for (std::size_t i = 0; i < m; ++i) w[set[i]] += x[i];
  for (std::int64_t j = 0; j < p; ++j) q[j] += change[static_cast<std::size_t>(j)];
}

void minimise_on_gram(const KernelTable& table, const double* C, std::int64_t p, const double* g, const double* w, double l1, double accuracy,
                      int rounds, double* v) {
  constexpr int kSettled = 8, kSweeps = 4, kSeldom = 8;
  if (settle_on_gram(table, C, p, g, w, l1, false, accuracy, kSettled, v)) return;
  std::vector<double> at(w, w + p), q(g, g + p);
  for (int round = 0; round < rounds; ++round) {
    sweep_on_gram(C, p, l1, nullptr, nullptr, 0.01 * accuracy, kSweeps, at.data(), q.data());
    double most = 0;
    for (std::int64_t j = 0; j < p; ++j) {
      const double x = at[static_cast<std::size_t>(j)], slope = q[static_cast<std::size_t>(j)];
      if (C[j * p + j] > 0) most = std::max(most, x == 0 ? std::fabs(slope) - l1 : std::fabs(slope + (x > 0 ? l1 : -l1)));
    }
    if (most <= accuracy) break;
    // From signs that are nearly right the exchange mostly ends at once.
    if (round % kSeldom == 0 && settle_on_gram(table, C, p, q.data(), at.data(), l1, false, accuracy, kSettled, v)) return;
    signed_step(table, C, p, l1, at.data(), q.data());
  }
  std::copy(at.begin(), at.end(), v);
}

}  // namespace nag
