// RowProducts: products X X'v and X'v of a CSR problem, bound in bind_row_products.cc.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "bindings/problem.h"
#include "engine/columns.h"
#include "engine/csr_products.h"

namespace nag {

class RowProducts {
 public:
  RowProducts(const Problem& problem, const std::optional<bool>& copy);

  pybind11::object product(const pybind11::object& v) const { return any(v, What::product); }
  pybind11::object transposed(const pybind11::object& v) const { return any(v, What::transposed); }
  pybind11::object square(const pybind11::object& v) const { return any(v, What::square); }
  pybind11::tuple both(const pybind11::object& v) const;
  bool by_rows() const { return rows_ != nullptr; }
  // X X'v without Python: v and out are n x k. False where `interrupted` ended it.
  template <class T>
  bool multiply(const T* v, std::int64_t k, T* out, const std::function<bool()>& interrupted) const;

  std::int64_t nbytes() const;
  const Problem& problem() const { return *problem_; }

 private:
  enum class What { product, transposed, square };
  pybind11::object any(const pybind11::object& v, What what) const;
  template <class T>
  pybind11::object typed(const pybind11::array& a, What what) const;
  const Columns& columns() const;  // made when it is first needed, without the GIL

  const Problem* problem_;
  const ProblemView& view_;
  std::unique_ptr<CsrProducts> rows_;
  mutable std::once_flag once_;
  mutable std::unique_ptr<Columns> columns_;
};

}  // namespace nag
