// The update over a list of tensors: one parallel region, work balanced over elements, and a
// gradient norm summed in fixed leaves so that no thread count can change a bit of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/table.h"

namespace nag {

enum UpdateRole : int { kParam, kGrad, kBuffer, kEma, kMaster, kUpdateRoles };

// How to reach the elements of a tensor whose arrays do not share one dense layout.
struct UpdateWalk {
  std::vector<std::int64_t> shape;                  // axes, slowest of `param` first
  std::vector<std::int64_t> strides[kUpdateRoles];  // bytes; empty for an absent array
};

struct UpdateTensor {
  UpdateSpan whole;        // count is that of the tensor
  std::int64_t walk = -1;  // index into UpdateList::walks, or -1: dense, side by side
};

// The tensors of one call or one plan, validated, with what the engine derives from them.
class UpdateList {
 public:
  void add(const UpdateSpan& whole);
  void add(const UpdateSpan& whole, UpdateWalk walk);
  void seal();  // after the last add: numbers the leaves
  void clear();

  std::size_t size() const { return tensors_.size(); }
  std::size_t elements() const { return elements_; }
  UpdateTensor& tensor(std::size_t i) { return tensors_[i]; }
  const UpdateTensor& tensor(std::size_t i) const { return tensors_[i]; }
  const UpdateWalk* walk(const UpdateTensor& t) const {
    return t.walk < 0 ? nullptr : &walks_[static_cast<std::size_t>(t.walk)];
  }
  bool walks() const { return !walks_.empty(); }
  bool any_double() const { return any_double_; }
  bool any_single() const { return any_single_; }

  std::size_t leaves() const { return first_leaf_.empty() ? 0 : first_leaf_.back(); }
  std::size_t first_leaf(std::size_t tensor) const { return first_leaf_[tensor]; }
  std::size_t first_element(std::size_t tensor) const { return first_element_[tensor]; }
  std::vector<double>& sums() { return sums_; }
  std::vector<double>& alignments() { return alignments_; }  // one per leaf where asked for

 private:
  std::vector<UpdateTensor> tensors_;
  std::vector<UpdateWalk> walks_;
  std::vector<std::size_t> first_leaf_;     // size() + 1
  std::vector<std::size_t> first_element_;  // size() + 1
  std::vector<double> sums_;                // one per leaf
  std::vector<double> alignments_;
  std::size_t elements_ = 0;
  bool any_double_ = false;
  bool any_single_ = false;
};

// The scalars of a call as the user gave them, in double.
struct UpdateScalars {
  double lr = 0.0;
  double momentum = 0.0;
  double lookahead = 0.0;
  double dampening = 0.0;
  double weight_decay = 0.0;
  double grad_scale = 1.0;
  double max_norm = 0.0;  // 0: no clipping
  double ema_decay = 0.0;
  std::uint64_t seed = 0;
  bool decoupled = false;
  bool nesterov = true;
  bool buffered = true;  // false: momentum 0 and no look-ahead, buffers are left alone
  bool maximize = false;
  bool averaged = false;
  bool read_first = false;  // read the gradients once before anything is written
  bool aligned = false;     // report <g, b>
  double known_norm = -1.0;  // the gradients' norm where the caller has measured it; negative: not known
  UpdateConvention convention = UpdateConvention::torch;
};

struct UpdateReport {
  double grad_norm = 0.0;    // of the unscaled gradients, before clipping
  double clip_factor = 1.0;
  bool found_inf = false;
  bool written = true;
  double alignment = 0.0;  // Σ lr·<g, b> over the tensors, where asked for: minus what a step of -lr·b gains at g
};

template <class T>
UpdateRule<T> make_update_rule(const UpdateScalars& s, double clip_factor);

// Runs the whole list, each tensor by the rule that its span names. What concerns all tensors at once
// (scale, clipping, moving average, seed, what to read first and report) stands in rules[0]. Needs no
// lock of Python; throws only std::bad_alloc, before the first write.
UpdateReport run_update(const UpdateTable& table, UpdateList& list,
                        const std::vector<UpdateScalars>& rules, int threads);

inline UpdateReport run_update(const UpdateTable& table, UpdateList& list,
                               const UpdateScalars& scalars, int threads) {
  return run_update(table, list, std::vector<UpdateScalars>(1, scalars), threads);
}

// The norm of the gradients as they lie, in one read of them.
double update_norm(const UpdateTable& table, UpdateList& list, int threads);

}  // namespace nag
