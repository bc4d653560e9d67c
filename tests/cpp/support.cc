#include "support.h"

#include <algorithm>
#include <mutex>
#include <set>

namespace nag_test {
namespace {

std::mutex guard;
std::set<std::string>& names_run() {
  static std::set<std::string> names;
  return names;
}
bool counts_isas = false;  // set by the first kernel test; programs about threads or trees have no instruction set

class EveryIsaRan : public ::testing::Environment {
 public:
  void TearDown() override {
    if (!counts_isas || ::testing::GTEST_FLAG(filter) != "*") return;
    for (const KernelTable* table : nag::usable_tables())
      EXPECT_EQ(names_run().count(table->name), 1u) << "no test ran the kernels of " << table->name;
  }
};
const ::testing::Environment* const registered = ::testing::AddGlobalTestEnvironment(new EveryIsaRan);

}  // namespace

const KernelTable& ran(const KernelTable* table) {
  const std::lock_guard<std::mutex> lock(guard);
  counts_isas = true;
  names_run().insert(table->name);
  return *table;
}

std::string isa_name(const ::testing::TestParamInfo<const KernelTable*>& info) { return info.param->name; }

std::vector<std::ptrdiff_t> awkward_lengths(int lanes) {
  const std::ptrdiff_t n = lanes;
  std::vector<std::ptrdiff_t> lengths = {1, 3, 7, n / 2, n, n + 1, 8 * n + 2};
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

}  // namespace nag_test
