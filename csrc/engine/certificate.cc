// Fenchel-Young: F(w) - D(theta) = (1/S) sum s [phi(z) + phi*(theta) - z theta] + [Omega(w) + Omega*(-u) + <w, u>] with
// u = X'(s theta)/S. The first bracket vanishes at theta = phi'(z) and is bounded to second order at multiples of it; both are
// sums of terms >= 0, so nothing cancels.
#include "engine/certificate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "engine/intercept.h"
#include "engine/margins.h"
#include "engine/threads.h"
#include "engine/tree.h"
#include "losses/info.h"

namespace nag {
namespace {

constexpr double kRounded = 16 * std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTail = 1e-2;      // in margins
constexpr double kFar = 100.0;      // intercepts of classes are bounded to this many times the largest margin
constexpr double kMostBend = 1e3;   // where curvature has no bound
constexpr double kFlat = 1e-4, kSlower = 0.9;
constexpr double kParallel = 1e-12;
constexpr int kTrials = 40;
constexpr std::int64_t kBlock = 256, kLeaf = 4096;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// theta_i = alpha kept_i r_i: what is left of the residuals. The heavier sign of them shrinks by `share`, so that they sum to zero.
struct Shrunk {
  double alpha = 1.0, share = 0.0;
  bool positive = false;  // which sign is the heavier
  double kept(double r) const { return share != 0 && (positive ? r > 0 : r < 0) ? 1 - share : 1.0; }
  double of(double r) const { return alpha * kept(r); }
  bool whole() const { return alpha == 1 && share == 0; }
};

// A bound on (1/S) sum s [phi(z) + phi*(a r) - a z r], of second order in 1 - a: the bracket is the divergence between z and
// the margins z' with phi'(z') = a phi'(z), at most (phi'(z) - phi'(z'))(z - z'), and that at most (1 - a) phi'(z) (z - z") for any
// z" beyond z', which a few evaluations of the residual find. For classes z" raises the one margin whose residual is negative: by
// this alone the residual of a class label stays parallel to itself.
class ScalingGap {
 public:
  ScalingGap(const ProblemView& problem, const double* z, const double* r, const Shrunk& shrunk, double curvature)
      : problem_(problem), z_(z), r_(r), shrunk_(shrunk), k_(problem.k), bend_(std::min(curvature, kMostBend)),
        curved_(std::isfinite(curvature) && problem.k == 1 && kLosses[problem.loss].targets != Domain::classes) {}

  double sum(int n_threads) const {
    const std::int64_t n = problem_.n, leaves = (n + kLeaf - 1) / kLeaf;
    const bool squared = std::string_view(kLosses[problem_.loss].name) == "squared";
    const double* const s = static_cast<const double*>(problem_.s);
    std::vector<double> sums(at(leaves));
    std::atomic<std::int64_t> next{0};
    parallel_pass(static_cast<int>(std::min<std::int64_t>(n_threads, leaves)), [&](int, int) {
      Work work(k_);
      for (std::int64_t leaf; (leaf = next++) < leaves;) {
        double total = 0;
        for (std::int64_t row = leaf * kLeaf, end = std::min(n, (leaf + 1) * kLeaf); row < end; row += kBlock) {
          const std::int64_t rows = std::min(kBlock, end - row);
          if (squared) {  // exactly ((1 - a) r)^2/2
            for (std::int64_t i = row; i < row + rows; ++i) {
              const double gone = (1 - shrunk_.of(r_[i])) * r_[i];
              total += 0.5 * (s ? s[i] : 1.0) * gone * gone;
            }
          } else {
            total += block(row, rows, s, work);
          }
        }
        sums[at(leaf)] = total;
      }
    });
    combine_nodes(sums.data(), sums.size(), 1);
    return sums[0] / problem_.weight_sum;
  }

 private:
  static constexpr std::ptrdiff_t kLd = kBlock + 64;
  struct Work {
    explicit Work(std::int64_t k) : moved(at(k * kLd)), response(at(k * kLd)), residual(at(k * kBlock)), bend(at(kLd)) {}
    Aligned<double> moved, response, residual, bend;
    double step[kBlock], left[kBlock], own[kBlock];
    std::int64_t pick[kBlock];
  };

  double block(std::int64_t row, std::int64_t rows, const double* s, Work& work) const {
    ProblemView part = problem_;  // these rows alone, unweighted
    part.n = rows;
    part.s = part.offset = nullptr;
    if (part.y) part.y = static_cast<const double*>(part.y) + row;
    if (part.p) part.p = static_cast<const double*>(part.p) + row * k_;
    const BlockVectors<double> vectors(part);
    const std::vector<double> no_bias(at(k_), 0.0);
    const auto residuals = [&](double* h) {
      vectors.apply(0, static_cast<std::ptrdiff_t>(rows), work.moved.data(), kLd, no_bias.data(), false, nullptr, work.residual.data(),
                    work.response.data(), h);
    };
    for (std::int64_t i = 0; i < rows; ++i) {
      const double* const r = r_ + (row + i) * k_;
      work.pick[i] = k_ == 1 ? 0 : std::min_element(r, r + k_) - r;
      work.own[i] = r[work.pick[i]];
      work.left[i] = shrunk_.of(work.own[i]);
      for (std::int64_t c = 0; c < k_; ++c) work.moved[at(c * kLd + i)] = z_[(row + i) * k_ + c];
    }
    if (curved_) residuals(work.bend.data());
    for (std::int64_t i = 0; i < rows; ++i) {
      // What the curvature is here it mostly is on the way to z", too.
      const double here = curved_ && work.bend[at(i)] > kFlat * bend_ ? kSlower * work.bend[at(i)] : bend_;
      // Residuals that are small for good (an exponential's) shrink by 1 - a over a step of about kTail.
      work.step[i] = std::max(std::fabs(work.own[i]) / here, kTail) * (1 - work.left[i]) * (1 + 1e-6);
    }
    bool short_of = true;
    for (int trial = 0; short_of; ++trial) {
      if (trial == kTrials) return kInfinity;
      for (std::int64_t i = 0; i < rows; ++i) {
        const double step = work.own[i] > 0 ? -work.step[i] : work.step[i];
        work.moved[at(work.pick[i] * kLd + i)] = z_[(row + i) * k_ + work.pick[i]] + step;
      }
      residuals(nullptr);
      short_of = false;
      for (std::int64_t i = 0; i < rows; ++i) {
        // The residual beyond, with the sign that it had: more than a of what it was is short.
        const double beyond = work.residual[at(i * k_ + work.pick[i])], limit = work.own[i] * work.left[i];
        if (!(work.own[i] > 0 ? beyond > limit : beyond < limit)) continue;
        work.step[i] *= 4;
        short_of = true;
      }
    }
    double total = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      const double own = work.own[i];
      if (k_ > 1) {
        const double ratio = own != 0 ? work.residual[at(i * k_ + work.pick[i])] / own : 0.0;
        for (std::int64_t c = 0; c < k_; ++c)  // targets that are probabilities: this argument does not cover them
          if (!(std::fabs(work.residual[at(i * k_ + c)] - ratio * r_[(row + i) * k_ + c]) <= kParallel)) return kInfinity;
      }
      total += (s ? s[row + i] : 1.0) * work.step[i] * std::fabs(own) * (1 - work.left[i]);
    }
    return total;
  }

  const ProblemView& problem_;
  const double *z_, *r_;
  Shrunk shrunk_;
  std::int64_t k_;
  double bend_;
  bool curved_;
};

// Omega(w) + Omega*(-u) + <w, u> over `count` coefficients, u times alpha: with -u = soft + clip (soft threshold at l1) each adds
// (l2 w - soft)^2/(2 l2) and l1 |w| - w clip. Infinite where u is not dual feasible.
double penalty_gap(const double* w, const double* u, double alpha, std::int64_t count, double l1, double l2) {
  double kept = 0, square = 0, largest = 0;
  for (std::int64_t e = 0; e < count; ++e) {
    const double v = alpha * u[e], clip = std::min(std::max(-v, -l1), l1), q = l2 * w[e] + v + clip;
    kept += l1 * std::fabs(w[e]) - w[e] * clip;
    square += q * q;
    largest = std::isnan(v) ? v : std::max(largest, std::fabs(v));
  }
  if (l2 > 0) return kept + square / (2 * l2);
  return largest <= l1 * (1 + 4e-16) ? kept : kInfinity;
}

}  // namespace

Certificate certify(const ProblemView& problem, const CertificateRequest& q) {
  const std::int64_t n = problem.n, d = problem.d, k = problem.k, p = problem.w_rows();
  Certificate out;
  out.w.assign(q.w, q.w + p * k);
  std::vector<double> gradient(at(p * k));
  const double *z = q.z, *r = q.r, *u = q.u;
  double best_value = 0, unbalanced = 0, given_value = 0;
  Shrunk shrunk;
  const auto pass = [&](PassRequest request) {
    request.n_threads = q.n_threads;
    request.interrupted = q.interrupted;
    const PassResult result = run_pass(problem, request);
    out.interrupted = result.interrupted;
    return result.value;
  };
  Aligned<double> own_margins;
  if (problem.fit_intercept) {
    if (z == nullptr) {
      own_margins = Aligned<double>(at(n * k), Unset{});
      PassRequest request;
      request.kind = PassRequest::Kind::margins;
      request.w = q.w;
      request.z = own_margins.data();
      pass(request);
      if (out.interrupted) return out;
      z = own_margins.data();
    }
    const Intercept found = best_intercept(intercept_source(problem, z, q.moved, q.residuals, q.curvature, q.n_threads));
    for (std::int64_t c = 0; c < k; ++c) out.w[at(d * k + c)] += found.b[at(c)];
    if (found.moved) z = q.moved;
    r = q.residuals;
    best_value = found.at.value;
    given_value = found.given_value;
    const double size = *std::max_element(found.at.size.begin(), found.at.size.end());
    double excess = 0;
    for (const double mean : found.at.mean) excess += std::fabs(mean);
    if (k == 1) {
      // Zero lies in the domain of every conjugate, so that a residual that shrinks stays inside. Each is rounded by as much: a
      // mean so small cannot be told from zero.
      const double total = 0.5 * (size + excess), share = total > 0 ? excess / total : 0.0;
      if (!(share <= kRounded)) {
        shrunk.share = share;
        shrunk.positive = found.at.mean[0] > 0;
        for (std::int64_t i = 0; i < n; ++i) q.residuals[i] *= shrunk.kept(q.residuals[i]);
      }
    } else if (!(excess <= kRounded * size)) {  // bounds F over all intercepts within this of the best
      double most = 0;
      for (std::int64_t e = 0; e < n * k; ++e) most = std::max(most, std::fabs(z[e]));
      unbalanced = kFar * (1 + most) * excess;
    }
    PassRequest request;
    request.kind = PassRequest::Kind::rmatvec;
    request.v = r;
    request.grad = gradient.data();
    pass(request);
    if (out.interrupted) return out;
    u = gradient.data();
    if (shrunk.share != 0) loss_from_margins(problem, z, q.residuals, q.n_threads);  // as they were
  } else {
    if (u == nullptr) {
      PassRequest request;
      request.w = q.w;
      request.grad = gradient.data();
      request.z = q.moved;
      request.r = q.residuals;
      best_value = pass(request);
      if (out.interrupted) return out;
      z = q.moved;
      r = q.residuals;
      u = gradient.data();
    } else {
      best_value = loss_from_margins(problem, z, r == nullptr && q.l1 > 0 ? q.residuals : nullptr, q.n_threads);
      if (r == nullptr) r = q.residuals;
    }
    given_value = best_value;
  }
  const std::int64_t count = d * k;
  double scales[2];
  int tried = 0;
  if (q.l2 > 0) scales[tried++] = 1.0;
  if (q.l1 > 0) {
    double largest = 0;
    for (std::int64_t e = 0; e < count; ++e) largest = std::isnan(u[e]) ? u[e] : std::max(largest, std::fabs(u[e]));
    if (largest > q.l1 || tried == 0) scales[tried++] = largest != 0 ? std::min(1.0, q.l1 / largest) : 1.0;
  }
  out.gap = kInfinity;
  for (int i = 0; i < tried; ++i) {
    const double fenchel = penalty_gap(out.w.data(), u, scales[i], count, q.l1, q.l2) + scales[i] * unbalanced;
    if (!(fenchel < out.gap)) continue;
    shrunk.alpha = scales[i];
    const double gap = fenchel + (shrunk.whole() ? 0.0 : ScalingGap(problem, z, r, shrunk, q.curvature).sum(q.n_threads));
    if (!(gap < out.gap)) continue;
    out.gap = gap;
    out.slope.assign(u, u + count);
    for (double& v : out.slope) v *= scales[i];
  }
  double size = 0, square = 0;
  for (std::int64_t e = 0; e < count; ++e) {
    size += std::fabs(out.w[at(e)]);
    square += out.w[at(e)] * out.w[at(e)];
  }
  const double extra = q.l1 * size + 0.5 * q.l2 * square;
  out.value = best_value + extra;
  out.given_value = given_value + extra;
  return out;
}

}  // namespace nag
