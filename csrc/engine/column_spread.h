// How far apart the sizes of a CSR matrix's columns are.
#pragma once
#include "engine/problem.h"

namespace nag {

// The largest mean square of a column's entries over the median of them all, from about `entries` of them, evenly spread:
// 1 where none is stored, NaN or infinity where X holds such.
double column_spread(const ProblemView& v, std::int64_t entries);

}  // namespace nag
