// Lbfgs: L-BFGS in the metric of a preconditioner, on a Problem.
#include <algorithm>
#include <cmath>

#include "bindings/bindings.h"
#include "bindings/smooth_passes.h"
#include "engine/lbfgs.h"

namespace py = pybind11;

namespace nag {

class LbfgsLoop {
 public:
  LbfgsLoop(const Problem& problem, const py::object& v, const py::object& margins, const py::object& other, const py::object& L,
            const py::object& scale, const py::object& mean, double scale_b, const py::object& rms, double l2,
            const py::object& origin, const py::object& linear) {
    if (!(l2 >= 0) || !std::isfinite(l2)) bad_value("l2 is " + std::to_string(l2) + "; a finite number >= 0 is needed.");
    if (problem.k() != 1) bad_value("problem has " + std::to_string(problem.k()) + " margins a row; one is needed.");
    SmoothProblem q;
    passes_.give(problem, q);
    q.l2 = l2;
    d_ = q.d, p_ = q.p();
    q.origin = taken(origin, origin_, "origin", d_);
    q.linear = taken(linear, linear_, "linear", p_);
    LbfgsMetric metric;
    metric.scale = vector(scale, "scale", d_);
    metric.rms = vector(rms, "rms", d_);
    metric.scale_b = scale_b;
    if (q.fit_intercept) metric.mean = vector(mean, "mean", d_);
    if (!L.is_none()) {
      const py::array_t<double> a = numbers<double>(L, "L", 2, d_, d_, false);
      metric.L.assign(a.data(), a.data() + a.size());
      for (std::int64_t i = 0; i < d_; ++i)
        if (metric.L[static_cast<std::size_t>(i * d_ + i)] == 0) bad_value("L has a zero on its diagonal; a factor with an inverse is needed.");
    }
    void* z[2];
    const py::object given[2] = {margins, other};
    for (int i = 0; i < 2; ++i) {
      const char* const name = i == 0 ? "margins" : "other";
      z[i] = q.compute == Compute::f64 ? static_cast<void*>(output<double>(given[i], name, q.n, 1, true))
                                       : static_cast<void*>(output<float>(given[i], name, q.n, 1, true));
    }
    if (overlap(margins, other)) bad_value("margins and other overlap in memory; give each an array of its own.");
    loop_ = std::make_unique<Lbfgs>(q, std::move(metric), vector(v, "v", p_), z[0], z[1]);
  }

  void know(double data_value, const py::object& w, const py::object& u) { loop_->know(data_value, vector(w, "w", p_), vector(u, "u", p_)); }
  void propose(const py::object& step) { loop_->propose(vector(step, "step", p_)); }
  void remember(const py::object& s, const py::object& y) { loop_->remember(vector(s, "s", p_), vector(y, "y", p_)); }

  py::list pairs() const {
    py::list out;
    for (const auto& [s, y] : loop_->pairs()) out.append(py::make_tuple(copied(s), copied(y)));
    return out;
  }

  py::tuple run(std::int64_t steps, double tol, double null_value, double floor) {
    if (steps < 1) bad_value("steps is " + std::to_string(steps) + "; a whole number >= 1 is needed.");
    LbfgsTrace trace;
    passes_.guard([&] { trace = loop_->run({steps, tol, null_value, floor}); });
    py::list records;
    for (const LbfgsRecord& r : trace.records)
      records.append(py::make_tuple(r.data_value, r.f, r.bound, r.seconds, r.passed, r.moved, r.resolved));
    const auto matrix = [&](const std::vector<double>& from) {
      return copied(from).attr("reshape")(trace.records.size(), p_);
    };
    return py::make_tuple(records, matrix(trace.v), matrix(trace.g), matrix(trace.w), matrix(trace.u));
  }

  int current() const { return loop_->current(); }

 private:
  static std::vector<double> vector(const py::object& x, const char* name, std::int64_t count) {
    const py::array_t<double> a = numbers<double>(x, name, 1, count, 1, false);
    return {a.data(), a.data() + a.size()};
  }
  static const double* taken(const py::object& x, py::array_t<double>& keep, const char* name, std::int64_t count) {
    if (x.is_none()) return nullptr;
    keep = numbers<double>(x, name, 1, count, 1);
    return keep.data();
  }
  static py::array_t<double> copied(const std::vector<double>& from) {
    return py::array_t<double>(static_cast<py::ssize_t>(from.size()), from.data());
  }

  py::array_t<double> origin_, linear_;
  SmoothPasses passes_;
  std::int64_t d_ = 0, p_ = 0;
  std::unique_ptr<Lbfgs> loop_;
};

void bind_lbfgs(py::module_& m) {
  py::class_<LbfgsLoop>(m, "Lbfgs",
                        "L-BFGS on a problem with l2, from v, in the metric in which w = scale * (L^-T v) and b = scale_b v_b - mean'w: a "
                        "pass a step, line search on margins.")
      .def(py::init<const Problem&, const py::object&, const py::object&, const py::object&, const py::object&, const py::object&,
                    const py::object&, double, const py::object&, double, const py::object&, const py::object&>(),
           py::arg("problem"), py::arg("v"), py::arg("margins"), py::arg("other"), py::arg("L"), py::arg("scale"), py::arg("mean"),
           py::arg("scale_b"), py::arg("rms"), py::arg("l2") = 0.0, py::arg("origin") = py::none(), py::arg("linear") = py::none(),
           py::keep_alive<1, 2>(), py::keep_alive<1, 4>(), py::keep_alive<1, 5>(),
           "The problem has one margin a row. margins and other are written: arrays for the margins of two points. L is lower triangular, "
           "None for the identity; mean is not read without an intercept; rms are the columns' sizes; origin is the point about which X "
           "is stored. f has linear'w, if that is given, as a term of its own.")
      .def("know", &LbfgsLoop::know, py::arg("data_value"), py::arg("w"), py::arg("u"),
           "What a pass at the start gave, whose margins `margins` holds: the run then starts without one.")
      .def("propose", &LbfgsLoop::propose, py::arg("step"), "A step in v to try first, if f falls along it.")
      .def("remember", &LbfgsLoop::remember, py::arg("s"), py::arg("y"), "A pair of earlier steps, the newest last.")
      .def_property_readonly("pairs", &LbfgsLoop::pairs, "The pairs (s, y) in v, oldest first.")
      .def("run", &LbfgsLoop::run, py::arg("steps") = 1, py::arg("tol") = 0.0, py::arg("null_value") = 0.0, py::arg("floor") = 0.0,
           "At most `steps` points; fewer where a step is cut short or changes f by rounding alone, where the gap is about "
           "max(tol (null_value - f), floor), and after 20 ms. Returns ([(data value, f, bound, seconds, passed, moved, resolved)], v, "
           "gradient in v, w, gradient of the data term), a row for each.")
      .def_property_readonly("current", &LbfgsLoop::current, "Which margins are those of the last step taken: 0 or 1.");
}

}  // namespace nag
