#include "engine/columns.h"

#include <algorithm>
#include <atomic>

#include "engine/margins.h"
#include "engine/threads.h"

namespace nag {
namespace {

// About how many entries a group has. With several numbers a row a group's sums are as large as a cache, so there are few.
constexpr std::int64_t kGroupEntries = 1 << 16, kPanelGroupEntries = 1 << 17;
constexpr std::int64_t kMostGroups = 16;
constexpr std::int64_t kMostSums = 8 << 20;  // bytes of sums beyond which there are four groups only
constexpr std::int64_t kColumnCost = 6;    // of a column beside its entries, in entries
constexpr std::int64_t kSmallWork = 16384;  // entries times numbers a row that one thread does
constexpr int kMostShares = 16;
constexpr std::int64_t kRowsAtOnce = 4096;
constexpr std::int64_t kSumRows = 64;
constexpr std::int64_t kColumnsAtOnce = 64;

// Classes of length: 0 for lengths from 2^20 on, falling to that of 9 to 15, then one for each length from 8 down to 0.
constexpr int kClasses = 18 + 9;
int length_class(std::int64_t length) {
  if (length <= 8) return kClasses - 1 - static_cast<int>(length);
  int at = 17;
  for (std::int64_t most = 15; length > most && at > 0; most = 2 * most + 1) --at;
  return at;
}

}  // namespace

template <class S, class I>
void Columns::fill_from(const ProblemView& v, int n_threads) {
  const I* idx = static_cast<const I*>(v.indices);
  const S* data = static_cast<const S*>(v.data);
  const std::size_t d = static_cast<std::size_t>(d_);
  const int threads = nnz_ < 65536 ? 1 : n_threads;

  // Each thread counts the entries of its own share; shares are few where columns are many.
  const std::int64_t worth = nnz_ / (2 * std::max<std::int64_t>(d_, 1));
  const int shares = static_cast<int>(std::clamp<std::int64_t>(worth, 1, std::min(threads, kMostShares)));
  Aligned<std::int32_t> counts(static_cast<std::size_t>(shares) * d);
  parallel_run(shares, [&](int thread, int of) {
    for (int share = thread; share < shares; share += of) {
      std::int32_t* const count = counts.data() + static_cast<std::size_t>(share) * d;
      for (std::int64_t e = v.indptr[0] + nnz_ * share / shares, end = v.indptr[0] + nnz_ * (share + 1) / shares; e < end; ++e) ++count[idx[e]];
    }
  });

  // A counting sort of the columns by class of length; `at` is where each class goes on.
  std::int64_t at[kClasses + 1] = {};
  for (std::size_t j = 0; j < d; ++j) {
    for (int share = 1; share < shares; ++share) counts[j] += counts[static_cast<std::size_t>(share) * d + j];
    ++at[length_class(counts[j]) + 1];
  }
  for (int c = 0; c < kClasses; ++c) at[c + 1] += at[c];
  shared_ = at[kClasses - 2];
  used_ = at[kClasses - 1];
  for (std::size_t j = 0; j < d; ++j) column_[static_cast<std::size_t>(at[length_class(counts[j])]++)] = static_cast<std::int32_t>(j);
  Aligned<std::int64_t> next(d, Unset{});
  ptr_[0] = 0;
  for (std::size_t p = 0; p < d; ++p) {
    const std::size_t j = static_cast<std::size_t>(column_[p]);
    next[j] = ptr_[p];
    ptr_[p + 1] = ptr_[p] + counts[j];
  }

  // Each owner moves the entries of a range of columns, which it finds in each row by a search: the places that it goes on
  // writing at are then few enough for a cache.
  std::vector<std::int64_t> bounds{0};
  for (std::int64_t j = 0, passed = 0; j < d_; ++j) {
    if (passed >= nnz_ / threads * static_cast<std::int64_t>(bounds.size()) && static_cast<int>(bounds.size()) < threads) bounds.push_back(j);
    passed += counts[static_cast<std::size_t>(j)];
  }
  const int owners = static_cast<int>(bounds.size());
  bounds.push_back(d_);
  std::vector<std::int64_t> cuts(static_cast<std::size_t>(std::min(n_, kRowsAtOnce) * (owners + 1)));
  const auto& split = table_->f64.csr_split[v.wide_index];
  S* const to = reinterpret_cast<S*>(data_.data());
  const std::int64_t alone = ptr_[static_cast<std::size_t>(shared_)];
  std::fill_n(alone_.data(), n_, 0.0);
  parallel_run(owners, [&](int thread, int of) {
    for (std::int64_t row = 0; row < n_; row += kRowsAtOnce) {
      const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min(kRowsAtOnce, n_ - row));
      const std::ptrdiff_t begin = rows * thread / of, end = rows * (thread + 1) / of;
      split(v.indices, v.indptr + row + begin, end - begin, bounds.data(), owners, cuts.data() + begin * (owners + 1));
      parallel_barrier();
      for (int owner = thread; owner < owners; owner += of)
        for (std::ptrdiff_t i = 0; i < rows; ++i) {
          const std::int64_t* const cut = cuts.data() + i * (owners + 1) + owner;
          for (std::int64_t e = cut[0]; e < cut[1]; ++e) {
            const std::int64_t place = next[static_cast<std::size_t>(idx[e])]++;
            rows_[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(row + i);
            to[place] = data[e];
          }
        }
      parallel_barrier();
    }
  });
  for (std::int64_t e = alone; e < nnz_; ++e) alone_[static_cast<std::size_t>(rows_[static_cast<std::size_t>(e)])] += value(e) * value(e);
}

template <class S>
void Columns::fill(const ProblemView& v, int n_threads) {
  if (v.wide_index) fill_from<S, std::int64_t>(v, n_threads);
  else fill_from<S, std::int32_t>(v, n_threads);
}

Columns::Columns(const ProblemView& v, int n_threads)
    : table_(v.table), storage_(v.storage), n_(v.n), d_(v.d), nnz_(v.indptr[v.n] - v.indptr[0]) {
  column_ = Aligned<std::int32_t>(static_cast<std::size_t>(d_), Unset{});
  ptr_ = Aligned<std::int64_t>(static_cast<std::size_t>(d_ + 1), Unset{});
  rows_ = Aligned<std::int32_t>(static_cast<std::size_t>(nnz_), Unset{});
  data_ = Aligned<unsigned char>(static_cast<std::size_t>(nnz_) * kStorageBytes[static_cast<int>(v.storage)], Unset{});
  alone_ = Aligned<double>(static_cast<std::size_t>(n_), Unset{});
  if (storage_ == Storage::f64) fill<double>(v, n_threads);
  else fill<float>(v, n_threads);
}

// Boundaries of ranges of the columns with more than one entry, of about the same cost each.
std::vector<std::int64_t> Columns::even_parts(std::int64_t parts) const {
  const auto cost = [&](std::int64_t j) { return ptr_[static_cast<std::size_t>(j)] + kColumnCost * j; };
  std::vector<std::int64_t> bounds{0};
  for (std::int64_t t = 1; t < parts; ++t) {
    std::int64_t low = bounds.back(), high = shared_;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (cost(middle) * parts < cost(shared_) * t) low = middle + 1;
      else high = middle;
    }
    bounds.push_back(low);
  }
  bounds.push_back(shared_);
  return bounds;
}

double Columns::value(std::int64_t entry) const {
  if (storage_ == Storage::f64) return reinterpret_cast<const double*>(data_.data())[entry];
  return static_cast<double>(reinterpret_cast<const float*>(data_.data())[entry]);
}

std::int64_t Columns::nbytes() const {
  return nnz_ * (4 + static_cast<std::int64_t>(kStorageBytes[static_cast<int>(storage_)])) + 8 * (d_ + 1) + 4 * d_ + 8 * n_;
}

template <class T, class Rows>
bool Columns::each_column(const T* v, std::int64_t k, int n_threads, const std::function<bool()>& interrupted, const Rows& rows) const {
  InterruptCheck check(interrupted);
  std::atomic<std::int64_t> next{0};
  parallel_run(nnz_ * k < kSmallWork ? 1 : n_threads, [&](int thread, int) {
    std::vector<double> found(static_cast<std::size_t>(kColumnsAtOnce * k));
    for (std::int64_t begin; (begin = kColumnsAtOnce * next++) < d_ && !check.due(thread);) {
      const std::int64_t end = std::min(d_, begin + kColumnsAtOnce), together = std::min(end, shared_);
      if (begin < together)
        rows_of<T>(*table_).columns[static_cast<int>(storage_)](ColumnsBlock<T>{
            data_.data(), rows_.data(), ptr_.data() + begin, 0, together - begin, static_cast<std::ptrdiff_t>(k), v, nullptr, found.data()});
      for (std::int64_t j = std::max(begin, shared_); j < std::min(end, used_); ++j) {
        const std::int64_t entry = ptr_[static_cast<std::size_t>(j)];
        const T* from = v + rows_[static_cast<std::size_t>(entry)] * k;
        const double x = value(entry);
        for (std::int64_t c = 0; c < k; ++c) found[static_cast<std::size_t>((j - begin) * k + c)] = x * static_cast<double>(from[c]);
      }
      if (end > used_) std::fill(found.begin() + std::max<std::int64_t>(used_ - begin, 0) * k, found.end(), 0.0);
      rows(begin, end, found.data());
    }
  });
  return !check.stopped();
}

template <class T>
bool Columns::transposed(const T* v, std::int64_t k, double* u, int n_threads,
                         const std::function<bool()>& interrupted) const {
  return each_column(v, k, n_threads, interrupted, [&](std::int64_t begin, std::int64_t end, const double* found) {
    for (std::int64_t j = begin; j < end; ++j)
      std::copy_n(found + (j - begin) * k, k, u + column_[static_cast<std::size_t>(j)] * k);
  });
}

template <class T>
bool Columns::square(const T* v, std::int64_t k, double* sum, int n_threads, const std::function<bool()>& interrupted) const {
  std::vector<double> sums(static_cast<std::size_t>((d_ + kColumnsAtOnce - 1) / kColumnsAtOnce), 0.0);
  const bool done = each_column(v, k, n_threads, interrupted, [&](std::int64_t begin, std::int64_t end, const double* found) {
    double lanes[8] = {};
    for (std::int64_t i = 0; i < (end - begin) * k; ++i) lanes[i % 8] += found[i] * found[i];
    for (const double lane : lanes) sums[static_cast<std::size_t>(begin / kColumnsAtOnce)] += lane;
  });
  *sum = 0;
  for (const double part : sums) *sum += part;
  return done;
}

template <class T>
bool Columns::product(const T* v, std::int64_t k, T* out, int n_threads,
                      const std::function<bool()>& interrupted) const {
  // Kernels want whole fours of numbers a row. Three fours are as soon done as four, which fill a vector.
  const std::int64_t wide = k == 1 ? 1 : k % 16 > 8 ? (k + 15) / 16 * 16 : (k + 3) / 4 * 4;
  const std::int64_t count = n_ * wide, each = wide == 1 ? kGroupEntries : kPanelGroupEntries;
  std::int64_t groups = 1;
  while (groups < kMostGroups && 2 * groups * each <= nnz_ &&
         (wide == 1 || groups < 4 || 2 * groups * count * static_cast<std::int64_t>(sizeof(T)) <= kMostSums)) groups *= 2;
  const std::vector<std::int64_t> bounds = even_parts(groups);
  // The first group sums into `out` where that has its shape, the others beside each other.
  const bool padded = wide != k;
  const std::size_t bytes = static_cast<std::size_t>((groups - 1 + 2 * padded) * count) * sizeof(T);
  const std::unique_lock<std::mutex> lock(working_, std::try_to_lock);
  Aligned<unsigned char> mine;
  if (!lock.owns_lock()) {
    mine = Aligned<unsigned char>(bytes, Unset{});
  } else if (work_bytes_ < bytes) {
    work_ = Aligned<unsigned char>();
    work_bytes_ = 0;
    work_ = Aligned<unsigned char>(bytes, Unset{});
    work_bytes_ = bytes;
  }
  T* const others = reinterpret_cast<T*>((lock.owns_lock() ? work_ : mine).data());
  T* const first = padded ? others + groups * count : out;
  const auto part = [&](std::int64_t g) { return g == 0 ? first : others + (g - 1) * count; };
  T* const filled = padded ? others + (groups - 1) * count : nullptr;
  const T* const from = padded ? filled : v;
  InterruptCheck check(interrupted);
  std::atomic<std::int64_t> next{0};
  parallel_run(nnz_ * k < kSmallWork ? 1 : n_threads, [&](int thread, int of) {
    const std::int64_t begin = n_ * thread / of, end = n_ * (thread + 1) / of;
    if (padded) {
      for (std::int64_t i = begin; i < end; ++i) std::fill(std::copy_n(v + i * k, k, filled + i * wide), filled + (i + 1) * wide, T(0));
      parallel_barrier();
    }
    for (std::int64_t g; (g = next++) < groups;) {
      T* const to = part(g);
      if (g == 0) {
        for (std::int64_t i = 0; i < n_; ++i) {
          const T square = static_cast<T>(alone_[static_cast<std::size_t>(i)]);
          for (std::int64_t c = i * wide; c < (i + 1) * wide; ++c) to[c] = square * from[c];
        }
      } else {
        std::fill(to, to + count, T(0));
      }
      const std::int64_t stop = bounds[static_cast<std::size_t>(g) + 1];
      const std::int64_t step = std::max<std::int64_t>(1, (stop - bounds[static_cast<std::size_t>(g)] + 15) / 16);
      for (std::int64_t j = bounds[static_cast<std::size_t>(g)]; j < stop && !check.due(thread); j += step)
        rows_of<T>(*table_).columns[static_cast<int>(storage_)](ColumnsBlock<T>{
            data_.data(), rows_.data(), ptr_.data(), j, std::min(stop, j + step), static_cast<std::ptrdiff_t>(wide), from, to, nullptr});
    }
    parallel_barrier();
    if (check.stopped()) return;
    // The tree over the groups, a few lines of all of them at a time.
    for (std::int64_t row = begin; row < end; row += kSumRows) {
      const std::int64_t low = row * wide, high = std::min(end, row + kSumRows) * wide;
      for (std::int64_t left = 1; left < groups; left *= 2)
        for (std::int64_t g = 0; g + left < groups; g += 2 * left) {
          T *to = part(g), *more = part(g + left);
          for (std::int64_t i = low; i < high; ++i) to[i] += more[i];
        }
      if (padded)
        for (std::int64_t i = row; i < std::min(end, row + kSumRows); ++i) std::copy_n(first + i * wide, k, out + i * k);
    }
  });
  return !check.stopped();
}

template bool Columns::transposed(const float*, std::int64_t, double*, int, const std::function<bool()>&) const;
template bool Columns::transposed(const double*, std::int64_t, double*, int, const std::function<bool()>&) const;
template bool Columns::square(const float*, std::int64_t, double*, int, const std::function<bool()>&) const;
template bool Columns::square(const double*, std::int64_t, double*, int, const std::function<bool()>&) const;
template bool Columns::product(const float*, std::int64_t, float*, int, const std::function<bool()>&) const;
template bool Columns::product(const double*, std::int64_t, double*, int, const std::function<bool()>&) const;

}  // namespace nag
