// Coordinate descent for a quadratic plus l1.
#include <pybind11/stl.h>

#include <cmath>

#include "bindings/array_checks.h"
#include "bindings/bindings.h"
#include "dispatch/dispatch.h"
#include "engine/active_set.h"
#include "engine/coordinates.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace nag {
namespace {

// An array that is read where it lies.
template <class T> const T* lying(const py::object& a, const char* name, const char* dtype, int ndim, py::array& held) {
  if (!py::isinstance<py::array>(a)) bad_type(std::string(name) + " is no NumPy array. Use np.ascontiguousarray(" + name + ", np." + dtype + ").");
  held = py::reinterpret_borrow<py::array>(a);
  if (held.ndim() != ndim || dtype_name(held) != dtype || !(held.flags() & py::array::c_style) ||
      reinterpret_cast<std::uintptr_t>(held.data()) % sizeof(T) != 0)
    bad_value(std::string(name) + " has shape " + shape_text(held) + " and dtype " + dtype_name(held) + "; a C-contiguous, aligned array of " +
              std::to_string(ndim) + " dimensions is needed. Use np.ascontiguousarray(" + name + ", dtype=np." + dtype + ").");
  return static_cast<const T*>(held.data());
}

void check_entries(const ColumnsView& A, std::int64_t entries) {
  if (A.starts[0] != 0 || A.starts[A.p] != entries) bad_value("starts must run from 0 to the number of values. Use the indptr of a CSC array.");
  for (std::int64_t j = 0; j < A.p; ++j)
    if (A.starts[j] > A.starts[j + 1]) bad_value("starts must not fall, and do at " + std::to_string(j) + ". Use the indptr of a CSC array.");
  for (std::int64_t k = 0; k < entries; ++k)
    if (A.rows[k] < 0 || A.rows[k] >= A.n)
      bad_value("rows holds " + std::to_string(A.rows[k]) + "; numbers from 0 to " + std::to_string(A.n - 1) + " are needed.");
}

// Columns of n numbers, where they lie.
struct LyingColumns {
  ColumnsView view;
  py::array values, rows, starts;

  LyingColumns(const py::object& from, const py::object& rows_from, const py::object& starts_from, std::int64_t n) {
    ColumnsView& A = view;
    A.n = n;
    if (rows_from.is_none()) {
      A.values = lying<double>(from, "values", "float64", 2, values);
      A.p = values.shape(0);
      if (values.shape(1) != A.n) bad_value("values has shape " + shape_text(values) + "; columns of " + std::to_string(A.n) + " numbers, one a row, are needed.");
      return;
    }
    A.values = lying<double>(from, "values", "float64", 1, values);
    A.rows = lying<std::int32_t>(rows_from, "rows", "int32", 1, rows);
    A.starts = lying<std::int64_t>(starts_from, "starts", "int64", 1, starts);
    A.p = starts.shape(0) - 1;
    if (A.p < 0 || rows.shape(0) != values.shape(0)) bad_value("rows must have one number for each of values, and starts one more than there are columns.");
    check_entries(A, values.shape(0));
  }
};

py::array_t<double> products_of(const py::object& values, const py::object& rows, const py::object& starts, const py::object& r,
                                const py::object& n_threads) {
  const py::array_t<double> vector = numbers<double>(r, "r", 1, py::array(r).shape(0), 1);
  const LyingColumns columns(values, rows, starts, vector.shape(0));
  py::array_t<double> out(columns.view.p);
  double* const to = out.mutable_data();
  const int threads = resolve_threads(n_threads.is_none() ? 0 : n_threads.cast<int>());
  const py::gil_scoped_release release;
  column_products(columns.view, vector.data(), to, threads);
  return out;
}

void add_to(const py::object& values, const py::object& rows, const py::object& starts, const py::object& c, const py::object& t) {
  const std::int64_t n = py::array(t).shape(0);
  double* const to = output<double>(t, "t", n, 1, true);
  const LyingColumns columns(values, rows, starts, n);
  const py::array_t<double> coefficients = numbers<double>(c, "c", 1, columns.view.p, 1);
  const py::gil_scoped_release release;
  add_columns(columns.view, coefficients.data(), to);
}

void check_strengths(double l1, double l2, double accuracy) {
  if (!(l1 >= 0 && l2 >= 0 && accuracy >= 0) || !std::isfinite(l1 + l2))
    bad_value("l1, l2 and accuracy must be finite numbers >= 0.");
}

// Bounds of p coefficients, perhaps infinite, where they lie; null for None.
const double* bounds_of(const py::object& a, const char* name, std::int64_t p, py::array& held) {
  if (a.is_none()) return nullptr;
  const double* bounds = lying<double>(a, name, "float64", 1, held);
  if (held.shape(0) != p) bad_value(std::string(name) + " has shape " + shape_text(held) + "; one number for each of " + std::to_string(p) + " coefficients is needed.");
  return bounds;
}

void check_box(const double* lower, const double* upper, std::int64_t p) {
  for (std::int64_t j = 0; j < p; ++j) {
    const double low = lower == nullptr ? -INFINITY : lower[j], high = upper == nullptr ? INFINITY : upper[j];
    if (!(low <= high) || low == INFINITY || high == -INFINITY)
      bad_value("lower is " + std::to_string(low) + " and upper " + std::to_string(high) + " at " + std::to_string(j) +
                "; numbers with lower <= upper are needed, -inf and inf for no bound.");
  }
}

py::tuple on_columns(const py::object& values, const py::object& rows, const py::object& starts, const py::object& v, const py::object& g,
                     const py::object& w, double l1, double l2, const std::optional<double>& slope_b, const py::object& lower,
                     const py::object& upper, double accuracy, std::int64_t rounds) {
  check_strengths(l1, l2, accuracy);
  const py::array_t<double> weights = numbers<double>(v, "v", 1, py::array(v).shape(0), 1);
  const LyingColumns columns(values, rows, starts, weights.shape(0));
  const ColumnsView& A = columns.view;
  if (slope_b && !std::isfinite(*slope_b)) bad_value("slope_b must be a finite number, or None without an intercept.");
  const py::array_t<double> slope = numbers<double>(g, "g", 1, A.p, 1);
  py::array_t<double> out = numbers<double>(w, "w", 1, A.p, 1), t(A.n);
  const double* curvatures = weights.data();
  for (std::int64_t i = 0; i < A.n; ++i)
    if (curvatures[i] < 0) bad_value("v holds " + std::to_string(curvatures[i]) + "; numbers >= 0 are needed.");
  py::array held_lower, held_upper;
  const double* low = bounds_of(lower, "lower", A.p, held_lower);
  const double* high = bounds_of(upper, "upper", A.p, held_upper);
  check_box(low, high, A.p);
  const QuadraticL1 how{l1, l2, slope_b.has_value(), slope_b.value_or(0.0), low, high, accuracy, rounds};
  double *to = out.mutable_data(), *margins = t.mutable_data(), b = 0, left = 0;
  const double* from = slope.data();
  {
    const py::gil_scoped_release release;
    left = minimise_on_columns(A, curvatures, from, how, to, &b, margins, [] {
      const py::gil_scoped_acquire acquire;
      return PyErr_CheckSignals() != 0;
    });
  }
  if (left < 0) throw py::error_already_set();
  return py::make_tuple(out, b, t, left);
}

double on_gram(const py::object& C, const py::object& q, const py::object& w, double l1, double accuracy, std::int64_t sweeps, const py::object& lower,
               const py::object& upper) {
  check_strengths(l1, 0, accuracy);
  py::array held;
  const double* matrix = lying<double>(C, "C", "float64", 2, held);
  const std::int64_t p = held.shape(0);
  if (held.shape(1) != p) bad_value("C has shape " + shape_text(held) + "; a square matrix is needed.");
  if (overlap(q, w) || overlap(q, C) || overlap(w, C)) bad_value("C, q and w overlap; q and w are written. Use copies.");
  double* slope = output<double>(q, "q", p, 1, true);
  double* to = output<double>(w, "w", p, 1, true);
  py::array held_lower, held_upper;
  const double* low = bounds_of(lower, "lower", p, held_lower);
  const double* high = bounds_of(upper, "upper", p, held_upper);
  check_box(low, high, p);
  const py::gil_scoped_release release;
  return sweep_on_gram(matrix, p, l1, low, high, accuracy, sweeps, to, slope);
}

py::object settled_on_gram(const py::object& C, const py::object& g, const py::object& w, double l1, double accuracy, int rounds, bool positive) {
  check_strengths(l1, 0, accuracy);
  py::array held;
  const double* matrix = lying<double>(C, "C", "float64", 2, held);
  const std::int64_t p = held.shape(0);
  if (held.shape(1) != p) bad_value("C has shape " + shape_text(held) + "; a square matrix is needed.");
  const py::array_t<double> slope = numbers<double>(g, "g", 1, p, 1), from = numbers<double>(w, "w", 1, p, 1);
  py::array_t<double> v(p);
  if (!settle_on_gram(active_table(), matrix, p, slope.data(), from.data(), l1, positive, accuracy, rounds, v.mutable_data())) return py::none();
  return std::move(v);
}

}  // namespace

void bind_coordinates(py::module_& m) {
  m.def("minimise_on_columns", &on_columns, py::arg("values"), py::arg("rows"), py::arg("starts"), py::arg("v"), py::arg("g"), py::arg("w"),
        py::arg("l1"), py::arg("l2"), py::arg("slope_b") = py::none(), py::arg("lower") = py::none(), py::arg("upper") = py::none(), py::arg("accuracy") = 0.0,
        py::arg("rounds") = 1000,
        "w minimising <g, w - w0> + (w - w0)'H(w - w0)/2 + l1|w|, H = A diag(v) A' + l2 I, from w0: returns it, b, A'(w - w0) + b and the "
        "largest violation of the optimality conditions that is left. values is (p, n), columns of X one a row, with rows and starts None, "
        "or the data, indices and indptr of a CSC array. With slope_b, the gradient in an intercept, b is its best change; else 0. lower and upper, "
        "of p numbers each, bound w; None does not.");
  m.def("column_products", &products_of, py::arg("values"), py::arg("rows"), py::arg("starts"), py::arg("r"), py::arg("n_threads") = py::none(),
        "<column, r> for each of the columns of `minimise_on_columns`.");
  m.def("add_columns_", &add_to, py::arg("values"), py::arg("rows"), py::arg("starts"), py::arg("c"), py::arg("t"),
        "t (in place) grows by c times the columns of `minimise_on_columns`.");
  m.def("sweep_on_gram_", &on_gram, py::arg("C"), py::arg("q"), py::arg("w"), py::arg("l1"), py::arg("accuracy"), py::arg("sweeps"),
        py::arg("lower") = py::none(), py::arg("upper") = py::none(),
        "Sweeps of coordinate descent for <q, .> + (.)'C(.)/2 + l1|w|, lower <= w <= upper; w and the gradient q change in place. Returns the largest violation "
        "that the last sweep met, coordinates within `accuracy` left alone.");
  m.def("settle_on_gram", &settled_on_gram, py::arg("C"), py::arg("g"), py::arg("w"), py::arg("l1"), py::arg("accuracy"), py::arg("rounds"),
        py::arg("positive") = false,
        "v minimising <g, v - w> + (v - w)'C(v - w)/2 + l1|v|, by exchanging active sets from w's; None where `rounds` of them do not settle.");
}

}  // namespace nag
