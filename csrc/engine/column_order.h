// Columns of a CSR matrix numbered anew, so that the sums of a pass which come often lie in few cache lines.
// Memory: 4 bytes an entry and 8 a column. X stays as it is, and is read through these numbers in place of its indices.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/aligned.h"
#include "engine/margins.h"
#include "engine/problem.h"

namespace nag {

struct ColumnOrder {
  // Columns with entries in several parts of the rows have the first numbers, by classes of frequency, the highest first. In
  // a class they keep their order: the way from columns to numbers and back then runs along few streams instead of at random.
  std::int64_t shared = 0;
  std::vector<std::int64_t> local;  // columns with entries in part p alone have the numbers local[p] to local[p + 1]
  Aligned<std::int32_t> number;     // of each column; those without entries have the last
  Aligned<std::int32_t> place;      // of each column's sum: part * stride + number; d for a column without entries
  Aligned<std::int32_t> index;      // of each entry: its column's number
};

// Part p of the rows is first_row[p] <= i < first_row[p + 1]; sums of a part lie `stride` columns after those of the last.
struct RowParts {
  std::vector<std::int64_t> first_row;
  std::int64_t stride = 0;
  int count() const { return static_cast<int>(first_row.size()) - 1; }
};

// A problem's order, made when so many passes have been asked for that more are likely: making it costs about five of them.
class LazyColumnOrder {
 public:
  // Null in the first passes, while another thread makes it, and where memory does not suffice.
  const ColumnOrder* for_pass(const ProblemView& v, const RowParts& parts, int threads, InterruptCheck& check);

 private:
  static constexpr std::int64_t kPassesBefore = 8;
  std::atomic<std::int64_t> passes_{0};
  std::mutex making_;
  std::unique_ptr<ColumnOrder> made_;
  std::atomic<const ColumnOrder*> ready_{nullptr};
  bool failed_ = false;  // under the lock
};

}  // namespace nag
