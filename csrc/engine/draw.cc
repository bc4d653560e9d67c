#include "engine/draw.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "engine/threads.h"
#include "engine/tree.h"

namespace nag {
namespace {

constexpr std::int64_t kLeaf = 8192;  // rows of one sum, and what a thread takes at a time
constexpr std::int64_t kCell = 16;    // rows whose probabilities are known by their sum
constexpr int kLanes = 8;

int threads_for(std::int64_t leaves, int n_threads) {
  return static_cast<int>(std::min<std::int64_t>(leaves, n_threads));
}

// Calls body(leaf, first, end) for each leaf of n rows.
template <class Body>
void each_leaf(std::int64_t n, int n_threads, Body&& body) {
  const std::int64_t leaves = (n + kLeaf - 1) / kLeaf;
  std::atomic<std::int64_t> next{0};
  parallel_run(threads_for(leaves, n_threads), [&](int, int) {
    for (std::int64_t leaf; (leaf = next++) < leaves;) body(leaf, leaf * kLeaf, std::min(n, (leaf + 1) * kLeaf));
  });
}

// sum of term(i) over a leaf, in lanes that the compiler keeps in vectors.
template <class Term>
double leaf_sum(std::int64_t first, std::int64_t end, Term&& term) {
  double lanes[kLanes] = {};
  std::int64_t i = first;
  for (; i + kLanes <= end; i += kLanes)
    for (int u = 0; u < kLanes; ++u) lanes[u] += term(i + u);
  for (int u = 0; i < end; ++i, ++u) lanes[u] += term(i);
  for (int step = kLanes / 2; step > 0; step /= 2)
    for (int u = 0; u < step; ++u) lanes[u] += lanes[u + step];
  return lanes[0];
}

template <class Term>
double tree_sum(std::int64_t n, int n_threads, Term&& term) {
  std::vector<double> sums(static_cast<std::size_t>((n + kLeaf - 1) / kLeaf));
  each_leaf(n, n_threads, [&](std::int64_t leaf, std::int64_t first, std::int64_t end) {
    sums[static_cast<std::size_t>(leaf)] = leaf_sum(first, end, term);
  });
  combine_nodes(sums.data(), sums.size(), 1);
  return sums[0];
}

template <class T>
double mean_of(const RowMean& q) {
  const T *x = static_cast<const T*>(q.x), *y = static_cast<const T*>(q.y);
  const double* s = q.s;
  double total;
  if (!q.size) {
    total = s ? tree_sum(q.n, q.n_threads, [=](std::int64_t i) { return s[i] * static_cast<double>(x[i]); })
              : tree_sum(q.n, q.n_threads, [=](std::int64_t i) { return static_cast<double>(x[i]); });
  } else if (y) {
    total = s ? tree_sum(q.n, q.n_threads, [=](std::int64_t i) { return s[i] * std::fabs(static_cast<double>(x[i]) - static_cast<double>(y[i])); })
              : tree_sum(q.n, q.n_threads, [=](std::int64_t i) { return std::fabs(static_cast<double>(x[i]) - static_cast<double>(y[i])); });
  } else {
    total = s ? tree_sum(q.n, q.n_threads, [=](std::int64_t i) { return s[i] * std::fabs(static_cast<double>(x[i])); })
              : tree_sum(q.n, q.n_threads, [=](std::int64_t i) { return std::fabs(static_cast<double>(x[i])); });
  }
  return s ? total : total / static_cast<double>(q.n);
}

template <class T>
class Draw {
 public:
  explicit Draw(const DrawRequest& q) : q_(q), weight_(static_cast<const T*>(q.weight)) {}

  Drawn run() {
    Drawn drawn;
    const double all = q_.s ? tree_sum(q_.n, q_.n_threads, [this](std::int64_t i) { return q_.s[i]; }) : static_cast<double>(q_.n);
    drawn.mean = weight_ ? tree_sum(q_.n, q_.n_threads, [this](std::int64_t i) { return share(i) * static_cast<double>(weight_[i]); }) / all : 1.0;
    lifted_ = q_.lift * drawn.mean;
    const double sum = (drawn.mean + lifted_) * all;
    by_weight_ = sum > 0 ? 0.9 / sum : 0.0;
    by_count_ = 0.1 / static_cast<double>(q_.n);
    add_cells();
    const double total = ends_.back();
    if (!(total > 0) || !std::isfinite(total)) return drawn;
    pick(total, drawn);
    return drawn;
  }

 private:
  double share(std::int64_t i) const { return q_.s ? q_.s[i] : 1.0; }
  double value(std::int64_t i) const { return (weight_ ? static_cast<double>(weight_[i]) : 1.0) + lifted_; }
  double probability(std::int64_t i) const {
    const double s = share(i);
    return s > 0 ? by_weight_ * s * value(i) + by_count_ : 0.0;
  }

  // The probabilities of a cell, those of rows apart taken out; `apart` is where the cell begins among these.
  std::int64_t cell(std::int64_t first, std::int64_t end, const std::int64_t* apart, double* to) const {
    if (q_.s == nullptr && weight_ != nullptr && end - first == kCell) {  // what the compiler makes vectors of
      const double by_weight = by_weight_, rest = by_weight_ * lifted_ + by_count_;
      const T* const weight = weight_ + first;
      for (std::int64_t i = 0; i < kCell; ++i) to[i] = by_weight * static_cast<double>(weight[i]) + rest;
    } else {
      for (std::int64_t i = first; i < end; ++i) to[i - first] = probability(i);
      for (std::int64_t i = end; i < first + kCell; ++i) to[i - first] = 0;
    }
    const std::int64_t* const last = q_.apart + q_.apart_count;
    std::int64_t passed = 0;
    for (; apart != last && *apart < end; ++apart, ++passed) to[*apart - first] = 0;
    return passed;
  }

  const std::int64_t* first_apart(std::int64_t row) const { return std::lower_bound(q_.apart, q_.apart + q_.apart_count, row); }

  // ends_[c]: the sum of the probabilities of all cells up to c.
  void add_cells() {
    ends_.resize(static_cast<std::size_t>((q_.n + kCell - 1) / kCell));
    each_leaf(q_.n, q_.n_threads, [&](std::int64_t, std::int64_t first, std::int64_t end) {
      const std::int64_t* apart = first_apart(first);
      alignas(64) double p[kCell];
      for (std::int64_t row = first; row < end; row += kCell) {
        apart += cell(row, std::min(end, row + kCell), apart, p);
        for (int step = kCell / 2; step > 0; step /= 2)
          for (int u = 0; u < step; ++u) p[u] += p[u + step];
        ends_[static_cast<std::size_t>(row / kCell)] = p[0];
      }
    });
    double sum = 0;
    for (double& end : ends_) end = sum += end;
  }

  void pick(double total, Drawn& drawn) const {
    drawn.rows.resize(static_cast<std::size_t>(q_.m));
    drawn.factors.resize(static_cast<std::size_t>(q_.m));
    const double step = total / static_cast<double>(q_.m);
    each_leaf(q_.m, q_.n_threads, [&](std::int64_t, std::int64_t first, std::int64_t end) {
      std::int64_t c = -1;
      const std::int64_t* apart = nullptr;
      const std::int64_t* const apart_end = q_.apart + q_.apart_count;
      alignas(64) double p[kCell];
      for (std::int64_t k = first; k < end; ++k) {
        const double point = (static_cast<double>(k) + q_.start) * step;
        const std::int64_t last = static_cast<std::int64_t>(ends_.size()) - 1;
        std::int64_t found = c;
        if (c < 0) found = std::min<std::int64_t>(last, std::lower_bound(ends_.begin(), ends_.end(), point) - ends_.begin());
        while (found < last && ends_[static_cast<std::size_t>(found)] < point) ++found;
        if (found != c) {
          if (c < 0) apart = first_apart(found * kCell);
          c = found;
          while (apart != apart_end && *apart < c * kCell) ++apart;
          cell(c * kCell, std::min(q_.n, (c + 1) * kCell), apart, p);
        }
        double left = point - (c > 0 ? ends_[static_cast<std::size_t>(c) - 1] : 0.0);
        std::int64_t u = -1;  // the last that can be drawn, where rounding leaves the point beyond all of them
        for (std::int64_t j = 0; j < kCell && (u < 0 || left > 0); ++j)
          if (p[j] > 0) left -= p[u = j];
        drawn.rows[static_cast<std::size_t>(k)] = c * kCell + std::max<std::int64_t>(u, 0);
        drawn.factors[static_cast<std::size_t>(k)] = u < 0 ? 0.0 : value(c * kCell + u) * step / p[u];
      }
    });
  }

  const DrawRequest& q_;
  const T* weight_;
  double lifted_ = 0, by_weight_ = 0, by_count_ = 0;
  std::vector<double> ends_;
};

template <class T>
std::vector<std::int64_t> unlike(const T* z, std::int64_t n, T value, int n_threads) {
  std::vector<std::int64_t> starts(static_cast<std::size_t>((n + kLeaf - 1) / kLeaf) + 1);
  each_leaf(n, n_threads, [&](std::int64_t leaf, std::int64_t first, std::int64_t end) {
    std::int32_t count = 0;
    for (std::int64_t i = first; i < end; ++i) count += z[i] != value;
    starts[static_cast<std::size_t>(leaf) + 1] = count;
  });
  for (std::size_t leaf = 1; leaf < starts.size(); ++leaf) starts[leaf] += starts[leaf - 1];
  std::vector<std::int64_t> rows(static_cast<std::size_t>(starts.back()));
  each_leaf(n, n_threads, [&](std::int64_t leaf, std::int64_t first, std::int64_t end) {
    std::size_t at = static_cast<std::size_t>(starts[static_cast<std::size_t>(leaf)]);
    const std::size_t last = static_cast<std::size_t>(starts[static_cast<std::size_t>(leaf) + 1]);
    for (std::int64_t i = first; at < last && i < end; ++i)
      if (z[i] != value) rows[at++] = i;
  });
  return rows;
}

constexpr std::int64_t kLooks = 256;  // rows that a thread looks at, at a time

// off[j]: in how many rows column j is not what it is in two of the first three.
template <class T>
void count_off(const char* X, std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, std::int64_t d, const std::int64_t* rows,
               std::int64_t count, std::int64_t* off, double* usual, int n_threads) {
  std::vector<T> value(static_cast<std::size_t>(d));
  const auto at = [=](std::int64_t row, std::int64_t j) {
    T x;
    std::memcpy(&x, X + row * row_stride + j * col_stride, sizeof(T));
    return x;
  };
  for (std::int64_t j = 0; j < d; ++j) {
    const T a = at(rows[0], j), b = at(rows[count > 1 ? 1 : 0], j), c = at(rows[count > 2 ? 2 : 0], j);
    const T middle = std::max(std::min(a, b), std::min(std::max(a, b), c));
    value[static_cast<std::size_t>(j)] = middle;
    usual[j] = static_cast<double>(middle);
    off[j] = 0;
  }
  const bool plain = col_stride == static_cast<std::ptrdiff_t>(sizeof(T)) &&
                     reinterpret_cast<std::uintptr_t>(X) % sizeof(T) == 0 && row_stride % static_cast<std::ptrdiff_t>(sizeof(T)) == 0;
  const std::int64_t blocks = (count + kLooks - 1) / kLooks;
  std::vector<std::int32_t> counts(static_cast<std::size_t>(blocks * d), 0);
  std::atomic<std::int64_t> next{0};
  parallel_run(threads_for(blocks, n_threads), [&](int, int) {
    for (std::int64_t block; (block = next++) < blocks;) {
      std::int32_t* const mine = counts.data() + block * d;
      for (std::int64_t i = block * kLooks; i < std::min(count, (block + 1) * kLooks); ++i) {
        if (plain) {
          const T *x = reinterpret_cast<const T*>(X + rows[i] * row_stride), *v = value.data();
          for (std::int64_t j = 0; j < d; ++j) mine[j] += x[j] != v[j];
        } else {
          for (std::int64_t j = 0; j < d; ++j) mine[j] += at(rows[i], j) != value[static_cast<std::size_t>(j)];
        }
      }
    }
  });
  for (std::int64_t block = 0; block < blocks; ++block)
    for (std::int64_t j = 0; j < d; ++j) off[j] += counts[static_cast<std::size_t>(block * d + j)];
}

void ask(const char* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  static_cast<void>(p);
#endif
}

// The rows [begin, end) of those named, where each number lies in a cache line of its own, as in F order: a few columns at a
// time, whose lines hold several of the rows, and the numbers of the next rows on their way meanwhile.
void take_numbers(const TakenRows& q, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kColumns = 16, kAhead = 4;
  const char* const from = static_cast<const char*>(q.X);
  char* const to = static_cast<char*>(q.out);
  for (std::int64_t j0 = 0; j0 < q.d; j0 += kColumns) {
    const std::int64_t j1 = std::min(q.d, j0 + kColumns);
    for (std::int64_t i = begin; i < end; ++i) {
      const bool here = i + kAhead < end;  // else among the next columns
      const char* const later = from + q.rows[here ? i + kAhead : std::min(begin + i + kAhead - end, end - 1)] * q.row_stride;
      for (std::int64_t j = here ? j0 : j1; j < std::min(q.d, here ? j1 : j1 + kColumns); ++j) ask(later + j * q.col_stride);
      const char* const row = from + q.rows[i] * q.row_stride;
      char* const out = to + static_cast<std::size_t>(i * q.d) * q.item;
      switch (q.item) {
        case 8: for (std::int64_t j = j0; j < j1; ++j) std::memcpy(out + j * 8, row + j * q.col_stride, 8); break;
        case 4: for (std::int64_t j = j0; j < j1; ++j) std::memcpy(out + j * 4, row + j * q.col_stride, 4); break;
        case 2: for (std::int64_t j = j0; j < j1; ++j) std::memcpy(out + j * 2, row + j * q.col_stride, 2); break;
        case 1: for (std::int64_t j = j0; j < j1; ++j) out[j] = row[j * q.col_stride]; break;
        default:
          for (std::int64_t j = j0; j < j1; ++j)
            std::memcpy(out + static_cast<std::size_t>(j) * q.item, row + j * q.col_stride, q.item);
      }
    }
  }
}

}  // namespace

void take_rows(const TakenRows& q) {
  constexpr std::int64_t kAhead = 8, kRows = 64;  // rows asked for in advance: they lie pages apart
  constexpr std::size_t kLine = 64;
  const char* const from = static_cast<const char*>(q.X);
  char* const to = static_cast<char*>(q.out);
  const std::size_t row_bytes = static_cast<std::size_t>(q.d) * q.item;
  const bool together = q.d == 1 || q.col_stride == static_cast<std::ptrdiff_t>(q.item);
  const std::int64_t blocks = (q.count + kRows - 1) / kRows;
  std::atomic<std::int64_t> next{0};
  parallel_run(threads_for(blocks, q.n_threads), [&](int, int) {
    for (std::int64_t block; (block = next++) < blocks;) {
      const std::int64_t begin = block * kRows, end = std::min(q.count, begin + kRows);
      if (!together) {
        take_numbers(q, begin, end);
        continue;
      }
      for (std::int64_t i = begin; i < end; ++i) {
        if (i + kAhead < q.count)
          for (std::size_t b = 0; b < row_bytes; b += kLine) ask(from + q.rows[i + kAhead] * q.row_stride + b);
        std::memcpy(to + static_cast<std::size_t>(i) * row_bytes, from + q.rows[i] * q.row_stride, row_bytes);
      }
    }
  });
}

std::vector<std::int64_t> rows_unlike(Compute compute, const void* z, std::int64_t n, double value, int n_threads) {
  if (compute == Compute::f64) return unlike(static_cast<const double*>(z), n, value, n_threads);
  return unlike(static_cast<const float*>(z), n, static_cast<float>(value), n_threads);
}

void count_off_usual(Storage storage, const void* X, std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, std::int64_t d,
                     const std::int64_t* rows, std::int64_t count, std::int64_t* off, double* usual, int n_threads) {
  const char* x = static_cast<const char*>(X);
  switch (storage) {
    case Storage::f64: return count_off<double>(x, row_stride, col_stride, d, rows, count, off, usual, n_threads);
    case Storage::f32: return count_off<float>(x, row_stride, col_stride, d, rows, count, off, usual, n_threads);
    case Storage::bf16: return count_off<std::uint16_t>(x, row_stride, col_stride, d, rows, count, off, usual, n_threads);
    case Storage::u8: return count_off<std::uint8_t>(x, row_stride, col_stride, d, rows, count, off, usual, n_threads);
  }
}

Drawn draw_rows(const DrawRequest& request) {
  return request.compute == Compute::f64 ? Draw<double>(request).run() : Draw<float>(request).run();
}

double row_mean(const RowMean& request) {
  return request.compute == Compute::f64 ? mean_of<double>(request) : mean_of<float>(request);
}

}  // namespace nag
