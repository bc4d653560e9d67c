// Which kernels there are: an ordered list, each table complete, an override that is obeyed or refused by name.
#include <cstdlib>
#include <stdexcept>

#include "support.h"

namespace nag_test {
namespace {

TEST(Dispatch, ListIsOrderedAndEndsWithTheBaseline) {
  const auto& tables = nag::usable_tables();
  ASSERT_FALSE(tables.empty());
  for (std::size_t i = 0; i < tables.size(); ++i) {
    EXPECT_EQ(nag::find_table(tables[i]->name), tables[i]);
    if (i > 0) {
      EXPECT_GE(tables[i - 1]->f32.lanes, tables[i]->f32.lanes);
      EXPECT_STRNE(tables[i - 1]->name, tables[i]->name);
    }
  }
  EXPECT_EQ(nag::find_table("no such set"), nullptr);
}

#if defined(__x86_64__) && defined(__GNUC__)
// A compiler that knows the set, on a processor that has it, must give it: else the best kernels were silently lost.
TEST(Dispatch, NothingTheProcessorHasIsMissing) {
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    EXPECT_NE(nag::find_table("v3"), nullptr);
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    EXPECT_NE(nag::find_table("v4"), nullptr);
  }
}
#endif

template <class T>
void expect_complete(const RowKernels<T>& k) {
  EXPECT_NE(k.dot, nullptr);
  EXPECT_NE(k.outer, nullptr);
  EXPECT_GE(k.lanes, k.row_lanes);
  for (const auto decode : k.decode) EXPECT_NE(decode, nullptr);
  for (int storage = sizeof(T) == 4 ? 1 : 0; storage < nag::kStorageCount; ++storage) {  // wider data than T is not read
    EXPECT_NE(k.row_dot[storage], nullptr);
    EXPECT_NE(k.row_outer[storage], nullptr);
    EXPECT_NE(k.pipe[storage], nullptr);
  }
  int coupled = 0;
  for (const auto loss : k.loss) coupled += loss == nullptr;
  EXPECT_EQ(coupled, 1) << "softmax alone couples columns";
  EXPECT_NE(k.softmax, nullptr);
  EXPECT_NE(k.fold, nullptr);
  EXPECT_NE(k.sum, nullptr);
  for (const int wide_index : {0, 1})
    for (int storage = sizeof(T) == 4 ? 1 : 0; storage < 2; ++storage) {
      EXPECT_NE(k.csr_dot[storage][wide_index], nullptr);
      EXPECT_NE(k.csr_dot_near[storage][wide_index], nullptr);
      EXPECT_NE(k.csr_outer[storage][wide_index], nullptr);
    }
  EXPECT_GT(k.lanes, 0);
}

class Tables : public PerIsa {};
TEST_P(Tables, AreComplete) {
  expect_complete(kernels<float>(GetParam()));
  expect_complete(kernels<double>(GetParam()));
  EXPECT_EQ(GetParam()->f32.lanes, 2 * GetParam()->f64.lanes);
  unsigned char bytes[300] = {};
  EXPECT_EQ(GetParam()->stream_read(bytes, sizeof bytes), 0u);
}
NAG_PER_ISA(Tables);

// The choice is made once a process, so each case asks in a process of its own.
TEST(DispatchDeathTest, OverrideIsObeyedOrRefusedByName) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const KernelTable* table : nag::usable_tables())
    EXPECT_EXIT(
        {
          setenv("NAGCORE_ISA", table->name, 1);
          std::exit(&nag::active_table() == table ? 0 : 1);
        },
        ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      {
        setenv("NAGCORE_ISA", "v9", 1);
        try {
          nag::active_table();
        } catch (const std::runtime_error& error) {
          std::fputs(error.what(), stderr);
          std::exit(3);
        }
        std::exit(0);
      },
      ::testing::ExitedWithCode(3), "v9");
}

}  // namespace
}  // namespace nag_test
