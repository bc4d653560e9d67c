// Blocks chosen by reading them: what they hold is the caller's alone, and a chosen one comes back to the thread that gave it.
#include <cstring>
#include <thread>
#include <utility>

#include "engine/even_block.h"
#include "support.h"

namespace nag_test {
namespace {

using nag::EvenBlock;
using nag::HugeBlocks;

class EvenBlocks : public PerIsa {};

TEST_P(EvenBlocks, IsAlignedAndHoldsWhatItIsAskedFor) {
  const EvenBlock::Read read = ran(GetParam()).stream_read;
  for (const bool search : {false, true})
    for (const std::size_t bytes : {std::size_t(64), std::size_t(100000), HugeBlocks::kHuge - 64, HugeBlocks::kHuge, 3 * HugeBlocks::kHuge + 5}) {
      EvenBlock block(bytes, search, read);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.data()) % 64, 0u);
      std::memset(block.data(), 7, bytes);
      EXPECT_EQ(block.data()[bytes - 1], 7);
    }
}

TEST_P(EvenBlocks, AChosenBlockIsKeptForItsThread) {
  const EvenBlock::Read read = ran(GetParam()).stream_read;
  char* at = nullptr;
  {
    EvenBlock first(1000, true, read);
    EvenBlock second(HugeBlocks::kHuge / 2, true, read);
    EXPECT_GE(first.data() > second.data() ? first.data() - second.data() : second.data() - first.data(),
              static_cast<std::ptrdiff_t>(HugeBlocks::kHuge - 64));
    EvenBlock moved(std::move(second));
    at = moved.data();
    std::memset(at, 1, HugeBlocks::kHuge / 2);
  }
  EvenBlock a(1000, true, read), b(1000, true, read);
  EXPECT_TRUE(a.data() == at || b.data() == at);
  std::thread([&] {
    EvenBlock other(1000, true, read);
    EXPECT_NE(other.data(), a.data());
    EXPECT_NE(other.data(), b.data());
  }).join();
}

NAG_PER_ISA(EvenBlocks);

// Destroyed after this thread's list: what the list held must not be freed once more. The sanitizer and the allocator see it at exit.
TEST(HugeBlocks, MemoryOfAStaticOutlivesTheList) {
  static nag::Aligned<char> later(HugeBlocks::kHuge, nag::Unset{});
  nag::Aligned<char> kept(HugeBlocks::kKept - HugeBlocks::kHuge, nag::Unset{});
  later[0] = kept[0] = 1;
  EXPECT_EQ(later[0], kept[0]);
}

}  // namespace
}  // namespace nag_test
