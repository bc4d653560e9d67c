// One pass of value and gradient over dense X, against a plain read of the same bytes.
//
// Each iteration times the pass and then the read, so that both see the same machine; `ratio` is the read's median time
// over the pass's, 1 being the memory's speed. Before anything is timed, value and gradient of the first rows must agree
// with plain double loops.
//
//     NAGCORE_BENCH_MB=400        bytes of X in megabytes (more than the last-level cache, or the ratio means nothing)
//     NAGCORE_BENCH_THREADS=2     default: what nagcore would use
//     NAGCORE_BENCH_SMALL=1       8 MB: only to see that it runs
//     NAGCORE_ISA=v3              another instruction set
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "dispatch/dispatch.h"
#include "engine/aligned.h"
#include "engine/problem.h"
#include "engine/threads.h"

namespace {

using Clock = std::chrono::steady_clock;

long from_environment(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::atol(text);
}
std::size_t data_bytes() {
  const long megabytes = from_environment("NAGCORE_BENCH_SMALL", 0) ? 8 : from_environment("NAGCORE_BENCH_MB", 400);
  return static_cast<std::size_t>(megabytes) << 20;
}
int threads() { return nag::resolve_threads(static_cast<int>(from_environment("NAGCORE_BENCH_THREADS", 0))); }

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }
double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

int loss_number(const char* name) {
  for (int l = 0; l < nag::kLossCount; ++l)
    if (std::strcmp(nag::kLosses[l].name, name) == 0) return l;
  std::fprintf(stderr, "no loss is called %s\n", name);
  std::exit(1);
}

// X's bytes, shared by all benchmarks and filled again when the storage changes.
class Matrix {
 public:
  Matrix() : bytes_(data_bytes()) {}
  const unsigned char* fill(nag::Storage storage) {
    if (filled_ == storage && full_) return bytes_.data();
    filled_ = storage;
    full_ = true;
    const std::size_t item = nag::kStorageBytes[static_cast<int>(storage)], count = data_bytes() / item;
    nag::parallel_run(threads(), [&](int t, int of) {
      const std::size_t part = static_cast<std::size_t>(t), parts = static_cast<std::size_t>(of);
      for (std::size_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
        std::uint64_t u = (i + 1) * 0x9E3779B97F4A7C15u;
        u = (u ^ (u >> 29)) * 0xBF58476D1CE4E5B9u;
        write(bytes_.data() + i * item, storage, u >> 40);
      }
    });
    return bytes_.data();
  }
  static double read(const unsigned char* at, nag::Storage storage) {
    switch (storage) {
      case nag::Storage::f64: { double x; std::memcpy(&x, at, 8); return x; }
      case nag::Storage::f32: { float x; std::memcpy(&x, at, 4); return x; }
      case nag::Storage::bf16: {
        std::uint16_t half;
        std::memcpy(&half, at, 2);
        const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
        float x;
        std::memcpy(&x, &bits, 4);
        return x;
      }
      case nag::Storage::u8: return *at;
    }
    return 0;
  }

 private:
  // 24 random bits to a number in [-1, 1); for bytes the lowest eight.
  static void write(unsigned char* at, nag::Storage storage, std::uint64_t random) {
    const double x = static_cast<double>(random) * 0x1p-23 - 1.0;
    const float f = static_cast<float>(x);
    switch (storage) {
      case nag::Storage::f64: std::memcpy(at, &x, 8); break;
      case nag::Storage::f32: std::memcpy(at, &f, 4); break;
      case nag::Storage::bf16: {
        std::uint32_t bits;
        std::memcpy(&bits, &f, 4);
        const std::uint16_t half = static_cast<std::uint16_t>(bits >> 16);
        std::memcpy(at, &half, 2);
        break;
      }
      case nag::Storage::u8: *at = static_cast<unsigned char>(random); break;
    }
  }

  nag::Aligned<unsigned char> bytes_;
  nag::Storage filled_ = nag::Storage::f64;
  bool full_ = false;
};

Matrix& matrix() {
  static Matrix m;
  return m;
}

struct Row {
  const char* loss;
  nag::Storage storage;
  std::int64_t d, k;
  std::string name() const {
    return std::string(loss) + "/" + nag::kStorageName[static_cast<int>(storage)] + "/d=" + std::to_string(d) +
           (k > 1 ? "/k=" + std::to_string(k) : "");
  }
};

// The problem over the first rows of the matrix, with targets that are made up on the spot.
template <class T>
class Problem {
 public:
  explicit Problem(const Row& row) {
    const std::size_t item = nag::kStorageBytes[static_cast<int>(row.storage)];
    view.table = &nag::active_table();
    view.loss = loss_number(row.loss);
    view.storage = row.storage;
    view.compute = sizeof(T) == 8 ? nag::Compute::f64 : nag::Compute::f32;
    view.d = row.d;
    view.k = row.k;
    view.n = static_cast<std::int64_t>(data_bytes() / item) / row.d;
    view.X = matrix().fill(row.storage);
    view.row_stride = row.d * static_cast<std::ptrdiff_t>(item);
    view.col_stride = static_cast<std::ptrdiff_t>(item);
    view.weight_sum = static_cast<double>(view.n);
    if (row.storage == nag::Storage::u8) view.scale = 1.0 / 128, view.shift = -1.0;
    y.resize(static_cast<std::size_t>(view.n));
    for (std::size_t i = 0; i < y.size(); ++i)
      y[i] = row.k > 1 ? static_cast<T>(i % static_cast<std::size_t>(row.k)) : (i * 7 % 3 == 0 ? T(1) : T(-1));
    view.y = y.data();
    w.resize(static_cast<std::size_t>(row.d * row.k));
    for (std::size_t j = 0; j < w.size(); ++j) w[j] = std::sin(static_cast<double>(j)) / std::sqrt(static_cast<double>(row.d));
    grad.resize(w.size());
  }
  double run(int n_threads) {
    nag::PassRequest request;
    request.w = w.data();
    request.grad = grad.data();
    request.n_threads = n_threads;
    return nag::run_pass(view, request).value;
  }
  std::size_t bytes() const { return static_cast<std::size_t>(view.n * view.row_stride); }

  // Ends the program when the pass over a few rows and the plain loops differ.
  void agree(const Row& row) {
    const std::int64_t all = view.n;
    view.n = std::max<std::int64_t>(1, std::min<std::int64_t>(view.n, 1000000 / row.d));
    view.weight_sum = static_cast<double>(view.n);
    const double value = run(threads());
    std::vector<double> expected(grad.size()), z(static_cast<std::size_t>(view.k)), x(static_cast<std::size_t>(view.d));
    double sum = 0, worst = 0, size = 0;
    for (std::int64_t i = 0; i < view.n; ++i) {
      std::fill(z.begin(), z.end(), 0.0);
      for (std::int64_t j = 0; j < view.d; ++j) {
        const unsigned char* at = static_cast<const unsigned char*>(view.X) + i * view.row_stride + j * view.col_stride;
        x[static_cast<std::size_t>(j)] = view.scale * Matrix::read(at, row.storage) + view.shift;
        for (std::int64_t c = 0; c < view.k; ++c)
          z[static_cast<std::size_t>(c)] += x[static_cast<std::size_t>(j)] * w[static_cast<std::size_t>(j * view.k + c)];
      }
      const double target = static_cast<double>(y[static_cast<std::size_t>(i)]);
      sum += value_and_residual(row.loss, z, target);
      for (std::int64_t j = 0; j < view.d; ++j)
        for (std::int64_t c = 0; c < view.k; ++c)
          expected[static_cast<std::size_t>(j * view.k + c)] += z[static_cast<std::size_t>(c)] * x[static_cast<std::size_t>(j)];
    }
    for (std::size_t j = 0; j < grad.size(); ++j) {
      worst = std::max(worst, std::fabs(grad[j] - expected[j] / static_cast<double>(view.n)));
      size = std::max(size, std::fabs(grad[j]));
    }
    const double tolerance = sizeof(T) == 8 ? 1e-12 : 1e-4;
    if (!(worst <= tolerance * (size + 1)) || !(std::fabs(value - sum / static_cast<double>(view.n)) <= tolerance * (1 + value))) {
      std::fprintf(stderr, "%s disagrees with plain loops by %g\n", row.name().c_str(), worst);
      std::exit(1);
    }
    view.n = all;
    view.weight_sum = static_cast<double>(all);
  }

  nag::ProblemView view;
  std::vector<T> y;
  std::vector<double> w, grad;

 private:
  // The loss of one row; its residuals take the margins' place.
  static double value_and_residual(const std::string& loss, std::vector<double>& z, double y) {
    if (loss == "squared") {
      z[0] -= y;
      return z[0] * z[0] / 2;
    }
    if (loss == "logistic") {
      const double value = std::log1p(std::exp(-y * z[0]));
      z[0] = -y / (1 + std::exp(y * z[0]));
      return value;
    }
    double total = 0;
    for (double& one : z) total += std::exp(one);
    const std::size_t c = static_cast<std::size_t>(y);
    const double value = std::log(total) - z[c];
    for (double& one : z) one = std::exp(one) / total;
    z[c] -= 1;
    return value;
  }
};

double plain_read(const unsigned char* bytes, std::size_t count, int n_threads) {
  const nag::KernelTable& table = nag::active_table();
  const Clock::time_point begin = Clock::now();
  nag::parallel_run(n_threads, [&](int t, int of) {
    const std::size_t part = static_cast<std::size_t>(t), parts = static_cast<std::size_t>(of);
    // Whole pages, so that two threads never read one cache line.
    const std::size_t first = count * part / parts & ~std::size_t(4095), last = part + 1 == parts ? count : count * (part + 1) / parts & ~std::size_t(4095);
    benchmark::DoNotOptimize(table.stream_read(bytes + first, last - first));
  });
  return seconds_since(begin);
}

template <class T>
void rows(benchmark::State& state, const Row& row) {
  Problem<T> problem(row);
  if (problem.view.n == 0) {
    state.SkipWithError("X is smaller than one row");
    return;
  }
  problem.agree(row);
  const int n_threads = threads();
  std::vector<double> passes, reads;
  for (auto _ : state) {
    const Clock::time_point begin = Clock::now();
    benchmark::DoNotOptimize(problem.run(n_threads));
    passes.push_back(seconds_since(begin));
    state.SetIterationTime(passes.back());
    reads.push_back(plain_read(static_cast<const unsigned char*>(problem.view.X), problem.bytes(), n_threads));
  }
  const double pass = median(passes), bytes = static_cast<double>(problem.bytes());
  state.counters["ratio"] = median(reads) / pass;
  state.counters["GB/s"] = bytes / pass * 1e-9;
  state.counters["read GB/s"] = bytes / median(reads) * 1e-9;
  state.counters["Mrows/s"] = static_cast<double>(problem.view.n) / pass * 1e-6;
}

void add(const Row& row) {
  const auto run = [row](benchmark::State& state) {
    if (row.storage == nag::Storage::f64) rows<double>(state, row);
    else rows<float>(state, row);
  };
  benchmark::RegisterBenchmark(row.name().c_str(), run)->UseManualTime()->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  for (const nag::Storage storage : {nag::Storage::f32, nag::Storage::f64, nag::Storage::bf16, nag::Storage::u8}) {
    for (const char* loss : {"logistic", "squared"})
      for (const std::int64_t d : {50, 100, 200, 1000, 10000, 100000}) add({loss, storage, d, 1});
    if (storage == nag::Storage::f32) add({"softmax", storage, 784, 10});
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("instruction set", nag::active_table().name);
  benchmark::AddCustomContext("threads", std::to_string(threads()));
  benchmark::AddCustomContext("megabytes of X", std::to_string(data_bytes() >> 20));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
