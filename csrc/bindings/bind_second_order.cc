// Problem's second-order passes: Gram matrix, Hessian, curvature, products with a Hessian.
#include <pybind11/stl.h>

#include <cmath>

#include "bindings/bindings.h"
#include "bindings/problem.h"
#include "bindings/smooth_passes.h"
#include "engine/class_hessian.h"
#include "engine/gram.h"
#include "engine/least_squares.h"

namespace py = pybind11;

namespace nag {
namespace {

// Row numbers as 64-bit integers of our own, each checked.
std::vector<std::int64_t> row_numbers(const py::object& rows, std::int64_t n) {
  const py::array a = py::array(py::module_::import("numpy").attr("asarray")(rows));
  const char kind = a.dtype().kind();
  if (a.ndim() != 1 || (kind != 'i' && kind != 'u'))
    bad_value("rows has dtype " + dtype_name(a) + " and shape " + shape_text(a) + "; a 1-D array of row numbers is needed." +
              (kind == 'b' ? " Use np.flatnonzero(rows)." : " Use np.asarray(rows, dtype=np.int64)."));
  if (a.size() == 0) bad_value("rows is empty; at least one row number is needed. Leave rows out for all of them.");
  const py::array_t<std::int64_t, py::array::c_style | py::array::forcecast> typed(a);
  std::vector<std::int64_t> checked(typed.data(), typed.data() + typed.size());
  for (std::size_t i = 0; i < checked.size(); ++i)
    if (checked[i] < 0 || checked[i] >= n)
      bad_value("rows holds " + std::to_string(checked[i]) + " at index " + std::to_string(i) + ", but X has " + std::to_string(n) +
                " rows (out of range); numbers from 0 to " + std::to_string(n - 1) + " are needed.");
  return checked;
}

}  // namespace

void Problem::second_request(const py::object& weights, const py::object& rows, SecondRequest& q, py::array& keep,
                             std::vector<std::int64_t>& at) const {
  if (!weights.is_none()) {
    keep = row_vector(weights, "weights");
    q.v = keep.data();
  }
  if (!rows.is_none()) {
    at = row_numbers(rows, view_.n);
    q.rows = at.data();
    q.count = static_cast<std::int64_t>(at.size());
  }
}

SecondResult Problem::run_second(SecondRequest& q) const {
  q.n_threads = resolve_threads(threads_);
  SecondResult result;
  without_gil([&](const std::function<bool()>& interrupted) {
    q.interrupted = interrupted;
    result = nag::run_second(view_, q);
  });
  if (!result.finite) explain_non_finite();
  return result;
}

py::object Problem::gram(const py::object& weights, const py::object& rows, const py::object& out, const py::object& factors, bool rounded) {
  SecondRequest q;
  q.rounded = rounded;
  py::array v, each;
  std::vector<std::int64_t> at;
  second_request(weights, rows, q, v, at);
  if (!factors.is_none()) {
    if (rows.is_none()) bad_value("factors are one for each of rows, and there are no rows. Use weights.");
    each = view_.compute == Compute::f64 ? py::array(numbers<double>(factors, "factors", 1, q.count, 1))
                                         : py::array(numbers<float>(factors, "factors", 1, q.count, 1));
    q.factors = each.data();
  }
  const py::object H = out.is_none() ? new_square() : out;
  const std::int64_t p = view_.w_rows();
  q.out = output<double>(H, "out", p, p, false);
  check_apart({{"weights", weights}, {"factors", factors}, {"out", H}});
  run_second(q);
  return H;
}

py::tuple Problem::moments(const py::object& weights, const py::object& rows, double origin) {
  needs_one_column("moments");
  if (!std::isfinite(origin)) bad_value("origin is " + std::to_string(origin) + "; a finite number is needed.");
  SecondRequest q;
  py::array v;
  std::vector<std::int64_t> at;
  second_request(weights, rows, q, v, at);
  py::array_t<double> G = new_square(), c = new_weights();
  q.targets = true;
  q.origin = origin;
  q.out = G.mutable_data();
  q.grad = c.mutable_data();
  const double value = run_second(q).value;
  return py::make_tuple(value, c, G);
}

py::object Problem::least_squares(double l2, double correct, bool narrow) {
  if (kLosses[view_.loss].name != std::string("squared")) bad_value(std::string("least_squares is for the squared loss; this problem's is ") + loss() + ".");
  if (!(l2 >= 0) || !std::isfinite(l2)) bad_value("l2 is " + std::to_string(l2) + "; a finite number >= 0 is needed.");
  py::array_t<double> w(p());
  SmoothPasses passes;
  SmoothProblem terms;
  passes.give(*this, terms);
  terms.l2 = l2;
  bool done = false;
  double* const to = w.mutable_data();
  passes.guard([&] { done = nag::least_squares(view_, terms, correct, narrow, to); });
  return done ? py::object(w) : py::none();
}

py::tuple Problem::hessian(const py::object& w, const py::object& out, const py::object& grad, const py::object& margins,
                           const py::object& residuals) {
  needs_one_column("hessian");
  const py::array_t<double> weights = check_w(w);
  const py::object H = out.is_none() ? new_square() : out, g = grad.is_none() ? new_weights() : grad;
  const std::int64_t p = view_.w_rows();
  SecondRequest q;
  q.out = output<double>(H, "out", p, p, false);
  q.grad = output<double>(g, "grad", p, 1, true);
  q.w = weights.data();
  q.z = optional_output(margins, "margins");
  q.r = optional_output(residuals, "residuals");
  check_apart({{"w", w}, {"out", H}, {"grad", g}, {"margins", margins}, {"residuals", residuals}});
  const SecondResult result = run_second(q);
  return py::make_tuple(result.value, g, H);
}

py::tuple Problem::class_hessian(const py::object& w, const py::object& margins) {
  if (!is_softmax()) bad_value(std::string("class_hessian is for the softmax loss; this problem's is ") + loss() + ". Use hessian.");
  const py::array_t<double> weights = check_w(w);
  const std::int64_t p = view_.w_rows(), k = view_.k;
  py::array_t<double> H(std::vector<py::ssize_t>{k, p, k, p});
  const py::object g = new_weights();
  SecondRequest q;
  q.out = H.mutable_data();
  q.grad = output<double>(g, "grad", p, k, false);
  q.w = weights.data();
  q.z = optional_output(margins, "margins");
  if (q.z == nullptr) bad_type("margins is None; an array of shape (n, k) for them is needed.");
  check_apart({{"w", w}, {"margins", margins}});
  q.n_threads = resolve_threads(threads_);
  SecondResult result;
  without_gil([&](const std::function<bool()>& interrupted) {
    q.interrupted = interrupted;
    result = nag::class_hessian(view_, q);
  });
  if (!result.finite) explain_non_finite();
  return py::make_tuple(result.value, g, H);
}

py::object Problem::curvature_from_margins(const py::object& z, const py::object& out) {
  needs_one_column("curvature_from_margins");
  const py::array typed = row_vectors(z, "z", false);
  const py::object h = out.is_none() ? new_rows() : out;
  void* to = optional_output(h, "out");
  check_apart({{"z", z}, {"out", h}});
  const int threads = resolve_threads(threads_);
  const py::gil_scoped_release release;
  nag::curvature_from_margins(view_, typed.data(), to, threads);
  return h;
}

py::object Problem::hessian_vector(const py::object& v, const py::object& weights) {
  const py::array a = py::array(py::module_::import("numpy").attr("asarray")(v));
  const std::int64_t p = view_.w_rows();
  if ((a.ndim() != 1 && a.ndim() != 2) || a.shape(0) != p || (a.ndim() == 2 && a.shape(1) < 1))
    bad_value("v has shape " + shape_text(a) + "; (" + std::to_string(p) + ",) or (" + std::to_string(p) + ", m) is needed" +
              (view_.fit_intercept ? ": one row for each column of X, then the intercept." : ", one row for each column of X."));
  ProblemView view = view_;
  view.k = a.ndim() == 1 ? 1 : a.shape(1);
  const py::array_t<double> direction = numbers<double>(a, "v", static_cast<int>(a.ndim()), p, view.k);
  PassRequest q;
  q.kind = PassRequest::Kind::hessian_vector;
  q.w = direction.data();
  py::array typed;
  if (is_softmax() && py::isinstance<py::array>(weights) && py::reinterpret_borrow<py::array>(weights).ndim() == 2) {
    if (a.ndim() != 2 || view.k != view_.k)
      bad_value("v has shape " + shape_text(a) + "; with probabilities as weights, one column for each of the " +
                std::to_string(view_.k) + " classes is needed.");
    typed = row_vectors(weights, "weights", true);
    q.coupled = true;
  } else {
    typed = row_vector(weights, "weights");
  }
  q.v = typed.data();
  py::object out = a.ndim() == 1 ? py::object(py::array_t<double>(p)) : py::object(py::array_t<double>(std::vector<py::ssize_t>{p, view.k}));
  q.grad = py::reinterpret_borrow<py::array_t<double>>(out).mutable_data();
  q.n_threads = resolve_threads(threads_);
  without_gil([&](const std::function<bool()>& interrupted) {
    q.interrupted = interrupted;
    run_pass(view, q);
  });
  for (std::int64_t j = 0; j < p * view.k; ++j)
    if (!std::isfinite(q.grad[j])) {
      explain_non_finite();
      break;
    }
  return out;
}

void bind_second_order(py::class_<Problem>& problem) {
  problem
      .def("gram", &Problem::gram, py::arg("weights") = py::none(), py::arg("rows") = py::none(), py::arg("out") = py::none(),
           py::arg("factors") = py::none(), py::arg("rounded") = false,
           "(1/S) sum_i s_i v_i x_i x_i' in one pass, (p, p) float64, x ending in 1 where there is an intercept; over the rows named, or all. "
           "factors, one for each of rows, multiply what those count. S is the sum of all sample weights, whichever rows are named. "
           "Where rounded, sqrt(s v) x may be rounded to bfloat16 on processors with tiles for that: two digits, or the full ones where it would overflow.")
      .def("moments", &Problem::moments, py::arg("weights") = py::none(), py::arg("rows") = py::none(), py::arg("origin") = 0.0,
           "((1/S) sum s v t^2, (1/S) sum s v t x, gram) in one pass, where t = y - origin; arguments as of gram.")
      .def("least_squares", &Problem::least_squares, py::arg("l2"), py::arg("correct") = 1e-4, py::arg("narrow") = false,
           "w at the minimum of the mean squared error over two plus l2 |w|^2 / 2, the intercept last, by the normal equations; corrected by the "
           "residuals, in a second pass, where the least pivot is below `correct`. Where narrow, X in float32 is first multiplied in float32, and w corrected to eight digits. None where the columns leave too few digits, or X is not finite.")
      .def("hessian", &Problem::hessian, py::arg("w"), py::arg("out") = py::none(), py::arg("grad") = py::none(),
           py::arg("margins") = py::none(), py::arg("residuals") = py::none(),
           "(value, gradient, Hessian) of the data term in one pass; margins and residuals where asked.")
      .def("class_hessian", &Problem::class_hessian, py::arg("w"), py::arg("margins"),
           "(value, gradient, Hessian) of softmax, the last (k, p, k, p), in k(k-1)/2 + 1 passes; margins are written.")
      .def("curvature_from_margins", &Problem::curvature_from_margins, py::arg("z"), py::arg("out") = py::none(),
           "phi''(z, y) for each sample: O(n), no pass.")
      .def("hessian_vector", &Problem::hessian_vector, py::arg("v"), py::arg("weights"),
           "(1/S) X'(s * weights * (Xv)) in one pass, X with a column of ones where there is an intercept; v is (p,) or (p, m). For softmax, "
           "(n, k) probabilities as weights give (1/S) X'(s * (P * Z - P * rowsum(P * Z))) with Z = Xv.");
}

}  // namespace nag
