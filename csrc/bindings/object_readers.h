// What a step asks of Python objects for every tensor, each in the shortest way there is: entries of dicts and the attribute
// "grad". Each reader serves one gather, as what it found may change between two.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "engine/update.h"

// What dict lookups come down to in CPython. Tensors hash by address, in a function written in Python that costs more than
// all else that is done with one of them here.
extern "C" PyObject* _PyDict_GetItem_KnownHash(PyObject* dict, PyObject* key, Py_hash_t hash)
#if defined(__GNUC__)
    __attribute__((weak))
#endif
    ;

namespace nag {

struct Words {
  PyObject* params = PyUnicode_InternFromString("params");
  PyObject* grad = PyUnicode_InternFromString("grad");
  PyObject* is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* is_conj = PyUnicode_InternFromString("is_conj");
  PyObject* roles[kUpdateRoles] = {nullptr, nullptr, PyUnicode_InternFromString("momentum_buffer"),
                                   PyUnicode_InternFromString("ema"), PyUnicode_InternFromString("master")};
};

inline const Words& words() {
  static const Words all;
  return all;
}

// The entry under an interned word: first in its dict, as a rule, and then found without a look-up.
inline PyObject* entry_of(PyObject* dict, PyObject* word) {
  PyObject *key = nullptr, *value = nullptr;
  Py_ssize_t place = 0;
  if (PyDict_Next(dict, &place, &key, &value) != 0 && key == word) return value;
  return PyDict_GetItemWithError(dict, word);
}

// Reads the attribute "grad". torch makes it a getset descriptor of the tensors' base class, and a subclass such as Parameter
// inherits it; where that is so, its C function is called without the search through the classes, which for a whole list is
// asked once and not a thousand times.
class GradReader {
 public:
  // A new reference; null with an error set.
  PyObject* operator()(PyObject* tensor) {
    if (Py_TYPE(tensor) != type_) look_at(Py_TYPE(tensor));
    if (get_ == nullptr) return PyObject_GetAttr(tensor, words().grad);
    return get_(tensor, closure_);
  }

 private:
  void look_at(PyTypeObject* type) {
    type_ = type;
    get_ = nullptr;
    if (type->tp_getattro != PyObject_GenericGetAttr) return;  // a class with its own __getattribute__
    const auto found = pybind11::reinterpret_steal<pybind11::object>(PyObject_GetAttr(reinterpret_cast<PyObject*>(type), words().grad));
    if (!found) {
      PyErr_Clear();
      return;
    }
    if (Py_TYPE(found.ptr()) != &PyGetSetDescr_Type) return;
    const auto* descriptor = reinterpret_cast<PyGetSetDescrObject*>(found.ptr());
    // With a setter it goes before an entry of the same name in the tensor's own dict.
    if (descriptor->d_getset->set == nullptr || !PyType_IsSubtype(type, PyDescr_TYPE(descriptor))) return;
    get_ = descriptor->d_getset->get;
    closure_ = descriptor->d_getset->closure;
  }

  PyTypeObject* type_ = nullptr;
  getter get_ = nullptr;
  void* closure_ = nullptr;
};

// The optimizer's state by parameter. A dict keeps its entries in the order in which they were made, which is the parameters'
// own, so the next one is as a rule the one that is asked for.
class StateReader {
 public:
  explicit StateReader(PyObject* state) : state_(state) {}

  // Borrowed; null where there is none.
  PyObject* operator()(PyObject* param) {
    PyObject *key = nullptr, *value = nullptr;
    Py_ssize_t after = place_;
    if (PyDict_Next(state_, &after, &key, &value) != 0 && key == param) {
      place_ = after;
      return value;
    }
    return look_up(param);
  }

 private:
  PyObject* look_up(PyObject* param) const {
    if (_PyDict_GetItem_KnownHash != nullptr) {
      const auto hash = static_cast<Py_hash_t>(reinterpret_cast<std::uintptr_t>(param));
      PyObject* found = _PyDict_GetItem_KnownHash(state_, param, hash);
      if (found != nullptr) return found;
      PyErr_Clear();
    }
    PyObject* found = PyDict_GetItemWithError(state_, param);
    if (found == nullptr && PyErr_Occurred() != nullptr) throw pybind11::error_already_set();
    return found;
  }

  PyObject* state_;
  Py_ssize_t place_ = 0;
};

}  // namespace nag
