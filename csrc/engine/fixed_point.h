// Coefficients beside bytes as whole numbers (FixedPanel), for passes over so many rows that this is soon paid back.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "engine/problem.h"

namespace nag {

class FixedPoint {
 public:
  // Converting a column takes four nanoseconds a pass, by one thread where threads share the rows, and each row of it gains a hundredth
  // of one, shared by them: paid back by a dozen threads at least.
  static constexpr std::int64_t kRows = 4096;

  template <class T>
  FixedPoint(const ProblemView& v, const RowKernels<T>& kernels, std::int64_t panels) {
    if (v.storage == Storage::u8 && kernels.fixed_bytes && v.n >= kRows) panels_.resize(static_cast<std::size_t>(panels));
  }

  // From panel `i` on, or null.
  const FixedPanel* from(std::int64_t i) const { return panels_.empty() ? nullptr : panels_.data() + i; }

  // The m coefficients of panel `i`. Rounded to 31 bits of their largest they are as good as in float32 unless they lie far below
  // it: so those of a panel whose largest towers over the others stay as they are, as do numbers that are not finite.
  template <class T>
  void set(std::int64_t i, const T* w, std::ptrdiff_t m) {
    if (panels_.empty()) return;
    FixedPanel& panel = panels_[static_cast<std::size_t>(i)];
    double largest = 0, sum = 0;
    for (std::ptrdiff_t j = 0; j < m; ++j) {
      const double size = std::fabs(static_cast<double>(w[j]));
      largest = std::max(largest, size);
      sum += size;
    }
    panel.unit = 0;
    if (!(std::isfinite(sum) && largest > 0 && largest * static_cast<double>(m) <= kTowers * sum)) return;
    panel.unit = largest / kLargest;
    const double per_unit = kLargest / largest;
    for (std::ptrdiff_t j = 0; j < m; ++j) {
      const double x = static_cast<double>(w[j]) * per_unit;
      const auto number = static_cast<std::int32_t>(x + (x < 0 ? -0.5 : 0.5));
      std::int16_t* const low = panel.halves + j / kTogether * 2 * kTogether + j % kTogether;
      *low = static_cast<std::int16_t>(static_cast<std::uint16_t>(number & 0xFFFF));
      low[kTogether] = static_cast<std::int16_t>((static_cast<std::int64_t>(number) - *low) / 65536);
    }
  }

 private:
  static constexpr std::ptrdiff_t kTogether = FixedPanel::kTogether;
  static constexpr double kLargest = 2147418112.0;  // 2^31 - 2^16: its high half still fits 16 bits
  static constexpr double kTowers = 128;            // over the mean
  std::vector<FixedPanel> panels_;
};

}  // namespace nag
