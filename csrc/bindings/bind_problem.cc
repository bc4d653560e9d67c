// Problem and its first-order passes.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>

#include "bindings/bindings.h"
#include "bindings/problem.h"
#include "engine/aligned.h"
#include "engine/shifted.h"

namespace py = pybind11;

namespace nag {

py::tuple Problem::value_and_grad(const py::object& w, const py::object& grad, const py::object& margins, const py::object& residuals) {
  const py::array_t<double> weights = check_w(w);
  py::object out = grad;
  if (out.is_none()) out = new_weights();
  PassRequest q;
  q.w = weights.data();
  q.grad = output<double>(out, "grad", view_.w_rows(), view_.k, flat());
  q.z = optional_output(margins, "margins");
  q.r = optional_output(residuals, "residuals");
  check_apart({{"w", w}, {"grad", out}, {"margins", margins}, {"residuals", residuals}});
  q.only_finite = true;  // an array of the caller's is not written where X turns out to be bad
  PassResult result = run(q);
  if (!result.finite) {
    explain_non_finite();
    q.only_finite = false;  // X is sound and the loss overflows: that is the answer
    result = run(q);
  }
  return py::make_tuple(result.value, out);
}

py::object Problem::margins(const py::object& w, const py::object& out) {
  const py::array_t<double> weights = check_w(w);
  py::object z = out.is_none() ? new_rows() : out;
  PassRequest q;
  q.kind = PassRequest::Kind::margins;
  q.w = weights.data();
  q.z = optional_output(z, "out");
  check_apart({{"w", w}, {"out", z}});
  run(q);
  if (!rows_are_finite(q.z)) explain_non_finite();
  return z;
}

double Problem::loss_from_margins(const py::object& z, const py::object& residuals) {
  void* r = optional_output(residuals, "residuals");
  const py::array typed = row_vectors(z, "z", false);
  const py::gil_scoped_release release;
  return nag::loss_from_margins(view_, typed.data(), r, resolve_threads(threads_));
}

double Problem::slope_along(const py::object& z, const py::object& z_end, double t) {
  const py::array from = row_vectors(z, "z", false), to = row_vectors(z_end, "z_end", false);
  const py::gil_scoped_release release;
  return nag::slope_along(view_, from.data(), to.data(), t, resolve_threads(threads_));
}

double Problem::residual_size(const py::object& z) {
  needs_one_column("residual_size");
  const py::array from = row_vectors(z, "z", false);
  const py::gil_scoped_release release;
  return nag::residual_size(view_, from.data(), resolve_threads(threads_));
}

py::tuple Problem::shifted_loss(const py::object& z, const py::object& b, const py::object& moved, const py::object& residuals) {
  const py::array typed = row_vectors(z, "z", false);
  void *to = optional_output(moved, "moved"), *r = optional_output(residuals, "residuals");
  check_apart({{"z", z}, {"moved", moved}, {"residuals", residuals}});
  std::vector<double> shift;
  if (flat() && !b.is_none()) {
    shift.push_back(b.cast<double>());
  } else if (!b.is_none()) {
    const py::array_t<double, py::array::c_style | py::array::forcecast> each(b);
    if (each.ndim() != 1 || each.shape(0) != view_.k)
      bad_value("b has shape " + shape_text(each) + "; (" + std::to_string(view_.k) + ",) is needed.");
    shift.assign(each.data(), each.data() + view_.k);
  }
  const double* const by = b.is_none() ? nullptr : shift.data();
  const int threads = resolve_threads(threads_);
  ShiftedLoss found;
  {
    const py::gil_scoped_release release;
    found = nag::shifted_loss(view_, typed.data(), by, to, r, threads);
  }
  if (flat()) return py::make_tuple(found.value, found.mean[0], found.size[0]);
  const auto numbers = [](const std::vector<double>& x) { return py::array_t<double>(static_cast<py::ssize_t>(x.size()), x.data()); };
  return py::make_tuple(found.value, numbers(found.mean), *std::max_element(found.size.begin(), found.size.end()));
}

py::object Problem::rmatvec(const py::object& v, const py::object& out) {
  const py::array typed = row_vectors(v, "v", true);
  py::object g = out.is_none() ? new_weights() : out;
  PassRequest q;
  q.kind = PassRequest::Kind::rmatvec;
  q.v = typed.data();
  q.grad = output<double>(g, "out", view_.w_rows(), view_.k, flat());
  check_apart({{"v", v}, {"out", g}});
  run(q);
  return g;
}

void bind_problem(py::module_& m) {
  py::class_<Problem> problem(m, "Problem",
      "A data set and a loss, checked once: (1/S) sum_i s_i phi(z_i, y_i) with z = Xw + b + offset, and passes over it.");
  problem
      .def(py::init<const py::object&, const py::object&, const std::string&, const py::object&, const py::object&, double, double,
                    double, bool, const std::optional<std::string>&, const py::object&, const std::optional<std::string>&,
                    const std::optional<std::string>&, const py::object&, const Problem*>(),
           py::arg("X"), py::arg("y"), py::kw_only(), py::arg("loss") = "logistic", py::arg("sample_weight") = py::none(),
           py::arg("offset") = py::none(), py::arg("delta") = 1.0, py::arg("scale") = 1.0, py::arg("shift") = 0.0,
           py::arg("fit_intercept") = false, py::arg("compute") = py::none(), py::arg("n_threads") = py::none(),
           py::arg("isa") = py::none(), py::arg("dtype") = py::none(), py::arg("n_classes") = py::none(),
           py::arg("like") = py::none())
      .def("value_and_grad", &Problem::value_and_grad, py::arg("w"), py::arg("grad") = py::none(), py::arg("margins") = py::none(),
           py::arg("residuals") = py::none(), "Value and gradient of the data term in one pass; margins and residuals where asked.")
      .def("margins", &Problem::margins, py::arg("w"), py::arg("out") = py::none(), "z = Xw + b + offset in one pass.")
      .def("loss_from_margins", &Problem::loss_from_margins, py::arg("z"), py::arg("residuals") = py::none(),
           "The data term from margins alone: O(n), no pass.")
      .def("slope_along", &Problem::slope_along, py::arg("z"), py::arg("z_end"), py::arg("t"),
           "The derivative in t of the data term at margins z + t (z_end - z): O(n), no pass.")
      .def("residual_size", &Problem::residual_size, py::arg("z"), "(1/S) sum s |phi'(z, y)| from margins alone: O(n), no pass.")
      .def("shifted_loss", &Problem::shifted_loss, py::arg("z"), py::arg("b") = py::none(), py::arg("moved") = py::none(),
           py::arg("residuals") = py::none(),
           "(data term at margins z + b, the mean residual, the mean size of residuals, the largest over classes): O(n), no pass. b is a number, "
           "or one a class, None for zero; the mean residual likewise. The margins go to moved, where that is given.")
      .def("rmatvec", &Problem::rmatvec, py::arg("v"), py::arg("out") = py::none(),
           "(1/S) X'(s*v) in one pass; with an intercept, (1/S) sum s*v is the last row.")
      .def("column_spread", &Problem::column_spread, py::arg("entries"),
           "The largest mean square of a column's entries over their median, from about so many entries of CSR; 1 where none is stored.")
      .def("rows_of_rare_columns", &Problem::rows_of_rare_columns, py::arg("rows"), py::arg("few"),
           "The rows, ascending, with an entry other than zero in a column that fewer than `few` of the given rows store one in: of CSR, in one "
           "trip over its indices.")
      .def_property_readonly("n", &Problem::n)
      .def_property_readonly("d", &Problem::d)
      .def_property_readonly("k", &Problem::k)
      .def_property_readonly("p", &Problem::p)
      .def_property_readonly("sum_weights", &Problem::sum_weights)
      .def_property_readonly("fit_intercept", &Problem::fit_intercept)
      .def_property_readonly("x_dtype", &Problem::x_dtype)
      .def_property_readonly("layout", &Problem::layout)
      .def_property_readonly("compute", &Problem::compute)
      .def_property_readonly("nbytes", &Problem::nbytes)
      .def_property_readonly("loss", &Problem::loss)
      .def_property_readonly("isa", &Problem::isa)
      .def_property_readonly("n_threads", &Problem::n_threads);
  bind_second_order(problem);
}

}  // namespace nag
