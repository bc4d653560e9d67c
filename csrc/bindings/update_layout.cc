#include "bindings/update_layout.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace nag {
namespace {

Py_ssize_t magnitude(Py_ssize_t stride) { return stride < 0 ? -stride : stride; }

std::vector<int> slowest_first(const ArrayView& a, std::vector<int> order) {
  std::stable_sort(order.begin(), order.end(), [&](int x, int y) {
    return magnitude(a.strides[x]) > magnitude(a.strides[y]);
  });
  return order;
}

// An array's extent in memory, judged from its axes, fastest last.
struct Extent {
  Py_ssize_t bytes;  // from the lowest element's first to the highest one's last
  Py_ssize_t below;  // how far the lowest element lies before data
  bool dense;
  bool folded;  // two indices may reach one element
};

Extent extent_of(const ArrayView& a, const std::vector<int>& own) {
  Extent e{item_bytes(a.number), 0, true, false};
  for (std::size_t k = own.size(); k-- > 0;) {
    const Py_ssize_t stride = magnitude(a.strides[own[k]]);
    const Py_ssize_t reach = stride * (a.shape[own[k]] - 1);
    e.dense = e.dense && stride == e.bytes;
    e.folded = e.folded || stride < e.bytes;
    e.bytes += reach;
    if (a.strides[own[k]] < 0) e.below += reach;
  }
  return e;
}

// Every array in C order: the common case, told without sorting axes.
bool all_in_c_order(const ArrayView* views) {
  for (int role = 0; role < kUpdateRoles; ++role) {
    const ArrayView& a = views[role];
    if (!a.present) continue;
    Py_ssize_t expected = item_bytes(a.number);
    for (int axis = a.rank; axis-- > 0;) {
      if (a.shape[axis] != 1 && a.strides[axis] != expected) return false;
      expected *= a.shape[axis];
    }
  }
  return true;
}

}  // namespace

bool number_fits(UpdateRole role, UpdateNumber param, UpdateNumber given) {
  const bool narrow = param == UpdateNumber::bf16 || param == UpdateNumber::f16;
  const UpdateNumber state = narrow ? UpdateNumber::f32 : param;
  switch (role) {
    case kParam:
      return true;
    case kGrad:
      return given == param || (narrow && given == UpdateNumber::f32);
    case kMaster:
      return narrow && given == UpdateNumber::f32;
    case kBuffer:
      return given == state || (given == UpdateNumber::bf16 && param != UpdateNumber::f64);
    default:
      return given == state;
  }
}

void place(UpdateSpan& span, char* const* base) {
  span.param = base[kParam];
  span.grad = base[kGrad];
  span.buffer = base[kBuffer];
  span.ema = base[kEma];
  span.master = reinterpret_cast<float*>(base[kMaster]);
}

int lay_out(const ArrayView* views, UpdateSpan span, UpdateList& list, OverlapCheck& overlaps) {
  const ArrayView& p = views[kParam];
  span.param_number = p.number;
  span.grad_number = views[kGrad].number;
  span.bf16_buffer = views[kBuffer].present && views[kBuffer].number == UpdateNumber::bf16;
  span.count = 1;
  for (int axis = 0; axis < p.rank; ++axis) span.count *= static_cast<std::size_t>(p.shape[axis]);
  const auto id = [&](int role) { return static_cast<std::uint32_t>(span.tensor * kUpdateRoles + static_cast<std::size_t>(role)); };
  const auto bytes = [&](int role) { return static_cast<Py_ssize_t>(span.count) * item_bytes(views[role].number); };
  char* base[kUpdateRoles] = {};
  for (int role = 0; role < kUpdateRoles; ++role) base[role] = views[role].present ? views[role].data : nullptr;
  if (span.count == 0 || all_in_c_order(views)) {
    for (int role = 0; role < kUpdateRoles && span.count > 0; ++role) {
      if (base[role] != nullptr) overlaps.add(base[role], base[role] + bytes(role), id(role), role != kGrad, true);
    }
    place(span, base);
    list.add(span);
    return -1;
  }

  // Arrays that are not all in C order. Where they share one dense layout (a permutation of axes, such as channels last, or a
  // reversed view) they are still one run in memory; otherwise the engine walks them. Axes of length one take no part; the
  // others stand from the slowest of the parameter to its fastest.
  std::vector<int> axes;
  for (int axis = 0; axis < p.rank; ++axis) {
    if (p.shape[axis] != 1) axes.push_back(axis);
  }
  axes = slowest_first(p, axes);
  bool one_run = true;
  for (int role = 0; role < kUpdateRoles; ++role) {
    const ArrayView& a = views[role];
    if (!a.present) continue;
    const Extent extent = extent_of(a, slowest_first(a, axes));
    if (extent.folded && role != kGrad) return role;
    one_run = one_run && extent.dense;
    for (const int axis : axes) {
      one_run = one_run && a.strides[axis] * item_bytes(p.number) == p.strides[axis] * item_bytes(a.number);
    }
    const char* lowest = a.data - extent.below;
    overlaps.add(lowest, lowest + extent.bytes, id(role), role != kGrad, extent.dense);
  }
  if (one_run) {
    for (int role = 0; role < kUpdateRoles; ++role) {
      if (!views[role].present) continue;
      for (const int axis : axes) {
        if (views[role].strides[axis] < 0) base[role] += views[role].strides[axis] * (views[role].shape[axis] - 1);
      }
    }
    place(span, base);
    list.add(span);
    return -1;
  }
  UpdateWalk walk;
  for (const int axis : axes) walk.shape.push_back(p.shape[axis]);
  for (int role = 0; role < kUpdateRoles; ++role) {
    if (!views[role].present) continue;
    for (const int axis : axes) walk.strides[role].push_back(views[role].strides[axis]);
  }
  place(span, base);
  list.add(span, std::move(walk));
  return -1;
}

}  // namespace nag
