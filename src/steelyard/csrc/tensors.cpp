#include "tensors.h"

#include <algorithm>

namespace nb = nanobind;

namespace steelyard {
namespace {

struct Known {
  std::vector<PyObject*> types, dtypes;
  PyObject *data_ptr, *dtype, *shape, *stride, *is_cpu, *is_neg;
};
Known known;

// A new reference, or NotOurs with PyTorch's own error dropped: tensors of other layouts refuse to show their memory.
nb::object got(PyObject* value) {
  if (value) return nb::steal(value);
  for (PyObject* error : {PyExc_RuntimeError, PyExc_AttributeError, PyExc_TypeError})
    if (PyErr_ExceptionMatches(error)) {
      PyErr_Clear();
      throw NotOurs{};
    }
  throw nb::python_error();
}
nb::object attribute(PyObject* tensor, PyObject* name) { return got(PyObject_GetAttr(tensor, name)); }
nb::object call(PyObject* tensor, PyObject* name) { return got(PyObject_CallMethodNoArgs(tensor, name)); }

void read_integers(const nb::object& tuple, int64_t* to) {
  const Py_ssize_t n = PyTuple_GET_SIZE(tuple.ptr());
  for (Py_ssize_t i = 0; i < n; i++) {
    to[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), i));
    if (to[i] == -1 && PyErr_Occurred()) {
      PyErr_Clear();
      throw NotOurs{};
    }
  }
}

}  // namespace

int64_t TensorView::numel() const {
  int64_t n = 1;
  for (int d = 0; d < ndim; d++) n *= size[d];
  return n;
}

void know(nb::tuple tensor_types, nb::tuple dtypes) {
  known.types.clear();
  known.dtypes.clear();
  for (nb::handle type : tensor_types) known.types.push_back(type.inc_ref().ptr());
  for (nb::handle dtype : dtypes) known.dtypes.push_back(dtype.inc_ref().ptr());
  known.data_ptr = PyUnicode_InternFromString("data_ptr");
  known.dtype = PyUnicode_InternFromString("dtype");
  known.shape = PyUnicode_InternFromString("shape");
  known.stride = PyUnicode_InternFromString("stride");
  known.is_cpu = PyUnicode_InternFromString("is_cpu");
  known.is_neg = PyUnicode_InternFromString("is_neg");
}

TensorView read_tensor(nb::handle tensor) {
  PyObject* object = tensor.ptr();
  if (object == Py_None) return {};
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  if (std::find(known.types.begin(), known.types.end(), type) == known.types.end()) throw NotOurs{};
  if (attribute(object, known.is_cpu).ptr() != Py_True) throw NotOurs{};
  const TensorView view = read_own_tensor(tensor);
  // A tensor whose sign is to be flipped when it is read, such as the imaginary part of a conjugate.
  if (view.is_floating() && call(object, known.is_neg).ptr() != Py_False) throw NotOurs{};
  return view;
}

TensorView read_own_tensor(nb::handle tensor) {
  TensorView view;
  PyObject* object = tensor.ptr();
  if (object == Py_None) return view;
  const nb::object dtype = attribute(object, known.dtype);
  const auto found = std::find(known.dtypes.begin(), known.dtypes.end(), dtype.ptr());
  if (found == known.dtypes.end()) throw NotOurs{};
  view.dtype = static_cast<Dtype>(found - known.dtypes.begin());
  const nb::object shape = attribute(object, known.shape), stride = call(object, known.stride);
  if (!PyTuple_Check(shape.ptr()) || !PyTuple_Check(stride.ptr())) throw NotOurs{};
  if (PyTuple_GET_SIZE(shape.ptr()) > kMostDims) throw NotOurs{};
  view.ndim = static_cast<int>(PyTuple_GET_SIZE(shape.ptr()));
  read_integers(shape, view.size);
  read_integers(stride, view.stride);
  const nb::object address = call(object, known.data_ptr);
  view.data = PyLong_AsVoidPtr(address.ptr());
  if (!view.data && view.numel() != 0) throw NotOurs{};  // zeros that were never stored
  view.present = true;
  return view;
}

void* read_address(nb::handle tensor) {
  return PyLong_AsVoidPtr(call(tensor.ptr(), known.data_ptr).ptr());
}

Box lay_out(int ndim, const int64_t* sizes, std::initializer_list<Laid> views) {
  const TensorView& first = *views.begin()->tensor;
  int order[kMostDims], kept = 0;
  Box box;
  for (int d = 0; d < ndim; d++) {
    box.total *= sizes[d];
    if (sizes[d] != 1) order[kept++] = d;
  }
  std::stable_sort(order, order + kept, [&](int a, int b) { return first.stride[a] > first.stride[b]; });
  for (const Laid& laid : views)
    if (*laid.tensor) laid.view->data = laid.tensor->data, laid.view->dtype = laid.tensor->dtype;
  for (int k = 0; k < kept; k++) {
    const int d = order[k], last = box.ndim - 1;
    bool merges = box.ndim > 0;
    for (const Laid& laid : views)
      if (*laid.tensor && merges) merges = laid.view->stride[last] == laid.tensor->stride[d] * sizes[d];
    if (!merges && box.ndim == kMaxDims) throw NotOurs{};
    const int to = merges ? last : box.ndim++;
    box.size[to] = merges ? box.size[to] * sizes[d] : sizes[d];
    for (const Laid& laid : views)
      if (*laid.tensor) laid.view->stride[to] = laid.tensor->stride[d];
  }
  if (box.ndim == 0) {
    box.ndim = 1;
    box.size[0] = 1;
    for (const Laid& laid : views) laid.view->stride[0] = 1;
  }
  return box;
}

}  // namespace steelyard
