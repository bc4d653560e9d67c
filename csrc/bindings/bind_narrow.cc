// A narrower copy of a float64 matrix, which the solvers' early passes read (nagcore/objective/storage.py).
#include <pybind11/numpy.h>

#include "bindings/array_checks.h"
#include "bindings/bindings.h"
#include "engine/narrow.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace nag {
namespace {

NarrowNumber number_of(const py::array& out) {
  if (py::isinstance<py::array_t<float>>(out)) return NarrowNumber::f32;
  if (py::isinstance<py::array_t<std::uint16_t>>(out)) return NarrowNumber::bf16;
  if (py::isinstance<py::array_t<std::uint8_t>>(out)) return NarrowNumber::u8;
  bad_type("out has dtype " + dtype_name(out) + "; nagcore writes float32, uint16 (bfloat16) or uint8. "
           "Use np.empty(X.shape, np.float32).");
}

}  // namespace

void bind_narrow(py::module_& m) {
  m.def("narrow_copy", [](const py::array& x, py::array out, const py::object& origin, const py::object& step, bool by_line,
                          int n_threads) {
    const auto size = static_cast<std::int64_t>(sizeof(double));
    if (!py::isinstance<py::array_t<double>>(x) || x.ndim() != 2) bad_type("X is no matrix of float64.");
    if (x.shape(1) > 1 && x.strides(1) != size) bad_value("X's rows are not contiguous. Use np.ascontiguousarray(X).");
    if (x.strides(0) % size != 0) bad_value("X's rows do not lie whole numbers apart. Use np.ascontiguousarray(X).");
    if (out.ndim() != 2 || out.shape(0) != x.shape(0) || out.shape(1) != x.shape(1) || !out.writeable() ||
        !(out.flags() & py::array::c_style))
      bad_value("out has shape " + shape_text(out) + "; nagcore writes a C-contiguous array of X's shape, " +
                shape_text(x) + ".");
    if (overlap(x, out)) bad_value("out overlaps X. Use np.empty(X.shape, out.dtype).");
    if (origin.is_none() != step.is_none()) bad_value("origin and step are given together, or neither is.");
    const NarrowNumber number = number_of(out);
    NarrowView view{static_cast<const double*>(x.data()), x.shape(0), x.shape(1), x.strides(0) / size, nullptr, nullptr,
                    by_line};
    py::array_t<double> origins, steps;
    if (!origin.is_none()) {
      const std::int64_t wanted = by_line ? view.lines : view.length;
      origins = numbers<double>(origin, "origin", 1, wanted, 1);
      steps = numbers<double>(step, "step", 1, wanted, 1);
      view.origin = origins.data();
      view.step = steps.data();
    }
    void* to = out.mutable_data();
    const py::gil_scoped_release release;
    return narrow_copy(view, number, to, resolve_threads(n_threads));
  }, py::arg("x"), py::arg("out"), py::arg("origin") = py::none(), py::arg("step") = py::none(), py::arg("by_line") = false,
  py::arg("n_threads") = 0,
  "Write (x - origin)/step of a float64 matrix to out (float32, bfloat16 as uint16, or uint8), one origin and step for each\n"
  "column, or each row if by_line; return whether out holds X: floats up to 1e18, or uint8 that give x back to a few ulps.");
}

}  // namespace nag
