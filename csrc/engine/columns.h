// Products X X'v and X'v of a CSR matrix, from a copy of it by columns: what methods whose unknowns are rows are made of.
#pragma once
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "engine/aligned.h"
#include "engine/problem.h"

namespace nag {

class Columns {
 public:
  // Reads the view's CSR; the copy takes the bytes of its data, four for each entry, twelve for each column, eight for each row.
  Columns(const ProblemView& view, int n_threads);

  std::int64_t nbytes() const;

  // out = X X'v for v of n x k numbers of T. Columns are summed in fixed groups and the groups in a fixed tree, so that the
  // bits do not depend on the threads. False where `interrupted` ended it.
  template <class T>
  bool product(const T* v, std::int64_t k, T* out, int n_threads, const std::function<bool()>& interrupted) const;

  // *sum = the sum of the squares of X'v, in double: nothing of the size of X'v or of a product is made.
  template <class T>
  bool square(const T* v, std::int64_t k, double* sum, int n_threads, const std::function<bool()>& interrupted) const;

  // u = X'v, d x k.
  template <class T>
  bool transposed(const T* v, std::int64_t k, double* u, int n_threads, const std::function<bool()>& interrupted) const;

 private:
  template <class S>
  void fill(const ProblemView& view, int threads);
  template <class S, class I>
  void fill_from(const ProblemView& view, int threads);
  std::vector<std::int64_t> even_parts(std::int64_t parts) const;
  // Calls rows(begin, end, u) for chunks of places, which the threads share: u holds the rows of X'v of columns column_[begin] on.
  template <class T, class Rows>
  bool each_column(const T* v, std::int64_t k, int n_threads, const std::function<bool()>& interrupted, const Rows& rows) const;
  double value(std::int64_t entry) const;

  const KernelTable* table_;
  Storage storage_;
  std::int64_t n_, d_, nnz_;
  // Columns stand by classes of length, the longest first, then those of one entry from `shared_` on, then the empty ones from
  // `used_` on; in a class they keep their order. Place j holds column column_[j], with the entries ptr_[j] to ptr_[j + 1].
  std::int64_t shared_ = 0, used_ = 0;
  Aligned<std::int32_t> column_;
  Aligned<std::int64_t> ptr_;
  Aligned<std::int32_t> rows_;
  Aligned<unsigned char> data_;
  // Sums of the groups of a product, from one to the next: fresh pages cost as much as filling them. Whoever finds it locked
  // makes its own.
  mutable std::mutex working_;
  mutable Aligned<unsigned char> work_;
  mutable std::size_t work_bytes_ = 0;
  Aligned<double> alone_;  // of each row: the squares of its entries in columns of one entry, which add a diagonal to X X'
};

}  // namespace nag
