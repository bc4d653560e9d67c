// How far along a step a convex function is lowest, from its slope alone.
#pragma once
#include <cmath>
#include <limits>

namespace nag {

// t in (0, 1) near the root of slope_at, which at 0 is `at_low` < 0: the secant rule inside a bracket that shrinks. Every third
// trial bisects: an exponential, or a kink, cannot stall the secant.
template <class Slope>
double root_of_slope(Slope&& slope_at, double at_low) {
  constexpr int kTrials = 12;
  const double first = at_low;
  double low = 0.0, high = 1.0, at_high = slope_at(1.0), t = 1.0;
  for (int i = 0; i < kTrials; ++i) {
    const double secant = std::isfinite(at_high) ? low - at_low * (high - low) / (at_high - at_low) : -1.0;
    const bool inside = low + 1e-3 * (high - low) < secant && secant < high - 1e-3 * (high - low);
    t = inside && i % 3 != 2 ? secant : 0.5 * (low + high);
    const double here = slope_at(t);
    if (std::fabs(here) <= 0.1 * std::fabs(first) || high - low < 1e-10) break;
    if (here < 0) low = t, at_low = here;
    else high = t, at_high = here;
  }
  return t;
}

}  // namespace nag
