// PyTorch's tensors, read through their Python attributes: no PyTorch header is needed to build, and any PyTorch fits.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "task.h"

namespace steelyard {

constexpr int kMostDims = 16;  // before neighbouring dimensions are merged

struct TensorView {
  void* data = nullptr;
  Dtype dtype = Dtype::f32;
  int ndim = 0;
  int64_t size[kMostDims], stride[kMostDims];

  explicit operator bool() const { return present; }
  bool present = false;
  int64_t numel() const;
  bool is_floating() const { return dtype <= Dtype::bf16; }
};

// Thrown for anything that the kernels leave to the reference: the caller goes the long way, where errors are made.
struct NotOurs {};

// The types and dtypes to know tensors by; PyTorch's, handed over once when the module is loaded.
void know(nanobind::tuple tensor_types, nanobind::tuple dtypes);

// None gives an absent view. A tensor of another type, device, layout or dtype throws NotOurs.
TensorView read_tensor(nanobind::handle tensor);
// The same for a tensor that steelyard has made itself: plain, whatever it is.
TensorView read_own_tensor(nanobind::handle tensor);

// Where such a tensor lies.
void* read_address(nanobind::handle tensor);

// A box that visits all of `sizes`, with `views` laid over it: sorted so that the first view runs through memory,
// neighbouring dimensions merged wherever all views allow it.
struct Laid {
  const TensorView* tensor;
  View* view;
};
Box lay_out(int ndim, const int64_t* sizes, std::initializer_list<Laid> views);

}  // namespace steelyard
