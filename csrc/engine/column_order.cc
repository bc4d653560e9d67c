#include "engine/column_order.h"

#include <algorithm>
#include <new>

#include "engine/threads.h"

namespace nag {
namespace {

struct Use {
  std::int32_t entries = 0;  // stops at kMany
  std::int32_t part = -1;    // -1 without entries, kSeveral with entries in several parts
};
constexpr std::int32_t kSeveral = -2, kMany = 1 << 16;
constexpr std::int64_t kRowsPerCheck = 4096;

template <class I>
bool count_uses(const ProblemView& v, const RowParts& parts, InterruptCheck& check, std::vector<Use>* uses) {
  const I* idx = static_cast<const I*>(v.indices);
  for (int p = 0; p < parts.count(); ++p)
    for (std::int64_t row = parts.first_row[static_cast<std::size_t>(p)], end = parts.first_row[static_cast<std::size_t>(p) + 1]; row < end; row += kRowsPerCheck) {
      if (check.due(0)) return false;
      for (std::int64_t e = v.indptr[row]; e < v.indptr[std::min(end, row + kRowsPerCheck)]; ++e) {
        Use& use = (*uses)[static_cast<std::size_t>(idx[e])];
        use.entries += use.entries < kMany;
        use.part = use.part == -1 || use.part == p ? p : kSeveral;
      }
    }
  return true;
}

template <class I>
void write_index(const ProblemView& v, const std::int32_t* number, int threads, InterruptCheck& check, std::int32_t* index) {
  const I* idx = static_cast<const I*>(v.indices);
  const std::int64_t nnz = v.indptr[v.n];
  constexpr std::int64_t kEntries = 1 << 20;
  std::atomic<std::int64_t> next{0};
  parallel_run(threads, [&](int thread, int) {
    for (std::int64_t e; (e = kEntries * next++) < nnz && !check.due(thread);)
      for (const std::int64_t end = std::min(nnz, e + kEntries); e < end; ++e) index[e] = number[idx[e]];
  });
}

std::unique_ptr<ColumnOrder> make_order(const ProblemView& v, const RowParts& parts, int threads, InterruptCheck& check) {
  const std::size_t d = static_cast<std::size_t>(v.d);
  std::vector<Use> uses(d);
  if (!(v.wide_index ? count_uses<std::int64_t> : count_uses<std::int32_t>)(v, parts, check, &uses)) return nullptr;

  // A counting sort: a bin for each class of shared columns, one for each part's own, one for columns without entries.
  const std::size_t classes = 17, bins = classes + static_cast<std::size_t>(parts.count()) + 1;
  const auto bin = [&](const Use& use) {
    if (use.part == -1) return bins - 1;
    if (use.part != kSeveral) return classes + static_cast<std::size_t>(use.part);
    std::size_t at = 0;
    for (std::int32_t least = kMany; use.entries < least; least /= 2) ++at;
    return at;
  };
  std::vector<std::int64_t> begin(bins + 1, 0);
  for (const Use& use : uses) ++begin[bin(use) + 1];
  for (std::size_t b = 0; b < bins; ++b) begin[b + 1] += begin[b];

  auto order = std::make_unique<ColumnOrder>();
  order->shared = begin[classes];
  order->local.assign(begin.begin() + static_cast<std::ptrdiff_t>(classes), begin.end() - 1);
  order->number = Aligned<std::int32_t>(d, Unset{});
  order->place = Aligned<std::int32_t>(d, Unset{});
  for (std::size_t j = 0; j < d; ++j) {
    const Use& use = uses[j];
    const std::int64_t number = begin[bin(use)]++;
    const std::int64_t place = use.part == -1 ? v.d : number + (use.part == kSeveral ? 0 : use.part * parts.stride);
    order->number[j] = static_cast<std::int32_t>(number);
    order->place[j] = static_cast<std::int32_t>(place);
  }
  order->index = Aligned<std::int32_t>(static_cast<std::size_t>(v.indptr[v.n]), Unset{});
  (v.wide_index ? write_index<std::int64_t> : write_index<std::int32_t>)(v, order->number.data(), threads, check, order->index.data());
  return check.stopped() ? nullptr : std::move(order);
}

}  // namespace

const ColumnOrder* LazyColumnOrder::for_pass(const ProblemView& v, const RowParts& parts, int threads, InterruptCheck& check) {
  if (const ColumnOrder* ready = ready_.load(std::memory_order_acquire)) return ready;
  if (++passes_ <= kPassesBefore || v.indptr[0] != 0) return nullptr;
  const std::unique_lock<std::mutex> lock(making_, std::try_to_lock);
  if (!lock.owns_lock() || failed_) return nullptr;
  if (!made_) {
    try {
      made_ = make_order(v, parts, threads, check);
    } catch (const std::bad_alloc&) {
      failed_ = true;  // passes go on through X's own indices
    }
    ready_.store(made_.get(), std::memory_order_release);
  }
  return made_.get();
}

}  // namespace nag
