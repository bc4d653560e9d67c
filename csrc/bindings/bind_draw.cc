// Draws of rows and means over rows (nagcore/solvers/rows.py, metric.py).
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>

#include "bindings/array_checks.h"
#include "bindings/bindings.h"
#include "bindings/kept_array.h"
#include "engine/draw.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace nag {
namespace {

// A vector of n numbers as it lies: float64 or float32, contiguous.
const void* vector_in_place(const py::object& x, const char* name, std::int64_t n, Compute* type) {
  if (!py::isinstance<py::array>(x)) bad_type(std::string(name) + " is no NumPy array. Use np.asarray(" + name + ", np.float64).");
  const py::array a = py::reinterpret_borrow<py::array>(x);
  const std::string given = dtype_name(a);
  if ((given != "float64" && given != "float32") || a.ndim() != 1 || !(a.flags() & py::array::c_style) || (n >= 0 && a.shape(0) != n))
    bad_value(std::string(name) + " has dtype " + given + " and shape " + shape_text(a) + "; a contiguous vector of float64 or float32" +
              (n >= 0 ? ", " + std::to_string(n) + " of them," : "") + " is needed.");
  if (a.shape(0) == 0) bad_value(std::string(name) + " is empty; at least one row is needed.");
  *type = given == "float64" ? Compute::f64 : Compute::f32;
  return a.data();
}

const double* doubles_in_place(const py::object& x, const char* name, std::int64_t n) {
  if (x.is_none()) return nullptr;
  Compute type;
  const void* data = vector_in_place(x, name, n, &type);
  if (type != Compute::f64) bad_value(std::string(name) + " has dtype float32; float64 is needed.");
  return static_cast<const double*>(data);
}

py::tuple draw(std::int64_t n, std::int64_t m, double start, const py::object& weights, const py::object& shares,
               const py::object& apart, double lift, const py::object& n_threads) {
  if (n < 1 || m < 1) bad_value("n is " + std::to_string(n) + " and m is " + std::to_string(m) + "; both must be at least 1.");
  if (!(start >= 0 && start < 1)) bad_value("start is " + std::to_string(start) + "; a number from 0 to 1, 1 excluded, is needed.");
  DrawRequest q;
  q.n = n;
  q.m = m;
  q.start = start;
  q.lift = lift;
  if (!weights.is_none()) q.weight = vector_in_place(weights, "weights", n, &q.compute);
  q.s = doubles_in_place(shares, "shares", n);
  py::array_t<std::int64_t, py::array::c_style | py::array::forcecast> rows;
  if (!apart.is_none()) {
    rows = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>(apart);
    q.apart = rows.data();
    q.apart_count = rows.size();
    for (std::int64_t i = 0; i < q.apart_count; ++i)
      if (q.apart[i] < (i ? q.apart[i - 1] + 1 : 0) || q.apart[i] >= n)
        bad_value("apart holds " + std::to_string(q.apart[i]) + " at index " + std::to_string(i) + "; row numbers below " +
                  std::to_string(n) + " in ascending order, none twice, are needed. Use np.unique(apart).");
  }
  q.n_threads = resolve_threads(n_threads.is_none() ? 0 : n_threads.cast<int>());
  Drawn drawn;
  {
    const py::gil_scoped_release release;
    drawn = draw_rows(q);
  }
  py::array_t<std::int64_t> at(static_cast<py::ssize_t>(drawn.rows.size()));
  py::array_t<double> factors(static_cast<py::ssize_t>(drawn.factors.size()));
  std::copy(drawn.rows.begin(), drawn.rows.end(), at.mutable_data());
  std::copy(drawn.factors.begin(), drawn.factors.end(), factors.mutable_data());
  return py::make_tuple(at, factors, drawn.mean);
}

double mean(const py::object& x, const py::object& y, const py::object& shares, const py::object& n_threads, bool size) {
  RowMean q;
  q.x = vector_in_place(x, "x", -1, &q.compute);
  q.n = py::reinterpret_borrow<py::array>(x).shape(0);
  q.size = size;
  if (!y.is_none()) {
    Compute type;
    q.y = vector_in_place(y, "y", q.n, &type);
    if (type != q.compute) bad_value("x and y have different dtypes; nagcore compares vectors of one.");
  }
  q.s = doubles_in_place(shares, "shares", q.n);
  q.n_threads = resolve_threads(n_threads.is_none() ? 0 : n_threads.cast<int>());
  const py::gil_scoped_release release;
  return row_mean(q);
}

py::array_t<std::int64_t> unlike(const py::object& z, double value, const py::object& n_threads) {
  Compute type;
  const void* data = vector_in_place(z, "z", -1, &type);
  const std::int64_t n = py::reinterpret_borrow<py::array>(z).shape(0);
  const int threads = resolve_threads(n_threads.is_none() ? 0 : n_threads.cast<int>());
  std::vector<std::int64_t> rows;
  {
    const py::gil_scoped_release release;
    rows = rows_unlike(type, data, n, value, threads);
  }
  py::array_t<std::int64_t> out(static_cast<py::ssize_t>(rows.size()));
  std::copy(rows.begin(), rows.end(), out.mutable_data());
  return out;
}

// rows as they were given, each checked.
void check_rows(const py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>& rows, std::int64_t n) {
  if (rows.ndim() != 1 || rows.size() == 0)
    bad_value("rows has shape " + shape_text(rows) + "; at least one row number is needed.");
  for (std::int64_t i = 0; i < rows.size(); ++i)
    if (rows.data()[i] < 0 || rows.data()[i] >= n)
      bad_value("rows holds " + std::to_string(rows.data()[i]) + "; numbers from 0 to " + std::to_string(n - 1) + " are needed.");
}

py::array taken(const py::array& X, const py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>& rows,
                const py::object& n_threads) {
  if (X.ndim() != 2 || X.dtype().attr("hasobject").cast<bool>())
    bad_value("X has shape " + shape_text(X) + " and dtype " + dtype_name(X) + "; a 2-D array of numbers is needed. Use X[rows].");
  check_rows(rows, X.shape(0));
  py::array out = new_array(X.dtype(), std::vector<py::ssize_t>{rows.size(), X.shape(1)});
  const TakenRows request{X.data(), X.strides(0), X.strides(1), X.shape(1), static_cast<std::size_t>(X.itemsize()), rows.data(), rows.size(),
                          out.mutable_data(), resolve_threads(n_threads.is_none() ? 0 : n_threads.cast<int>())};
  {
    const py::gil_scoped_release release;
    take_rows(request);
  }
  return out;
}

py::array empty_rows(const std::vector<py::ssize_t>& shape, const py::object& dtype) {
  if (py::dtype::from_args(dtype).equal(py::dtype::of<float>())) return new_array<float>(shape);
  return new_array<double>(shape);
}

py::tuple off_usual(const py::array& X, const py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>& rows,
                    const py::object& n_threads) {
  const std::string type = dtype_name(X);
  Storage storage = Storage::f64;
  if (type == "float32") storage = Storage::f32;
  else if (type == "uint8") storage = Storage::u8;
  else if (type == "uint16" || type == "bfloat16") storage = Storage::bf16;
  else if (type != "float64") bad_value("X has dtype " + type + "; float64, float32, bfloat16 or uint8 is needed.");
  if (X.ndim() != 2) bad_value("X has shape " + shape_text(X) + "; a 2-D array is needed.");
  check_rows(rows, X.shape(0));
  const std::int64_t count = rows.size();
  py::array_t<std::int64_t> off(X.shape(1));
  py::array_t<double> usual(X.shape(1));
  std::int64_t* const to = off.mutable_data();
  double* const values = usual.mutable_data();
  const int threads = resolve_threads(n_threads.is_none() ? 0 : n_threads.cast<int>());
  {
    const py::gil_scoped_release release;
    count_off_usual(storage, X.data(), X.strides(0), X.strides(1), X.shape(1), rows.data(), count, to, values, threads);
  }
  return py::make_tuple(off, usual);
}

}  // namespace

void bind_draw(py::module_& m) {
  m.def("draw_rows", &draw, py::arg("n"), py::arg("m"), py::arg("start"), py::arg("weights") = py::none(),
        py::arg("shares") = py::none(), py::arg("apart") = py::none(), py::arg("lift") = 0.0, py::arg("n_threads") = py::none(),
        "(rows, factors, mean): m of n rows by systematic sampling with probabilities 0.9 s v/sum(s v) + 0.1/n, v = weights + lift*mean, "
        "the mean by shares s. Rows with s = 0 and those of `apart` (ascending) are left out; none are drawn where that is all. "
        "factors are v_i over the mean number of draws of row i, so that sum(s f x) over the draws estimates sum(s v x).");
  m.def("rows_unlike", &unlike, py::arg("z"), py::arg("value"), py::arg("n_threads") = py::none(),
        "The rows, ascending, whose z is not value: np.flatnonzero(z != value).");
  m.def("take_rows", &taken, py::arg("X"), py::arg("rows"), py::arg("n_threads") = py::none(),
        "X[rows] in C order, several rows on their way from memory at a time.");
  m.def("off_usual", &off_usual, py::arg("X"), py::arg("rows"), py::arg("n_threads") = py::none(),
        "(off, usual): in how many of the rows named each column of X is not at its usual number, the middle of those in the first three.");
  m.def("empty_rows", &empty_rows, py::arg("shape"), py::arg("dtype"),
        "np.empty, in memory that large arrays leave to the next when they go: its pages are there.");
  m.def("row_mean",
        [](const py::object& x, const py::object& shares, const py::object& n_threads) { return mean(x, py::none(), shares, n_threads, false); },
        py::arg("x"), py::arg("shares") = py::none(), py::arg("n_threads") = py::none(),
        "sum(shares*x), or the mean of x, in float64; the same bits for any number of threads.");
  m.def("mean_size",
        [](const py::object& x, const py::object& shares, const py::object& minus, const py::object& n_threads) {
          return mean(x, minus, shares, n_threads, true);
        },
        py::arg("x"), py::arg("shares") = py::none(), py::arg("minus") = py::none(), py::arg("n_threads") = py::none(),
        "`row_mean` of |x|, or of |x - minus|.");
}

}  // namespace nag
