// A bound on F(w) - min F by duality, from margins and residuals alone (docs/maths.md, "When to stop").
#pragma once
#include <functional>
#include <vector>

#include "engine/problem.h"

namespace nag {

// Float64 arithmetic, no bounds on w. Null pointers: not known.
struct CertificateRequest {
  const double* w = nullptr;  // w_rows x k
  double l1 = 0.0, l2 = 0.0;
  double curvature = 1.0;     // a bound on phi''; may be infinite
  const double* z = nullptr;  // margins at w; r and u, their residuals and the data gradient, count without an intercept alone
  const double* r = nullptr;
  const double* u = nullptr;
  double* moved = nullptr;      // n x k: written
  double* residuals = nullptr;  // n x k: written
  int n_threads = 1;
  std::function<bool()> interrupted;
};

struct Certificate {
  std::vector<double> w;      // with the best intercept for its coefficients, where there is one
  double value = 0.0;         // F there
  double gap = 0.0;           // that less a lower bound of min F; may be infinite
  double given_value = 0.0;   // F at the w that was given
  std::vector<double> slope;  // d x k: X'(s theta)/S of the dual point theta; empty where gap is infinite
  bool interrupted = false;
};

// The dual point is the residual at w with the best intercept, shrunk where l1 asks for it. With an intercept a pass of X',
// and one for margins that are not known; without one a pass, or none where z, u and, under l1, r are known.
Certificate certify(const ProblemView& problem, const CertificateRequest& request);

}  // namespace nag
