#include "engine/csr_products.h"

#include <algorithm>
#include <atomic>

#include "engine/margins.h"
#include "engine/threads.h"

namespace nag {
namespace {

constexpr std::int64_t kMostColumns = 12288;     // whose float32 sums fill a first cache of 48 KiB
constexpr std::int64_t kGroupEntries = 1 << 16;
constexpr std::int64_t kMostGroups = 16;
constexpr std::int64_t kSmallWork = 16384;       // entries that one thread does
constexpr std::int64_t kStrip = 256;             // columns
constexpr std::int64_t kRowsAtOnce = 256;

}  // namespace

bool CsrProducts::suits(const ProblemView& v) { return v.k == 1 && v.d <= kMostColumns && v.indptr[v.n] - v.indptr[0] >= 8 * v.d; }

CsrProducts::CsrProducts(const ProblemView& view) : view_(view), stride_(pad_to(static_cast<std::ptrdiff_t>(view.d), 16)) {
  const std::int64_t first = view.indptr[0], nnz = view.indptr[view.n] - first;
  std::int64_t groups = 1;
  while (groups < kMostGroups && 2 * groups * kGroupEntries <= nnz) groups *= 2;
  for (std::int64_t g = 0; g <= groups; ++g)
    first_row_.push_back(std::lower_bound(view.indptr, view.indptr + view.n, first + nnz / groups * g) - view.indptr);
  first_row_.front() = 0;  // rows without entries, too, at both ends
  first_row_.back() = view.n;
}

std::int64_t CsrProducts::nbytes() const { return static_cast<std::int64_t>(first_row_.size() * sizeof(std::int64_t)); }

template <class T>
bool CsrProducts::through(const T* v, T* sums, int n_threads, const std::function<bool()>& interrupted,
                          const std::function<void(std::int64_t, std::int64_t)>& rows) const {
  const auto& kernels = rows_of<T>(*view_.table);
  const auto scatter = kernels.csr_scatter[static_cast<int>(view_.storage)][view_.wide_index];
  const std::int64_t groups = static_cast<std::int64_t>(first_row_.size()) - 1, d = view_.d;
  InterruptCheck check(interrupted);
  std::atomic<std::int64_t> next{0}, next_row{0};
  parallel_pass(view_.indptr[view_.n] - view_.indptr[0] < kSmallWork ? 1 : n_threads, [&](int thread, int of) {
    for (std::int64_t g; (g = next++) < groups;) {
      T* const to = sums + g * stride_;
      std::fill(to, to + d, T(0));
      const std::int64_t end = first_row_[static_cast<std::size_t>(g) + 1];
      for (std::int64_t row = first_row_[static_cast<std::size_t>(g)]; row < end && !check.due(thread); row += kRowsAtOnce)
        scatter(view_.data, view_.indices, view_.indptr + row, static_cast<std::ptrdiff_t>(std::min(kRowsAtOnce, end - row)), v + row, to);
    }
    parallel_barrier();
    if (check.stopped()) return;
    for (std::int64_t j = d * thread / of; j < d * (thread + 1) / of; j += kStrip) {
      const std::int64_t end = std::min(d * (thread + 1) / of, j + kStrip);
      for (std::int64_t left = 1; left < groups; left *= 2)
        for (std::int64_t g = 0; g + left < groups; g += 2 * left) {
          T* const to = sums + g * stride_;
          const T* const more = sums + (g + left) * stride_;
          for (std::int64_t i = j; i < end; ++i) to[i] += more[i];
        }
    }
    if (!rows) return;
    parallel_barrier();
    for (std::int64_t row; (row = kRowsAtOnce * next_row++) < view_.n;) rows(row, std::min(view_.n, row + kRowsAtOnce));
  });
  return !check.stopped();
}

template <class T, class Body>
bool CsrProducts::with_sums(const Body& body) const {
  const std::size_t count = (static_cast<std::size_t>(stride_) * (first_row_.size() - 1) * sizeof(T) + 7) / 8;
  const std::unique_lock<std::mutex> lock(working_, std::try_to_lock);
  if (!lock.owns_lock()) {
    Aligned<double> mine(count, Unset{});
    return body(reinterpret_cast<T*>(mine.data()));
  }
  // Room for doubles from the start: a run in float32 ends in them.
  if (work_.data() == nullptr) work_ = Aligned<double>(static_cast<std::size_t>(stride_) * (first_row_.size() - 1), Unset{});
  return body(reinterpret_cast<T*>(work_.data()));
}

template <class T>
bool CsrProducts::product(const T* v, T* out, double* u, int n_threads, const std::function<bool()>& interrupted) const {
  const auto gather = csr_dot_of<T>(view_, view_.wide_index);
  return with_sums<T>([&](T* sums) {
    const bool done = through(v, sums, n_threads, interrupted, [&](std::int64_t begin, std::int64_t end) {
      gather(view_.data, view_.indices, view_.indptr + begin, static_cast<std::ptrdiff_t>(end - begin), sums, 1, out + begin, 0);
    });
    if (u != nullptr) std::copy_n(sums, view_.d, u);
    return done;
  });
}

template <class T>
bool CsrProducts::square(const T* v, double* sum, int n_threads, const std::function<bool()>& interrupted) const {
  return with_sums<T>([&](T* sums) {
    if (!through(v, sums, n_threads, interrupted, nullptr)) return false;
    double lanes[8] = {};
    for (std::int64_t j = 0; j < view_.d; ++j) lanes[j % 8] += static_cast<double>(sums[j]) * static_cast<double>(sums[j]);
    *sum = 0;
    for (const double lane : lanes) *sum += lane;
    return true;
  });
}

template <class T>
bool CsrProducts::transposed(const T* v, double* u, int n_threads, const std::function<bool()>& interrupted) const {
  return with_sums<T>([&](T* sums) {
    if (!through(v, sums, n_threads, interrupted, nullptr)) return false;
    std::copy_n(sums, view_.d, u);
    return true;
  });
}

template bool CsrProducts::product(const float*, float*, double*, int, const std::function<bool()>&) const;
template bool CsrProducts::product(const double*, double*, double*, int, const std::function<bool()>&) const;
template bool CsrProducts::square(const float*, double*, int, const std::function<bool()>&) const;
template bool CsrProducts::square(const double*, double*, int, const std::function<bool()>&) const;
template bool CsrProducts::transposed(const float*, double*, int, const std::function<bool()>&) const;
template bool CsrProducts::transposed(const double*, double*, int, const std::function<bool()>&) const;

}  // namespace nag
