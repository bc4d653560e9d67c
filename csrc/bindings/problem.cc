// Problem's construction and checks.
#include "bindings/problem.h"

#include <atomic>
#include <cmath>

#include "bindings/kept_array.h"
#include "dispatch/dispatch.h"
#include "engine/column_spread.h"
#include "engine/rare_columns.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace nag {
namespace {

std::string isa_choices() {
  std::string s;
  for (const KernelTable* t : usable_tables()) s += (s.empty() ? "" : ", ") + std::string(t->name);
  return s;
}

int loss_index(const std::string& name) {
  std::string names;
  for (int i = 0; i < kLossCount; ++i) {
    if (name == kLosses[i].name) return i;
    names += (i ? ", " : "") + std::string(kLosses[i].name);
  }
  bad_value("loss is '" + name + "'; choose from " + names + ".");
}

}  // namespace

const KernelTable& table_named(const std::optional<std::string>& isa) {
  if (!isa) return active_table();
  const KernelTable* table = find_table(*isa);
  if (table == nullptr) bad_value("isa is '" + *isa + "'; this build on this processor has " + isa_choices() + ".");
  return *table;
}

int thread_count(const py::object& n_threads) {
  if (n_threads.is_none()) return 0;
  if (!py::isinstance<py::int_>(n_threads) && !py::hasattr(n_threads, "__index__")) bad_type("n_threads must be None or an integer.");
  const long long t = n_threads.cast<long long>();
  if (t < 1 || t > 4096) bad_value("n_threads is " + std::to_string(t) + "; None or an integer from 1 to 4096 is needed.");
  return static_cast<int>(t);
}

Problem::Problem(const py::object& X, const py::object& y, const std::string& loss, const py::object& sample_weight,
        const py::object& offset, double delta, double scale, double shift, bool fit_intercept,
        const std::optional<std::string>& compute, const py::object& n_threads, const std::optional<std::string>& isa,
        const std::optional<std::string>& dtype, const py::object& n_classes, const Problem* like) {
  view_.table = &table_named(isa);
  view_.loss = loss_index(loss);
  threads_ = thread_count(n_threads);
  if (dtype || like == nullptr || !take_data(X, *like)) {
    indptr_ = std::make_shared<std::vector<std::int64_t>>();
    check_data(X, dtype.value_or(""), view_, *indptr_, keep_, this->n_threads());
  }
  view_.fit_intercept = fit_intercept;
  check_scalars(delta, scale, shift);
  choose_compute(compute);
  if (view_.compute == Compute::f64) take_vectors<double>(y, sample_weight, offset, n_classes);
  else take_vectors<float>(y, sample_weight, offset, n_classes);
}

bool Problem::take_data(const py::object& X, const Problem& like) {
  const ProblemView& from = like.view_;
  if (!from.sparse || !py::hasattr(X, "indptr") || !py::make_tuple(from.n, from.d).equal(X.attr("shape"))) return false;
  if (like.keep_.size() < 3 || !like.keep_[0].is(X.attr("data")) || !like.keep_[1].is(X.attr("indices")) ||
      !like.keep_[2].is(X.attr("indptr")))
    return false;
  keep_.assign(like.keep_.begin(), like.keep_.begin() + 3);
  indptr_ = like.indptr_;
  view_.storage = from.storage;
  view_.n = from.n, view_.d = from.d;
  view_.sparse = true, view_.wide_index = from.wide_index;
  view_.data = from.data, view_.indices = from.indices, view_.indptr = indptr_->data();
  view_.order = from.order;
  return true;
}

double Problem::column_spread(std::int64_t entries) const {
  if (!view_.sparse) bad_value("X is dense; column_spread looks at the entries of CSR.");
  if (entries < 1) bad_value("entries is " + std::to_string(entries) + "; a whole number >= 1 is needed.");
  const py::gil_scoped_release release;
  return nag::column_spread(view_, entries);
}

py::object Problem::rows_of_rare_columns(const py::object& rows, std::int32_t few) const {
  if (!view_.sparse) bad_value("X is dense; rows_of_rare_columns looks at the entries of CSR. Use off_usual.");
  const py::array_t<std::int64_t, py::array::c_style | py::array::forcecast> at(rows);
  if (at.ndim() != 1) bad_value("rows has shape " + shape_text(at) + "; row numbers in one dimension are needed.");
  for (py::ssize_t i = 0; i < at.size(); ++i)
    if (at.data()[i] < 0 || at.data()[i] >= view_.n)
      bad_value("rows holds " + std::to_string(at.data()[i]) + ", but X has " + std::to_string(view_.n) + " rows.");
  std::vector<std::int64_t> found;
  {
    const py::gil_scoped_release release;
    found = nag::rows_of_rare_columns(view_, at.data(), at.size(), few, n_threads());
  }
  return py::array_t<std::int64_t>(static_cast<py::ssize_t>(found.size()), found.data());
}

const char* Problem::layout() const {
  if (view_.sparse) return "csr";
  const std::ptrdiff_t item = item_size();
  if (view_.col_stride == item) return "C";
  return view_.row_stride == item ? "F" : "strided";
}

std::int64_t Problem::nbytes() const {
  if (!view_.sparse) return view_.n * view_.d * item_size();
  return (view_.indptr[view_.n] - view_.indptr[0]) * (item_size() + (view_.wide_index ? 8 : 4)) + (view_.n + 1) * 8;
}

void Problem::check_scalars(double delta, double scale, double shift) {
  if (!(delta > 0) || !std::isfinite(delta)) bad_value("delta is " + std::to_string(delta) + "; a positive finite number is needed.");
  if (!std::isfinite(scale)) bad_value("scale is " + std::to_string(scale) + "; a finite number is needed.");
  if (!std::isfinite(shift)) bad_value("shift is " + std::to_string(shift) + "; a finite number is needed.");
  if (view_.sparse && (scale != 1.0 || shift != 0.0))
    bad_value("scale and shift are for dense X (a shift would fill a sparse matrix). Use X * scale.");
  view_.delta = delta;
  view_.scale = scale;
  view_.shift = shift;
}

void Problem::choose_compute(const std::optional<std::string>& compute) {
  view_.compute = view_.storage == Storage::f64 ? Compute::f64 : Compute::f32;
  if (!compute) return;
  if (*compute == "float64") view_.compute = Compute::f64;
  else if (*compute != "float32") bad_value("compute is '" + *compute + "'; None, 'float32' or 'float64' is needed.");
  else if (view_.storage == Storage::f64) bad_value("compute='float32' with float64 X; use X.astype(np.float32) or leave compute out.");
}

template <class T>
void Problem::take_vectors(const py::object& y, const py::object& sample_weight, const py::object& offset, const py::object& n_classes) {
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

// Class numbers 0 and 1 in one byte each, as classifiers give them, in one sweep. False where y holds anything else.
template <class T>
bool Problem::take_codes(const py::object& y) {
  if (!py::isinstance<py::array_t<std::int8_t>>(y)) return false;
  const py::array a = py::reinterpret_borrow<py::array>(y);
  if (a.ndim() != 1 || a.shape(0) != view_.n || !(a.flags() & py::array::c_style)) return false;
  py::array_t<T> signs = new_array<T>({static_cast<py::ssize_t>(view_.n)});
  const auto* const code = static_cast<const std::int8_t*>(a.data());
  T* const sign = signs.mutable_data();
  constexpr std::int64_t kAlone = 1 << 16;  // that one thread does as soon as two
  std::atomic<bool> fine{true};
  parallel_run(view_.n < kAlone ? 1 : n_threads(), [&](int thread, int of) {
    int others = 0;
    for (std::int64_t i = view_.n * thread / of; i < view_.n * (thread + 1) / of; ++i) {
      others |= code[i] & ~1;
      sign[i] = static_cast<T>(2 * code[i] - 1);
    }
    if (others != 0) fine = false;
  });
  if (!fine) return false;
  view_.y = signs.data();
  keep_.push_back(signs);
  return true;
}

template <class T>
void Problem::take_targets(const py::object& y, const py::object& n_classes) {
  if (!n_classes.is_none()) bad_value("n_classes is for the softmax loss alone.");
  if (kLosses[view_.loss].targets == Domain::binary && take_codes<T>(y)) return;
  py::array_t<T> t = numbers<T>(y, "y", 1, view_.n, 1);
  const T* v = t.data();
  const Domain domain = kLosses[view_.loss].targets;
  const std::string who = std::string(" for the ") + loss() + " loss";
  if (domain == Domain::nonnegative) {
    for (std::int64_t i = 0; i < view_.n; ++i)
      if (v[i] < 0) bad_value("y is negative at index " + std::to_string(i) + "; targets" + who + " are zero or more.");
  } else if (domain == Domain::binary) {
    // Counted and rewritten in place without branches: labels are as good as random to a branch predictor.
    std::int64_t zeros = 0, ones = 0, minuses = 0;
    for (std::int64_t i = 0; i < view_.n; ++i) {
      zeros += v[i] == 0;
      ones += v[i] == 1;
      minuses += v[i] == -1;
    }
    for (std::int64_t i = 0; zeros + ones + minuses < view_.n && i < view_.n; ++i)
      if (v[i] != 0 && v[i] != 1 && v[i] != -1)
        bad_value("y holds " + std::to_string(v[i]) + " at index " + std::to_string(i) + "; targets" + who +
                  " are {-1, +1} or {0, 1}. Use np.unique(y, return_inverse=True)[1].");
    if (zeros > 0 && minuses > 0) bad_value("y mixes -1, 0 and +1; targets" + who + " are {-1, +1} or {0, 1}.");
    T* sign = t.mutable_data();
    for (std::int64_t i = 0; i < view_.n; ++i) sign[i] = static_cast<T>(2 * (v[i] == 1) - 1);
  }
  view_.y = t.data();
  keep_.push_back(t);
}

template <class T>
void Problem::take_classes(const py::object& y, const py::object& n_classes) {
  const py::array a = py::isinstance<py::array>(y) ? py::reinterpret_borrow<py::array>(y) : py::array(py::module_::import("numpy").attr("asarray")(y));
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

py::array_t<double> Problem::check_w(const py::object& w) const {
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

py::object Problem::new_weights() const {
  if (flat()) return py::array_t<double>(view_.w_rows());
  return py::array_t<double>(std::vector<py::ssize_t>{view_.w_rows(), view_.k});
}

py::object Problem::new_rows() const {
  const std::vector<py::ssize_t> shape = flat() ? std::vector<py::ssize_t>{view_.n} : std::vector<py::ssize_t>{view_.n, view_.k};
  if (view_.compute == Compute::f64) return new_array<double>(shape);
  return new_array<float>(shape);
}

py::object Problem::new_square() const { return new_array<double>({view_.w_rows(), view_.w_rows()}); }

void* Problem::optional_output(const py::object& x, const char* name) const {
  if (x.is_none()) return nullptr;
  if (view_.compute == Compute::f64) return output<double>(x, name, view_.n, view_.k, flat());
  return output<float>(x, name, view_.n, view_.k, flat());
}

py::array Problem::row_vectors(const py::object& x, const char* name, bool finite) const {
  if (finite) {
    if (view_.compute == Compute::f64) return numbers<double>(x, name, flat() ? 1 : 2, view_.n, view_.k, false);
    return numbers<float>(x, name, flat() ? 1 : 2, view_.n, view_.k, false);
  }
  const py::array a = py::array(x);
  const bool ok = flat() ? a.ndim() == 1 && a.shape(0) == view_.n : a.ndim() == 2 && a.shape(0) == view_.n && a.shape(1) == view_.k;
  if (!ok) bad_value(std::string(name) + " has shape " + shape_text(a) + "; one row for each of the " + std::to_string(view_.n) + " samples is needed.");
  if (view_.compute == Compute::f64) return py::array_t<double, py::array::c_style | py::array::forcecast>(a);
  return py::array_t<float, py::array::c_style | py::array::forcecast>(a);
}

py::array Problem::row_vector(const py::object& x, const char* name) const {
  if (view_.compute == Compute::f64) return numbers<double>(x, name, 1, view_.n, 1, false);
  return numbers<float>(x, name, 1, view_.n, 1, false);
}

void Problem::needs_one_column(const char* what) const {
  if (is_softmax())
    bad_value(std::string(what) + " is for losses of one margin a sample, and the softmax loss couples its " + std::to_string(view_.k) +
              " columns. Use hessian_vector, or gram with Boehning's bound.");
}

void Problem::check_apart(const std::vector<std::pair<const char*, py::object>>& arrays) const {
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

bool Problem::rows_are_finite(const void* z) const {
  const std::int64_t m = view_.n * view_.k;
  return view_.compute == Compute::f64 ? all_finite(static_cast<const double*>(z), m) : all_finite(static_cast<const float*>(z), m);
}

void Problem::without_gil(const std::function<void(const std::function<bool()>&)>& pass) const {
  bool signalled = false;
  const std::function<bool()> interrupted = [&signalled] {
    const py::gil_scoped_acquire acquire;
    signalled = PyErr_CheckSignals() != 0;
    return signalled;
  };
  {
    const py::gil_scoped_release release;
    pass(interrupted);
  }
  if (signalled) throw py::error_already_set();
}

PassResult Problem::run(PassRequest& q) const {
  q.n_threads = resolve_threads(threads_);
  PassResult result;
  without_gil([&](const std::function<bool()>& interrupted) {
    q.interrupted = interrupted;
    result = run_pass(view_, q);
  });
  return result;
}

void Problem::explain_non_finite() const {
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

}  // namespace nag
