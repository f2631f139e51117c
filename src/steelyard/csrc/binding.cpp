// What Python sees: tensors in, one task for the kernels of the processor at hand, threads, errors.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "pages.h"
#include "task.h"
#include "tensors.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace steelyard {

void add_sampling(nb::module_& m);  // sampling_binding.cpp

#define STEELYARD_DECLARE(isa) \
  namespace isa {              \
  extern const Kernels kernels; \
  }
STEELYARD_DECLARE(baseline)
#if STEELYARD_X86
STEELYARD_DECLARE(avx2)
STEELYARD_DECLARE(avx512)
#endif

namespace {

// ------------------------------------------------------------------------------------------------ which instructions

std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> all{&baseline::kernels};
#if STEELYARD_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {  // none of these lacks F16C
    all.push_back(&avx2::kernels);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      all.push_back(&avx512::kernels);
  }
#endif
  return all;
}
const std::vector<const Kernels*> kernels_here = runnable();
std::atomic<const Kernels*> chosen{kernels_here.back()};

// --------------------------------------------------------------------------------------------------- work on a task

constexpr int64_t kOneThread = 32768;  // elements below which waking a second thread costs more than it saves
constexpr int64_t kQuick = 16384;      // elements below which the interpreter need not be let go

template <class Body> void on_threads(int64_t chunks, int threads, int64_t scratch_bytes, Body body) {
  struct Context {
    Body& body;
    std::unique_ptr<char, decltype(&std::free)> scratch;
    int64_t bytes;
  };
  if (threads > chunks) threads = static_cast<int>(chunks);
  if (threads < 1) threads = 1;
  Context context{body, {static_cast<char*>(std::malloc(scratch_bytes * threads + 1)), &std::free}, scratch_bytes};
  if (!context.scratch) throw std::bad_alloc();
  share_out(chunks, threads, &context, [](void* pointer, int slot, int64_t chunk) {
    Context& c = *static_cast<Context*>(pointer);
    c.body(c.scratch.get() + slot * c.bytes, chunk);
  });
}

template <class Body> void letting_go(int64_t elements, Body body) {
  if (elements < kQuick) return body();
  nb::gil_scoped_release released;
  body();
}

double in_order(const std::vector<double>& parts) {
  double sum = 0;
  for (double part : parts) sum += part;
  return sum;
}

// A gradient too large to be found in a cache again is written past it, on huge pages if its pages are still to come.
bool prepare_result(const View& grad, Dtype dtype, int64_t elements) {
  const int64_t bytes = elements * (dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2);
  advise_huge_pages(grad.data, bytes);
  return bytes >= streaming_threshold();
}

double run(SoftmaxTask& task, Dtype dtype, int threads, bool sums) {
  const Kernels* const kernels = chosen;  // the same for all of a task, whatever another thread chooses
  const int64_t elements = task.rows.total * task.classes;
  const int64_t rows = kernels->softmax_chunk_rows(task, dtype), chunks = (task.rows.total + rows - 1) / rows;
  std::vector<double> parts(sums ? chunks : 0);
  task.partial = sums ? parts.data() : nullptr;
  if (task.grad) task.streaming = prepare_result(task.grad, dtype, elements);
  letting_go(elements, [&] {
    on_threads(chunks, elements < kOneThread ? 1 : threads, kernels->softmax_scratch(task, dtype),
               [&](void* scratch, int64_t chunk) {
                 const int64_t begin = chunk * rows, end = std::min(begin + rows, task.rows.total);
                 kernels->softmax(task, dtype, begin, end, chunk, scratch);
               });
  });
  return in_order(parts);
}

double run(SigmoidTask& task, Dtype dtype, int threads, bool sums) {
  const Kernels* const kernels = chosen;
  const int64_t total = task.elements.total, step = kernels->sigmoid_chunk(task), chunks = (total + step - 1) / step;
  std::vector<double> parts(sums ? chunks : 0);
  task.partial = sums ? parts.data() : nullptr;
  if (task.grad) task.streaming = prepare_result(task.grad, dtype, total);
  letting_go(total, [&] {
    on_threads(chunks, total < kOneThread ? 1 : threads, kernels->sigmoid_scratch(task),
               [&](void* scratch, int64_t chunk) {
                 const int64_t begin = chunk * step, end = std::min(begin + step, total);
                 kernels->sigmoid(task, dtype, begin, end, chunk, scratch);
               });
  });
  return in_order(parts);
}

double run(LabelTask& task, int threads) {
  const Kernels* const kernels = chosen;
  constexpr int64_t step = 16384;
  const int64_t total = task.rows.total, chunks = (total + step - 1) / step;
  std::vector<double> parts(chunks);
  task.partial = parts.data();
  letting_go(total, [&] {
    on_threads(chunks, total < kOneThread ? 1 : threads, 0, [&](void*, int64_t chunk) {
      kernels->labels(task, chunk * step, std::min((chunk + 1) * step, total), chunk);
    });
  });
  return in_order(parts);
}

// ------------------------------------------------------------------------------------------------ Python's arguments

bool wide(Dtype dtype) { return dtype == Dtype::f64; }

// A half by its bits: rare, and of class values only.
double from_half(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const double size = exponent == 31 ? (fraction ? NAN : HUGE_VAL)
                      : exponent     ? std::ldexp(1024 + fraction, exponent - 25)
                                     : std::ldexp(fraction, -24);
  return bits & 0x8000 ? -size : size;
}
double from_brain(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, 4);
  return x;
}

double value_at(const TensorView& t, int64_t i) {
  const int64_t at = i * t.stride[0];
  switch (t.dtype) {
    case Dtype::f32: return static_cast<const float*>(t.data)[at];
    case Dtype::f64: return static_cast<const double*>(t.data)[at];
    case Dtype::f16: return from_half(static_cast<const uint16_t*>(t.data)[at]);
    case Dtype::bf16: return from_brain(static_cast<const uint16_t*>(t.data)[at]);
    case Dtype::i64: return static_cast<double>(static_cast<const int64_t*>(t.data)[at]);
    case Dtype::i32: return static_cast<const int32_t*>(t.data)[at];
    case Dtype::i16: return static_cast<const int16_t*>(t.data)[at];
    case Dtype::i8: return static_cast<const int8_t*>(t.data)[at];
    case Dtype::u8:
    case Dtype::boolean: return static_cast<const uint8_t*>(t.data)[at];
  }
  throw NotOurs{};
}

// Values of classes, (C,), in the accumulation dtype and side by side; where they are not yet, in memory of their own.
struct ClassValues {
  std::vector<char> own;
  const void* data = nullptr;
  double sum = 0;
  PyObject* source;

  ClassValues(nb::handle given, int64_t classes, Dtype dtype, bool minus_infinity) : source(given.ptr()) {
    const TensorView t = read_tensor(given);
    if (!t) return;
    if (t.ndim != 1 || t.size[0] != classes || t.dtype == Dtype::boolean) throw NotOurs{};
    const bool ready = t.dtype == (wide(dtype) ? Dtype::f64 : Dtype::f32) && (t.stride[0] == 1 || classes == 1);
    if (!ready) own.resize(classes * (wide(dtype) ? 8 : 4));
    for (int64_t c = 0; c < classes; c++) {
      double x = value_at(t, c);
      if (!wide(dtype)) x = static_cast<float>(x);
      if (!std::isfinite(x) && !(minus_infinity && x == -HUGE_VAL)) throw NotOurs{};
      if (!ready && wide(dtype)) reinterpret_cast<double*>(own.data())[c] = x;
      if (!ready && !wide(dtype)) reinterpret_cast<float*>(own.data())[c] = static_cast<float>(x);
      sum += x;
    }
    data = ready ? t.data : own.data();
  }
};

// Whether no number is NaN or infinite, told by its exponent, so that the loop is one that compilers make fast.
template <class Bits> bool all_finite(const Bits* x, int64_t n, Bits exponent) {
  Bits bad = 0;
  for (int64_t i = 0; i < n; i++) bad |= static_cast<Bits>((x[i] & exponent) == exponent);
  return !bad;
}
// Doubles beside narrower logits are read as floats, where finite means less.
bool all_within_float(const double* x, int64_t n) {
  bool within = true;
  for (int64_t i = 0; i < n; i++) within &= std::isfinite(static_cast<float>(x[i]));
  return within;
}
bool all_finite(const TensorView& t, int dim, int64_t offset, bool doubles) {
  const bool run = dim == t.ndim || (dim == t.ndim - 1 && t.stride[dim] == 1);
  if (run) {
    const int64_t n = dim == t.ndim ? 1 : t.size[dim];
    switch (t.dtype) {
      case Dtype::f32: return all_finite<uint32_t>(static_cast<uint32_t*>(t.data) + offset, n, 0x7f800000);
      case Dtype::f64:
        if (!doubles) return all_within_float(static_cast<double*>(t.data) + offset, n);
        return all_finite<uint64_t>(static_cast<uint64_t*>(t.data) + offset, n, 0x7ff0000000000000);
      case Dtype::bf16: return all_finite<uint16_t>(static_cast<uint16_t*>(t.data) + offset, n, 0x7f80);
      case Dtype::f16: return all_finite<uint16_t>(static_cast<uint16_t*>(t.data) + offset, n, 0x7c00);
      default: return true;
    }
  }
  const int64_t n = t.stride[dim] == 0 && t.size[dim] > 1 ? 1 : t.size[dim];  // repeated numbers need one look
  for (int64_t i = 0; i < n; i++)
    if (!all_finite(t, dim + 1, offset + i * t.stride[dim], doubles)) return false;
  return true;
}
void refuse_unless_finite(const TensorView& t, Dtype input) {
  if (t && !all_finite(t, 0, 0, wide(input))) throw NotOurs{};
}

// One number for each row, or (N,) for all positions of a sample: as a view of the rows' own shape.
TensorView row_values(nb::handle given, int ndim, const int64_t* sizes) {
  TensorView t = read_tensor(given);
  if (!t) return t;
  if (t.dtype == Dtype::boolean || (t.ndim != ndim && t.ndim != 1) || t.ndim > ndim) throw NotOurs{};
  for (int d = 0; d < t.ndim; d++)
    if (t.size[d] != sizes[d]) throw NotOurs{};
  for (int d = t.ndim; d < ndim; d++) t.size[d] = sizes[d], t.stride[d] = 0;
  t.ndim = ndim;
  return t;
}

// A tensor without one of its dimensions.
TensorView without(TensorView t, int dim) {
  if (!t) return t;
  for (int d = dim; d + 1 < t.ndim; d++) t.size[d] = t.size[d + 1], t.stride[d] = t.stride[d + 1];
  t.ndim--;
  return t;
}

bool same_sizes(const TensorView& a, const TensorView& b) {
  if (a.ndim != b.ndim) return false;
  for (int d = 0; d < a.ndim; d++)
    if (a.size[d] != b.size[d]) return false;
  return true;
}

// Numbers from the right against the sizes of the elements, as PyTorch broadcasts.
TensorView broadcast(nb::handle given, const TensorView& input) {
  TensorView t = read_tensor(given), out = t;
  if (!t) return t;
  if (t.dtype == Dtype::boolean || t.ndim > input.ndim) throw NotOurs{};
  out.ndim = input.ndim;
  for (int d = 0; d < input.ndim; d++) {
    const int from = d - (input.ndim - t.ndim);
    const bool repeats = from < 0 || t.size[from] == 1;
    if (!repeats && t.size[from] != input.size[d]) throw NotOurs{};
    out.size[d] = input.size[d];
    out.stride[d] = repeats ? 0 : t.stride[from];
  }
  return out;
}

// The formula's settings, as the operators have them.
struct SoftmaxCall {
  SoftmaxTask task;
  TensorView input, target, rows, labels, row_weight;
  int class_dim;
  ClassValues weight, offset, margin;

  SoftmaxCall(nb::handle input_, nb::handle target_, nb::handle weight_, nb::handle row_weight_, nb::handle offset_,
              nb::handle margin_, double gamma, double smoothing, bool by_target, int64_t ignore_index)
      : input(read_tensor(input_)),
        target(read_tensor(target_)),
        class_dim(input.ndim > 1 ? 1 : 0),
        weight(weight_, classes(), input.dtype, false),
        offset(offset_, classes(), input.dtype, true),
        margin(margin_, classes(), input.dtype, false) {
    if (!input.is_floating() || !target) throw NotOurs{};
    rows = without(input, class_dim);
    task.soft = target.is_floating();
    if (task.soft ? !same_sizes(target, input) : !same_sizes(target, rows) || target.dtype == Dtype::boolean)
      throw NotOurs{};
    labels = task.soft ? without(target, class_dim) : target;
    row_weight = row_values(row_weight_, rows.ndim, rows.size);
    refuse_unless_finite(row_weight, input.dtype);
    task.classes = classes();
    task.input_class = input.stride[class_dim];
    if (task.soft) task.target_class = target.stride[class_dim];
    task.weight = weight.data, task.offset = offset.data, task.margin = margin.data;
    task.weight_sum = weight.data ? weight.sum : static_cast<double>(task.classes);
    task.gamma = gamma, task.smoothing = smoothing, task.by_target = by_target && weight.data, task.ignore_index = ignore_index;
    if (task.soft && margin.data) throw NotOurs{};
  }

  int64_t classes() const {
    if (!input || input.ndim == 0 || input.size[class_dim] == 0) throw NotOurs{};
    return input.size[class_dim];
  }

  // Σ v·table[y] over the rows kept; throws where a label is no class.
  double weigh(nb::handle table_, bool by_rows, int threads) {
    const bool same = table_.ptr() == weight.source;  // as it mostly is
    const ClassValues other(same ? nb::none() : table_, task.classes, input.dtype, false);
    LabelTask look;
    const TensorView none{}, &v = by_rows ? row_weight : none;
    look.rows = lay_out(labels.ndim, labels.size, {{&labels, &look.target}, {&v, &look.row_weight}});
    look.classes = task.classes, look.ignore_index = task.ignore_index;
    look.table = same ? weight.data : other.data, look.doubles = wide(input.dtype);
    const double mass = run(look, threads);
    if (look.bad) throw NotOurs{};
    return mass;
  }

  double run_with(Pass pass, nb::handle upstream_, double upstream, nb::handle loss_, nb::handle maximum_,
                  nb::handle total_, nb::handle grad_, int threads) {
    const TensorView up = row_values(upstream_, rows.ndim, rows.size);
    const TensorView loss = read_own_tensor(loss_), maximum = read_own_tensor(maximum_), total = read_own_tensor(total_);
    const TensorView whole = read_own_tensor(grad_), grad = without(whole, class_dim);
    task.pass = pass;
    task.upstream = upstream;
    if (whole) task.grad_class = whole.stride[class_dim];
    task.rows = lay_out(rows.ndim, rows.size,
                        {{&rows_view(), &task.input}, {&labels, &task.target}, {&row_weight, &task.row_weight},
                         {&up, &task.upstream_rows}, {&loss, &task.loss}, {&maximum, &task.maximum},
                         {&total, &task.total}, {&grad, &task.grad}});
    return run(task, input.dtype, threads, pass != Pass::backward && !loss);
  }
  const TensorView& rows_view() const { return rows; }
};

// The loss as one number, in the accumulation dtype.
void write_scalar(nb::handle out, Dtype input, double value) {
  if (wide(input)) *static_cast<double*>(read_address(out)) = value;
  else *static_cast<float*>(read_address(out)) = static_cast<float>(value);
}

// --------------------------------------------------------------------------------------------------- Python's functions

#define STEELYARD_SOFTMAX_SETTINGS                                                                                 \
  nb::handle input, nb::handle target, nb::handle weight, nb::handle row_weight, nb::handle offset,                \
      nb::handle margin, double gamma, double smoothing, bool by_target, int64_t ignore_index

nb::object softmax_forward(STEELYARD_SOFTMAX_SETTINGS, nb::handle loss, nb::handle maximum, nb::handle total,
                           int threads) {
  try {
    SoftmaxCall call(input, target, weight, row_weight, offset, margin, gamma, smoothing, by_target, ignore_index);
    if (!call.task.soft) call.weigh(nb::none(), false, threads);
    call.run_with(Pass::forward, nb::none(), 1, loss, maximum, total, nb::none(), threads);
    return nb::bool_(true);
  } catch (const NotOurs&) {
    return nb::bool_(false);
  }
}

nb::object softmax_backward(STEELYARD_SOFTMAX_SETTINGS, nb::handle upstream, double scale, nb::handle maximum,
                            nb::handle total, nb::handle grad, int threads) {
  try {
    SoftmaxCall call(input, target, weight, row_weight, offset, margin, gamma, smoothing, by_target, ignore_index);
    if (!call.task.soft) call.weigh(nb::none(), false, threads);
    call.run_with(Pass::backward, upstream, scale, nb::none(), maximum, total, grad, threads);
    return nb::bool_(true);
  } catch (const NotOurs&) {
    return nb::bool_(false);
  }
}

// Sum or mean in one go. `divisor` is a number, or None for the mass that the labels have by `table` and, where
// `by_rows`, the row weights. Gives the divisor, or None where the reference is to answer.
nb::object softmax_scalar(STEELYARD_SOFTMAX_SETTINGS, nb::handle table, bool by_rows, nb::handle divisor,
                          bool zero_if_empty, double upstream, nb::handle out, nb::handle maximum, nb::handle total,
                          nb::handle grad, int threads) {
  try {
    SoftmaxCall call(input, target, weight, row_weight, offset, margin, gamma, smoothing, by_target, ignore_index);
    const bool given = !divisor.is_none();
    double mass = given ? nb::cast<double>(divisor) : 0;
    if (!call.task.soft) {
      const double weighed = call.weigh(table, by_rows, threads);
      if (!given) mass = weighed;
    } else if (!given) {
      throw NotOurs{};
    }
    const bool nothing = zero_if_empty && mass == 0;
    const double sum = call.run_with(grad.is_none() ? Pass::forward : Pass::fused, nb::none(),
                                     nothing ? 0 : upstream / mass, nb::none(), maximum, total, grad, threads);
    write_scalar(out, call.input.dtype, nothing ? 0 : sum / mass);
    return nb::float_(mass);
  } catch (const NotOurs&) {
    return nb::none();
  }
}

nb::object sigmoid(nb::handle input_, nb::handle target_, nb::handle weight_, nb::handle pos_weight_, double neg_weight,
                   double gamma_pos, double gamma_neg, double clip, nb::handle ignore_index, nb::handle upstream_,
                   double upstream, double divisor, nb::handle out, nb::handle loss_, nb::handle grad_, int threads) {
  try {
    const TensorView input = read_tensor(input_), target = read_tensor(target_);
    if (!input || !target || !input.is_floating() || !same_sizes(input, target)) throw NotOurs{};
    const TensorView weight = broadcast(weight_, input), pos_weight = broadcast(pos_weight_, input);
    refuse_unless_finite(weight, input.dtype);
    refuse_unless_finite(pos_weight, input.dtype);
    const TensorView up = broadcast(upstream_, input), loss = read_own_tensor(loss_), grad = read_own_tensor(grad_);
    SigmoidTask task;
    task.elements = lay_out(input.ndim, input.size,
                            {{&input, &task.input}, {&target, &task.target}, {&weight, &task.weight},
                             {&pos_weight, &task.pos_weight}, {&up, &task.upstream_elements}, {&loss, &task.loss},
                             {&grad, &task.grad}});
    task.neg_weight = neg_weight, task.gamma_pos = gamma_pos, task.gamma_neg = gamma_neg, task.clip = clip;
    task.ignores = !ignore_index.is_none();
    if (task.ignores) task.ignore_index = nb::cast<int64_t>(ignore_index);
    task.upstream = upstream / divisor;
    const double sum = run(task, input.dtype, threads, !out.is_none());
    if (!out.is_none()) write_scalar(out, input.dtype, sum / divisor);
    return nb::bool_(true);
  } catch (const NotOurs&) {
    return nb::bool_(false);
  }
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const Kernels* k : kernels_here) all.push_back(k->name);
  return all;
}

void use(const std::string& name) {
  for (const Kernels* k : kernels_here)
    if (name == k->name) {
      chosen = k;
      return;
    }
  throw nb::value_error(("no such kernels here: " + name).c_str());
}

}  // namespace
}  // namespace steelyard

NB_MODULE(_kernels, m) {
  using namespace steelyard;
  m.doc() = "The two formulas and the draws in C++; steelyard.ops.cpu is their door.";
  m.def("know", &know, "tensor_types"_a, "dtypes"_a);
  m.def("names", &names);
  m.def("use", &use, "name"_a);
  m.def("thread_source", &thread_source);
  m.def("huge_pages", &huge_pages);
#define STEELYARD_SOFTMAX_ARGUMENTS                                                                                  \
  "input"_a, "target"_a, "weight"_a.none(), "row_weight"_a.none(), "offset"_a.none(), "margin"_a.none(), "gamma"_a,  \
      "smoothing"_a, "smooth_by_target"_a, "ignore_index"_a
  m.def("softmax_forward", &softmax_forward, STEELYARD_SOFTMAX_ARGUMENTS, "loss"_a, "maximum"_a.none(),
        "total"_a.none(), "threads"_a);
  m.def("softmax_backward", &softmax_backward, STEELYARD_SOFTMAX_ARGUMENTS, "upstream"_a.none(), "scale"_a, "maximum"_a,
        "total"_a, "grad"_a, "threads"_a);
  m.def("softmax_scalar", &softmax_scalar, STEELYARD_SOFTMAX_ARGUMENTS, "table"_a.none(), "by_rows"_a,
        "divisor"_a.none(), "zero_if_empty"_a, "upstream"_a, "out"_a, "maximum"_a.none(), "total"_a.none(),
        "grad"_a.none(), "threads"_a);
  m.def("sigmoid", &sigmoid, "input"_a, "target"_a, "weight"_a.none(), "pos_weight"_a.none(), "neg_weight"_a,
        "gamma_pos"_a, "gamma_neg"_a, "clip"_a, "ignore_index"_a.none(), "upstream"_a.none(), "scale"_a, "divisor"_a,
        "out"_a.none(), "loss"_a.none(), "grad"_a.none(), "threads"_a);
  add_sampling(m);
}
