// Where a tensor's arrays lie, whoever brought them: one run in memory where they share a dense layout, a walk over strides
// where they do not. NumPy's arrays (update_arrays.cc) and torch's tensors (tensor_plan.cc) both end here.
#pragma once

#include <Python.h>

#include "bindings/update_overlap.h"
#include "engine/update.h"

namespace nag {

struct ArrayView {
  char* data = nullptr;
  int rank = 0;
  const Py_ssize_t* shape = nullptr;
  const Py_ssize_t* strides = nullptr;  // bytes
  UpdateNumber number = UpdateNumber::f32;
  bool present = false;
};

constexpr Py_ssize_t item_bytes(UpdateNumber n) { return n == UpdateNumber::f64 ? 8 : n == UpdateNumber::f32 ? 4 : 2; }

constexpr const char* number_name(UpdateNumber n) {
  constexpr const char* kNames[] = {"float64", "float32", "bfloat16", "float16"};
  return kNames[static_cast<int>(n)];
}

// Whether an array of `given` may stand in `role` beside a parameter of `param`.
bool number_fits(UpdateRole role, UpdateNumber param, UpdateNumber given);

void place(UpdateSpan& span, char* const* base);

// Adds the tensor behind `views` (one for each role, shapes equal) to the list and its extents to the overlap check, as
// arrays number tensor * kUpdateRoles + role. Returns the role of an array that is written and whose elements share memory
// among themselves, as in a broadcast view, or -1.
int lay_out(const ArrayView* views, UpdateSpan span, UpdateList& list, OverlapCheck& overlaps);

}  // namespace nag
