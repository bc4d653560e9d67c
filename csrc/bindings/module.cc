// nagcore._core: the table of contents. Each subject binds itself in its own file.
#include "bindings/bindings.h"
#include "dispatch/dispatch.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "The compiled core of nagcore: passes over the data and the fused Nesterov update.";
  try {
    nag::active_table();
  } catch (const std::exception& e) {
    throw py::import_error(e.what());
  }
  nag::bind_coordinates(m);
  nag::bind_draw(m);
  nag::bind_info(m);
  nag::bind_labels(m);
  nag::bind_linalg(m);
  nag::bind_problem(m);
  nag::bind_intercept(m);
  nag::bind_newton(m);
  nag::bind_lbfgs(m);
  nag::bind_row_products(m);
  nag::bind_row_lbfgs(m);
  nag::bind_narrow(m);
  nag::bind_stream(m);
  nag::bind_update(m);
  nag::bind_tensors(m);
}
