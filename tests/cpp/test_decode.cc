// Storage to compute type, exactly; leaves into nodes; plain sums.
#include <cstring>

#include "support.h"

namespace nag_test {
namespace {

template <class S> S make(Random& random);
template <> double make<double>(Random& random) { return random.uniform(-1e3, 1e3); }
template <> float make<float>(Random& random) { return static_cast<float>(random.uniform(-1e3, 1e3)); }
template <> nag::bf16 make<nag::bf16>(Random& random) { return {static_cast<std::uint16_t>(random.bits() & 0xFF7F)}; }
template <> std::uint8_t make<std::uint8_t>(Random& random) { return static_cast<std::uint8_t>(random.bits()); }

double wide(double x) { return x; }
double wide(float x) { return x; }
double wide(std::uint8_t x) { return x; }
double wide(nag::bf16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

struct Layout {
  const char* name;
  std::ptrdiff_t row, col;  // strides in elements
  std::size_t odd;          // bytes by which the first element is misaligned
};

template <class T, class S>
void check_decode(const KernelTable* table, int storage) {
  const RowKernels<T>& kernel = kernels<T>(table);
  for (const std::ptrdiff_t d : awkward_lengths(kernel.lanes))
    for (const std::ptrdiff_t rows : {1, 2, 5}) {
      const Layout layouts[] = {{"C", d, 1, 0},      {"C with a gap", d + 3, 1, 0}, {"C at an odd byte", d, 1, 1},
                                {"F", 1, rows, 0},   {"every other column", 2 * d, 2, 0},
                                {"rows reversed", -d, 1, 0}, {"columns reversed", d, -1, 0}};
      for (const Layout& layout : layouts) {
        Random random(static_cast<std::uint64_t>(d * 100 + rows));
        // The lowest and the highest element of the view bound the allocation, to the byte.
        const std::ptrdiff_t low = std::min<std::ptrdiff_t>(0, (rows - 1) * layout.row) + std::min<std::ptrdiff_t>(0, (d - 1) * layout.col);
        const std::ptrdiff_t high = std::max<std::ptrdiff_t>(0, (rows - 1) * layout.row) + std::max<std::ptrdiff_t>(0, (d - 1) * layout.col);
        Exact<char> bytes(layout.odd + static_cast<std::size_t>(high - low + 1) * sizeof(S));
        char* const first = bytes.data() + layout.odd - low * static_cast<std::ptrdiff_t>(sizeof(S));
        std::vector<double> want;
        for (std::ptrdiff_t i = 0; i < rows; ++i)
          for (std::ptrdiff_t j = 0; j < d; ++j) {
            const S s = make<S>(random);
            std::memcpy(first + (i * layout.row + j * layout.col) * static_cast<std::ptrdiff_t>(sizeof(S)), &s, sizeof s);
            want.push_back(static_cast<double>(static_cast<T>(wide(s))));
          }
        const std::ptrdiff_t ldd = d + 2, item = static_cast<std::ptrdiff_t>(sizeof(S));
        Exact<T> out(static_cast<std::size_t>((rows - 1) * ldd + d), 0, T(77));
        kernel.decode[storage](first, layout.row * item, layout.col * item, rows, d, out.data(), ldd, 4096);
        for (std::ptrdiff_t i = 0; i < rows; ++i) {
          for (std::ptrdiff_t j = 0; j < d; ++j)
            EXPECT_EQ(out[static_cast<std::size_t>(i * ldd + j)], want[static_cast<std::size_t>(i * d + j)])
                << layout.name << " " << nag::kStorageName[storage] << " rows " << rows << " d " << d;
          if (i + 1 < rows) {
            EXPECT_EQ(out[static_cast<std::size_t>(i * ldd + d)], T(77)) << "wrote past a row";
          }
        }
      }
    }
}

template <class T>
void check_fold_and_sum(const KernelTable* table) {
  const RowKernels<T>& kernel = kernels<T>(table);
  for (const std::ptrdiff_t m : awkward_lengths(kernel.lanes)) {
    Random random(static_cast<std::uint64_t>(m));
    const std::size_t count = static_cast<std::size_t>(m);
    Exact<T> leaf(count, 1, random);
    Exact<double> node(count, 1, random);
    const std::vector<double> before(node.data(), node.data() + count);
    kernel.fold(node.data(), leaf.data(), m, true);
    for (std::size_t j = 0; j < count; ++j) EXPECT_EQ(node[j], before[j] + static_cast<double>(leaf[j]));
    kernel.fold(node.data(), leaf.data(), m, false);
    long double want = 0, size = 0;
    for (std::size_t j = 0; j < count; ++j) {
      EXPECT_EQ(node[j], static_cast<double>(leaf[j]));
      want += leaf[j];
      size += std::fabs(static_cast<long double>(leaf[j]));
    }
    EXPECT_LE(std::fabs(kernel.sum(leaf.data(), m) - want), 16 * std::numeric_limits<double>::epsilon() * size);
  }
}

class Decode : public PerIsa {};
TEST_P(Decode, WidensEveryStorageExactly) {
  check_decode<double, double>(GetParam(), 0);
  check_decode<double, float>(GetParam(), 1);
  check_decode<double, nag::bf16>(GetParam(), 2);
  check_decode<double, std::uint8_t>(GetParam(), 3);
  check_decode<float, double>(GetParam(), 0);
  check_decode<float, float>(GetParam(), 1);
  check_decode<float, nag::bf16>(GetParam(), 2);
  check_decode<float, std::uint8_t>(GetParam(), 3);
}
TEST_P(Decode, FoldsAndSumsInDouble) {
  check_fold_and_sum<float>(GetParam());
  check_fold_and_sum<double>(GetParam());
}
NAG_PER_ISA(Decode);

}  // namespace
}  // namespace nag_test
