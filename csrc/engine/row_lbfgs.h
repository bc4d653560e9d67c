// L-BFGS whose unknowns are the rows of X, w = X~'a: steps by products K a = X~ X~'a alone, until somebody has to look.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/table.h"

namespace nag {

// What is minimised: the mean loss of margins z = K a + c b, plus l2/2 <a, K a>. A point has n x k numbers a, and with c > 0
// k numbers b after them; so has what its product is lifted to, (K a, b).
template <class T>
struct RowProblem {
  std::int64_t n = 0, k = 1;
  double l2 = 0.0;
  double c = 0.0;              // of the intercept; 0 for none: X~ is then X, else its columns are centred
  double curvature = 0.0;      // an upper bound of phi''
  int n_threads = 1;
  std::function<bool(const T* v, T* out)> product;  // X X'v; false where it was interrupted
  std::function<double(const T* z, T* r)> loss;     // the mean loss; residuals are written
  const KernelTable* table = nullptr;
  std::function<void(const T* z, T* h)> second;     // phi'' of each margin; none for classes

  std::int64_t size() const { return (n + (c > 0 ? 1 : 0)) * k; }
};

struct RowRecord {
  double f, bound;  // of the point, and the square of w's gradient there over 2 l2
  double seconds;   // since the call
  bool resolved;    // whether the step to it changes f by more than rounding does
};

// A step goes along d = -H grad f. With `second`, H is the inverse of the Hessian on the span of what is kept: margins are linear,
// and those of all that is kept are at hand. For classes it is that of L-BFGS. A call ends after so many steps, at a gap of at most max(tol (null_value - f), floor), at a step that is not resolved or
// leads no lower, and after a while.
struct RowLimits {
  std::int64_t steps = 1;
  double tol = 0.0, null_value = 0.0, floor = 0.0;
};

template <class T>
class RowLbfgs {
 public:
  // What it works in, which outlives it: x, before and Kx of a point's size (Kx null where c is 0: it is the margins then);
  // three margins and three residuals of n x k; 2 pairs + 1 points and as many lifted ones.
  struct Memory {
    T *x, *before, *Kx;
    T *z[3], *r[3];
    std::vector<T*> plain, lifted;
  };
  // x, Kx, z[0] and r[0] hold the start, where f and <a, K a> are as given.
  RowLbfgs(const RowProblem<T>& problem, const Memory& memory, int pairs, double f, double square);
  RowLbfgs(const RowLbfgs&) = delete;
  RowLbfgs& operator=(const RowLbfgs&) = delete;

  std::vector<RowRecord> run(const RowLimits& limits);

  bool interrupted() const { return interrupted_; }
  int current() const { return current_; }  // which margins and residuals are x's
  std::int64_t steps() const { return steps_; }
  std::int64_t products() const { return products_; }
  double f() const { return f_; }
  double square() const { return square_; }
  // Of the points kept: steps, then gradients, by place; and the lengths of the steps.
  const std::vector<double>& inner() const { return inner_; }
  const std::vector<double>& lengths() const { return length_; }
  int gradient_place() const { return place(steps_); }
  bool kept(int at) const { return live_[static_cast<std::size_t>(at)]; }

 private:
  int place(std::int64_t gradient) const { return pairs_ + static_cast<int>(gradient % (pairs_ + 1)); }
  double& inner(int i, int j) { return inner_[static_cast<std::size_t>(i * count_ + j)]; }
  double inner(int i, int j) const { return inner_[static_cast<std::size_t>(i * count_ + j)]; }
  bool lift(const T* x, T* out);
  RowRecord take_gradient();
  // Coefficients of the next direction in what is kept: Newton's in its span, or by the two loops.
  bool in_span(std::vector<double>& c);
  void by_pairs(std::vector<double>& c) const;
  void direction();
  bool step();
  bool search(double t, double noise);
  double dot(const T* a, const T* b, std::int64_t n) const;
  double tails(const T* a, const T* b) const;
  double along(const T* r) const;
  double rounding() const;

  RowProblem<T> problem_;
  Memory at_;
  int pairs_, count_;
  std::int64_t rows_, size_;  // numbers of margins and of a point
  double weight_;
  double f_, square_;
  std::int64_t steps_ = 0, products_ = 0;
  int current_ = 0, found_ = 0;
  bool started_ = false, interrupted_ = false, resolved_ = true;
  std::vector<double> inner_, length_;
  std::vector<char> live_;
  std::vector<T> balanced_, way_, second_, ones_;
  const T* h_ = nullptr;  // the latest direction's margins
  double slope_ = 0.0, cross_ = 0.0, far_ = 0.0, length_found_ = 0.0, f_found_ = 0.0;
};

}  // namespace nag
