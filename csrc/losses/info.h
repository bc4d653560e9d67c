// What the registry says of each loss, for the rooms that run no vector code.
#pragma once
#include "base/types.h"

namespace nag {
namespace loss_text {
#define NAG_INLINE inline
#include "losses/losses.h"
#undef NAG_INLINE
}  // namespace loss_text

struct LossInfo {
  const char* name;
  const char* section;
  Domain targets;
  double curvature_bound;
};
constexpr LossInfo kLosses[] = {
#define NAG_ELEMENTWISE_LOSS(L, section) \
  {loss_text::L::name, section, loss_text::L::targets, loss_text::L::curvature_bound},
#define NAG_ROW_LOSS(L, section) NAG_ELEMENTWISE_LOSS(L, section)
#include "losses/registry.h"
#undef NAG_ROW_LOSS
#undef NAG_ELEMENTWISE_LOSS
};
constexpr int kLossCount = static_cast<int>(sizeof(kLosses) / sizeof(kLosses[0]));

}  // namespace nag
