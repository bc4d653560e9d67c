#include "engine/combine.h"

#include <algorithm>
#include <cstddef>

#include "engine/aligned.h"
#include "engine/threads.h"

namespace nag {
namespace {

constexpr std::int64_t kAlone = 1 << 15;  // numbers that one thread works through sooner than two
constexpr std::int64_t kBlock = 1024;     // of a vector: stays in the first cache while the others pass by
constexpr std::int64_t kSum = 1 << 14;    // numbers behind one sum: the same for every number of threads
constexpr std::int64_t kGramBlock = 512;  // of a vector: nine of them and as many products stay in the first cache
constexpr std::int64_t kGramSum = 2048;   // numbers behind one sum of a Gram matrix, many times the work of a product
constexpr int kLanes = 16, kChain = 16;

template <class T>
double block_product(const T* a, const T* b, std::int64_t n) {
  double total = 0;
  std::int64_t i = 0;
  for (; i + kLanes <= n; ) {
    T lanes[kLanes] = {};
    const std::int64_t stop = std::min(n - kLanes, i + (kChain - 1) * kLanes);
    for (; i <= stop; i += kLanes)
      for (int u = 0; u < kLanes; ++u) lanes[u] += a[i + u] * b[i + u];
    for (int half = kLanes / 2; half > 1; half /= 2)
      for (int u = 0; u < half; ++u) lanes[u] += lanes[u + half];
    total += static_cast<double>(lanes[0]) + static_cast<double>(lanes[1]);
  }
  for (; i < n; ++i) total += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return total;
}

}  // namespace

template <class T>
void combine(const std::vector<const T*>& a, const std::vector<double>& c, std::int64_t n, T* out, int n_threads) {
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  parallel_run(n < kAlone ? 1 : n_threads, [&](int t, int of) {
    T sum[kBlock];
    for (std::int64_t block = blocks * t / of, last = blocks * (t + 1) / of; block < last; ++block) {
      const std::int64_t begin = block * kBlock, m = std::min(kBlock, n - begin);
      std::fill(sum, sum + m, T(0));
      std::size_t j = 0;
      for (; j + 2 <= a.size(); j += 2) {
        const T *x = a[j] + begin, *y = a[j + 1] + begin;
        const T s = static_cast<T>(c[j]), r = static_cast<T>(c[j + 1]);
        for (std::int64_t i = 0; i < m; ++i) sum[i] += s * x[i] + r * y[i];
      }
      for (; j < a.size(); ++j) {
        const T* x = a[j] + begin;
        const T s = static_cast<T>(c[j]);
        for (std::int64_t i = 0; i < m; ++i) sum[i] += s * x[i];
      }
      std::copy(sum, sum + m, out + begin);
    }
  });
}

template <class T>
std::vector<double> inner_products(const std::vector<const T*>& a, const T* v, std::int64_t n, int n_threads) {
  const std::int64_t parts = (n + kSum - 1) / kSum;
  const std::size_t m = a.size();
  std::vector<double> sums(static_cast<std::size_t>(parts) * m);
  parallel_run(n < kAlone ? 1 : n_threads, [&](int t, int of) {
    for (std::int64_t part = parts * t / of, last = parts * (t + 1) / of; part < last; ++part)
      for (std::int64_t begin = part * kSum, end = std::min(n, begin + kSum); begin < end; begin += kBlock)
        for (std::size_t j = 0; j < m; ++j)
          sums[static_cast<std::size_t>(part) * m + j] += block_product(a[j] + begin, v + begin, std::min(kBlock, end - begin));
  });
  std::vector<double> total(m, 0.0);
  for (std::int64_t part = 0; part < parts; ++part)
    for (std::size_t j = 0; j < m; ++j) total[j] += sums[static_cast<std::size_t>(part) * m + j];
  return total;
}

template <class T>
std::vector<double> weighted_gram(const KernelTable& table, const std::vector<const T*>& a, const T* v, std::int64_t n, int n_threads) {
  const std::int64_t parts = (n + kGramSum - 1) / kGramSum, m = static_cast<std::int64_t>(a.size());
  std::vector<double> sums(static_cast<std::size_t>(parts * m * m), 0.0);
  parallel_run(n * m < kAlone ? 1 : n_threads, [&](int t, int of) {
    Aligned<T> plain(static_cast<std::size_t>(m * kGramBlock)), weighted(static_cast<std::size_t>(m * kGramBlock)),
        products(static_cast<std::size_t>(m * m));
    for (std::int64_t part = parts * t / of, last = parts * (t + 1) / of; part < last; ++part) {
      double* const sum = sums.data() + part * m * m;
      for (std::int64_t begin = part * kGramSum, end = std::min(n, begin + kGramSum); begin < end; begin += kGramBlock) {
        const std::int64_t size = std::min(kGramBlock, end - begin);
        for (std::int64_t j = 0; j < m; ++j) {
          const T* const from = a[static_cast<std::size_t>(j)] + begin;
          T *const p = plain.data() + j * kGramBlock, *const w = weighted.data() + j * kGramBlock;
          for (std::int64_t i = 0; i < size; ++i) p[i] = from[i], w[i] = v[begin + i] * from[i];
          std::fill(p + size, p + kGramBlock, T(0));
        }
        rows_of<T>(table).dot(weighted.data(), kGramBlock, m, size, plain.data(), kGramBlock, m, products.data(), m, false, {});
        for (std::int64_t e = 0; e < m * m; ++e) sum[e] += static_cast<double>(products.data()[e]);
      }
    }
  });
  std::vector<double> total(static_cast<std::size_t>(m * m), 0.0);
  for (std::int64_t part = 0; part < parts; ++part)
    for (std::int64_t e = 0; e < m * m; ++e) total[static_cast<std::size_t>(e)] += sums[static_cast<std::size_t>(part * m * m + e)];
  return total;
}

template <class T>
void transposed_copy(const double* a, std::int64_t rows, std::int64_t columns, T* out, int n_threads) {
  constexpr std::int64_t kRows = 64;
  const std::int64_t blocks = (rows + kRows - 1) / kRows;
  parallel_run(rows * columns < kAlone ? 1 : n_threads, [&](int t, int of) {
    for (std::int64_t block = blocks * t / of, last = blocks * (t + 1) / of; block < last; ++block) {
      const std::int64_t begin = block * kRows, end = std::min(rows, begin + kRows);
      for (std::int64_t c = 0; c < columns; ++c)
        for (std::int64_t i = begin; i < end; ++i) out[c * rows + i] = static_cast<T>(a[i * columns + c]);
    }
  });
}

template void combine(const std::vector<const float*>&, const std::vector<double>&, std::int64_t, float*, int);
template void combine(const std::vector<const double*>&, const std::vector<double>&, std::int64_t, double*, int);
template std::vector<double> inner_products(const std::vector<const float*>&, const float*, std::int64_t, int);
template std::vector<double> inner_products(const std::vector<const double*>&, const double*, std::int64_t, int);
template std::vector<double> weighted_gram(const KernelTable&, const std::vector<const float*>&, const float*, std::int64_t, int);
template std::vector<double> weighted_gram(const KernelTable&, const std::vector<const double*>&, const double*, std::int64_t, int);
template void transposed_copy(const double*, std::int64_t, std::int64_t, float*, int);
template void transposed_copy(const double*, std::int64_t, std::int64_t, double*, int);

}  // namespace nag
