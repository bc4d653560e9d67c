// L-BFGS in the metric of one preconditioner: a pass a step, line search on margins.
#pragma once
#include <deque>
#include <utility>
#include <vector>

#include "engine/smooth.h"

namespace nag {

// w = S L^-T v, b = v_b scale_b - mean'w: in v the preconditioner P is the identity.
struct LbfgsMetric {
  std::vector<double> L;      // d x d, lower; empty for the identity
  std::vector<double> scale;  // d
  std::vector<double> mean;   // d, or empty without an intercept
  double scale_b = 1.0;
  std::vector<double> rms;    // the columns' sizes, d
};

struct LbfgsRecord {
  double data_value, f;  // of the pass
  double bound;          // the square of the gradient over 2 l2, the intercept's part taken out; NaN unless moved, and without l2
  double seconds;        // since the call
  bool passed;           // whether there was a pass: the start may be known
  bool moved;            // whether a step was taken: else the pass is where the line search looks
  bool resolved;         // whether it changes f by more than rounding does
};

struct LbfgsTrace {
  std::vector<LbfgsRecord> records;
  std::vector<double> v, g, w, u;  // of each record's pass: the point and its gradient in v and in w (there of the data term)
};

// p = -H g by the two loops over the last pairs, v+ = v + t p. The full step is tried by the next pass; where f falls too
// little, margins of both ends give f on the segment, and the pass after that goes to its minimum. k = 1.
class Lbfgs {
 public:
  using Pair = std::pair<std::vector<double>, std::vector<double>>;  // step s, change of gradient y, in v

  // margins0 and margins1 are n numbers of the compute type and outlive this.
  Lbfgs(const SmoothProblem& problem, LbfgsMetric metric, std::vector<double> v, void* margins0, void* margins1);
  Lbfgs(const Lbfgs&) = delete;
  Lbfgs& operator=(const Lbfgs&) = delete;
  // What a pass at w gave, so that the run starts without one; margins0 hold its margins.
  void know(double data_value, std::vector<double> w, std::vector<double> u);
  // The first step to try, in place of -H g, if f falls along it.
  void propose(std::vector<double> step) { proposed_ = std::move(step); }
  void remember(std::vector<double> s, std::vector<double> y);
  const std::deque<Pair>& pairs() const { return pairs_; }

  LbfgsTrace run(const SmoothLimits& limits);
  // Which margins are those of the last step taken; the others are of the last pass if that was not.
  int current() const { return current_; }

 private:
  struct Point : SmoothPoint {
    std::vector<double> v, pulled;  // and the gradient there
  };
  LbfgsRecord start();
  LbfgsRecord step();
  void direction();
  void place(Point& point) const;
  void pass_at(Point& point, void* z);
  void pull_back(Point& point) const;
  double bound(const Point& point) const;

  SmoothProblem problem_;
  LbfgsMetric metric_;
  std::int64_t d_, p_;
  void* z_[2];
  int current_ = 0;
  bool known_ = false, started_ = false, searching_ = false;
  Point here_, there_;
  std::deque<Pair> pairs_;
  std::vector<double> step_, proposed_;
  double slope_ = 0.0, t_ = 1.0;
  Rounding rounding_;
};

}  // namespace nag
