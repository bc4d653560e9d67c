// What this build is: instruction sets, threads, registered losses.
#include <string>

#include "bindings/bindings.h"
#include "dispatch/dispatch.h"
#include "engine/threads.h"

namespace py = pybind11;

namespace nag {

void bind_info(py::module_& m) {
  m.def("isa_names", [] {
    py::list names;
    for (const KernelTable* t : usable_tables()) names.append(t->name);
    return py::tuple(names);
  }, "Instruction sets that this build and this processor can run, best first.");
  m.def("active_isa", [] { return active_table().name; }, "The instruction set in force; NAGCORE_ISA overrides it at import.");
  m.def("rounded_products", [] { return active_tiles() == nullptr ? nullptr : active_tiles()->name; },
        "What multiplies rows rounded to bfloat16, for Gram matrices that need two digits alone: amx, bf16 or None.");
  m.def("openmp_enabled", &openmp_enabled, "Whether this build has threads.");
  m.def("default_threads", &default_threads,
        "Threads used when n_threads is None: the least of the affinity mask, the cgroup quota, OMP_NUM_THREADS and threadpoolctl's limits.");
  m.def("loss_names", [] {
    py::list names;
    for (const LossInfo& l : kLosses) names.append(l.name);
    return py::tuple(names);
  }, "The registered losses, in order.");
  m.def("loss_info", [](const std::string& name) {
    for (const LossInfo& l : kLosses)
      if (name == l.name) {
        py::dict d;
        d["name"] = l.name;
        d["section"] = l.section;
        d["targets"] = kDomainName[static_cast<int>(l.targets)];
        d["curvature_bound"] = l.curvature_bound;
        return d;
      }
    throw py::value_error("no loss is called '" + name + "'");
  }, py::arg("name"), "A registered loss: its name, its section of docs/maths.md, the targets it takes and the bound on its curvature.");
}

}  // namespace nag
