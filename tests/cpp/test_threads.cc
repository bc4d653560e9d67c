// The same bits on any number of threads, calls at the same time, and exceptions that stay inside. ThreadSanitizer's test.
#include "engine/threads.h"

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "passes.h"

namespace nag_test {
namespace {

constexpr int kThreads[] = {2, 3, 4, 8};

struct Setting {
  const char* name;
  Shape shape;
  nag::Storage storage;
  nag::Compute compute;
  Order order;
  int loss;
};
const Setting kSettings[] = {
    {"many leaves", {9001, 7, 1}, nag::Storage::f32, nag::Compute::f32, Order::c, 1},
    {"a last leaf of one row", {4097, 33, 1}, nag::Storage::f64, nag::Compute::f64, Order::c, 0},
    {"wide rows", {1500, 3000, 1}, nag::Storage::f32, nag::Compute::f32, Order::c, 1},
    {"columns", {3000, 40, 1}, nag::Storage::f32, nag::Compute::f32, Order::f, 1},
    {"bytes", {5000, 64, 1}, nag::Storage::u8, nag::Compute::f32, Order::c, 1},
    {"bfloat16 backwards", {5000, 31, 1}, nag::Storage::bf16, nag::Compute::f32, Order::reversed, 1},
    {"classes", {3000, 20, 10}, nag::Storage::f32, nag::Compute::f32, Order::c, 2},
};

class Threads : public PerIsa {};

TEST_P(Threads, DoNotChangeABit) {
  for (const Setting& setting : kSettings) {
    SCOPED_TRACE(setting.name);
    const Data data(GetParam(), setting.loss, setting.shape, setting.storage, setting.compute, setting.order, true);
    const Answer one = pass(data, 1);
    for (const int threads : kThreads) EXPECT_TRUE(pass(data, threads) == one) << threads << " threads";
  }
}

TEST_P(Threads, CallsAtTheSameTimeDoNotMeet) {
  const Data data(GetParam(), 1, {6000, 30, 1}, nag::Storage::f32, nag::Compute::f32, Order::c, true);
  const Answer alone = pass(data, 1);
  std::vector<std::thread> callers;
  std::atomic<int> same{0};
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&data, &alone, &same, caller] {
      for (int turn = 0; turn < 5; ++turn) same += pass(data, 1 + (caller + turn) % 3) == alone;
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(same, 20);
}
NAG_PER_ISA(Threads);

TEST(ParallelRun, CallsEachThreadOnceAndTheCallerIsTheFirst) {
  const std::thread::id caller = std::this_thread::get_id();
  for (const int wanted : {1, 2, 5}) {
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(wanted));
    std::atomic<int> size{0};
    std::atomic<bool> first_is_caller{false};
    nag::parallel_run(wanted, [&](int t, int count) {
      ++calls[static_cast<std::size_t>(t)];
      size = count;
      if (t == 0) first_is_caller = std::this_thread::get_id() == caller;
    });
    EXPECT_TRUE(first_is_caller);
    EXPECT_GE(size, 1);
    EXPECT_LE(size, wanted);
    for (int t = 0; t < wanted; ++t) EXPECT_EQ(calls[static_cast<std::size_t>(t)], t < size ? 1 : 0);
  }
}

TEST(ParallelRun, RethrowsOnTheCallingThread) {
  for (const int threads : {1, 3})
    for (const int thrower : {0, threads - 1}) {
      std::string said;
      try {
        nag::parallel_run(threads, [&](int t, int count) {
          if (t == std::min(thrower, count - 1)) throw std::runtime_error("from inside");
        });
      } catch (const std::runtime_error& error) {
        said = error.what();
      }
      EXPECT_EQ(said, "from inside");
    }
}

TEST(ThreadCount, IsPositiveAndObeysTheCaller) {
  EXPECT_GE(nag::default_threads(), 1);
  EXPECT_EQ(nag::resolve_threads(0), nag::default_threads());
  EXPECT_EQ(nag::resolve_threads(3), nag::openmp_enabled() ? 3 : 1);
}

TEST(Interrupt, EndsThePassEarly) {
  // One row read n times over (its stride is zero): long enough for the clock to reach the first question, in no memory.
  const std::int64_t n = 1000000, d = 4000;
  const std::vector<float> x(static_cast<std::size_t>(d), 0.01f), y(static_cast<std::size_t>(n), 1.0f);
  const std::vector<double> w(static_cast<std::size_t>(d), 0.5);
  std::vector<double> grad(w.size());
  nag::ProblemView view;
  view.table = nag::usable_tables().back();
  view.loss = 1;
  view.storage = nag::Storage::f32;
  view.compute = nag::Compute::f32;
  view.n = n;
  view.d = d;
  view.weight_sum = static_cast<double>(n);
  view.X = x.data();
  view.col_stride = sizeof(float);
  view.y = y.data();
  std::atomic<int> asked{0};
  const std::thread::id caller = std::this_thread::get_id();
  nag::PassRequest request;
  request.w = w.data();
  request.grad = grad.data();
  request.n_threads = 2;
  request.interrupted = [&] {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    ++asked;
    return true;
  };
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(nag::run_pass(view, request).interrupted);
  EXPECT_EQ(asked, 1);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));  // the whole pass takes far longer under a sanitizer
}

}  // namespace
}  // namespace nag_test
