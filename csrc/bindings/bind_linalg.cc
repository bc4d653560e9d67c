// Small dense algebra in float64.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>

#include "bindings/bindings.h"
#include "bindings/problem.h"
#include "engine/linalg.h"

namespace py = pybind11;

namespace nag {
namespace {

// A square C-ordered float64 matrix as it lies.
std::int64_t square_size(const py::object& A, const char* name) {
  if (!py::isinstance<py::array>(A)) bad_type(std::string(name) + " is no NumPy array. Use np.ascontiguousarray(" + name + ", np.float64).");
  const py::array a = py::reinterpret_borrow<py::array>(A);
  if (a.ndim() != 2 || a.shape(0) != a.shape(1) || a.shape(0) == 0)
    bad_value(std::string(name) + " has shape " + shape_text(a) + "; a square matrix of at least one row is needed.");
  return a.shape(0);
}

std::int64_t cholesky_in_place(const py::object& A, const py::object& n_threads, const std::optional<std::string>& isa) {
  const std::int64_t d = square_size(A, "A");
  double* data = output<double>(A, "A", d, d, false);
  const int threads = resolve_threads(thread_count(n_threads));
  const KernelTable& table = table_named(isa);
  std::int64_t bad = -1;
  bool signalled = false;
  {
    const py::gil_scoped_release release;
    bad = cholesky(table, data, d, threads, [&signalled] {
      const py::gil_scoped_acquire acquire;
      signalled = PyErr_CheckSignals() != 0;
      return signalled;
    });
  }
  if (signalled) throw py::error_already_set();
  return bad;
}

// The numbers of L, which must be one that can be divided by.
const double* lower_factor(const py::object& L, std::int64_t d) {
  const py::array l = py::reinterpret_borrow<py::array>(L);
  if (dtype_name(l) != "float64" || !(l.flags() & py::array::c_style) || reinterpret_cast<std::uintptr_t>(l.data()) % sizeof(double) != 0)
    bad_value("L has dtype " + dtype_name(l) + " or is not C-contiguous and aligned. Use np.ascontiguousarray(L, dtype=np.float64).");
  const double* data = static_cast<const double*>(l.data());
  for (std::int64_t i = 0; i < d; ++i)
    if (!std::isfinite(data[i * d + i]) || data[i * d + i] == 0)
      bad_value("L holds " + std::to_string(data[i * d + i]) + " on its diagonal at index " + std::to_string(i) +
                "; numbers other than zero are needed, as cholesky_ gives them when it returns -1.");
  return data;
}

py::object with_triangular(Triangular what, const py::object& L, const py::object& b, bool trans, const py::object& n_threads,
                               const std::optional<std::string>& isa) {
  // One L for all columns of b, or a sequence of them: one for each column.
  const bool each = py::isinstance<py::list>(L) || py::isinstance<py::tuple>(L);
  std::vector<const double*> factors;
  std::int64_t d = 0;
  for (const py::handle one : each ? py::list(L) : py::list(py::make_tuple(L))) {
    const py::object item = py::reinterpret_borrow<py::object>(one);
    const std::int64_t size = square_size(item, "L");
    if (d != 0 && size != d) bad_value("L holds matrices of " + std::to_string(d) + " and of " + std::to_string(size) + " rows; one size is needed.");
    d = size;
    factors.push_back(lower_factor(item, d));
  }
  if (factors.empty()) bad_value("L is empty; a matrix for each column of b is needed.");
  const py::array rhs = py::array(py::module_::import("numpy").attr("asarray")(b));
  if ((rhs.ndim() != 1 && rhs.ndim() != 2) || rhs.shape(0) != d)
    bad_value("b has shape " + shape_text(rhs) + "; (" + std::to_string(d) + ",) or (" + std::to_string(d) + ", m) is needed.");
  const std::int64_t m = rhs.ndim() == 1 ? 1 : rhs.shape(1);
  if (each && (rhs.ndim() != 2 || m != static_cast<std::int64_t>(factors.size())))
    bad_value("b has shape " + shape_text(rhs) + "; (" + std::to_string(d) + ", " + std::to_string(factors.size()) +
              ") is needed: a column for each matrix in L.");
  py::array_t<double> x = numbers<double>(rhs, "b", static_cast<int>(rhs.ndim()), d, m);  // a copy of our own
  double* to = x.mutable_data();
  const int threads = resolve_threads(thread_count(n_threads));
  const KernelTable& table = table_named(isa);
  {
    const py::gil_scoped_release release;
    if (m > 0) triangular(table, what, factors, d, to, m, trans, threads);
  }
  return x;
}

// A float64 array in C order, as it lies.
const double* in_place(const py::handle& x, const char* name, std::int64_t size) {
  if (!py::isinstance<py::array>(x)) bad_type(std::string(name) + " is no NumPy array.");
  const py::array a = py::reinterpret_borrow<py::array>(x);
  if (dtype_name(a) != "float64" || !(a.flags() & py::array::c_style) || a.size() != size)
    bad_value(std::string(name) + " has dtype " + dtype_name(a) + " and " + std::to_string(a.size()) + " numbers; float64, C order and " +
              std::to_string(size) + " are needed.");
  return static_cast<const double*>(a.data());
}

py::array_t<double> inverse_hessian_times(const py::iterable& pairs, const py::array_t<double, py::array::c_style>& g) {
  py::array_t<double> q(std::vector<py::ssize_t>(g.shape(), g.shape() + g.ndim()));
  std::copy_n(g.data(), g.size(), q.mutable_data());
  std::vector<const double*> s, y;
  for (const py::handle pair : pairs) {
    const py::tuple both = py::reinterpret_borrow<py::tuple>(pair);
    s.push_back(in_place(both[0], "s", g.size()));
    y.push_back(in_place(both[1], "y", g.size()));
  }
  two_loops(s, y, g.size(), q.mutable_data());
  return q;
}

bool secant_in_place(const py::object& B, const py::object& s, const py::object& y) {
  const std::int64_t p = square_size(B, "B");
  double* const to = output<double>(B, "B", p, p, false);
  return secant_update(to, p, numbers<double>(s, "s", 1, p, 1).data(), numbers<double>(y, "y", 1, p, 1).data());
}

void equilibrate_into(const py::object& M, double factor, const py::object& mean, const py::object& scale, const py::object& out,
                      const py::object& n_threads) {
  const std::int64_t d = square_size(out, "out"), ldm = square_size(M, "M");
  if (ldm < d) bad_value("M has " + std::to_string(ldm) + " rows; out has " + std::to_string(d) + ", and no more than M's are needed.");
  const double* const from = in_place(M, "M", ldm * ldm);
  double* const to = output<double>(out, "out", d, d, false);
  const py::array_t<double> by = numbers<double>(scale, "scale", 1, d, 1);
  py::array_t<double> about;
  if (!mean.is_none()) about = numbers<double>(mean, "mean", 1, d, 1);
  const double* const centre = mean.is_none() ? nullptr : about.data();
  const int threads = resolve_threads(thread_count(n_threads));
  const py::gil_scoped_release release;
  equilibrate(from, ldm, factor, centre, by.data(), to, d, threads);
}

}  // namespace

void bind_linalg(py::module_& m) {
  m.def("secant_", &secant_in_place, py::arg("B"), py::arg("s"), py::arg("y"),
        "B (p x p, positive semidefinite, in place) becomes the matrix next to it with B s = y, by the BFGS formula. Returns whether it did: not "
        "where <s, y> or <s, B s> shows no curvature.");
  m.def("two_loops", &inverse_hessian_times, py::arg("pairs"), py::arg("g"),
        "H g by the two loops of L-BFGS over pairs (s, y), oldest first; H_0 = <s, y>/<y, y> I of the last pair. A copy of g without pairs.");
  m.def("equilibrate", &equilibrate_into, py::arg("M"), py::arg("factor"), py::arg("mean"), py::arg("scale"), py::arg("out"),
        py::arg("n_threads") = py::none(),
        "The lower triangle of out (d x d) becomes scale_i scale_j (factor M_ij - mean_i mean_j) off its diagonal, which becomes ones; M is "
        "square with d rows or more, mean None for zeros. What `cholesky_` reads.");
  m.def("cholesky_", &cholesky_in_place, py::arg("A"), py::arg("n_threads") = py::none(), py::arg("isa") = py::none(),
        "The lower triangle of A (square, float64, C order) becomes L with A = L L', its strict upper triangle zeros; only the lower "
        "triangle is read. Returns -1, or the index of the first pivot that is no positive finite number: A is then unspecified.");
  m.def("solve_triangular",
        [](const py::object& L, const py::object& b, bool trans, const py::object& n_threads, const std::optional<std::string>& isa) {
          return with_triangular(Triangular::solve, L, b, trans, n_threads, isa);
        },
        py::arg("L"), py::arg("b"), py::arg("trans") = false, py::arg("n_threads") = py::none(),
        py::arg("isa") = py::none(),
        "The solution of L x = b, or of L' x = b with trans; b is (d,) or (d, m). L may be a list of m matrices, one for each column of "
        "b. Only lower triangles are read.");
  m.def("multiply_triangular",
        [](const py::object& L, const py::object& b, bool trans, const py::object& n_threads, const std::optional<std::string>& isa) {
          return with_triangular(Triangular::product, L, b, trans, n_threads, isa);
        },
        py::arg("L"), py::arg("b"), py::arg("trans") = false, py::arg("n_threads") = py::none(), py::arg("isa") = py::none(),
        "L b, or L' b with trans: what `solve_triangular` undoes, with the same arguments.");
}

}  // namespace nag
