// The arrays of an update, checked: what Python hands over becomes an UpdateList or one clear error, before any write.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "engine/update.h"

namespace nag {

struct UpdateArrays {
  UpdateList list;
  pybind11::object owners[kUpdateRoles];  // the arrays, alive for as long as list points into them
  bool buffered = false;                  // buffers were given
  bool averaged = false;                  // ema was given
};

UpdateArrays read_update_arrays(pybind11::handle params, pybind11::handle grads, pybind11::handle buffers,
                                pybind11::handle ema, pybind11::handle master, pybind11::handle dtype);

}  // namespace nag
