// RowProducts: products X X'v and X'v of a CSR problem.
#include <cmath>

#include "bindings/bindings.h"
#include "bindings/problem.h"
#include "engine/columns.h"

namespace py = pybind11;

namespace nag {

class RowProducts {
 public:
  explicit RowProducts(const Problem& problem) : problem_(&problem), view_(problem.view_), columns_(nullptr) {
    if (!view_.sparse || view_.n > std::int64_t(INT32_MAX))
      bad_value(std::string("X is ") + (view_.sparse ? "CSR of more than 2^31 rows" : "dense") +
                "; RowProducts takes a Problem of CSR with fewer. Use X @ (X.T @ v).");
    const py::gil_scoped_release release;
    columns_ = std::make_unique<Columns>(view_, problem.n_threads());
  }

  py::object product(const py::object& v) const { return any(v, false); }
  py::object transposed(const py::object& v) const { return any(v, true); }

  std::int64_t nbytes() const { return columns_->nbytes(); }

 private:
  py::object any(const py::object& v, bool transposed) const {
    const py::array a = py::array(py::module_::import("numpy").attr("asarray")(v));
    if ((a.ndim() != 1 && a.ndim() != 2) || a.shape(0) != view_.n || (a.ndim() == 2 && a.shape(1) < 1))
      bad_value("v has shape " + shape_text(a) + "; (" + std::to_string(view_.n) + ",) or (" + std::to_string(view_.n) +
                ", m) is needed: one row for each row of X.");
    if (a.dtype().is(py::dtype::of<float>()) && view_.storage == Storage::f32) return typed<float>(a, transposed);
    return typed<double>(a, transposed);
  }

  template <class T>
  py::object typed(const py::array& a, bool transposed) const {
    const std::int64_t k = a.ndim() == 1 ? 1 : a.shape(1);
    const py::array_t<T> v = numbers<T>(a, "v", static_cast<int>(a.ndim()), view_.n, k);
    std::vector<py::ssize_t> shape(a.shape(), a.shape() + a.ndim());
    if (transposed) {
      shape[0] = view_.d;
      py::array_t<double> out(shape);
      double* const to = out.mutable_data();
      problem_->without_gil([&](const std::function<bool()>& interrupted) {
        columns_->transposed(v.data(), k, to, problem_->n_threads(), interrupted);
      });
      if (!all_finite(to, view_.d * k)) problem_->explain_non_finite();
      return std::move(out);
    }
    py::array_t<T> out(shape);
    T* const to = out.mutable_data();
    problem_->without_gil([&](const std::function<bool()>& interrupted) {
      columns_->product(v.data(), k, to, problem_->n_threads(), interrupted);
    });
    if (!all_finite(to, view_.n * k)) problem_->explain_non_finite();
    return std::move(out);
  }

  const Problem* problem_;
  const ProblemView& view_;
  std::unique_ptr<Columns> columns_;
};

void bind_row_products(py::module_& m) {
  py::class_<RowProducts>(m, "RowProducts", "Products X X'v and X'v of a Problem of CSR, from a copy of X by columns that is made once.")
      .def(py::init<const Problem&>(), py::arg("problem"), py::keep_alive<1, 2>())
      .def("product", &RowProducts::product, py::arg("v"),
           "X X'v for v of shape (n,) or (n, m), in one trip over X. float32 where v and X are, else float64.")
      .def("transposed", &RowProducts::transposed, py::arg("v"), "X'v, float64 of shape (d,) or (d, m): one trip over X.")
      .def_property_readonly("nbytes", &RowProducts::nbytes);
}

}  // namespace nag
