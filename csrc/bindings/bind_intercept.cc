// best_intercept: the search on a Problem's margins, or on whatever can shift its own; certify, which begins with it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "bindings/bindings.h"
#include "bindings/problem.h"
#include "engine/aligned.h"
#include "engine/certificate.h"
#include "engine/intercept.h"

namespace py = pybind11;

namespace nag {

class InterceptCall {
 public:
  InterceptCall(const py::object& problem, const py::object& z, double curvature, bool at_zero, const py::object& moved,
                const py::object& residuals, const std::string& loss)
      : flat_(true) {
    if (!(curvature > 0)) bad_value("curvature is " + std::to_string(curvature) + "; a positive number is needed, or infinity.");
    q_.curvature = curvature;
    if (py::isinstance<Problem>(problem)) take(problem.cast<Problem&>(), z, moved, residuals);
    else take(problem, z, moved, residuals);
    if (at_zero)
      q_.link = [loss = loss_numbered(py::isinstance<Problem>(problem) ? problem.cast<const Problem&>().loss() : loss), k = q_.k](
                    const double* h, double* b) { link_of(loss, k, h, b); };
  }

  py::tuple run() {
    Intercept found;
    if (compiled_) {
      const py::gil_scoped_release release;
      found = best_intercept(q_);
    } else {
      found = best_intercept(q_);
    }
    const double size = *std::max_element(found.at.size.begin(), found.at.size.end());
    if (flat_) return py::make_tuple(found.b[0], found.at.value, found.moved, found.given_value, found.at.mean[0], size);
    return py::make_tuple(array(found.b), found.at.value, found.moved, found.given_value, array(found.at.mean), size);
  }

 private:
  static int loss_numbered(const std::string& name) {
    for (int i = 0; i < kLossCount; ++i)
      if (name == kLosses[i].name) return i;
    bad_value("loss is '" + name + "', which the registry does not hold.");
  }
  static py::array_t<double> array(const std::vector<double>& x) {
    return py::array_t<double>(static_cast<py::ssize_t>(x.size()), x.data());
  }

  void take(Problem& problem, const py::object& z, const py::object& moved, const py::object& residuals) {
    const ProblemView& view = problem.view_;
    compiled_ = true;
    flat_ = problem.flat();
    z_ = problem.row_vectors(z, "z", false);
    void *const to = problem.optional_output(moved, "moved"), *const r = problem.optional_output(residuals, "residuals");
    if (to == nullptr || r == nullptr) bad_type("moved or residuals is None; two arrays like z are needed.");
    problem.check_apart({{"z", z}, {"moved", moved}, {"residuals", residuals}});
    q_ = intercept_source(view, z_.data(), to, r, q_.curvature, problem.n_threads());
  }

  // An object with `shifted_loss`, as Problem has it, and `bend(z, moved)`: the mean curvature at z, or NaN.
  void take(const py::object& problem, const py::object& z, const py::object& moved, const py::object& residuals) {
    const py::array typed(z);
    flat_ = typed.ndim() == 1;
    const bool wide = dtype_name(typed) == "float64";
    q_.table = &table_named(std::nullopt);
    q_.k = flat_ ? 1 : typed.shape(1);
    q_.eps = wide ? std::numeric_limits<double>::epsilon() : static_cast<double>(std::numeric_limits<float>::epsilon());
    q_.at = [this, problem, z, moved, residuals](const double* b) {
      py::object shift = py::none();
      if (b && flat_) shift = py::float_(*b);
      else if (b) shift = array({b, b + q_.k});
      const py::tuple found = problem.attr("shifted_loss")(z, shift, b ? moved : py::none(), residuals);
      ShiftedLoss out;
      out.value = found[0].cast<double>();
      const py::array_t<double, py::array::c_style | py::array::forcecast> mean(found[1]);
      out.mean.assign(mean.data(), mean.data() + mean.size());
      out.size = {found[2].cast<double>()};
      return out;
    };
    if (flat_) q_.bend = [problem, z, moved] { return problem.attr("bend")(z, moved).cast<double>(); };
    else
      q_.probabilities = [this, problem, residuals](double* mean, double* square) {
        const py::object given = problem.attr("s");
        const py::array_t<double, py::array::c_style | py::array::forcecast> r(residuals);
        const std::int64_t n = r.shape(0);
        if (given.is_none()) return class_moments(r.data(), n, q_.k, static_cast<const double*>(nullptr), static_cast<double>(n), 1, mean, square);
        const py::array_t<double, py::array::c_style | py::array::forcecast> s(given);
        return class_moments(r.data(), n, q_.k, s.data(), 1.0, 1, mean, square);
      };
  }

  InterceptSource q_;
  py::array z_;
  bool flat_, compiled_ = false;
};

struct CertifyCall {
  static py::tuple run(const Problem& problem, const py::object& w, double l1, double l2, double curvature, const py::object& z, const py::object& r,
                       const py::object& u, const py::object& spare) {
    const ProblemView& view = problem.view_;
    if (view.compute != Compute::f64) bad_value("the problem computes in float32; a proof needs float64. Use Problem(..., compute='float64').");
    if (!(l1 >= 0) || !(l2 >= 0) || !std::isfinite(l1 + l2)) bad_value("l1 and l2 are " + std::to_string(l1) + " and " + std::to_string(l2) + "; finite numbers >= 0 are needed.");
    if (!(curvature > 0)) bad_value("curvature is " + std::to_string(curvature) + "; a positive number is needed, or infinity.");
    if (!u.is_none() && z.is_none()) bad_value("u is given without z; give both, or neither.");
    const py::array_t<double> at = problem.check_w(w);
    py::array margins, residuals, slope;
    const auto rows = [&](const py::object& x, const char* name, py::array& keep) -> const double* {
      if (x.is_none()) return nullptr;
      keep = problem.row_vectors(x, name, false);
      return static_cast<const double*>(keep.data());
    };
    CertificateRequest q;
    q.w = at.data();
    q.l1 = l1;
    q.l2 = l2;
    q.curvature = curvature;
    q.z = rows(z, "z", margins);
    q.r = rows(r, "r", residuals);
    if (!u.is_none()) {
      slope = problem.check_w(u);
      q.u = static_cast<const double*>(slope.data());
    }
    q.moved = static_cast<double*>(problem.optional_output(spare, "spare"));
    problem.check_apart({{"w", w}, {"z", z}, {"r", r}, {"u", u}, {"spare", spare}});
    const std::size_t size = static_cast<std::size_t>(view.n * view.k);
    Aligned<double> moved, own;
    if (q.moved == nullptr && (view.fit_intercept || q.u == nullptr)) q.moved = (moved = Aligned<double>(size, Unset{})).data();
    if (view.fit_intercept || (q.r == nullptr && (q.u == nullptr || l1 > 0))) q.residuals = (own = Aligned<double>(size, Unset{})).data();
    q.n_threads = problem.n_threads();
    Certificate found;
    problem.without_gil([&](const std::function<bool()>& interrupted) {
      q.interrupted = interrupted;
      found = certify(view, q);
    });
    if (!std::isfinite(found.value) || std::isnan(found.gap)) problem.explain_non_finite();
    const auto array = [&](const std::vector<double>& x, std::int64_t count) {
      std::vector<py::ssize_t> shape{count};
      if (!problem.flat()) shape.push_back(view.k);
      return py::array_t<double>(shape, x.data());
    };
    const py::object dual = found.slope.empty() ? py::object(py::none()) : py::object(array(found.slope, view.d));
    return py::make_tuple(array(found.w, view.w_rows()), found.value, found.gap, found.given_value, dual);
  }
};

void bind_intercept(py::module_& m) {
  m.def("certify", &CertifyCall::run, py::arg("problem"), py::arg("w"), py::arg("l1"), py::arg("l2"), py::arg("curvature"), py::arg("z") = py::none(),
        py::arg("r") = py::none(), py::arg("u") = py::none(), py::arg("spare") = py::none(),
        "What one dual point proves about w, in float64: (w with the best intercept, F there, that less a lower bound of min F, F at w, X'(s theta)/S of "
        "the dual point theta or None). z are w's margins, r their residuals and u the data gradient, where they are known; spare is written.");
  m.def("best_intercept",
        [](const py::object& problem, const py::object& z, double curvature, const py::object& moved, const py::object& residuals, bool at_zero,
           const std::string& loss) { return InterceptCall(problem, z, curvature, at_zero, moved, residuals, loss).run(); },
        py::arg("problem"), py::arg("z"), py::arg("curvature"), py::arg("moved"), py::arg("residuals"), py::arg("at_zero") = false,
        py::arg("loss") = "",
        "The shift b of all margins that minimises the data term, one number or one a class: (b, data term there, whether b was applied, data "
        "term at z, mean residual there, mean size of residuals, the largest over classes). No pass. problem is a Problem, or an object with "
        "shifted_loss, bend(z, moved) and s. The shifted margins go to moved, if they are shifted, and the residuals to residuals. at_zero says "
        "that margins are zero, so that the search can begin where the loss's link points; `loss` names it where problem is no Problem.");
}

}  // namespace nag
