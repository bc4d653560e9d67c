// Rows drawn by what they weigh, in three short trips over n numbers; and means over rows.
#pragma once
#include <cstdint>
#include <vector>

#include "base/types.h"

namespace nag {

// Systematic sampling with pi_i = 0.9 s_i v_i/sum(s v) + 0.1/n, v_i = weight_i + lift*mean(weight): one uniform number,
// equal steps along the sums of the probabilities. Rows with s_i = 0, and those of the stratum `apart`, are left out.
struct DrawRequest {
  Compute compute = Compute::f64;  // of `weight`
  const void* weight = nullptr;    // n numbers from zero on; null: all one
  const double* s = nullptr;       // n of them, or null: all one
  const std::int64_t* apart = nullptr;  // ascending
  std::int64_t apart_count = 0;
  std::int64_t n = 0, m = 0;
  double start = 0, lift = 0;  // 0 <= start < 1
  int n_threads = 1;
};

struct Drawn {
  std::vector<std::int64_t> rows;  // ascending, m of them or none; a row that weighs much may stand twice
  std::vector<double> factors;     // v_i divided by how often row i is drawn in the mean
  double mean = 0;                 // of the weights, by s
};

Drawn draw_rows(const DrawRequest& request);

// Copies of the rows named, in C order; X has any strides, in bytes.
struct TakenRows {
  const void* X;
  std::ptrdiff_t row_stride, col_stride;
  std::int64_t d;
  std::size_t item;
  const std::int64_t* rows;
  std::int64_t count;
  void* out;
  int n_threads;
};
void take_rows(const TakenRows& request);

// The rows whose z is not `value`, ascending.
std::vector<std::int64_t> rows_unlike(Compute compute, const void* z, std::int64_t n, double value, int n_threads);

// off[j]: in how many of the `count` rows named the number of column j is not its usual one, the middle of those in the first
// three. Numbers are compared as stored; usual[j] too is as stored (bfloat16: its bits).
void count_off_usual(Storage storage, const void* X, std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, std::int64_t d,
                     const std::int64_t* rows, std::int64_t count, std::int64_t* off, double* usual, int n_threads);

// sum s a, or the mean of a without s, of a = x, |x| or |x - y|: in a fixed tree of doubles.
struct RowMean {
  Compute compute = Compute::f64;  // of x and y
  const void* x = nullptr;
  const void* y = nullptr;  // or null
  const double* s = nullptr;
  std::int64_t n = 0;
  bool size = false;  // |x - y|
  int n_threads = 1;
};
double row_mean(const RowMean& request);

}  // namespace nag
