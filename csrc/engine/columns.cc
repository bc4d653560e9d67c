#include "engine/columns.h"

#include <algorithm>
#include <atomic>

#include "engine/margins.h"
#include "engine/threads.h"

namespace nag {
namespace {

constexpr std::int64_t kGroupEntries = 1 << 17;  // about; a group's sums are n x k numbers, so there are few groups
constexpr std::int64_t kMostGroups = 16;
constexpr std::int64_t kRowsAtOnce = 4096;

template <class I>
const I* indices_of(const ProblemView& v) { return static_cast<const I*>(v.indices); }

// Counts the entries of each column into count[j + 1].
template <class I>
void count_columns(const ProblemView& v, std::int64_t* count) {
  const I* idx = indices_of<I>(v);
  for (std::int64_t e = v.indptr[0]; e < v.indptr[v.n]; ++e) ++count[idx[e] + 1];
}

// Hands the entries of the columns of one owner out to their places, in the order of the rows.
template <class I, class S>
void turn(const ProblemView& v, const std::int64_t* cuts, int owners, int owner, std::int64_t row, std::ptrdiff_t rows,
          std::int64_t* next, std::int32_t* to_rows, S* to) {
  const I* idx = indices_of<I>(v);
  const S* data = static_cast<const S*>(v.data);
  for (std::ptrdiff_t i = 0; i < rows; ++i) {
    const std::int64_t* cut = cuts + i * (owners + 1) + owner;
    for (std::int64_t e = cut[0]; e < cut[1]; ++e) {
      const std::int64_t at = next[idx[e]]++;
      to_rows[at] = static_cast<std::int32_t>(row + i);
      to[at] = data[e];
    }
  }
}

template <class S>
void turn_any(const ProblemView& v, const std::int64_t* cuts, int owners, int owner, std::int64_t row, std::ptrdiff_t rows,
              std::int64_t* next, std::int32_t* to_rows, void* to) {
  S* typed = static_cast<S*>(to);
  if (v.wide_index) turn<std::int64_t>(v, cuts, owners, owner, row, rows, next, to_rows, typed);
  else turn<std::int32_t>(v, cuts, owners, owner, row, rows, next, to_rows, typed);
}

// Boundaries of `parts` ranges of columns with about the same number of entries.
std::vector<std::int64_t> even_parts(const std::int64_t* ptr, std::int64_t d, std::int64_t parts) {
  std::vector<std::int64_t> bounds{0};
  for (std::int64_t t = 1; t < parts; ++t)
    bounds.push_back(std::lower_bound(ptr + bounds.back(), ptr + d, ptr[d] * t / parts) - ptr);
  bounds.push_back(d);
  return bounds;
}

}  // namespace

Columns::Columns(const ProblemView& v, int n_threads)
    : table_(v.table), storage_(v.storage), n_(v.n), d_(v.d), ptr_(static_cast<std::size_t>(v.d + 1)) {
  const std::int64_t nnz = v.indptr[v.n] - v.indptr[0];
  rows_ = Aligned<std::int32_t>(static_cast<std::size_t>(nnz), Unset{});
  data_ = Aligned<unsigned char>(static_cast<std::size_t>(nnz) * kStorageBytes[static_cast<int>(v.storage)], Unset{});
  if (v.wide_index) count_columns<std::int64_t>(v, ptr_.data());
  else count_columns<std::int32_t>(v, ptr_.data());
  for (std::int64_t j = 0; j < d_; ++j) ptr_[static_cast<std::size_t>(j + 1)] += ptr_[static_cast<std::size_t>(j)];
  std::int64_t groups = 1;
  while (groups < kMostGroups && 2 * groups * kGroupEntries <= nnz) groups *= 2;
  groups_ = even_parts(ptr_.data(), d_, groups);

  // Each owner writes the columns of its range; it finds their entries in each row by a search.
  const int owners = nnz < 65536 ? 1 : n_threads;
  const std::vector<std::int64_t> bounds = even_parts(ptr_.data(), d_, owners);
  Aligned<std::int64_t> next(static_cast<std::size_t>(d_), Unset{});
  std::copy(ptr_.data(), ptr_.data() + d_, next.data());
  std::vector<std::int64_t> cuts(static_cast<std::size_t>(std::min(n_, kRowsAtOnce) * (owners + 1)));
  const auto& split = table_->f64.csr_split[v.wide_index];
  parallel_run(owners, [&](int thread, int count) {
    for (std::int64_t row = 0; row < n_; row += kRowsAtOnce) {
      const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(std::min(kRowsAtOnce, n_ - row));
      const std::ptrdiff_t begin = rows * thread / count, end = rows * (thread + 1) / count;
      split(v.indices, v.indptr + row + begin, end - begin, bounds.data(), owners, cuts.data() + begin * (owners + 1));
      parallel_barrier();
      for (int owner = thread; owner < owners; owner += count)
        (storage_ == Storage::f64 ? turn_any<double> : turn_any<float>)(v, cuts.data(), owners, owner, row, rows, next.data(),
                                                                         rows_.data(), data_.data());
      parallel_barrier();
    }
  });
}

std::int64_t Columns::nbytes() const {
  const std::int64_t nnz = ptr_[static_cast<std::size_t>(d_)];
  return nnz * (4 + static_cast<std::int64_t>(kStorageBytes[static_cast<int>(storage_)])) + 8 * (d_ + 1);
}

template <class T>
bool Columns::transposed(const T* v, std::int64_t k, double* u, int n_threads,
                         const std::function<bool()>& interrupted) const {
  const std::int64_t parts = 64;
  const std::vector<std::int64_t> bounds = even_parts(ptr_.data(), d_, parts);
  InterruptCheck check(interrupted);
  std::atomic<std::int64_t> next{0};
  parallel_run(ptr_[static_cast<std::size_t>(d_)] * k < 16384 ? 1 : n_threads, [&](int thread, int) {
    for (std::int64_t g; (g = next++) < parts && !check.due(thread);)
      rows_of<T>(*table_).columns[static_cast<int>(storage_)](ColumnsBlock<T>{
          data_.data(), rows_.data(), ptr_.data(), bounds[static_cast<std::size_t>(g)], bounds[static_cast<std::size_t>(g + 1)],
          static_cast<std::ptrdiff_t>(k), v, nullptr, u});
  });
  return !check.stopped();
}

template <class T>
bool Columns::product(const T* v, std::int64_t k, T* out, int n_threads,
                      const std::function<bool()>& interrupted) const {
  const std::int64_t groups = static_cast<std::int64_t>(groups_.size()) - 1, count = n_ * k;
  // The first group sums into `out`, the others beside each other.
  Aligned<T> others(static_cast<std::size_t>((groups - 1) * count), Unset{});
  const auto part = [&](std::int64_t g) { return g == 0 ? out : others.data() + (g - 1) * count; };
  const int threads = ptr_[static_cast<std::size_t>(d_)] * k < 16384 ? 1 : n_threads;
  InterruptCheck check(interrupted);
  std::atomic<std::int64_t> next{0};
  parallel_run(threads, [&](int thread, int of) {
    for (std::int64_t g; (g = next++) < groups;) {
      std::fill(part(g), part(g) + count, T(0));
      const std::int64_t begin = groups_[static_cast<std::size_t>(g)], end = groups_[static_cast<std::size_t>(g + 1)];
      const std::int64_t step = std::max<std::int64_t>(1, (end - begin + 15) / 16);
      for (std::int64_t j = begin; j < end && !check.due(thread); j += step) {
        const ColumnsBlock<T> b{data_.data(), rows_.data(), ptr_.data(), j, std::min(end, j + step), static_cast<std::ptrdiff_t>(k),
                                v, part(g), nullptr};
        rows_of<T>(*table_).columns[static_cast<int>(storage_)](b);
      }
    }
    parallel_barrier();
    if (check.stopped()) return;
    const std::int64_t begin = count * thread / of, end = count * (thread + 1) / of;
    for (std::int64_t left = 1; left < groups; left *= 2)
      for (std::int64_t g = 0; g + left < groups; g += 2 * left) {
        T *to = part(g), *from = part(g + left);
        for (std::int64_t i = begin; i < end; ++i) to[i] += from[i];
      }
  });
  return !check.stopped();
}

template bool Columns::transposed(const float*, std::int64_t, double*, int, const std::function<bool()>&) const;
template bool Columns::transposed(const double*, std::int64_t, double*, int, const std::function<bool()>&) const;
template bool Columns::product(const float*, std::int64_t, float*, int, const std::function<bool()>&) const;
template bool Columns::product(const double*, std::int64_t, double*, int, const std::function<bool()>&) const;

}  // namespace nag
