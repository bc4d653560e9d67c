// The summation tree: one set of bits, however the leaves are dealt out.
#include "engine/tree.h"

#include <algorithm>

#include "support.h"

namespace nag_test {
namespace {

constexpr std::size_t kSize = 3;

std::vector<double> root(const std::vector<double>& leaves, int level) {
  const std::int64_t count = static_cast<std::int64_t>(leaves.size() / kSize), subtrees = ((count - 1) >> level) + 1;
  std::vector<double> nodes(static_cast<std::size_t>(subtrees) * kSize);
  // Backwards: the order in which threads happen to take subtrees is not the order of the sum.
  for (std::int64_t s = subtrees; s-- > 0;) {
    nag::TreeSum tree(kSize, level + 1);
    for (std::int64_t i = s << level; i < std::min(count, (s + 1) << level); ++i)
      tree.push([&](double* node, bool add) {
        for (std::size_t j = 0; j < kSize; ++j) node[j] = (add ? node[j] : 0.0) + leaves[static_cast<std::size_t>(i) * kSize + j];
      });
    tree.finish(nodes.data() + static_cast<std::size_t>(s) * kSize);
  }
  nag::combine_nodes(nodes.data(), static_cast<std::size_t>(subtrees), kSize);
  return {nodes.begin(), nodes.begin() + kSize};
}

TEST(Tree, CutsGiveTheSameBits) {
  for (const std::size_t count : {1u, 2u, 3u, 4u, 5u, 7u, 8u, 9u, 31u, 64u, 65u, 100u, 257u}) {
    Random random(count);
    std::vector<double> leaves(count * kSize);
    for (double& x : leaves) x = random.uniform(-1, 1) * std::pow(10.0, random.uniform(-8, 8));
    const std::vector<double> whole = root(leaves, 9);
    for (int level = 0; level < 9; ++level) EXPECT_EQ(root(leaves, level), whole) << count << " leaves, level " << level;
    for (std::size_t j = 0; j < kSize; ++j) {
      long double want = 0, size = 0;
      for (std::size_t i = 0; i < count; ++i) {
        want += leaves[i * kSize + j];
        size += std::fabs(static_cast<long double>(leaves[i * kSize + j]));
      }
      // Depth of the tree, not the number of leaves.
      EXPECT_LE(std::fabs(whole[j] - want), (nag::ceil_log2(static_cast<std::int64_t>(count)) + 1) * 0x1p-53L * size);
    }
  }
}

TEST(Tree, FinishLeavesItReadyForTheNextSubtree) {
  nag::TreeSum tree(1, 3);
  double out = -1;
  tree.finish(&out);
  EXPECT_EQ(out, 0.0);
  for (const double base : {1.0, 100.0}) {
    for (int i = 0; i < 5; ++i)
      tree.push([&](double* node, bool add) { *node = (add ? *node : 0.0) + base + i; });
    tree.finish(&out);
    EXPECT_EQ(out, 5 * base + 10);
  }
}

TEST(Tree, CeilLog2) {
  EXPECT_EQ(nag::ceil_log2(1), 0);
  EXPECT_EQ(nag::ceil_log2(2), 1);
  EXPECT_EQ(nag::ceil_log2(3), 2);
  EXPECT_EQ(nag::ceil_log2(1024), 10);
  EXPECT_EQ(nag::ceil_log2(1025), 11);
}

}  // namespace
}  // namespace nag_test
