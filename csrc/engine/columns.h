// Products X X'v and X'v of a CSR matrix, from a copy of it by columns: what methods whose unknowns are rows are made of.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/aligned.h"
#include "engine/problem.h"

namespace nag {

class Columns {
 public:
  // Reads the view's CSR once; the copy takes the bytes of its data, four for each entry and eight for each column.
  Columns(const ProblemView& view, int n_threads);

  std::int64_t nbytes() const;

  // out = X X'v for v of n x k numbers of T. Columns are summed in fixed groups and the groups in a fixed tree, so that the
  // bits do not depend on the threads. False where `interrupted` ended it.
  template <class T>
  bool product(const T* v, std::int64_t k, T* out, int n_threads, const std::function<bool()>& interrupted) const;

  // u = X'v, d x k.
  template <class T>
  bool transposed(const T* v, std::int64_t k, double* u, int n_threads, const std::function<bool()>& interrupted) const;

 private:
  const KernelTable* table_;
  Storage storage_;
  std::int64_t n_, d_;
  Aligned<std::int64_t> ptr_;
  Aligned<std::int32_t> rows_;
  Aligned<unsigned char> data_;
  std::vector<std::int64_t> groups_;  // where each group of columns begins, and d
};

}  // namespace nag
