// Problem: a data set and a loss, checked once, and the passes over it.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "bindings/array_checks.h"
#include "bindings/bindings.h"
#include "dispatch/dispatch.h"
#include "engine/aligned.h"
#include "engine/problem.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace nag {
namespace {

class Problem {
 public:
  Problem(const py::object& X, const py::object& y, const std::string& loss, const py::object& sample_weight,
          const py::object& offset, double delta, double scale, double shift, bool fit_intercept,
          const std::optional<std::string>& compute, const py::object& n_threads, const std::optional<std::string>& isa,
          const std::optional<std::string>& dtype, const py::object& n_classes) {
    view_.table = &active_table();
    if (isa) {
      view_.table = find_table(*isa);
      if (view_.table == nullptr) bad_value("isa is '" + *isa + "'; this build on this processor has " + isa_choices() + ".");
    }
    view_.loss = loss_index(loss);
    threads_ = thread_count(n_threads);
    check_data(X, dtype.value_or(""), view_, indptr_, keep_);
    view_.fit_intercept = fit_intercept;
    check_scalars(delta, scale, shift);
    choose_compute(compute);
    if (view_.compute == Compute::f64) take_vectors<double>(y, sample_weight, offset, n_classes);
    else take_vectors<float>(y, sample_weight, offset, n_classes);
  }

  py::tuple value_and_grad(const py::object& w, const py::object& grad, const py::object& margins, const py::object& residuals) {
    const py::array_t<double> weights = check_w(w);
    py::object out = grad;
    if (out.is_none()) out = new_weights();
    PassRequest q;
    q.w = weights.data();
    double* to = output<double>(out, "grad", view_.w_rows(), view_.k, flat());
    q.z = optional_output(margins, "margins");
    q.r = optional_output(residuals, "residuals");
    check_apart({{"w", w}, {"grad", out}, {"margins", margins}, {"residuals", residuals}});
    // The caller's array is written once the result is known to be one.
    const std::size_t count = static_cast<std::size_t>(view_.w_rows() * view_.k);
    Aligned<double> scratch(count);
    q.grad = scratch.data();
    const PassResult result = run(q);
    bool finite = std::isfinite(result.value);
    for (std::size_t j = 0; j < count && finite; ++j) finite = std::isfinite(scratch[j]);
    if (!finite) explain_non_finite();
    std::copy(scratch.data(), scratch.data() + count, to);
    return py::make_tuple(result.value, out);
  }

  py::object margins(const py::object& w, const py::object& out) {
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

  double loss_from_margins(const py::object& z, const py::object& residuals) {
    void* r = optional_output(residuals, "residuals");
    const py::array typed = row_vectors(z, "z", false);
    const py::gil_scoped_release release;
    return nag::loss_from_margins(view_, typed.data(), r, resolve_threads(threads_));
  }

  py::object rmatvec(const py::object& v, const py::object& out) {
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

  std::int64_t n() const { return view_.n; }
  std::int64_t d() const { return view_.d; }
  std::int64_t k() const { return view_.k; }
  std::int64_t p() const { return view_.w_rows(); }
  double sum_weights() const { return view_.weight_sum; }
  bool fit_intercept() const { return view_.fit_intercept; }
  const char* x_dtype() const { return kStorageName[static_cast<int>(view_.storage)]; }
  const char* loss() const { return kLosses[view_.loss].name; }
  const char* isa() const { return view_.table->name; }
  int n_threads() const { return resolve_threads(threads_); }
  const char* compute() const { return view_.compute == Compute::f64 ? "float64" : "float32"; }
  const char* layout() const {
    if (view_.sparse) return "csr";
    const std::ptrdiff_t item = item_size();
    if (view_.col_stride == item) return "C";
    return view_.row_stride == item ? "F" : "strided";
  }
  std::int64_t nbytes() const {
    if (!view_.sparse) return view_.n * view_.d * item_size();
    return (view_.indptr[view_.n] - view_.indptr[0]) * (item_size() + (view_.wide_index ? 8 : 4)) + (view_.n + 1) * 8;
  }

 private:
  static std::string isa_choices() {
    std::string s;
    for (const KernelTable* t : usable_tables()) s += (s.empty() ? "" : ", ") + std::string(t->name);
    return s;
  }
  static int loss_index(const std::string& name) {
    std::string names;
    for (int i = 0; i < kLossCount; ++i) {
      if (name == kLosses[i].name) return i;
      names += (i ? ", " : "") + std::string(kLosses[i].name);
    }
    bad_value("loss is '" + name + "'; choose from " + names + ".");
  }
  static int thread_count(const py::object& n_threads) {
    if (n_threads.is_none()) return 0;
    if (!py::isinstance<py::int_>(n_threads) && !py::hasattr(n_threads, "__index__")) bad_type("n_threads must be None or an integer.");
    const long long t = n_threads.cast<long long>();
    if (t < 1 || t > 4096) bad_value("n_threads is " + std::to_string(t) + "; None or an integer from 1 to 4096 is needed.");
    return static_cast<int>(t);
  }
  std::ptrdiff_t item_size() const { return static_cast<std::ptrdiff_t>(kStorageBytes[static_cast<int>(view_.storage)]); }
  bool is_softmax() const { return kLosses[view_.loss].targets == Domain::classes; }
  bool flat() const { return !is_softmax(); }

  void check_scalars(double delta, double scale, double shift) {
    if (!(delta > 0) || !std::isfinite(delta)) bad_value("delta is " + std::to_string(delta) + "; a positive finite number is needed.");
    if (!std::isfinite(scale)) bad_value("scale is " + std::to_string(scale) + "; a finite number is needed.");
    if (!std::isfinite(shift)) bad_value("shift is " + std::to_string(shift) + "; a finite number is needed.");
    if (view_.sparse && (scale != 1.0 || shift != 0.0))
      bad_value("scale and shift are for dense X (a shift would fill a sparse matrix). Use X * scale.");
    view_.delta = delta;
    view_.scale = scale;
    view_.shift = shift;
  }
  void choose_compute(const std::optional<std::string>& compute) {
    view_.compute = view_.storage == Storage::f64 ? Compute::f64 : Compute::f32;
    if (!compute) return;
    if (*compute == "float64") view_.compute = Compute::f64;
    else if (*compute != "float32") bad_value("compute is '" + *compute + "'; None, 'float32' or 'float64' is needed.");
    else if (view_.storage == Storage::f64) bad_value("compute='float32' with float64 X; use X.astype(np.float32) or leave compute out.");
  }

  template <class T>
  void take_vectors(const py::object& y, const py::object& sample_weight, const py::object& offset, const py::object& n_classes) {
    if (!sample_weight.is_none()) {
      const py::array_t<T> s = numbers<T>(sample_weight, "sample_weight", 1, view_.n, 1);
      double sum = 0;
      for (std::int64_t i = 0; i < view_.n; ++i) {
        if (s.data()[i] < 0)
          bad_value("sample_weight is negative at index " + std::to_string(i) + "; weights are zero or more.");
        sum += static_cast<double>(s.data()[i]);
      }
      if (!(sum > 0)) bad_value("sample_weight is zero everywhere; at least one positive weight is needed.");
      view_.weight_sum = sum;
      view_.s = s.data();
      keep_.push_back(s);
    } else {
      view_.weight_sum = static_cast<double>(view_.n);
    }
    if (is_softmax()) take_classes<T>(y, n_classes);
    else take_targets<T>(y, n_classes);
    if (!offset.is_none()) {
      const py::array_t<T> o = numbers<T>(offset, "offset", is_softmax() ? 2 : 1, view_.n, view_.k);
      view_.offset = o.data();
      keep_.push_back(o);
    }
  }

  template <class T>
  void take_targets(const py::object& y, const py::object& n_classes) {
    if (!n_classes.is_none()) bad_value("n_classes is for the softmax loss alone.");
    py::array_t<T> t = numbers<T>(y, "y", 1, view_.n, 1);
    const T* v = t.data();
    const Domain domain = kLosses[view_.loss].targets;
    const std::string who = std::string(" for the ") + loss() + " loss";
    if (domain == Domain::nonnegative) {
      for (std::int64_t i = 0; i < view_.n; ++i)
        if (v[i] < 0) bad_value("y is negative at index " + std::to_string(i) + "; targets" + who + " are zero or more.");
    } else if (domain == Domain::binary) {
      bool zero = false, minus = false;
      for (std::int64_t i = 0; i < view_.n; ++i) {
        if (v[i] != 0 && v[i] != 1 && v[i] != -1)
          bad_value("y holds " + std::to_string(v[i]) + " at index " + std::to_string(i) + "; targets" + who +
                    " are {-1, +1} or {0, 1}. Use np.unique(y, return_inverse=True)[1].");
        zero |= v[i] == 0;
        minus |= v[i] == -1;
      }
      if (zero && minus) bad_value("y mixes -1, 0 and +1; targets" + who + " are {-1, +1} or {0, 1}.");
      py::array_t<T> sign(view_.n);
      for (std::int64_t i = 0; i < view_.n; ++i) sign.mutable_data()[i] = v[i] == 1 ? T(1) : T(-1);
      t = sign;
    }
    view_.y = t.data();
    keep_.push_back(t);
  }

  template <class T>
  void take_classes(const py::object& y, const py::object& n_classes) {
    const py::array a = py::array(py::module_::import("numpy").attr("asarray")(y));
    if (a.ndim() == 2) {
      const py::array_t<T> p = numbers<T>(y, "y", 2, view_.n, a.shape(1));
      view_.k = a.shape(1);
      if (view_.k < 2) bad_value("y has one column of probabilities; softmax needs two or more.");
      if (!n_classes.is_none() && n_classes.cast<std::int64_t>() != view_.k)
        bad_value("n_classes is " + py::str(n_classes).cast<std::string>() + " but y has " + std::to_string(view_.k) + " columns.");
      for (std::int64_t i = 0; i < view_.n; ++i) {
        double sum = 0;
        for (std::int64_t c = 0; c < view_.k; ++c) {
          const double v = static_cast<double>(p.data()[i * view_.k + c]);
          if (v < 0) bad_value("y holds a negative probability in row " + std::to_string(i) + ".");
          sum += v;
        }
        if (std::fabs(sum - 1.0) > 1e-4)
          bad_value("y's probabilities in row " + std::to_string(i) + " sum to " + std::to_string(sum) + "; each row must sum to 1.");
      }
      view_.p = p.data();
      keep_.push_back(p);
      return;
    }
    const py::array_t<T> t = numbers<T>(y, "y", 1, view_.n, 1);
    T most = 0;
    for (std::int64_t i = 0; i < view_.n; ++i) {
      const T v = t.data()[i];
      if (v < 0 || v != std::floor(v) || v > T(1 << 20))
        bad_value("y holds " + std::to_string(v) + " at index " + std::to_string(i) +
                  "; targets for the softmax loss are class numbers 0..k-1 or (n, k) probabilities. Use np.unique(y, return_inverse=True)[1].");
      if (v > most) most = v;
    }
    view_.k = n_classes.is_none() ? static_cast<std::int64_t>(most) + 1 : n_classes.cast<std::int64_t>();
    if (view_.k < 2) view_.k = 2;
    if (static_cast<std::int64_t>(most) >= view_.k)
      bad_value("y holds class " + std::to_string(static_cast<std::int64_t>(most)) + " but there are " + std::to_string(view_.k) +
                " classes (columns of w); class numbers are 0 to k-1.");
    view_.y = t.data();
    keep_.push_back(t);
  }

  py::array_t<double> check_w(const py::object& w) const {
    if (py::isinstance<py::array>(w)) {
      const std::string given = dtype_name(py::reinterpret_borrow<py::array>(w));
      if (given != "float64" && given != "float32")
        bad_value("w has dtype " + given + "; float64 or float32 is needed. Use w.astype(np.float64).");
      const py::array a = py::reinterpret_borrow<py::array>(w);
      const bool ok = flat() ? a.ndim() == 1 && a.shape(0) == view_.w_rows()
                             : a.ndim() == 2 && a.shape(0) == view_.w_rows() && a.shape(1) == view_.k;
      if (!ok)
        bad_value("w has shape " + shape_text(a) + "; (" + std::to_string(view_.w_rows()) +
                  (flat() ? ",)" : ", " + std::to_string(view_.k) + ")") + " is needed" +
                  (view_.fit_intercept ? ": one row for each column of X, then the intercept." : ", one row for each column of X."));
    }
    return numbers<double>(w, "w", flat() ? 1 : 2, view_.w_rows(), view_.k);
  }

  py::object new_weights() const {
    if (flat()) return py::array_t<double>(view_.w_rows());
    return py::array_t<double>(std::vector<py::ssize_t>{view_.w_rows(), view_.k});
  }
  py::object new_rows() const {
    const std::vector<py::ssize_t> shape = flat() ? std::vector<py::ssize_t>{view_.n} : std::vector<py::ssize_t>{view_.n, view_.k};
    if (view_.compute == Compute::f64) return py::array_t<double>(shape);
    return py::array_t<float>(shape);
  }
  void* optional_output(const py::object& x, const char* name) const {
    if (x.is_none()) return nullptr;
    if (view_.compute == Compute::f64) return output<double>(x, name, view_.n, view_.k, flat());
    return output<float>(x, name, view_.n, view_.k, flat());
  }
  // Rows x k of the compute type; no finiteness asked, since margins may overflow honestly.
  py::array row_vectors(const py::object& x, const char* name, bool finite) const {
    if (finite) {
      if (view_.compute == Compute::f64) return numbers<double>(x, name, flat() ? 1 : 2, view_.n, view_.k);
      return numbers<float>(x, name, flat() ? 1 : 2, view_.n, view_.k);
    }
    const py::array a = py::array(x);
    const bool ok = flat() ? a.ndim() == 1 && a.shape(0) == view_.n : a.ndim() == 2 && a.shape(0) == view_.n && a.shape(1) == view_.k;
    if (!ok) bad_value(std::string(name) + " has shape " + shape_text(a) + "; one row for each of the " + std::to_string(view_.n) + " samples is needed.");
    if (view_.compute == Compute::f64) return py::array_t<double, py::array::c_style | py::array::forcecast>(a);
    return py::array_t<float, py::array::c_style | py::array::forcecast>(a);
  }

  // No output may share memory with an input or with another output.
  void check_apart(const std::vector<std::pair<const char*, py::object>>& arrays) const {
    for (std::size_t i = 0; i < arrays.size(); ++i)
      for (std::size_t j = i + 1; j < arrays.size(); ++j)
        if (overlap(arrays[i].second, arrays[j].second))
          bad_value(std::string(arrays[j].first) + " and " + arrays[i].first + " overlap in memory; give " + arrays[j].first +
                    " an array of its own.");
    for (std::size_t j = 1; j < arrays.size(); ++j)
      for (const py::object& input : keep_)
        if (overlap(input, arrays[j].second))
          bad_value(std::string(arrays[j].first) + " overlaps X in memory, and X is never written; give " + arrays[j].first +
                    " an array of its own.");
  }
  template <class T> static bool all_finite(const T* x, std::int64_t m) {
    for (std::int64_t i = 0; i < m; ++i)
      if (!std::isfinite(x[i])) return false;
    return true;
  }
  bool rows_are_finite(const void* z) const {
    const std::int64_t m = view_.n * view_.k;
    return view_.compute == Compute::f64 ? all_finite(static_cast<const double*>(z), m) : all_finite(static_cast<const float*>(z), m);
  }

  PassResult run(PassRequest& q) {
    q.n_threads = resolve_threads(threads_);
    bool signalled = false;
    q.interrupted = [&signalled] {
      const py::gil_scoped_acquire acquire;
      signalled = PyErr_CheckSignals() != 0;
      return signalled;
    };
    PassResult result;
    {
      const py::gil_scoped_release release;
      result = run_pass(view_, q);
    }
    if (signalled) throw py::error_already_set();
    return result;
  }

  void explain_non_finite() {
    std::int64_t row = 0, col = 0;
    bool found;
    {
      const py::gil_scoped_release release;
      found = find_non_finite(view_, &row, &col);
    }
    if (found)
      bad_value("X holds NaN or infinity, first in row " + std::to_string(row) + ", column " + std::to_string(col) +
                "; finite numbers are needed. Impute or drop them (np.nan_to_num, sklearn.impute.SimpleImputer).");
  }

  ProblemView view_;
  int threads_ = 0;
  std::vector<std::int64_t> indptr_;
  std::vector<py::object> keep_;
};

}  // namespace

void bind_problem(py::module_& m) {
  py::class_<Problem>(m, "Problem",
      "A data set and a loss, checked once: (1/S) sum_i s_i phi(z_i, y_i) with z = Xw + b + offset, and passes over it.")
      .def(py::init<const py::object&, const py::object&, const std::string&, const py::object&, const py::object&, double, double,
                    double, bool, const std::optional<std::string>&, const py::object&, const std::optional<std::string>&,
                    const std::optional<std::string>&, const py::object&>(),
           py::arg("X"), py::arg("y"), py::kw_only(), py::arg("loss") = "logistic", py::arg("sample_weight") = py::none(),
           py::arg("offset") = py::none(), py::arg("delta") = 1.0, py::arg("scale") = 1.0, py::arg("shift") = 0.0,
           py::arg("fit_intercept") = false, py::arg("compute") = py::none(), py::arg("n_threads") = py::none(),
           py::arg("isa") = py::none(), py::arg("dtype") = py::none(), py::arg("n_classes") = py::none())
      .def("value_and_grad", &Problem::value_and_grad, py::arg("w"), py::arg("grad") = py::none(), py::arg("margins") = py::none(),
           py::arg("residuals") = py::none(), "Value and gradient of the data term in one pass; margins and residuals where asked.")
      .def("margins", &Problem::margins, py::arg("w"), py::arg("out") = py::none(), "z = Xw + b + offset in one pass.")
      .def("loss_from_margins", &Problem::loss_from_margins, py::arg("z"), py::arg("residuals") = py::none(),
           "The data term from margins alone: O(n), no pass.")
      .def("rmatvec", &Problem::rmatvec, py::arg("v"), py::arg("out") = py::none(),
           "(1/S) X'(s*v) in one pass; with an intercept, (1/S) sum s*v is the last row.")
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
}

}  // namespace nag
