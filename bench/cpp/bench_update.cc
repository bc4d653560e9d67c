// The fused update against the plain five-stream loop b = μb + g; θ = θ − lr·(g + μb), in turns in the same run, so that
// their ratio is a ratio of the same minute on the same memory. Build with -DNAGCORE_BENCH=ON; docs/performance.md.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <vector>

#include "dispatch/dispatch.h"
#include "engine/stream.h"
#include "engine/threads.h"
#include "engine/update.h"

namespace {

constexpr float kLr = 0.1F;
constexpr float kMomentum = 0.9F;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

nag::UpdateScalars scalars() {
  nag::UpdateScalars s;
  s.lr = kLr;
  s.momentum = s.lookahead = kMomentum;
  return s;
}

// `count` tensors of `size` float32 elements each, one after the other in three allocations.
struct Tensors {
  std::vector<float> p, g, b;
  nag::UpdateList list;

  Tensors(std::size_t count, std::size_t size) : p(count * size), g(count * size), b(count * size) {
    for (std::size_t i = 0; i < p.size(); ++i) {
      p[i] = static_cast<float>(i % 1013) * 1e-3F;
      g[i] = static_cast<float>(i % 509) * 1e-6F;
    }
    for (std::size_t i = 0; i < count; ++i) {
      nag::UpdateSpan span{};
      span.param = p.data() + i * size;
      span.grad = g.data() + i * size;
      span.buffer = b.data() + i * size;
      span.count = size;
      span.tensor = i;
      span.param_number = span.grad_number = nag::UpdateNumber::f32;
      list.add(span);
    }
    list.seal();
  }

  nag::UpdateReport step(const nag::UpdateScalars& s, int threads) {
    return nag::run_update(nag::active_table().update, list, s, threads);
  }
};

// One step of each on equal arrays: a ratio of two different results would mean nothing.
bool agrees(int threads) {
  Tensors ours(3, 1003), theirs(3, 1003);
  for (int i = 0; i < 3; ++i) {
    ours.step(scalars(), threads);
    nag::stream_update(theirs.p.data(), theirs.g.data(), theirs.b.data(), static_cast<std::int64_t>(theirs.p.size()), threads);
  }
  for (std::size_t i = 0; i < ours.p.size(); ++i) {
    if (!(std::fabs(ours.p[i] - theirs.p[i]) <= 8 * 0x1p-23F)) return false;
  }
  return true;
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

// ratio: time of the plain loop over time of the fused update, medians of turns taken one after the other.
void fused_against_plain(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const auto size = static_cast<std::size_t>(state.range(1));
  const int threads = static_cast<int>(state.range(2)) == 0 ? nag::default_threads() : static_cast<int>(state.range(2));
  if (!agrees(threads)) {
    state.SkipWithError("the fused update and the plain loop disagree");
    return;
  }
  Tensors x(count, size);
  const auto n = static_cast<std::int64_t>(x.p.size());
  const nag::UpdateScalars s = scalars();
  x.step(s, threads);  // the first touch of b, and the threads' start
  std::vector<double> fused, plain;
  for (auto _ : state) {
    auto start = std::chrono::steady_clock::now();
    benchmark::DoNotOptimize(x.step(s, threads));
    fused.push_back(seconds_since(start));
    start = std::chrono::steady_clock::now();
    nag::stream_update(x.p.data(), x.g.data(), x.b.data(), n, threads);
    benchmark::ClobberMemory();
    plain.push_back(seconds_since(start));
    state.SetIterationTime(fused.back());
  }
  constexpr double kBytes = 5 * sizeof(float);  // θ, g, b read; θ, b written
  state.counters["GB/s"] = kBytes * static_cast<double>(n) / median(fused) * 1e-9;
  state.counters["plain GB/s"] = kBytes * static_cast<double>(n) / median(plain) * 1e-9;
  state.counters["ratio"] = median(plain) / median(fused);
}

BENCHMARK(fused_against_plain)
    ->ArgNames({"tensors", "elements", "threads"})
    ->Args({1, 100'000'000, 0})
    ->Args({1, 100'000'000, 1})
    ->Args({1000, 4096, 0})
    ->Args({1000, 1024, 0})
    ->Args({1000, 256, 0})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// What the options cost next to the plain step: each reads or writes one more stream, or reads the gradients first.
void fused_with_option(benchmark::State& state, int option) {
  Tensors x(1, 10'000'000);
  std::vector<float> ema(option == 1 ? x.p.size() : 0);
  nag::UpdateScalars s = scalars();
  if (option == 1) {
    s.averaged = true;
    s.ema_decay = 0.999;
    x.list.tensor(0).whole.ema = ema.data();
  }
  s.read_first = option == 2;
  s.weight_decay = option == 3 ? 1e-4 : 0.0;
  const int threads = nag::default_threads();
  for (auto _ : state) benchmark::DoNotOptimize(x.step(s, threads));
  const double streams = option == 1 ? 7 : option == 2 ? 6 : 5;
  state.SetBytesProcessed(static_cast<std::int64_t>(static_cast<double>(state.iterations()) * streams * 4 *
                                                    static_cast<double>(x.p.size())));
}
BENCHMARK_CAPTURE(fused_with_option, step, 0)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(fused_with_option, ema, 1)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(fused_with_option, check_finite, 2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(fused_with_option, weight_decay, 3)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
