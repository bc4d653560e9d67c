// Proximal Newton steps under l1 on few columns: the model of a step is solved by exchanging blocks of the active set.
#pragma once
#include <limits>
#include <vector>

#include "engine/newton.h"

namespace nag {

struct ProxRecord {
  double data_value, f, whole;  // of the pass: data term, with l2, with l1
  double bound, free;           // F - (a dual value), and what it is about: NaN unless moved
  double seconds;               // since the call
  int passes;                   // 1, or 0 where the first point's pass was known
  bool hessian, moved, resolved;  // as NewtonRecord has them
};

struct ProxTrace {
  std::vector<ProxRecord> records;
  std::vector<double> w, g, u;  // of each record's pass
};

// p = argmin <g, p> + p'Hp/2 + l1 |w + p|, the intercept eliminated; w+ = w + t p, line search as `Newton` has it. k = 1.
class ProxNewton {
 public:
  // w is copied; z0 and z1 are the margins of two points. With `reuse` a Hessian serves as long as steps by it pay: it costs
  // what several gradients do. It follows the mean curvature of the rows, and the change of gradient along each step (BFGS).
  ProxNewton(const SmoothProblem& problem, double l1, bool reuse, const double* w, void* z0, void* z1);
  ProxNewton(const ProxNewton&) = delete;
  ProxNewton& operator=(const ProxNewton&) = delete;
  // Of the data term, p x p: for steps before there is another (with `reuse`).
  void take_hessian(const double* H);
  // What a pass at w gave, whose margins z0 holds: the first is left out. After `take_hessian`.
  void resume(double data_value, const double* u);

  ProxTrace run(const SmoothLimits& limits);
  int current() const { return current_; }
  const std::vector<double>& sizes() const { return rms_; }
  bool has_hessian() const { return has_hessian_; }
  const std::vector<double>& hessian() const { return H_; }  // of the data term, or what stands for it

 private:
  struct Point : SmoothPoint {
    double whole = 0.0;  // f with l1
  };
  ProxRecord start();
  ProxRecord step();
  void evaluate(Point& point, void* z, bool hessian);
  void penalise(Point& point) const;
  void take_sizes();
  void settle();
  void learn(bool hessian, bool resolved);
  void aim();
  double offence() const;
  double gap_of_penalty(double scale, double largest) const;
  double best_step(double slope);
  ProxRecord record(const Point& point, bool hessian, bool moved, bool resolved) const;

  SmoothProblem problem_;
  double l1_;
  bool reuse_;
  std::int64_t d_, p_;
  void* z_[2];
  int current_ = 0;
  bool started_ = false, searching_ = false, known_ = false, has_hessian_ = false, wanted_ = false;
  Point here_, there_;
  std::vector<double> step_, rms_, centre_, slope_;
  std::vector<double> H_, model_, head_, target_;  // model_: H with l2, the intercept eliminated
  double mean_ = 0.0;  // curvature, where H_ is of
  double least_ = 0.0, t_ = 1.0, offence_ = 0.0, bound_ = 0.0, free_ = 0.0;
  double lower_ = -std::numeric_limits<double>::infinity();
  Rounding rounding_;
};

}  // namespace nag
