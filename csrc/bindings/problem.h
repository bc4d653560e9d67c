// Problem: a data set and a loss, checked once. Its passes are bound in bind_problem.cc and bind_second_order.cc.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/array_checks.h"
#include "engine/gram.h"
#include "engine/problem.h"
#include "engine/threads.h"

namespace nag {

// The table that `isa` names, or the one in force.
const KernelTable& table_named(const std::optional<std::string>& isa);
// n_threads as Python gives it: None (0) or an integer from 1 on.
int thread_count(const pybind11::object& n_threads);

class Problem {
 public:
  using object = pybind11::object;

  Problem(const object& X, const object& y, const std::string& loss, const object& sample_weight, const object& offset,
          double delta, double scale, double shift, bool fit_intercept, const std::optional<std::string>& compute,
          const object& n_threads, const std::optional<std::string>& isa, const std::optional<std::string>& dtype,
          const object& n_classes, const Problem* like);

  pybind11::tuple value_and_grad(const object& w, const object& grad, const object& margins, const object& residuals);
  object margins(const object& w, const object& out);
  double loss_from_margins(const object& z, const object& residuals);
  double slope_along(const object& z, const object& z_end, double t);
  double residual_size(const object& z);
  pybind11::tuple shifted_loss(const object& z, const object& b, const object& moved, const object& residuals);
  object rmatvec(const object& v, const object& out);

  object gram(const object& weights, const object& rows, const object& out, const object& factors, bool rounded);
  pybind11::tuple moments(const object& weights, const object& rows, double origin);
  object least_squares(double l2, double correct, bool narrow);
  pybind11::tuple hessian(const object& w, const object& out, const object& grad, const object& margins, const object& residuals);
  pybind11::tuple class_hessian(const object& w, const object& margins);
  object curvature_from_margins(const object& z, const object& out);
  object hessian_vector(const object& v, const object& weights);

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
  const char* layout() const;
  std::int64_t nbytes() const;
  const ProblemView& view() const { return view_; }
  // Of CSR: how far the sizes of the columns' entries are apart (engine/column_spread.h).
  double column_spread(std::int64_t entries) const;
  // Of CSR: the rows that rare columns have an entry in (engine/rare_columns.h).
  object rows_of_rare_columns(const object& rows, std::int32_t few) const;

 private:
  friend class RowProducts;
  friend class InterceptCall;
  friend struct CertifyCall;
  friend class SmoothPasses;
  friend class RowLbfgsLoop;

  std::ptrdiff_t item_size() const { return static_cast<std::ptrdiff_t>(kStorageBytes[static_cast<int>(view_.storage)]); }
  bool is_softmax() const { return kLosses[view_.loss].targets == Domain::classes; }
  bool flat() const { return !is_softmax(); }

  // Takes X from a problem of the same arrays, which has checked them. False where they are others.
  bool take_data(const object& X, const Problem& like);
  void check_scalars(double delta, double scale, double shift);
  void choose_compute(const std::optional<std::string>& compute);
  template <class T>
  void take_vectors(const object& y, const object& sample_weight, const object& offset, const object& n_classes);
  template <class T> bool take_codes(const object& y);
  template <class T> void take_targets(const object& y, const object& n_classes);
  template <class T> void take_classes(const object& y, const object& n_classes);

  pybind11::array_t<double> check_w(const object& w) const;
  object new_weights() const;
  object new_rows() const;
  object new_square() const;
  void* optional_output(const object& x, const char* name) const;
  // Rows x k of the compute type; where not `finite`, margins may have overflowed honestly.
  pybind11::array row_vectors(const object& x, const char* name, bool finite) const;
  // n numbers of the compute type, finite.
  pybind11::array row_vector(const object& x, const char* name) const;
  void needs_one_column(const char* what) const;
  // A request for what `weights` and `rows` name, which `keep` and `at` hold.
  void second_request(const object& weights, const object& rows, SecondRequest& q, pybind11::array& keep,
                      std::vector<std::int64_t>& at) const;
  SecondResult run_second(SecondRequest& q) const;
  // No output may share memory with an input or with another output.
  void check_apart(const std::vector<std::pair<const char*, object>>& arrays) const;
  bool rows_are_finite(const void* z) const;
  // `pass(interrupted)` without the GIL; a signal's exception is thrown when it has ended.
  void without_gil(const std::function<void(const std::function<bool()>&)>& pass) const;
  PassResult run(PassRequest& q) const;
  // Throws where X holds what is not finite; returns where it does not.
  void explain_non_finite() const;

  ProblemView view_;
  int threads_ = 0;
  std::shared_ptr<std::vector<std::int64_t>> indptr_;  // shared with problems like this one
  std::vector<object> keep_;
};

}  // namespace nag
