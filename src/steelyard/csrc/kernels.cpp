// The table of one instruction set's kernels. CMake compiles this file once for each, with STEELYARD_ISA its name.
#include "labels.h"
#include "sigmoid.h"
#include "softmax.h"

#define STEELYARD_STRING_(x) #x
#define STEELYARD_STRING(x) STEELYARD_STRING_(x)

namespace steelyard {
namespace STEELYARD_ISA {

static int64_t softmax_chunk_rows(const SoftmaxTask& task, Dtype dtype) {
  return dtype == Dtype::f64 ? chunk_rows<double>(task) : chunk_rows<float>(task);
}
static int64_t softmax_scratch(const SoftmaxTask& task, Dtype dtype) {
  return dtype == Dtype::f64 ? scratch_bytes<double>(task) : scratch_bytes<float>(task);
}
static void softmax(const SoftmaxTask& task, Dtype dtype, int64_t begin, int64_t end, int64_t chunk, void* scratch) {
  if (dtype == Dtype::f32) softmax_chunk<float, float>(task, begin, end, chunk, scratch);
  else if (dtype == Dtype::f64) softmax_chunk<double, double>(task, begin, end, chunk, scratch);
  else if (dtype == Dtype::bf16) softmax_chunk<bf16, float>(task, begin, end, chunk, scratch);
  else softmax_chunk<f16, float>(task, begin, end, chunk, scratch);
}
static int64_t sigmoid_chunk_elements(const SigmoidTask&) { return kElements; }
static int64_t sigmoid_scratch(const SigmoidTask&) { return sigmoid_scratch_bytes<double>(); }
static void sigmoid(const SigmoidTask& task, Dtype dtype, int64_t begin, int64_t end, int64_t chunk, void* scratch) {
  if (dtype == Dtype::f32) sigmoid_any<float, float>(task, begin, end, chunk, scratch);
  else if (dtype == Dtype::f64) sigmoid_any<double, double>(task, begin, end, chunk, scratch);
  else if (dtype == Dtype::bf16) sigmoid_any<bf16, float>(task, begin, end, chunk, scratch);
  else sigmoid_any<f16, float>(task, begin, end, chunk, scratch);
}

extern const Kernels kernels;
const Kernels kernels = {STEELYARD_STRING(STEELYARD_ISA), softmax_chunk_rows, softmax_scratch, softmax,
                         sigmoid_chunk_elements, sigmoid_scratch, sigmoid, labels};

}  // namespace STEELYARD_ISA
}  // namespace steelyard
