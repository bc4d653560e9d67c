#include "engine/intercept.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string_view>

#include "engine/draw.h"
#include "engine/linalg.h"
#include "engine/threads.h"
#include "engine/tree.h"
#include "losses/info.h"

namespace nag {
namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon();
constexpr double kNone = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();
constexpr int kRootSteps = 100, kClassSteps = 200;
constexpr double kArmijo = 1e-4;
constexpr std::int64_t kPartRows = 1024, kParts = 64, kPartNumbers = 1 << 20;  // of sums over rows
using Vector = std::vector<double>;

double largest(const Vector& x) {
  double most = 0;
  for (const double v : x) most = std::isnan(v) ? v : std::max(most, std::fabs(v));
  return most;
}

double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

class Search {
 public:
  explicit Search(const InterceptSource& source) : source_(source), k_(static_cast<std::size_t>(source.k)) {}

  Intercept run() {
    look(nullptr);
    Intercept found;
    found.given_value = here_.value;
    const double noise = rounding();
    if (!(largest(here_.mean) <= noise)) {
      if (k_ == 1) root(noise);
      else bfgs(noise);
      if (best_.empty() ? last_.empty() == false : best_ != last_) look(best_.empty() ? nullptr : best_.data());
    }
    found.moved = !best_.empty();
    found.b = found.moved ? best_ : Vector(k_, 0.0);
    found.at = here_;
    return found;
  }

 private:
  const ShiftedLoss& look(const double* b) {
    here_ = source_.at(b);
    if (b == nullptr) last_.clear();
    else last_ = Vector(b, b + k_);
    return here_;
  }
  // What the mean of n rounded residuals cannot be told from zero below.
  double rounding() const { return 2 * source_.eps * largest(here_.size); }

  // By the link, or by the curvature here where that says that the way is short.
  double first_step(double h) {
    double step = kNone;
    if (source_.link) {
      source_.link(&h, &step);
    } else if (source_.bend) {
      const double bend = source_.bend();
      if (std::fabs(h) < bend && bend < kInfinity) step = -h / bend;
    }
    if (std::isfinite(step)) return step;
    return std::isfinite(source_.curvature) ? -h / source_.curvature : -std::copysign(1.0, h);
  }

  void root(double noise) {
    double b = 0, low = -kInfinity, high = kInfinity, h = here_.mean[0], least = std::fabs(h), step = first_step(h);
    for (int i = 0; i < kRootSteps; ++i) {
      if (std::fabs(h) <= noise) noise = rounding();  // residuals may be smaller here than at the start
      if (std::fabs(h) <= noise || step == 0 || b + step == b) break;
      (h < 0 ? low : high) = b;
      const double last_b = b, last_h = h;
      b += step;
      h = look(&b).mean[0];
      if (std::fabs(h) < least) {
        least = std::fabs(h);
        best_ = {b};
      }
      const double secant = std::isfinite(h) && h != last_h ? -h * (b - last_b) / (h - last_h) : kNone;
      (h < 0 ? low : high) = b;
      if (std::isfinite(low) && std::isfinite(high)) {
        // Every third step bisects, so that a kink or an exponential cannot stall the secant.
        const bool inside = low < b + secant && b + secant < high && i % 3 != 2;
        step = inside ? secant : 0.5 * (low + high) - b;
      } else {
        const double most = 4 * std::fabs(step);
        step = std::isfinite(secant) && secant * step > 0 ? secant : std::copysign(most, step);
        step = std::min(std::max(step, -most), most);
      }
    }
  }

  // The inverse of the mean of diag(p) - pp' on shifts that sum to zero, or a safe multiple of 1.
  Vector class_curvature() const {
    const std::size_t k = k_;
    Vector H(k * k, 0.0), mean(k), L(k * k);
    if (source_.probabilities && source_.probabilities(mean.data(), L.data()) &&
        std::all_of(mean.begin(), mean.end(), [](double m) { return m > 1e-300; })) {
      // Shifting all classes alike changes nothing; 1/k makes that direction definite.
      const double shared = *std::max_element(mean.begin(), mean.end()) / static_cast<double>(k);
      for (std::size_t a = 0; a < k; ++a) {
        for (std::size_t b = 0; b <= a; ++b) L[a * k + b] = shared - L[a * k + b];
        L[a * k + a] += mean[a] * (1 + 1e-9);
        H[a * k + a] = 1.0;
      }
      const std::int64_t size = source_.k;
      if (cholesky(*source_.table, L.data(), size, 1, nullptr) == -1) {
        for (const bool transposed : {false, true})
          triangular(*source_.table, Triangular::solve, {L.data()}, size, H.data(), size, transposed, 1);
        return H;
      }
      std::fill(H.begin(), H.end(), 0.0);
    }
    for (std::size_t a = 0; a < k; ++a) H[a * k + a] = 1 / (std::isfinite(source_.curvature) ? source_.curvature : 1.0);
    return H;
  }

  void bfgs(double noise) {
    const std::size_t k = k_;
    Vector b(k, 0.0), h = here_.mean, H, p(k), b_new(k), h_new, step(k), change(k), Hy(k);
    double value = here_.value;
    if (source_.link) {
      source_.link(h.data(), b_new.data());
      if (std::all_of(b_new.begin(), b_new.end(), [](double x) { return std::isfinite(x); }) && look(b_new.data()).value <= value) {
        b = b_new;
        h = here_.mean;
        value = here_.value;
      }
    }
    for (int i = 0; i < kClassSteps; ++i) {
      if (largest(h) <= noise) {
        noise = rounding();
        if (largest(h) <= noise) break;
      }
      if (H.empty()) H = class_curvature();
      for (std::size_t a = 0; a < k; ++a) {
        p[a] = 0;
        for (std::size_t c = 0; c < k; ++c) p[a] -= H[a * k + c] * h[c];
      }
      const double descent = dot(h, p), square = dot(h, h);
      const bool flat = std::fabs(descent) <= 4 * kEps * std::fabs(value);  // too little for a value to tell
      double t = 1.0, square_new = 0.0, value_new = value;
      for (;; t *= 0.5) {
        for (std::size_t a = 0; a < k; ++a) b_new[a] = b[a] + t * p[a];
        look(b_new.data());
        h_new = here_.mean;
        value_new = here_.value;
        square_new = dot(h_new, h_new);
        if (value_new <= value + kArmijo * t * descent || square_new < 0.25 * square || flat || t < 1e-3) break;
      }
      if (square_new >= square && (flat || value_new >= value)) break;  // rounding: neither value nor slope improves any more
      for (std::size_t a = 0; a < k; ++a) {
        step[a] = t * p[a];
        change[a] = h_new[a] - h[a];
      }
      if (const double curved = dot(step, change); curved > 0) {  // H becomes V H V' + s s'/<s, y>, V = I - s y'/<s, y>
        for (std::size_t a = 0; a < k; ++a) {
          Hy[a] = 0;
          for (std::size_t c = 0; c < k; ++c) Hy[a] += H[a * k + c] * change[c];
        }
        const double more = (1 + dot(change, Hy) / curved) / curved;
        for (std::size_t a = 0; a < k; ++a)
          for (std::size_t c = 0; c < k; ++c) H[a * k + c] += more * step[a] * step[c] - (step[a] * Hy[c] + Hy[a] * step[c]) / curved;
      }
      b = b_new;
      h = h_new;
      value = value_new;
    }
    best_ = b;
  }

  const InterceptSource& source_;
  std::size_t k_;
  ShiftedLoss here_;
  Vector last_, best_;  // empty: no shift
};

}  // namespace

Intercept best_intercept(const InterceptSource& source) { return Search(source).run(); }

InterceptSource intercept_source(const ProblemView& view, const void* z, void* moved, void* r, double curvature, int threads) {
  InterceptSource q;
  const bool wide = view.compute == Compute::f64;
  q.table = view.table;
  q.k = view.k;
  q.eps = wide ? kEps : static_cast<double>(std::numeric_limits<float>::epsilon());
  q.curvature = curvature;
  q.at = [&view, z, moved, r, threads](const double* b) { return shifted_loss(view, z, b, b ? moved : nullptr, r, threads); };
  if (kLosses[view.loss].targets == Domain::classes) {
    q.probabilities = [&view, wide, r, threads](double* mean, double* square) {
      if (wide)
        return class_moments(static_cast<const double*>(r), view.n, view.k, static_cast<const double*>(view.s), view.weight_sum, threads, mean, square);
      return class_moments(static_cast<const float*>(r), view.n, view.k, static_cast<const float*>(view.s), view.weight_sum, threads, mean, square);
    };
    return q;
  }
  q.bend = [&view, z, moved, threads] { return mean_curvature(view, z, moved, threads); };  // into what the shifted margins take later
  return q;
}

double mean_curvature(const ProblemView& view, const void* z, void* rows, int n_threads) {
  curvature_from_margins(view, z, rows, n_threads);
  RowMean mean;
  mean.compute = view.compute;
  mean.x = rows;
  mean.n = view.n;
  mean.n_threads = n_threads;
  if (view.s == nullptr) return row_mean(mean);
  Vector s(static_cast<std::size_t>(view.n));
  for (std::size_t i = 0; i < s.size(); ++i)
    s[i] = (view.compute == Compute::f64 ? static_cast<const double*>(view.s)[i] : static_cast<double>(static_cast<const float*>(view.s)[i])) / view.weight_sum;
  mean.s = s.data();
  return row_mean(mean);
}

void link_of(int loss, std::int64_t k, const double* h, double* b) {
  const std::string_view name = kLosses[loss].name;
  if (name == "softmax") {
    double mean = 0;
    for (std::int64_t c = 0; c < k; ++c) mean += (b[c] = std::log(1 / static_cast<double>(k) - h[c])) / static_cast<double>(k);
    for (std::int64_t c = 0; c < k; ++c) b[c] -= mean;
  } else if (name == "squared") {
    b[0] = -h[0];
  } else if (name == "poisson") {
    b[0] = h[0] < 1 ? std::log(1 - h[0]) : kNone;
  } else if (name == "logistic") {
    b[0] = std::fabs(h[0]) < 0.5 ? std::log((0.5 - h[0]) / (0.5 + h[0])) : kNone;
  } else {
    b[0] = kNone;
  }
}

template <class T, class S>
bool class_moments(const T* r, std::int64_t n, std::int64_t k, const S* s, double total, int n_threads, double* mean, double* square) {
  // As many parts as n says, whatever the threads are, and few where they are large.
  const std::int64_t node = k + k * k, parts = std::max<std::int64_t>(1, std::min<std::int64_t>({n / kPartRows, kParts, kPartNumbers / node}));
  Vector sums(static_cast<std::size_t>(parts * node), 0.0);
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> fits{true};
  parallel_run(static_cast<int>(std::min<std::int64_t>(n_threads, parts)), [&](int, int) {
    Vector p(static_cast<std::size_t>(k));
    for (std::int64_t part; fits && (part = next++) < parts;) {
      double *const first = sums.data() + part * node, *const second = first + k;
      for (std::int64_t i = n * part / parts, end = n * (part + 1) / parts; i < end; ++i) {
        int negative = 0;
        for (std::int64_t c = 0; c < k; ++c) {
          const T x = r[i * k + c];
          negative += x < 0;
          p[static_cast<std::size_t>(c)] = static_cast<double>(x < 0 ? x + 1 : x);
        }
        if (negative != 1) {
          fits = false;
          return;
        }
        const double weight = (s ? static_cast<double>(s[i]) : 1.0) / total;
        for (std::int64_t a = 0; a < k; ++a) {
          const double share = weight * p[static_cast<std::size_t>(a)];
          first[a] += share;
          for (std::int64_t b = 0; b <= a; ++b) second[a * k + b] += share * p[static_cast<std::size_t>(b)];
        }
      }
    }
  });
  combine_nodes(sums.data(), static_cast<std::size_t>(parts), static_cast<std::size_t>(node));
  std::copy_n(sums.data(), k, mean);
  std::copy_n(sums.data() + k, k * k, square);
  return fits;
}

template bool class_moments<double, double>(const double*, std::int64_t, std::int64_t, const double*, double, int, double*, double*);
template bool class_moments<float, double>(const float*, std::int64_t, std::int64_t, const double*, double, int, double*, double*);
template bool class_moments<float, float>(const float*, std::int64_t, std::int64_t, const float*, double, int, double*, double*);

}  // namespace nag
