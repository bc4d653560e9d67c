// Rows of a CSR matrix with something to say of columns that hardly ever have an entry.
#pragma once
#include <vector>

#include "engine/problem.h"

namespace nag {

// The rows, ascending, with an entry other than zero in a column that fewer than `few` of the given rows have one stored in.
std::vector<std::int64_t> rows_of_rare_columns(const ProblemView& v, const std::int64_t* rows, std::int64_t count, std::int32_t few,
                                               int n_threads);

}  // namespace nag
