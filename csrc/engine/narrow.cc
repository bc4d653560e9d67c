#include "engine/narrow.h"

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/threads.h"

namespace nag {
namespace {

constexpr std::int64_t kSegment = 4096;        // numbers a thread converts at a time
constexpr std::uint32_t kLargest = 0x5D5E0B6B;  // the bits of 1e18f

std::uint32_t bits_of(double t) {
  const float f = static_cast<float>(t);
  std::uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}

// Each put() stores one number and returns 1 where it cannot hold it. Integer work on lanes: plain loops become vectors.
struct PutFloat {
  using Out = float;
  static int put(double x, double origin, double inverse, double, Out& out) {
    const std::uint32_t u = bits_of((x - origin) * inverse);
    std::memcpy(&out, &u, 4);
    return static_cast<std::int32_t>(u & 0x7FFFFFFFu) > static_cast<std::int32_t>(kLargest);
  }
};
struct PutBfloat16 {
  using Out = std::uint16_t;
  static int put(double x, double origin, double inverse, double, Out& out) {
    const std::uint32_t u = bits_of((x - origin) * inverse);
    out = static_cast<Out>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
    return static_cast<std::int32_t>(u & 0x7FFFFFFFu) > static_cast<std::int32_t>(kLargest);
  }
};
struct PutByte {
  using Out = std::uint8_t;
  static int put(double x, double origin, double inverse, double step, Out& out) {
    double t = (x - origin) * inverse + 0.5;
    t = t > 0 ? t : 0;  // NaN too
    t = t < 255.5 ? t : 255.5;
    const auto q = static_cast<std::int32_t>(t);
    out = static_cast<Out>(q);
    const double error = std::fabs(origin + q * step - x);
    return !(error <= 4 * DBL_EPSILON * (std::fabs(origin) + 256 * std::fabs(step)));
  }
};

template <class Put>
bool convert(const NarrowView& v, typename Put::Out* out, int n_threads) {
  const std::int64_t pieces = (v.length + kSegment - 1) / kSegment, work = v.lines * pieces;
  const std::int64_t count = v.origin ? (v.by_line ? v.lines : v.length) : 0;
  std::vector<double> inverses(static_cast<std::size_t>(count));
  for (std::int64_t j = 0; j < count; ++j) inverses[static_cast<std::size_t>(j)] = 1 / v.step[j];
  std::atomic<int> bad{0};
  parallel_run(n_threads, [&](int t, int threads) {
    int here = 0;
    for (std::int64_t i = work * t / threads, last = work * (t + 1) / threads; i < last; ++i) {
      const std::int64_t line = i / pieces, begin = i % pieces * kSegment;
      const std::int64_t m = std::min(kSegment, v.length - begin);
      const double* x = v.x + line * v.stride + begin;
      typename Put::Out* to = out + line * v.length + begin;
      int missed = 0;
      if (v.origin == nullptr) {
        for (std::int64_t j = 0; j < m; ++j) missed |= Put::put(x[j], 0.0, 1.0, 1.0, to[j]);
      } else if (v.by_line) {
        const double origin = v.origin[line], step = v.step[line], inverse = inverses[static_cast<std::size_t>(line)];
        for (std::int64_t j = 0; j < m; ++j) missed |= Put::put(x[j], origin, inverse, step, to[j]);
      } else {
        const double *origin = v.origin + begin, *step = v.step + begin, *inverse = inverses.data() + begin;
        for (std::int64_t j = 0; j < m; ++j) missed |= Put::put(x[j], origin[j], inverse[j], step[j], to[j]);
      }
      here |= missed;
    }
    if (here) bad = 1;
  });
  return bad == 0;
}

}  // namespace

bool narrow_copy(const NarrowView& view, NarrowNumber number, void* out, int n_threads) {
  switch (number) {
    case NarrowNumber::f32: return convert<PutFloat>(view, static_cast<float*>(out), n_threads);
    case NarrowNumber::bf16: return convert<PutBfloat16>(view, static_cast<std::uint16_t*>(out), n_threads);
    case NarrowNumber::u8: return convert<PutByte>(view, static_cast<std::uint8_t*>(out), n_threads);
  }
  return false;
}

}  // namespace nag
