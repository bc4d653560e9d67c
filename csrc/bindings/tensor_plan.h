// The tensors behind a torch optimizer: read anew at each step through the exchange table, laid out anew only where one has
// moved, changed its layout, gained or lost its gradient.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/exchange.h"
#include "bindings/update_layout.h"
#include "engine/update.h"

namespace nag {

// Which state of a parameter takes part beside its gradient.
struct TensorRoles {
  bool ema = false;
  bool master = false;  // of bfloat16 and float16 parameters
};

class StateReader;

class TensorList {
 public:
  // `describe` reads a tensor where there is no exchange table; `counter` gives a tensor that shares a parameter's version
  // counter, or the parameter.
  TensorList(pybind11::handle capsule, pybind11::object describe, pybind11::object counter);
  TensorList(const TensorList&) = delete;
  TensorList& operator=(const TensorList&) = delete;
  ~TensorList() { release(); }

  // Reads every tensor of `groups` (dicts with a list "params") and of `state`. buffered[k] says whether group k keeps a
  // momentum buffer. Returns [] or (place, reason) for each tensor that needs a look by Python; then nothing may be run.
  pybind11::list gather(pybind11::handle groups, pybind11::handle state, const std::vector<char>& buffered, TensorRoles roles);

  // Marks these places as stepping for the first time, and no other.
  void mark_first(pybind11::handle places);
  // From now on the parameter at this place is somebody else's.
  void hand_over(std::size_t place);
  void release();  // the references that gather took
  // Whether gradients that were asked for lazy marks are remembered, by weak references.
  void remember(bool wanted);

  UpdateList& list() { return list_; }
  // What autograd is to be told of after a step: a tensor for each parameter that it writes.
  const pybind11::list& counters() const { return counters_; }
  std::size_t layouts() const { return layouts_; }

 private:
  // 16 bytes each, and the hot part of a record two lines of the cache: a thousand records compete with torch's own objects.
  struct Reading {
    void* data = nullptr;
    std::uint32_t dims = 0;  // where its shape stands in dims_, and behind it the strides in elements
    std::uint16_t rank = 0;
    std::uint8_t code = 0;  // 0: not present
    std::uint8_t bits = 0;
    bool present() const { return code != 0; }
  };
  struct Record {
    pybind11::object param;
    pybind11::object asked;  // weak: the gradient that was asked for lazy marks
    std::uint32_t group = 0;
    std::int32_t listed = -1;  // its place in the update list
    bool foreign = false;
    bool active = false;
    std::uint8_t kept = 0;  // a bit for each of the state's roles that is there
    const std::int64_t* sizes = nullptr;  // where torch keeps the parameter's: another place is another tensor in the same object
    Reading readings[kUpdateRoles];
    pybind11::object state[kUpdateRoles];     // the tensors beside it, as last seen
    exchange::Handle handles[kUpdateRoles];  // theirs
    pybind11::object counter;                 // shares the parameter's version counter; unset until it is asked for
    exchange::Handle counter_handle;
  };

  bool read(PyObject* object, exchange::Tensor* out);
  bool read_described(PyObject* object, exchange::Tensor* out);
  bool take(Record& record, UpdateRole role, PyObject* object);
  bool take_anew(Record& record, UpdateRole role, const exchange::Tensor& tensor);
  bool has_dims(const Reading& reading, const exchange::Tensor& tensor) const;
  void keep_dims(Reading& reading, const exchange::Tensor& tensor);
  void tidy_dims();
  Record& record_at(std::size_t place, PyObject* param, std::size_t group);
  Record& record_anew(std::size_t place, PyObject* param, std::size_t group);
  void drop(Record& record, UpdateRole role);
  pybind11::handle counter_of(Record& record);
  const char* visit(Record& record, PyObject* grad, StateReader& state, unsigned roles);  // a bit for each
  bool holds_a_lazy_bit(PyObject* grad, std::uint8_t code);
  void lay_out_all(pybind11::list& troubles);

  const exchange::Table* torch_;
  pybind11::object describe_, counter_;
  std::vector<std::int64_t> described_;
  std::vector<Record> records_;
  std::vector<std::int64_t> dims_;  // of all readings; those that are like their parameter's share its place
  std::vector<PyObject*> held_;  // gradients, until the step is done
  std::vector<std::size_t> first_;  // what mark_first marked last
  UpdateList list_;
  pybind11::list counters_;
  std::size_t layouts_ = 0;
  bool stale_ = true;
  bool remembers_ = true;
};

}  // namespace nag
