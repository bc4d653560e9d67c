// Products X X'v and X'v of a CSR matrix of few columns, by its own rows: X'v is scattered into, then gathered from.
// Where X'v fits a core's first cache that takes as long as a copy by columns (columns.h), and there is none to make.
#pragma once
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "engine/aligned.h"
#include "engine/problem.h"

namespace nag {

class CsrProducts {
 public:
  explicit CsrProducts(const ProblemView& view);
  // Whether this is the better way for one number a row.
  static bool suits(const ProblemView& view);

  // As those of Columns, for one number a row; where u is not null, it gets X'v on the way. Rows are summed in fixed groups, in T, and the groups in a fixed tree, so that
  // the bits do not depend on the threads.
  template <class T>
  bool product(const T* v, T* out, double* u, int n_threads, const std::function<bool()>& interrupted) const;
  template <class T>
  bool square(const T* v, double* sum, int n_threads, const std::function<bool()>& interrupted) const;
  template <class T>
  bool transposed(const T* v, double* u, int n_threads, const std::function<bool()>& interrupted) const;
  std::int64_t nbytes() const;

 private:
  // X'v in sums[0, d), then rows(begin, end) for ranges that the threads share, where there is work by rows.
  template <class T>
  bool through(const T* v, T* sums, int n_threads, const std::function<bool()>& interrupted,
               const std::function<void(std::int64_t begin, std::int64_t end)>& rows) const;
  template <class T, class Body>
  bool with_sums(const Body& body) const;

  const ProblemView& view_;
  std::vector<std::int64_t> first_row_;  // of each group, and n
  std::ptrdiff_t stride_;                // numbers from a group's sums to the next's
  // Sums from one call to the next. Whoever finds them locked makes its own.
  mutable std::mutex working_;
  mutable Aligned<double> work_;
};

}  // namespace nag
