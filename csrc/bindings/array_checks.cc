#include "bindings/array_checks.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "bindings/kept_array.h"
#include "engine/column_order.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace nag {

void bad_value(const std::string& message) { throw py::value_error(message); }
void bad_type(const std::string& message) { throw py::type_error(message); }

std::string shape_text(const py::array& a) { return py::str(py::object(a.attr("shape"))).cast<std::string>(); }
std::string dtype_name(const py::array& a) {
  // NumPy's own spelling takes microseconds, and small fits ask for dozens of them.
  const py::dtype type = a.dtype();
  if (type.byteorder() == '=' || type.byteorder() == '|') switch (type.num()) {
      case py::detail::npy_api::NPY_DOUBLE_: return "float64";
      case py::detail::npy_api::NPY_FLOAT_: return "float32";
      case py::detail::npy_api::NPY_UBYTE_: return "uint8";
      default: break;
    }
  return py::str(type).cast<std::string>();
}

namespace {

std::string type_name(const py::object& x) { return py::str(py::type::of(x).attr("__name__")).cast<std::string>(); }

const char* const kReads = "nagcore reads float64, float32, bfloat16 and uint8";

Storage storage_of(const py::array& a, const std::string& dtype, const char* name) {
  const std::string given = dtype_name(a);
  if (!dtype.empty()) {
    if (dtype != "bfloat16" || given != "uint16")
      bad_value("dtype='" + dtype + "' with " + name + " of dtype " + given +
                "; dtype='bfloat16' says that a uint16 array holds bfloat16 bits. Leave it out for any other array.");
    return Storage::bf16;
  }
  for (int s = 0; s < kStorageCount; ++s)
    if (given == kStorageName[s]) return static_cast<Storage>(s);
  if (given == "uint16")
    bad_value(std::string(name) + " has dtype uint16; " + kReads + ". Pass dtype='bfloat16' if it holds bfloat16 bits, else use " + name +
              ".astype(np.float32).");
  bad_value(std::string(name) + " has dtype " + given + "; " + kReads + ". Use " + name + ".astype(np.float32)" +
            (given == "object" ? " once every entry is a number." : "."));
}

void check_size(std::int64_t n, std::int64_t d) {
  if (n == 0 || d == 0)
    bad_value("X has shape (" + std::to_string(n) + ", " + std::to_string(d) + "); at least one row and one column are needed" +
              (n == 0 ? " (0 sample(s) came)." : " (0 feature(s) came)."));
  if (d > INT32_MAX)
    bad_value("X has " + std::to_string(d) + " columns; nagcore takes at most 2147483647. Hash or drop columns.");
}

void check_dense(const py::array& X, const std::string& dtype, ProblemView& v) {
  if (X.ndim() != 2)
    bad_value("X has shape " + shape_text(X) + "; a 2-D array of rows and columns is needed. Use X.reshape(-1, 1) for one column" +
              " or X.reshape(1, -1) for one row.");
  v.storage = storage_of(X, dtype, "X");
  check_size(X.shape(0), X.shape(1));
  v.n = X.shape(0);
  v.d = X.shape(1);
  v.X = X.data();
  v.row_stride = X.strides(0);
  v.col_stride = X.strides(1);
  const std::ptrdiff_t item = static_cast<std::ptrdiff_t>(kStorageBytes[static_cast<int>(v.storage)]);
  // The stride of an axis of length one is never walked; NumPy leaves anything there.
  if (v.d == 1 && v.n > 1 && v.row_stride != item) v.col_stride = item;
  if (v.n == 1) v.row_stride = v.d * item;
}

template <class I>
void check_indices(const I* idx, const std::int64_t* ptr, std::int64_t n, std::int64_t d, int n_threads) {
  // All steps down between neighbours, without a look at where rows end, and those from one row to the next: as many as there
  // are in all where every row is sorted.
  constexpr std::int64_t kAtOnce = 1 << 12, kAlone = 1 << 17;  // entries that one thread looks at as soon as two
  std::atomic<std::int64_t> more{0};  // steps down that are not between two rows
  std::atomic<bool> inside{true};
  parallel_run(ptr[n] - ptr[0] < kAlone ? 1 : n_threads, [&](int t, int of) {
    const std::int64_t row0 = n * t / of, row1 = n * (t + 1) / of;
    std::int64_t steps = 0, between = 0;
    for (std::int64_t e = ptr[row0]; e < std::min(ptr[row1], ptr[n] - 1); e += kAtOnce) {
      const std::int64_t end = std::min({ptr[row1], ptr[n] - 1, e + kAtOnce});
      std::int32_t here = 0;
      for (std::int64_t i = e; i < end; ++i) here += idx[i] >= idx[i + 1];
      steps += here;
    }
    bool fine = true;
    for (std::int64_t i = row0; i < row1; ++i) {
      const std::int64_t first = ptr[i], last = ptr[i + 1];
      if (first == last) continue;
      between += first > ptr[0] && idx[first - 1] >= idx[first];
      fine &= idx[first] >= 0 && static_cast<std::int64_t>(idx[last - 1]) < d;
    }
    more += steps - between;
    if (!fine) inside = false;
  });
  if (more == 0 && inside) return;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t first = ptr[i], last = ptr[i + 1];
    const std::string row = " in row " + std::to_string(i);
    for (std::int64_t e = first; e < last; ++e)
      if (idx[e] < 0 || static_cast<std::int64_t>(idx[e]) >= d)
        bad_value("X.indices holds column " + std::to_string(idx[e]) + row + ", but X has " + std::to_string(d) +
                  " columns (out of range). Rebuild the matrix with the right shape.");
    for (std::int64_t e = first; e + 1 < last; ++e)
      if (idx[e] == idx[e + 1])
        bad_value("X.indices holds column " + std::to_string(idx[e]) + " twice (duplicate)" + row + ". Call X.sum_duplicates() first.");
    for (std::int64_t e = first; e + 1 < last; ++e)
      if (idx[e] > idx[e + 1]) bad_value("X.indices are not sorted" + row + ". Call X.sort_indices() (and X.sum_duplicates()) first.");
  }
}

void check_csr(const py::object& X, const std::string& dtype, ProblemView& v, std::vector<std::int64_t>& indptr,
               std::vector<py::object>& keep, int n_threads) {
  const std::string format = py::str(X.attr("format")).cast<std::string>();
  if (format != "csr") bad_type("X is sparse in '" + format + "' format; nagcore reads CSR. Use X.tocsr().");
  if (!dtype.empty()) bad_value("dtype='" + dtype + "' with sparse X; CSR data is float64 or float32. Leave dtype out.");
  const py::tuple shape = X.attr("shape");
  if (shape.size() != 2) bad_value("X is a sparse array of " + std::to_string(shape.size()) + " dimensions; 2 are needed.");
  v.n = shape[0].cast<std::int64_t>();
  v.d = shape[1].cast<std::int64_t>();
  check_size(v.n, v.d);
  v.sparse = true;
  v.order = std::make_shared<LazyColumnOrder>();
  const py::array data = X.attr("data"), indices = X.attr("indices"), ptr = X.attr("indptr");
  const std::string given = dtype_name(data), index = dtype_name(indices);
  if (given != "float64" && given != "float32")
    bad_value("X is sparse with data of dtype " + given + "; sparse data is float64 or float32. Use X.astype(np.float32).");
  if ((index != "int32" && index != "int64") || (dtype_name(ptr) != "int32" && dtype_name(ptr) != "int64"))
    bad_value("X.indices has dtype " + index + " and X.indptr " + dtype_name(ptr) + "; int32 or int64 are needed.");
  v.storage = given == "float64" ? Storage::f64 : Storage::f32;
  v.wide_index = index == "int64";
  const auto plain = [](const py::array& a) {
    return a.ndim() == 1 && (a.size() < 2 || a.strides(0) == a.itemsize()) &&
           reinterpret_cast<std::uintptr_t>(a.data()) % static_cast<std::size_t>(a.itemsize()) == 0;
  };
  if (!plain(data) || !plain(indices) || ptr.ndim() != 1)
    bad_value("X.data and X.indices must be contiguous, aligned 1-D arrays. Use X.copy().");
  const py::array_t<std::int64_t, py::array::c_style | py::array::forcecast> wide(ptr);
  if (wide.size() != v.n + 1)
    bad_value("X.indptr has " + std::to_string(wide.size()) + " entries; a CSR matrix of " + std::to_string(v.n) + " rows has n + 1.");
  indptr.assign(wide.data(), wide.data() + wide.size());
  const std::int64_t stored = std::min<std::int64_t>(data.size(), indices.size());
  if (indptr.front() < 0 || indptr.back() > stored)
    bad_value("X.indptr runs from " + std::to_string(indptr.front()) + " to " + std::to_string(indptr.back()) + ", but " +
              std::to_string(stored) + " entries are stored: the matrix is cut off or damaged.");
  for (std::int64_t i = 0; i < v.n; ++i)
    if (indptr[static_cast<std::size_t>(i)] > indptr[static_cast<std::size_t>(i) + 1])
      bad_value("X.indptr decreases after row " + std::to_string(i) + ": the matrix is damaged. Rebuild it.");
  if (v.wide_index) check_indices(static_cast<const std::int64_t*>(indices.data()), indptr.data(), v.n, v.d, n_threads);
  else check_indices(static_cast<const std::int32_t*>(indices.data()), indptr.data(), v.n, v.d, n_threads);
  v.data = data.data();
  v.indices = indices.data();
  v.indptr = indptr.data();
  keep.push_back(data);
  keep.push_back(indices);
  keep.push_back(ptr);
}

}  // namespace

void check_data(const py::object& X, const std::string& dtype, ProblemView& view, std::vector<std::int64_t>& indptr,
                std::vector<py::object>& keep, int n_threads) {
  if (py::isinstance<py::array>(X)) {
    check_dense(py::reinterpret_borrow<py::array>(X), dtype, view);
    keep.push_back(X);
  } else if (py::hasattr(X, "format") && py::hasattr(X, "tocsr")) {
    check_csr(X, dtype, view, indptr, keep, n_threads);
  } else {
    bad_type("X is a " + type_name(X) + "; nagcore reads a NumPy array or a scipy.sparse CSR matrix. Use np.asarray(X, dtype=np.float32).");
  }
}

bool overlap(const py::object& a, const py::object& b) {
  if (!py::isinstance<py::array>(a) || !py::isinstance<py::array>(b)) return false;
  const auto range = [](const py::array& x) {
    auto low = reinterpret_cast<std::uintptr_t>(x.data()), high = low + static_cast<std::uintptr_t>(x.itemsize());
    for (py::ssize_t i = 0; i < x.ndim(); ++i) {
      if (x.shape(i) == 0) return std::make_pair(low, low);
      const std::ptrdiff_t span = (x.shape(i) - 1) * x.strides(i);
      (span < 0 ? low : high) += static_cast<std::uintptr_t>(span);
    }
    return std::make_pair(low, high);
  };
  const auto p = range(py::reinterpret_borrow<py::array>(a)), q = range(py::reinterpret_borrow<py::array>(b));
  return p.first < q.second && q.first < p.second;
}

namespace {
// A copy of a C-ordered array of S, in memory that large arrays leave to each other.
template <class T, class S>
py::array_t<T> converted(const py::array& a) {
  py::array_t<T> out = new_array<T>(std::vector<py::ssize_t>(a.shape(), a.shape() + a.ndim()));
  const char* from = static_cast<const char*>(a.data());  // which may be misaligned
  T* const to = out.mutable_data();
  const bool aligned = reinterpret_cast<std::uintptr_t>(from) % sizeof(S) == 0;
  for (py::ssize_t i = 0; i < a.size(); ++i) {
    S x;
    if (aligned) x = reinterpret_cast<const S*>(from)[i];
    else std::memcpy(&x, from + static_cast<std::size_t>(i) * sizeof(S), sizeof(S));
    to[i] = static_cast<T>(x);
  }
  return out;
}
}  // namespace

template <class T>
py::array_t<T> numbers(const py::object& x, const char* name, int ndim, std::int64_t rows, std::int64_t cols, bool own) {
  py::array a;
  try {
    // An array as it is; a list, a matrix or a masked array as NumPy reads it.
    const bool plain = reinterpret_cast<PyObject*>(Py_TYPE(x.ptr())) == reinterpret_cast<PyObject*>(py::detail::npy_api::get().PyArray_Type_);
    a = plain ? py::reinterpret_borrow<py::array>(x) : py::array(py::module_::import("numpy").attr("asarray")(x));
  } catch (py::error_already_set&) {
    bad_type(std::string(name) + " is a " + type_name(x) + " that NumPy cannot read as an array of numbers.");
  }
  const char kind = a.dtype().kind();
  if (kind != 'f' && kind != 'i' && kind != 'u' && kind != 'b' && dtype_name(a) != "bfloat16")
    bad_value(std::string(name) + " has dtype " + dtype_name(a) + "; real numbers are needed. Use np.asarray(" + name + ", dtype=np.float64).");
  const std::string want = ndim == 1 ? "(" + std::to_string(rows) + ",)" : "(" + std::to_string(rows) + ", " + std::to_string(cols) + ")";
  if (a.ndim() != ndim || a.shape(0) != rows || (ndim == 2 && a.shape(1) != cols))
    bad_value(std::string(name) + " has shape " + shape_text(a) + "; " + want + " is needed" +
              (a.ndim() == 2 && ndim == 1 && a.shape(1) == 1 ? ". Use " + std::string(name) + ".ravel()." : ", one entry for each row of X."));
  py::array_t<T, py::array::c_style | py::array::forcecast> typed;
  const bool aligned = reinterpret_cast<std::uintptr_t>(a.data()) % sizeof(T) == 0;
  if (!own && aligned && a.flags() & py::array::c_style && py::isinstance<py::array_t<T>>(a))
    typed = py::reinterpret_borrow<py::array_t<T, py::array::c_style | py::array::forcecast>>(a);
  else if (a.flags() & py::array::c_style && py::isinstance<py::array_t<double>>(a)) typed = converted<T, double>(a);
  else if (a.flags() & py::array::c_style && py::isinstance<py::array_t<float>>(a)) typed = converted<T, float>(a);
  else if (a.flags() & py::array::c_style && py::isinstance<py::array_t<std::int8_t>>(a)) typed = converted<T, std::int8_t>(a);  // class numbers
  else typed = py::array_t<T, py::array::c_style | py::array::forcecast>(a);
  if (own && typed.data() == a.data()) typed = py::array_t<T, py::array::c_style | py::array::forcecast>(py::object(a.attr("copy")("C")));
  const T* p = typed.data();
  const py::ssize_t count = all_finite(p, typed.size()) ? 0 : typed.size();
  for (py::ssize_t i = 0; i < count; ++i)
    if (!std::isfinite(p[i]))
      bad_value(std::string(name) + " holds NaN or infinity" + (sizeof(T) == 4 ? " (in float32)" : "") + " at index " +
                std::to_string(ndim == 2 ? i / cols : i) + "; finite numbers are needed. Drop or impute those rows.");
  return py::array_t<T>(typed);
}
template py::array_t<float> numbers<float>(const py::object&, const char*, int, std::int64_t, std::int64_t, bool);
template py::array_t<double> numbers<double>(const py::object&, const char*, int, std::int64_t, std::int64_t, bool);

template <class T>
T* output(const py::object& x, const char* name, std::int64_t rows, std::int64_t cols, bool flat) {
  const std::string type = sizeof(T) == 4 ? "float32" : "float64";
  const std::string want = flat ? "(" + std::to_string(rows) + ",)" : "(" + std::to_string(rows) + ", " + std::to_string(cols) + ")";
  const std::string fix = ". Use np.empty(" + want + ", np." + type + ").";
  if (!py::isinstance<py::array>(x)) bad_type(std::string(name) + " is a " + type_name(x) + "; a NumPy array is needed" + fix);
  py::array a = py::reinterpret_borrow<py::array>(x);
  const bool shape_ok = flat ? a.ndim() == 1 && a.shape(0) == rows : a.ndim() == 2 && a.shape(0) == rows && a.shape(1) == cols;
  if (dtype_name(a) != type || !shape_ok)
    bad_value(std::string(name) + " has dtype " + dtype_name(a) + " and shape " + shape_text(a) + "; " + type + " and " + want + " are needed" + fix);
  if (!(a.flags() & py::array::c_style)) bad_value(std::string(name) + " is not C-contiguous" + fix);
  if (!a.writeable()) bad_value(std::string(name) + " is read-only (not writable)" + fix);
  if (reinterpret_cast<std::uintptr_t>(a.data()) % sizeof(T) != 0) bad_value(std::string(name) + " is misaligned" + fix);
  return static_cast<T*>(a.mutable_data());
}
template float* output<float>(const py::object&, const char*, std::int64_t, std::int64_t, bool);
template double* output<double>(const py::object&, const char*, std::int64_t, std::int64_t, bool);

}  // namespace nag
