// What a kernel is asked to do: plain numbers and pointers, the same for every instruction set.
#pragma once

#include <cstdint>

namespace steelyard {

enum class Dtype : int { f32, f64, f16, bf16, i64, i32, i16, i8, u8, boolean };

constexpr int kMaxDims = 8;

// The order in which elements (or rows) are visited: a box of sizes, the last dimension fastest.
struct Box {
  int ndim = 0;
  int64_t size[kMaxDims] = {};
  int64_t total = 1;
};

// A tensor laid over a box: where each element is, in elements from `data`. A stride of 0 repeats.
struct View {
  void* data = nullptr;
  Dtype dtype = Dtype::f32;
  int64_t stride[kMaxDims] = {};

  explicit operator bool() const { return data != nullptr; }
};

enum class Pass {
  forward,   // loss of each row, and what a backward pass needs
  backward,  // gradient, from what the forward pass kept
  fused,     // both while the row is in the cache
};

// Rows of classes. Values of classes (weight, offset, margin) are contiguous and in the accumulation dtype.
struct SoftmaxTask {
  Pass pass = Pass::forward;
  Box rows;
  int64_t classes = 0;
  View input;
  int64_t input_class = 1;  // stride along the classes
  View target;              // labels of any integer width, or a distribution
  bool soft = false;
  int64_t target_class = 0;
  const void* weight = nullptr;
  const void* offset = nullptr;
  const void* margin = nullptr;
  View row_weight;
  double gamma = 0, smoothing = 0;
  bool by_target = false;
  int64_t ignore_index = -100;
  double weight_sum = 0;  // Σ of the class weights, or the number of classes
  double upstream = 1;    // times `upstream_rows` where there are any
  View upstream_rows;
  View loss, maximum, total;  // any may be absent; maximum and total are read by a backward pass
  View grad;
  int64_t grad_class = 1;
  bool streaming = false;    // whether the gradient goes past the caches
  double* partial = nullptr;  // one sum of losses for each chunk, where it is asked for
};

// Elements on their own.
struct SigmoidTask {
  Pass pass = Pass::forward;
  Box elements;
  View input, target;
  View weight, pos_weight;
  double neg_weight = 1, gamma_pos = 0, gamma_neg = 0, clip = 0;
  bool ignores = false;
  int64_t ignore_index = 0;
  double upstream = 1;
  View upstream_elements;
  View loss, grad;
  bool streaming = false;
  double* partial = nullptr;
};

// Labels, checked and weighed: Σ of v·table[y] over the rows kept.
struct LabelTask {
  Box rows;
  int64_t classes = 0;
  View target;
  int64_t ignore_index = -100;
  const void* table = nullptr;  // in the accumulation dtype
  bool doubles = false;         // which that is
  View row_weight;
  double* partial = nullptr;
  bool bad = false;  // whether a label is neither a class nor ignore_index
};

// One instruction set's kernels. Each works on one chunk of its task; chunks are independent and their borders depend
// on the sizes alone, so that results do not depend on who works on which.
struct Kernels {
  const char* name;
  int64_t (*softmax_chunk_rows)(const SoftmaxTask&, Dtype);
  int64_t (*softmax_scratch)(const SoftmaxTask&, Dtype);
  void (*softmax)(const SoftmaxTask&, Dtype, int64_t begin, int64_t end, int64_t chunk, void* scratch);
  int64_t (*sigmoid_chunk)(const SigmoidTask&);
  int64_t (*sigmoid_scratch)(const SigmoidTask&);
  void (*sigmoid)(const SigmoidTask&, Dtype, int64_t begin, int64_t end, int64_t chunk, void* scratch);
  void (*labels)(LabelTask&, int64_t begin, int64_t end, int64_t chunk);
};

}  // namespace steelyard
