// Plain trips through memory, which bandwidth ratios are taken against.
#include <pybind11/numpy.h>

#include "bindings/array_checks.h"
#include "bindings/bindings.h"
#include "dispatch/dispatch.h"
#include "engine/stream.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace nag {

void bind_stream(py::module_& m) {
  m.def("stream_read", [](const py::array& x, int n_threads) {
    if (!(x.flags() & py::array::c_style)) bad_value("x is not C-contiguous. Use np.ascontiguousarray(x).");
    const auto* p = static_cast<const unsigned char*>(x.data());
    const std::size_t bytes = static_cast<std::size_t>(x.nbytes());
    const py::gil_scoped_release release;
    return stream_read(active_table(), p, bytes, resolve_threads(n_threads));
  }, py::arg("x"), py::arg("n_threads") = 0,
  "Read every byte of a C-contiguous array once with whole vectors; the returned number only keeps the reads alive.");
  m.def("stream_update", [](py::array_t<float> p, const py::array_t<float>& g, py::array_t<float> b, int n_threads) {
    if (p.size() != g.size() || p.size() != b.size()) bad_value("p, g and b differ in length.");
    float *pp = p.mutable_data(), *bb = b.mutable_data();
    const float* gg = g.data();
    const std::int64_t n = p.size();
    const py::gil_scoped_release release;
    stream_update(pp, gg, bb, n, resolve_threads(n_threads));
  }, py::arg("p"), py::arg("g"), py::arg("b"), py::arg("n_threads") = 0,
  "The plain five-stream loop b = 0.9*b + g; p = p - 0.1*(g + 0.9*b) over float32 arrays, in place.");
}

}  // namespace nag
