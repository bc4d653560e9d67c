#include "bindings/smooth_passes.h"

#include <algorithm>
#include <cmath>

#include "engine/class_hessian.h"
#include "engine/intercept.h"
#include "engine/shifted.h"

namespace py = pybind11;

namespace nag {
namespace {

struct NotFinite {};

}  // namespace

bool SmoothPasses::asked() {
  const py::gil_scoped_acquire acquire;
  return signalled_ = PyErr_CheckSignals() != 0;
}

void SmoothPasses::guard(const std::function<void()>& call) {
  bool interrupted = false;
  try {
    const py::gil_scoped_release release;
    call();
  } catch (const SmoothInterrupted&) {
    interrupted = true;
  } catch (const NotFinite&) {
    problem_->explain_non_finite();
    throw std::domain_error("X holds numbers that are not finite.");
  }
  if (interrupted || signalled_) throw py::error_already_set();
}

void SmoothPasses::give(const Problem& problem, SmoothProblem& q) {
  problem_ = &problem;
  const ProblemView& view = problem.view_;
  q.table = view.table;
  q.compute = view.compute;
  q.n = view.n, q.d = view.d, q.k = view.k;
  q.fit_intercept = view.fit_intercept;
  q.n_threads = problem.n_threads();
  q.slope = [&view, threads = q.n_threads](const void* z, const void* z_end, double t) { return slope_along(view, z, z_end, t, threads); };
  q.residual_size = [&view, threads = q.n_threads](const void* z) {
    const std::vector<double> sizes = shifted_loss(view, z, nullptr, nullptr, nullptr, threads).size;
    return *std::max_element(sizes.begin(), sizes.end());
  };
  const std::size_t bytes = static_cast<std::size_t>(q.n) * (q.compute == Compute::f64 ? sizeof(double) : sizeof(float));
  q.mean_curvature = [this, &view, threads = q.n_threads, bytes](const void* z) {
    rows_.resize(bytes / sizeof(std::max_align_t) + 1);
    return mean_curvature(view, z, rows_.data(), threads);
  };
  q.interrupted = [this] { return asked(); };
  q.pass = [&view, threads = q.n_threads, asked = q.interrupted](const double* w, double* grad, double* H, void* z) {
    if (H == nullptr) {
      PassRequest request;
      request.w = w;
      request.grad = grad;
      request.z = z;
      request.n_threads = threads;
      request.interrupted = asked;
      const PassResult result = run_pass(view, request);
      if (result.interrupted) throw SmoothInterrupted{};
      std::int64_t row = 0, column = 0;
      if (!std::isfinite(result.value) && find_non_finite(view, &row, &column)) throw NotFinite{};
      return result.value;
    }
    SecondRequest request;
    request.w = w;
    request.grad = grad;
    request.out = H;
    request.z = z;
    request.n_threads = threads;
    request.interrupted = asked;
    const SecondResult result = view.k == 1 ? run_second(view, request) : class_hessian(view, request);
    if (result.interrupted) throw SmoothInterrupted{};
    if (!result.finite) throw NotFinite{};
    return result.value;
  };
}

}  // namespace nag
