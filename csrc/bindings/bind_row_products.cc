// RowProducts: products X X'v and X'v of a CSR problem; and what a solver does with the vectors they give.
#include <pybind11/stl.h>

#include <cmath>

#include "bindings/bindings.h"
#include "bindings/row_products.h"
#include "engine/combine.h"

namespace py = pybind11;

namespace nag {

RowProducts::RowProducts(const Problem& problem, const std::optional<bool>& copy) : problem_(&problem), view_(problem.view_) {
  if (!view_.sparse || view_.n > std::int64_t(INT32_MAX))
    bad_value(std::string("X is ") + (view_.sparse ? "CSR of more than 2^31 rows" : "dense") +
              "; RowProducts takes a Problem of CSR with fewer. Use X @ (X.T @ v).");
  if (!copy.value_or(!CsrProducts::suits(view_))) {
    rows_ = std::make_unique<CsrProducts>(view_);
    return;
  }
  const py::gil_scoped_release release;
  columns();
}

const Columns& RowProducts::columns() const {
  std::call_once(once_, [this] { columns_ = std::make_unique<Columns>(view_, problem_->n_threads()); });
  return *columns_;
}

template <class T>
bool RowProducts::multiply(const T* v, std::int64_t k, T* out, const std::function<bool()>& interrupted) const {
  const int threads = problem_->n_threads();
  return rows_ && k == 1 ? rows_->product(v, out, nullptr, threads, interrupted) : columns().product(v, k, out, threads, interrupted);
}
template bool RowProducts::multiply(const float*, std::int64_t, float*, const std::function<bool()>&) const;
template bool RowProducts::multiply(const double*, std::int64_t, double*, const std::function<bool()>&) const;

std::int64_t RowProducts::nbytes() const { return (rows_ ? rows_->nbytes() : 0) + (columns_ ? columns_->nbytes() : 0); }

py::tuple RowProducts::both(const py::object& v) const {
  if (!rows_) bad_value("products are taken from a copy by columns, which has no X'v on the way; use product and transposed.");
  const py::array_t<double> from = numbers<double>(v, "v", 1, view_.n, 1);
  py::array_t<double> out(view_.n), u(view_.d);
  double *const to = out.mutable_data(), *const at = u.mutable_data();
  problem_->without_gil([&](const std::function<bool()>& interrupted) {
    rows_->product(from.data(), to, at, problem_->n_threads(), interrupted);
  });
  if (!all_finite(to, view_.n)) problem_->explain_non_finite();
  return py::make_tuple(out, u);
}

py::object RowProducts::any(const py::object& v, What what) const {
  const py::array a = py::array(py::module_::import("numpy").attr("asarray")(v));
  if ((a.ndim() != 1 && a.ndim() != 2) || a.shape(0) != view_.n || (a.ndim() == 2 && a.shape(1) < 1))
    bad_value("v has shape " + shape_text(a) + "; (" + std::to_string(view_.n) + ",) or (" + std::to_string(view_.n) +
              ", m) is needed: one row for each row of X.");
  if (a.dtype().is(py::dtype::of<float>()) && view_.storage == Storage::f32) return typed<float>(a, what);
  return typed<double>(a, what);
}

template <class T>
py::object RowProducts::typed(const py::array& a, What what) const {
  const std::int64_t k = a.ndim() == 1 ? 1 : a.shape(1);
  const bool by_rows = rows_ != nullptr && k == 1;
  const int threads = problem_->n_threads();
  const py::array_t<T> v = numbers<T>(a, "v", static_cast<int>(a.ndim()), view_.n, k);
  const T* const from = v.data();
  if (what == What::square) {
    double sum = 0;
    problem_->without_gil([&](const std::function<bool()>& interrupted) {
      if (by_rows) rows_->square(from, &sum, threads, interrupted);
      else columns().square(from, k, &sum, threads, interrupted);
    });
    if (!std::isfinite(sum)) problem_->explain_non_finite();
    return py::float_(sum);
  }
  std::vector<py::ssize_t> shape(a.shape(), a.shape() + a.ndim());
  if (what == What::transposed) {
    shape[0] = view_.d;
    py::array_t<double> out(shape);
    double* const to = out.mutable_data();
    problem_->without_gil([&](const std::function<bool()>& interrupted) {
      if (by_rows) rows_->transposed(from, to, threads, interrupted);
      else columns().transposed(from, k, to, threads, interrupted);
    });
    if (!all_finite(to, view_.d * k)) problem_->explain_non_finite();
    return std::move(out);
  }
  py::array_t<T> out(shape);
  T* const to = out.mutable_data();
  problem_->without_gil([&](const std::function<bool()>& interrupted) { multiply(from, k, to, interrupted); });
  if (!all_finite(to, view_.n * k)) problem_->explain_non_finite();
  return std::move(out);
}

namespace {

// The arrays of one call: all of one dtype and size, C-contiguous, read where they lie.
template <class T>
std::vector<const T*> alike(const std::vector<py::array>& arrays, const py::array& like) {
  std::vector<const T*> out;
  for (const py::array& a : arrays) {
    if (!a.dtype().is(like.dtype()) || a.size() != like.size() || !(a.flags() & py::array::c_style) ||
        reinterpret_cast<std::uintptr_t>(a.data()) % sizeof(T) != 0)
      bad_value("an array has dtype " + dtype_name(a) + " and shape " + shape_text(a) + "; C-contiguous arrays of dtype " +
                dtype_name(like) + " and of as many numbers as shape " + shape_text(like) + " are needed.");
    out.push_back(static_cast<const T*>(a.data()));
  }
  return out;
}

bool is_single(const py::array& a) {
  const bool single = a.dtype().is(py::dtype::of<float>());
  if (!single && !a.dtype().is(py::dtype::of<double>()))
    bad_value("an array has dtype " + dtype_name(a) + "; float32 or float64 is needed.");
  return single;
}

template <class T>
void combine_into(const std::vector<py::array>& arrays, const std::vector<double>& coefficients, py::array& out, int threads) {
  const std::vector<const T*> from = alike<T>(arrays, out);
  T* const to = const_cast<T*>(alike<T>({out}, out)[0]);
  const py::gil_scoped_release release;
  combine(from, coefficients, out.size(), to, threads);
}

void any_combine(const std::vector<py::array>& arrays, const std::vector<double>& coefficients, py::array out, const py::object& n_threads) {
  if (arrays.size() != coefficients.size())
    bad_value(std::to_string(arrays.size()) + " arrays come with " + std::to_string(coefficients.size()) + " coefficients; one for each is needed.");
  if (!out.writeable()) bad_value("out is read-only. Use out=np.empty_like(out).");
  const int threads = resolve_threads(thread_count(n_threads));
  (is_single(out) ? combine_into<float> : combine_into<double>)(arrays, coefficients, out, threads);
}

template <class T>
std::vector<double> inner_products_of(const std::vector<py::array>& arrays, const py::array& v, int threads) {
  const std::vector<const T*> from = alike<T>(arrays, v);
  const T* const with = alike<T>({v}, v)[0];
  const py::gil_scoped_release release;
  return inner_products(from, with, v.size(), threads);
}

std::vector<double> any_inner_products(const std::vector<py::array>& arrays, const py::array& v, const py::object& n_threads) {
  const int threads = resolve_threads(thread_count(n_threads));
  return (is_single(v) ? inner_products_of<float> : inner_products_of<double>)(arrays, v, threads);
}

template <class T>
py::object transposed_of(const py::array_t<double, py::array::c_style>& a, int threads) {
  const std::int64_t rows = a.shape(0), columns = a.ndim() == 1 ? 1 : a.shape(1);
  py::array_t<T> out(std::vector<py::ssize_t>{columns, rows});
  const double* const from = a.data();
  T* const to = out.mutable_data();
  {
    const py::gil_scoped_release release;
    transposed_copy(from, rows, columns, to, threads);
  }
  return std::move(out);
}

py::object any_transposed(const py::array_t<double, py::array::c_style>& a, bool single, const py::object& n_threads) {
  if (a.ndim() != 1 && a.ndim() != 2) bad_value("a has shape " + shape_text(a) + "; one or two dimensions are needed.");
  return (single ? transposed_of<float> : transposed_of<double>)(a, resolve_threads(thread_count(n_threads)));
}

}  // namespace

void bind_row_products(py::module_& m) {
  m.def("combine", &any_combine, py::arg("arrays"), py::arg("coefficients"), py::arg("out"), py::arg("n_threads") = py::none(),
        "out = sum_j coefficients[j] arrays[j]: C-contiguous arrays of one dtype, float32 or float64. out may be one of them.");
  m.def("inner_products", &any_inner_products, py::arg("arrays"), py::arg("v"), py::arg("n_threads") = py::none(),
        "The inner product of each array with v, a list of float. In float32 16 products at a time are summed so, the rest in float64.");
  m.def("transposed_copy", &any_transposed, py::arg("a"), py::arg("single") = false, py::arg("n_threads") = py::none(),
        "The transpose of a, float64 of shape (n,) or (n, m), as a new C-contiguous array (m, n): float32 where `single`.");
  py::class_<RowProducts>(m, "RowProducts", "Products X X'v and X'v of a Problem of CSR, from a copy of X by columns that is made once, or by X's own rows.")
      .def(py::init<const Problem&, const std::optional<bool>&>(), py::arg("problem"), py::arg("copy") = py::none(), py::keep_alive<1, 2>(),
           "copy says which way products of one number a row are taken; None takes rows where columns are few. Others always need the copy.")
      .def("product", &RowProducts::product, py::arg("v"),
           "X X'v for v of shape (n,) or (n, m), in one trip over X. float32 where v and X are, else float64.")
      .def("both", &RowProducts::both, py::arg("v"), "(X X'v, X'v) in float64 for v of shape (n,), in one trip over X; where by_rows.")
      .def("transposed", &RowProducts::transposed, py::arg("v"), "X'v, float64 of shape (d,) or (d, m): one trip over X.")
      .def("square", &RowProducts::square, py::arg("v"), "The sum of the squares of X'v, a float: one trip over X.")
      .def_property_readonly("by_rows", &RowProducts::by_rows, "Whether products of one number a row are taken by X's own rows.")
      .def_property_readonly("nbytes", &RowProducts::nbytes);
}

}  // namespace nag
