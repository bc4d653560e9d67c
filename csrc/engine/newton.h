// Newton's method on a smooth loss with an l2 penalty: a Hessian a pass, Cholesky, line search on margins.
#pragma once
#include <limits>
#include <vector>

#include "engine/aligned.h"
#include "engine/smooth.h"

namespace nag {

// S^-1 L L' S^-1 = H: intercepts eliminated, a unit diagonal, Cholesky, with a ridge where a pivot is bad. Throws
// std::domain_error where no ridge makes it definite.
class NewtonFactor {
 public:
  explicit NewtonFactor(const SmoothProblem& problem);
  // H is overwritten.
  void build(double* H, double ridge);
  double ridge() const { return ridge_; }
  // The least pivot of the scaled matrix, about its reciprocal condition; 0 where a column is constant.
  double least() const;
  // H^-1 g; what is shared by all classes is left out where there are several.
  void solve(const double* g, double* out);
  // sqrt(g' H^-1 g): the length of a gradient in the metric of H.
  double norm(const double* g);

 private:
  void take_intercepts(double* H);
  void factorise(const double* K, double ridge);
  void half(const double* g);

  const SmoothProblem& problem_;
  std::int64_t d_, k_, p_, size_;
  double ridge_ = 0.0;
  bool some_constant_ = false;
  std::vector<double> scale_, half_, B_, V_, T_, tail_;
  Aligned<double> L_;
};

struct NewtonRecord {
  double data_value, f;   // of the pass
  double decrement, bound;  // half g' H^-1 g; with l2, the square of the gradient over 2 l2: both NaN unless moved
  double seconds;           // since the call
  bool hessian;             // whether the pass took one
  bool moved;               // whether a step was taken: else the pass is where the line search looks, or for a Hessian alone
  bool resolved;            // whether it changes f by more than rounding does
};

struct NewtonTrace {
  std::vector<NewtonRecord> records;
  std::vector<double> w, g, u;  // of each record's pass: the point, the gradient, the data term's gradient
};

// p = -(H + l2 I + tau diag H)^-1 grad f, w+ = w + t p. The full step is tried by the next pass; where f falls too little,
// margins of both ends give f on the segment, and the pass after that goes to its minimum. A step that is likely to be the
// last, by the speed of the last two, takes the gradient alone, which is a fraction of the work.
class Newton {
 public:
  // w is copied. margins[0] and margins[1] are n x k of the compute type and outlive this.
  Newton(const SmoothProblem& problem, const double* w, void* margins0, void* margins1);
  Newton(const Newton&) = delete;
  Newton& operator=(const Newton&) = delete;
  NewtonTrace run(const SmoothLimits& limits);
  // Which margins are those of the last step taken; the others are of the last pass if that was not.
  int current() const { return current_; }
  // Sizes of the columns, sqrt(mean x^2), weighted by the curvature of the last pass.
  const std::vector<double>& sizes() const { return rms_; }

 private:
  using Point = SmoothPoint;
  NewtonRecord start();
  NewtonRecord renew();
  NewtonRecord step(double target);
  void pass_at(Point& point, void* z, bool hessian);
  void take_sizes();
  void settle();
  NewtonRecord record(const Point& point, bool hessian, bool moved, bool resolved) const;
  double gap() const { return problem_.l2 > 0 ? bound_ : 0.5 * size_; }

  SmoothProblem problem_;
  std::int64_t d_, k_, p_;
  double eps_, ridge_, least_;
  void* z_[2];
  int current_ = 0;
  bool started_ = false, searching_ = false;
  bool fresh_ = false;  // whether the factor is of the Hessian at here_
  Point here_, there_;
  std::vector<double> h_, rms_, centre_;
  double size_ = 0.0, bound_ = 0.0, t_ = 1.0;
  double lower_ = -std::numeric_limits<double>::infinity();  // of min f, proven by bounds
  double last_gap_ = 0.0;  // before the last step, if that was a full one
  Rounding rounding_;
  Aligned<double> H_;
  NewtonFactor factor_;
};

}  // namespace nag
