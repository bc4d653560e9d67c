// The passes of a Problem for the compiled methods, and how a call of theirs ends where a signal came or X is not finite.
#pragma once
#include <cstddef>
#include <functional>
#include <vector>

#include "bindings/problem.h"
#include "engine/smooth.h"

namespace nag {

class SmoothPasses {
 public:
  // Everything of q but l2, linear and origin. The problem must outlive this, and this q.
  void give(const Problem& problem, SmoothProblem& q);
  // Whether a signal came: for `interrupted`. Takes the GIL.
  bool asked();
  // `call` without the GIL; a signal's exception, or the place of what is not finite in X, is thrown when it has ended.
  void guard(const std::function<void()>& call);

 private:
  const Problem* problem_ = nullptr;
  bool signalled_ = false;
  std::vector<std::max_align_t> rows_;  // one number of each
};

}  // namespace nag
