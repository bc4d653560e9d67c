// A smooth function of the coefficients whose passes come from elsewhere, and what every line search along margins needs.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/problem.h"

namespace nag {

constexpr double kArmijo = 1e-4;   // of what the slope promises, a step must bring
constexpr double kSeconds = 0.02;  // of a call, after which signals and deadlines are looked at

// Thrown where `interrupted` said so.
struct SmoothInterrupted {};

// What is minimised, and where its passes come from. Coefficients are p x k in C order, p = d + fit_intercept.
struct SmoothProblem {
  const KernelTable* table = nullptr;  // for the algebra of the size of the coefficients
  Compute compute = Compute::f64;
  std::int64_t n = 0, d = 0, k = 1;
  bool fit_intercept = false;
  double l2 = 0.0;
  const double* linear = nullptr;  // p x k: f has this times w too; null for none
  const double* origin = nullptr;  // d numbers about which X is stored; null for zero
  int n_threads = 1;
  // The data term at w: returns its value, writes gradient, margins (n x k, of the compute type) and, where that is not null,
  // the Hessian [a][i][b][j].
  std::function<double(const double* w, double* grad, double* H, void* z)> pass;
  // The derivative in t of the data term at margins z + t (z_end - z), and the mean size of the residuals at z, the largest
  // over classes.
  std::function<double(const void* z, const void* z_end, double t)> slope;
  std::function<double(const void* z)> residual_size;
  std::function<double(const void* z)> mean_curvature;  // of the rows at z, k = 1; may be empty
  std::function<bool()> interrupted;  // asked by long factorisations; `pass` sees to itself

  std::int64_t p() const { return d + (fit_intercept ? 1 : 0); }
};

// One point: the coefficients, the data term's value and gradient u, and f and its gradient g with the penalty.
struct SmoothPoint {
  std::vector<double> w, u, g;
  double data_value = 0.0, f = 0.0;
};

// When a call ends before `steps` passes: at a step that is not a plain one (not taken, not resolved, not the lowest so far),
// at a gap of at most max(tol (null_value - f), floor), and after kSeconds.
struct SmoothLimits {
  std::int64_t steps = 1;
  double tol = 0.0, null_value = 0.0, floor = 0.0;
};

double now();  // seconds of a steady clock
double dot(const std::vector<double>& a, const std::vector<double>& b);

// f and g of a point whose data_value and u are known.
void add_penalty(const SmoothProblem& problem, SmoothPoint& point);

// How far a value of f can be off: rounded margins, as large as their terms |x_ij w_j|. rms holds the columns' sizes.
class Rounding {
 public:
  double operator()(const SmoothProblem& problem, const std::vector<double>& rms, double f, const void* z, const std::vector<double>& w);

 private:
  double residual_ = 0.0;
  int age_ = 0;
};

// A t in (0, 1) near the minimum of f(w + t step), from the margins at both ends and the slope at t = 0.
double best_step(const SmoothProblem& problem, const void* z, const void* z_end, const std::vector<double>& w,
                 const std::vector<double>& step, double slope);

}  // namespace nag
