#include "engine/newton_fit.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "engine/aligned.h"
#include "engine/intercept.h"
#include "losses/info.h"

namespace nag {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kUnresolved = 20;  // steps in a row that rounding hides, after which nothing more is expected

// Passes of one call, and the points that they were at.
struct Seen {
  std::vector<NewtonFit::Pass> passes;
  std::vector<double> w, u;
};

Seen seen(const Newton&, NewtonTrace&& trace, std::int64_t cost) {
  Seen out;
  for (const NewtonRecord& r : trace.records) out.passes.push_back({r.f, r.bound, r.bound, r.seconds, r.hessian ? cost : 1, r.moved, r.resolved});
  out.w = std::move(trace.w), out.u = std::move(trace.u);
  return out;
}

Seen seen(const ProxNewton&, ProxTrace&& trace, std::int64_t) {
  Seen out;
  for (const ProxRecord& r : trace.records) out.passes.push_back({r.whole, r.bound, r.free, r.seconds, r.passes, r.moved, r.resolved});
  out.w = std::move(trace.w), out.u = std::move(trace.u);
  return out;
}

class Fit {
 public:
  Fit(const ProblemView& problem, const SmoothProblem& terms, const NewtonFitRequest& request)
      : problem_(problem), terms_(terms), request_(request), rows_(static_cast<std::size_t>(terms.n * terms.k)),
        size_(static_cast<std::size_t>(terms.p() * terms.k)), z0_(rows_, Unset{}), z1_(rows_, Unset{}), residuals_(rows_, Unset{}) {
    std::fill_n(z0_.data(), rows_, 0.0);
  }

  NewtonFit run() {
    take_null_model();
    std::vector<double> w(size_, 0.0);
    if (terms_.fit_intercept) std::copy(out_.null_b.begin(), out_.null_b.end(), w.end() - static_cast<std::ptrdiff_t>(terms_.k));
    if (request_.l1 > 0) {
      ProxNewton loop(terms_, request_.l1, request_.reuse, w.data(), z0_.data(), z1_.data());
      iterate(loop);
    } else {
      Newton loop(terms_, w.data(), z0_.data(), z1_.data());
      iterate(loop);
    }
    return std::move(out_);
  }

 private:
  void take_null_model() {
    out_.null_b.assign(static_cast<std::size_t>(terms_.k), 0.0);
    if (terms_.fit_intercept) {
      InterceptSource source =
          intercept_source(problem_, z0_.data(), z1_.data(), residuals_.data(), request_.curvature, terms_.n_threads);
      source.link = [&](const double* h, double* b) { link_of(problem_.loss, terms_.k, h, b); };
      const Intercept found = best_intercept(source);
      out_.null_value = found.at.value;
      out_.null_b = found.b;
    } else if (kLosses[problem_.loss].targets == Domain::classes || kLosses[problem_.loss].name == std::string_view("logistic")) {
      out_.null_value = std::log(static_cast<double>(std::max<std::int64_t>(terms_.k, 2)));  // of every row, whatever its class
    } else {
      out_.null_value = loss_from_margins(problem_, z0_.data(), nullptr, terms_.n_threads);
    }
  }

  // What is decided here is decided as by the judge of all methods (python/nagcore/solvers/stopping.py).
  template <class Loop>
  void iterate(Loop& loop) {
    const std::int64_t cost = 1 + terms_.k * (terms_.k - 1) / 2;
    const double floor = request_.rounding * std::fabs(out_.null_value);
    const auto target = [&] { return std::max(request_.tol * std::max(out_.null_value - best_, 0.0), floor); };
    double demand = 1.0;
    std::int64_t passes = 0, next_proof = 0;
    int unresolved = 0;
    while (passes < request_.steps) {
      const double from = now() - begun_;
      const Seen trace = seen(
          loop, loop.run({std::max<std::int64_t>(1, (request_.steps - passes) / cost), request_.tol, out_.null_value, floor}), cost);
      const double* at = trace.w.data();
      for (NewtonFit::Pass pass : trace.passes) {
        pass.seconds += from;
        out_.passes.push_back(pass);
        passes += pass.cost;
        unresolved = pass.resolved ? 0 : unresolved + 1;
        if (unresolved > kUnresolved || (pass.moved && std::isnan(pass.free))) return;
        if (!terms_.fit_intercept && pass.moved) lower_ = std::max(lower_, pass.value - pass.bound);
        if (pass.moved && pass.value < best_) {
          best_ = pass.value;
          out_.w.assign(at, at + size_);
        }
        at += size_;
      }
      const NewtonFit::Pass& last = trace.passes.back();
      if (!last.moved) continue;
      const auto reached = [&] { return lower_ > -kInfinity && std::max(best_ - lower_, 0.0) <= target(); };
      if ((out_.reached = reached())) return;
      const double ahead = best_ - last.value, estimate = last.free + ahead > 0 ? last.free + ahead : last.free;
      if (passes < next_proof || !(estimate <= demand * target() || (estimate <= target() && passes >= 2 * next_proof))) continue;
      prove(at - size_, trace.u.data() + trace.u.size() - size_, loop.current());
      demand = target() > 0 ? std::min(1.0, 0.5 * estimate / target()) : 1.0;
      next_proof = passes + 1 + passes / 20;
      passes += terms_.fit_intercept;
      if ((out_.reached = reached())) return;
    }
  }

  void prove(const double* w, const double* u, int current) {
    Aligned<double>&z = current == 0 ? z0_ : z1_, &spare = current == 0 ? z1_ : z0_;
    CertificateRequest request;
    request.w = w;
    request.l1 = request_.l1;
    request.l2 = terms_.l2;
    request.curvature = request_.curvature;
    request.z = z.data();
    request.moved = spare.data();
    request.residuals = residuals_.data();
    request.n_threads = terms_.n_threads;
    request.interrupted = terms_.interrupted;
    Aligned<double> r(terms_.fit_intercept ? 0 : rows_, Unset{});
    if (!terms_.fit_intercept) {
      loss_from_margins(problem_, z.data(), r.data(), terms_.n_threads);
      request.u = u;
      request.r = r.data();
    }
    const Certificate found = certify(problem_, request);
    if (found.interrupted) throw SmoothInterrupted{};
    out_.proofs.push_back({out_.passes.size(), found.value, found.gap});
    lower_ = std::max(lower_, found.value - found.gap);
    if (found.value <= best_) {
      best_ = found.value;
      out_.w = found.w;
    }
  }

  const ProblemView& problem_;
  const SmoothProblem& terms_;
  const NewtonFitRequest& request_;
  std::size_t rows_, size_;
  Aligned<double> z0_, z1_, residuals_;
  double best_ = kInfinity, lower_ = -kInfinity, begun_ = now();
  NewtonFit out_;
};

}  // namespace

NewtonFit newton_fit(const ProblemView& problem, const SmoothProblem& terms, const NewtonFitRequest& request) {
  return Fit(problem, terms, request).run();
}

}  // namespace nag
