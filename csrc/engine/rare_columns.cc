#include "engine/rare_columns.h"

#include "engine/aligned.h"
#include "engine/threads.h"

namespace nag {
namespace {

template <class S, class I>
std::vector<std::int64_t> find(const ProblemView& v, const std::int64_t* rows, std::int64_t count, std::int32_t few, int n_threads) {
  const S* const data = static_cast<const S*>(v.data);
  const I* const idx = static_cast<const I*>(v.indices);
  std::vector<std::int32_t> entries(static_cast<std::size_t>(v.d), 0);
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t e = v.indptr[rows[i]]; e < v.indptr[rows[i] + 1]; ++e) ++entries[static_cast<std::size_t>(idx[e])];
  Aligned<unsigned char> rare(entries.size()), has(static_cast<std::size_t>(v.n));
  bool any = false;
  for (std::size_t j = 0; j < entries.size(); ++j) {
    rare[j] = entries[j] < few ? 1 : 0;
    any = any || rare[j] != 0;
  }
  std::vector<std::int64_t> found;
  if (!any) return found;
  parallel_run(v.n < 2048 ? 1 : n_threads, [&](int thread, int of) {
    for (std::int64_t i = v.n * thread / of; i < v.n * (thread + 1) / of; ++i) {
      bool here = false;  // of all of a row's entries: a branch at each would be guessed wrong too often
      for (std::int64_t e = v.indptr[i]; e < v.indptr[i + 1]; ++e) here |= (rare[static_cast<std::size_t>(idx[e])] != 0) & (data[e] != 0);
      has[static_cast<std::size_t>(i)] = here ? 1 : 0;
    }
  });
  for (std::int64_t i = 0; i < v.n; ++i)
    if (has[static_cast<std::size_t>(i)]) found.push_back(i);
  return found;
}

}  // namespace

std::vector<std::int64_t> rows_of_rare_columns(const ProblemView& v, const std::int64_t* rows, std::int64_t count, std::int32_t few,
                                               int n_threads) {
  if (v.storage == Storage::f64)
    return v.wide_index ? find<double, std::int64_t>(v, rows, count, few, n_threads) : find<double, std::int32_t>(v, rows, count, few, n_threads);
  return v.wide_index ? find<float, std::int64_t>(v, rows, count, few, n_threads) : find<float, std::int32_t>(v, rows, count, few, n_threads);
}

}  // namespace nag
