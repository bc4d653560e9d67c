// Linear combinations and inner products of a few long vectors, and a transposed copy: what a solver does beside its products.
// The bits do not depend on the threads.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/table.h"

namespace nag {

// out = sum_j c[j] a[j], n numbers; out may be one of the a.
template <class T>
void combine(const std::vector<const T*>& a, const std::vector<double>& c, std::int64_t n, T* out, int n_threads);

// <a[j], v> for each j: chains of 16 products in T, their sums in double.
template <class T>
std::vector<double> inner_products(const std::vector<const T*>& a, const T* v, std::int64_t n, int n_threads);

// sum_i v_i a[j]_i a[k]_i, m x m in C order: blocks of 512 in lanes of T, their sums in double.
template <class T>
std::vector<double> weighted_gram(const KernelTable& table, const std::vector<const T*>& a, const T* v, std::int64_t n, int n_threads);

// out, columns x rows, is the transpose of a, rows x columns.
template <class T>
void transposed_copy(const double* a, std::int64_t rows, std::int64_t columns, T* out, int n_threads);

}  // namespace nag
