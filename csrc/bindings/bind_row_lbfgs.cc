// RowLbfgs: steps of L-BFGS in the space of rows on a Problem of CSR.
#include <cmath>
#include <memory>

#include "bindings/bindings.h"
#include "bindings/kept_array.h"
#include "bindings/row_products.h"
#include "engine/row_lbfgs.h"

namespace py = pybind11;

namespace nag {

class RowLbfgsLoop {
  // What the loop says that there is; first, so that its type is known below.
  template <class Ask>
  decltype(auto) either(const Ask& ask) const {
    return single_ ? ask(*single_) : ask(*wide_);
  }

 public:
  RowLbfgsLoop(const Problem& problem, const RowProducts& products, const py::object& x, const py::object& Kx, const py::object& z,
               const py::object& r, double f, double square, double l2, double scale, double curvature, int pairs)
      : problem_(&problem), products_(&products), pairs_(pairs) {
    const ProblemView& view = problem.view_;
    if (&products.problem() != &problem && (products.problem().n() != view.n || products.problem().d() != view.d))
      bad_value("products are of another X; use RowProducts(problem).");
    if (view.s != nullptr || view.offset != nullptr)
      bad_value("the problem has " + std::string(view.s ? "sample weights" : "an offset") + "; RowLbfgs takes it without.");
    if (!(l2 > 0) || !std::isfinite(l2)) bad_value("l2 is " + std::to_string(l2) + "; a finite number > 0 is needed.");
    if (!(scale >= 0) || !std::isfinite(scale)) bad_value("scale is " + std::to_string(scale) + "; a finite number >= 0 is needed.");
    if (!(curvature > 0) || !std::isfinite(curvature))
      bad_value("curvature is " + std::to_string(curvature) + "; a finite bound > 0 is needed.");
    if (pairs < 1 || pairs > 64) bad_value("pairs is " + std::to_string(pairs) + "; a whole number from 1 to 64 is needed.");
    if (view.compute == Compute::f32) single_ = make<float>(x, Kx, z, r, f, square, l2, scale, curvature);
    else wide_ = make<double>(x, Kx, z, r, f, square, l2, scale, curvature);
  }

  py::tuple run(std::int64_t steps, double tol, double null_value, double floor) {
    if (steps < 1) bad_value("steps is " + std::to_string(steps) + "; a whole number >= 1 is needed.");
    const RowLimits limits{steps, tol, null_value, floor};
    std::vector<RowRecord> records;
    const std::int64_t before = either([](const auto& loop) { return loop.products(); });
    {
      const py::gil_scoped_release release;
      if (single_) records = single_->run(limits);
      else records = wide_->run(limits);
    }
    if (signalled_) throw py::error_already_set();
    if (strange_) problem_->explain_non_finite();
    strange_ = false;
    py::list out;
    for (const RowRecord& r : records) out.append(py::make_tuple(r.f, r.bound, r.seconds, r.resolved));
    return py::make_tuple(out, either([](const auto& loop) { return loop.products(); }) - before);
  }

  // Copies: the loop goes on in its own.
  py::array x() const { return py::array(x_.attr("copy")()); }
  py::array before() const { return py::array(before_.attr("copy")()); }
  py::array margins() const { return z_[either([](const auto& loop) { return loop.current(); })]; }
  py::array residuals() const { return r_[either([](const auto& loop) { return loop.current(); })]; }
  py::array gradient() const { return plain_[static_cast<std::size_t>(either([](const auto& loop) { return loop.gradient_place(); }))]; }
  std::int64_t steps() const { return either([](const auto& loop) { return loop.steps(); }); }
  py::list plain() const { return kept(plain_); }
  py::list lifted() const { return kept(lifted_); }
  py::array_t<double> inner() const {
    const std::vector<double>& from = either([](const auto& loop) -> const std::vector<double>& { return loop.inner(); });
    py::array_t<double> out(std::vector<py::ssize_t>{2 * pairs_ + 1, 2 * pairs_ + 1});
    std::copy(from.begin(), from.end(), out.mutable_data());
    return out;
  }
  py::array_t<double> lengths() const {
    const std::vector<double>& from = either([](const auto& loop) -> const std::vector<double>& { return loop.lengths(); });
    return py::array_t<double>(static_cast<py::ssize_t>(from.size()), from.data());
  }

 private:
  template <class T>
  std::unique_ptr<RowLbfgs<T>> make(const py::object& x, const py::object& Kx, const py::object& z, const py::object& r, double f,
                                    double square, double l2, double scale, double curvature) {
    const ProblemView& view = problem_->view_;
    const int threads = problem_->n_threads();
    const bool flat = view.k == 1;
    RowProblem<T> q;
    q.n = view.n, q.k = view.k, q.l2 = l2, q.c = scale, q.curvature = curvature, q.n_threads = threads;
    q.loss = [&view, threads](const T* at, T* residuals) { return loss_from_margins(view, at, residuals, threads); };
    q.table = view.table;
    if (flat) q.second = [&view, threads](const T* at, T* h) { curvature_from_margins(view, at, h, threads); };
    q.product = [this, &view](const T* v, T* out) {
      const bool done = products_->multiply(v, view.k, out, [this] {
        const py::gil_scoped_acquire acquire;
        return signalled_ = PyErr_CheckSignals() != 0;
      });
      if (done && !all_finite(out, view.n * view.k)) strange_ = true;
      return done;
    };
    const std::int64_t points = view.n + (scale > 0 ? 1 : 0);
    const auto fresh = [&](std::int64_t rows) {
      std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(rows)};
      if (!flat) shape.push_back(static_cast<py::ssize_t>(view.k));
      return py::array(new_array<T>(shape));
    };
    const auto start = [&](const py::object& from, const char* name, std::int64_t rows) {
      py::array to = fresh(rows);
      const py::array_t<T> numbers_ = numbers<T>(from, name, flat ? 1 : 2, rows, view.k);
      std::copy_n(numbers_.data(), rows * view.k, static_cast<T*>(to.mutable_data()));
      return to;
    };
    const auto at = [](py::array& a) { return static_cast<T*>(a.mutable_data()); };
    typename RowLbfgs<T>::Memory memory;
    x_ = start(x, "x", points);
    before_ = fresh(points);
    if (scale > 0) Kx_ = start(Kx, "Kx", view.n);
    for (int i = 0; i < 3; ++i) {
      z_[i] = i == 0 ? start(z, "z", view.n) : fresh(view.n);
      r_[i] = i == 0 ? start(r, "r", view.n) : fresh(view.n);
      memory.z[i] = at(z_[i]);
      memory.r[i] = at(r_[i]);
    }
    memory.x = at(x_), memory.before = at(before_), memory.Kx = scale > 0 ? at(Kx_) : nullptr;
    for (int i = 0; i < 2 * pairs_ + 1; ++i) {
      plain_.push_back(fresh(points));
      lifted_.push_back(fresh(points));
      memory.plain.push_back(at(plain_.back()));
      memory.lifted.push_back(at(lifted_.back()));
    }
    return std::make_unique<RowLbfgs<T>>(q, memory, pairs_, f, square);
  }

  py::list kept(const std::vector<py::array>& arrays) const {
    py::list out;
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      if (either([&](const auto& loop) { return loop.kept(static_cast<int>(i)); })) out.append(arrays[i]);
      else out.append(py::none());
    }
    return out;
  }

  const Problem* problem_;
  const RowProducts* products_;
  int pairs_;
  py::array x_, before_, Kx_, z_[3], r_[3];
  std::vector<py::array> plain_, lifted_;
  std::unique_ptr<RowLbfgs<float>> single_;
  std::unique_ptr<RowLbfgs<double>> wide_;
  bool signalled_ = false, strange_ = false;
};

void bind_row_lbfgs(py::module_& m) {
  py::class_<RowLbfgsLoop>(m, "RowLbfgs", "L-BFGS in the space of rows, w = X'a, on a problem of CSR with l2 > 0, from a point x.")
      .def(py::init<const Problem&, const RowProducts&, const py::object&, const py::object&, const py::object&, const py::object&, double,
                    double, double, double, double, int>(),
           py::arg("problem"), py::arg("products"), py::arg("x"), py::arg("Kx"), py::arg("z"), py::arg("r"), py::arg("f"), py::arg("square"),
           py::arg("l2"), py::arg("scale"), py::arg("curvature"), py::arg("pairs"), py::keep_alive<1, 2>(), py::keep_alive<1, 3>(),
           "x has a number for each row of X, and with scale > 0 (of the intercept) one more; for classes, rows of k. Kx is its product, z and r "
           "the margins and residuals there, f the objective and square = <a, K a>. All are copied. curvature bounds that of the loss.")
      .def("run", &RowLbfgsLoop::run, py::arg("steps") = 1, py::arg("tol") = 0.0, py::arg("null_value") = 0.0, py::arg("floor") = 0.0,
           "At most so many gradients, the first of them at x; fewer where a step leads no lower or changes f by rounding alone, at a bound of "
           "at most max(tol (null_value - f), floor), and after 20 ms. Returns ([(f, bound, seconds, resolved)], products made).")
      .def_property_readonly("x", &RowLbfgsLoop::x, "A copy of the point of the last gradient.")
      .def_property_readonly("before", &RowLbfgsLoop::before, "A copy of the point before it.")
      .def_property_readonly("margins", &RowLbfgsLoop::margins, "Its margins, which the next run overwrites, as all below.")
      .def_property_readonly("residuals", &RowLbfgsLoop::residuals)
      .def_property_readonly("gradient", &RowLbfgsLoop::gradient)
      .def_property_readonly("steps", &RowLbfgsLoop::steps)
      .def_property_readonly("plain", &RowLbfgsLoop::plain, "The steps and gradients kept, None where there is none yet.")
      .def_property_readonly("lifted", &RowLbfgsLoop::lifted, "Their products.")
      .def_property_readonly("inner", &RowLbfgsLoop::inner, "The inner products of them all.")
      .def_property_readonly("lengths", &RowLbfgsLoop::lengths, "The lengths of the steps along the directions kept.");
}

}  // namespace nag
