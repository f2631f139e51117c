// The kernels without Python: for Valgrind, ThreadSanitizer, and processors that are only emulated.
//
// Links with the objects of kernels.cpp and with threads.cpp. Each tensor has memory of exactly its size, scratch is
// never cleared, and every result is compared with a plain loop in long double.
//
//   driver [threads] [quick]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "task.h"
#include "threads.h"

using namespace steelyard;
typedef long double Wide;

#define DECLARE(isa)            \
  namespace steelyard::isa {    \
  extern const Kernels kernels; \
  }
DECLARE(baseline)
#if STEELYARD_X86
DECLARE(avx2)
DECLARE(avx512)
#endif

// In place of an OpenMP library: threads that a sanitizer knows.
extern "C" void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned) {
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; i++) others.emplace_back(work, data);
  work(data);
  for (std::thread& other : others) other.join();
}

namespace {

std::mt19937 generator(0);
double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(generator); }
int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(generator); }

// One tensor: memory of its size and no more.
struct Memory {
  Dtype dtype;
  int64_t n;
  char* data;

  Memory(Dtype dtype, int64_t n) : dtype(dtype), n(n), data(static_cast<char*>(std::malloc(n * size()))) {}
  Memory(const Memory&) = delete;
  ~Memory() { std::free(data); }

  int64_t size() const {
    switch (dtype) {
      case Dtype::f64: case Dtype::i64: return 8;
      case Dtype::f32: case Dtype::i32: return 4;
      case Dtype::f16: case Dtype::bf16: case Dtype::i16: return 2;
      default: return 1;
    }
  }
  template <class X> X& as(int64_t i) { return reinterpret_cast<X*>(data)[i]; }
  void set(int64_t i, double x) {
    switch (dtype) {
      case Dtype::f64: as<double>(i) = x; break;
      case Dtype::f32: as<float>(i) = static_cast<float>(x); break;
      case Dtype::i64: as<int64_t>(i) = static_cast<int64_t>(x); break;
      case Dtype::i32: as<int32_t>(i) = static_cast<int32_t>(x); break;
      case Dtype::i16: as<int16_t>(i) = static_cast<int16_t>(x); break;
      case Dtype::i8: as<int8_t>(i) = static_cast<int8_t>(x); break;
      case Dtype::bf16: {  // cut off, not rounded: any number will do
        float f = static_cast<float>(x);
        uint32_t bits;
        std::memcpy(&bits, &f, 4);
        as<uint16_t>(i) = static_cast<uint16_t>(bits >> 16);
        break;
      }
      case Dtype::f16: {
        int exponent;
        const double fraction = std::frexp(std::fabs(x), &exponent);
        const int bits = x == 0 || exponent < -13 ? 0 : (exponent + 14) << 10 | (static_cast<int>(fraction * 2048) & 1023);
        as<uint16_t>(i) = static_cast<uint16_t>(bits | (x < 0 ? 0x8000 : 0));
        break;
      }
      default: as<uint8_t>(i) = static_cast<uint8_t>(x);
    }
  }
  Wide get(int64_t i) {
    switch (dtype) {
      case Dtype::f64: return as<double>(i);
      case Dtype::f32: return as<float>(i);
      case Dtype::i64: return static_cast<Wide>(as<int64_t>(i));
      case Dtype::i32: return as<int32_t>(i);
      case Dtype::i16: return as<int16_t>(i);
      case Dtype::i8: return as<int8_t>(i);
      case Dtype::bf16: {
        const uint32_t bits = static_cast<uint32_t>(as<uint16_t>(i)) << 16;
        float f;
        std::memcpy(&f, &bits, 4);
        return f;
      }
      case Dtype::f16: {
        const int bits = as<uint16_t>(i), exponent = bits >> 10 & 31, fraction = bits & 1023;
        const Wide size = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
        return bits & 0x8000 ? -size : size;
      }
      default: return as<uint8_t>(i);
    }
  }
  Memory& fill(double low, double high) {
    for (int64_t i = 0; i < n; i++) set(i, uniform(low, high));
    return *this;
  }
};

View view(Memory& memory, int64_t outer = 1, int64_t inner = 0) {
  View v;
  v.data = memory.data, v.dtype = memory.dtype, v.stride[0] = outer, v.stride[1] = inner;
  return v;
}
Box box(int64_t outer, int64_t inner) {
  Box b;
  b.ndim = inner ? 2 : 1, b.size[0] = outer, b.size[1] = inner, b.total = outer * (inner ? inner : 1);
  return b;
}

std::string doing;
int64_t checked = 0;
void near(const char* what, Wide found, Wide exact, Dtype dtype) {
  const Wide rounding = dtype == Dtype::f64 ? 1e-10L : dtype == Dtype::f32 ? 1e-4L : dtype == Dtype::f16 ? 2e-3L : 1e-2L;
  checked++;
  if (found == exact || std::fabs(found - exact) <= rounding * (std::fabs(exact) + 0.02L)) return;
  std::printf("FAILED: %s: got %.9Lg, must be %.9Lg: %s\n", what, found, exact, doing.c_str());
  std::exit(1);
}

int threads = 1;
void work_on(int64_t chunks, int64_t scratch, const std::function<void(int64_t, void*)>& chunk_of) {
  std::vector<void*> rooms;
  for (int i = 0; i < threads; i++) rooms.push_back(std::malloc(scratch));
  struct Context {
    const std::function<void(int64_t, void*)>& work;
    std::vector<void*>& rooms;
  } context{chunk_of, rooms};
  share_out(chunks, threads, &context, [](void* pointer, int slot, int64_t chunk) {
    Context& c = *static_cast<Context*>(pointer);
    c.work(chunk, c.rooms[slot]);
  });
  for (void* room : rooms) std::free(room);
}

void run(const Kernels& k, const SoftmaxTask& task, Dtype dtype) {
  const int64_t rows = k.softmax_chunk_rows(task, dtype);
  work_on((task.rows.total + rows - 1) / rows, k.softmax_scratch(task, dtype), [&](int64_t chunk, void* scratch) {
    k.softmax(task, dtype, chunk * rows, std::min((chunk + 1) * rows, task.rows.total), chunk, scratch);
  });
}
void run(const Kernels& k, const SigmoidTask& task, Dtype dtype) {
  const int64_t step = k.sigmoid_chunk(task), total = task.elements.total;
  work_on((total + step - 1) / step, k.sigmoid_scratch(task), [&](int64_t chunk, void* scratch) {
    k.sigmoid(task, dtype, chunk * step, std::min((chunk + 1) * step, total), chunk, scratch);
  });
}

bool chance() { return below(3) == 0; }

// (n, classes), or (n, classes, depth) with the rows of a sample side by side.
void rows(const Kernels& k, Dtype dtype, int64_t n, int64_t classes, int64_t depth) {
  const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  const int64_t d = depth ? depth : 1, total = n * d, row = classes * d;
  const bool soft = chance(), by_target = chance(), ignoring = !soft && chance();
  static const double gammas[] = {0, 0, 0, 1, 2, 0.5};
  const double gamma = gammas[below(6)], smoothing = chance() ? 0.1 : 0;
  static const Dtype labels[] = {Dtype::i64, Dtype::i32, Dtype::i16};
  Memory input(dtype, total * classes), target(soft ? dtype : labels[below(3)], soft ? total * classes : total);
  Memory weight(wide, classes), offset(wide, classes), margin(wide, classes), row_weight(wide, total);
  Memory upstream(wide, total);
  input.fill(-4, 4), weight.fill(0.1, 2), offset.fill(-1, 1), margin.fill(0, 1), row_weight.fill(0.1, 2);
  upstream.fill(0.5, 2);
  if (soft) target.fill(0, 2.0 / static_cast<double>(classes));
  else
    for (int64_t i = 0; i < total; i++) target.set(i, ignoring && chance() ? -100 : below(static_cast<int>(classes)));

  const auto places = [&](Memory& m, bool of_rows) {
    return of_rows ? view(m, d, depth ? 1 : 0) : view(m, row, depth ? 1 : 0);
  };
  SoftmaxTask task;
  task.rows = depth ? box(n, depth) : box(n, 0);
  const auto lay = [&](Memory& m, bool of_rows) {
    View v = places(m, of_rows);
    if (!depth) v.stride[0] = of_rows ? 1 : classes;
    return v;
  };
  task.classes = classes, task.input = lay(input, false), task.input_class = d;
  task.target = lay(target, !soft), task.soft = soft, task.target_class = soft ? d : 0;
  const bool weighs = chance(), shifts = chance(), margins = !soft && chance(), by_row = chance();
  if (weighs) task.weight = weight.data;
  if (shifts) task.offset = offset.data;
  if (margins) task.margin = margin.data;
  if (by_row) task.row_weight = lay(row_weight, true);
  task.gamma = gamma, task.smoothing = smoothing, task.by_target = by_target && weighs;
  task.weight_sum = static_cast<double>(classes);
  if (weighs) {
    task.weight_sum = 0;
    for (int64_t c = 0; c < classes; c++) task.weight_sum += static_cast<double>(weight.get(c));
  }
  Memory loss(wide, total), maximum(wide, total), sum(wide, total), grad(dtype, total * classes);
  Memory fused(dtype, total * classes);
  doing = std::string(k.name) + ", dtype " + std::to_string(static_cast<int>(dtype)) + ", " + std::to_string(n) + " x " +
          std::to_string(classes) + " x " + std::to_string(depth) + (soft ? ", soft" : "") + (weighs ? ", weight" : "") +
          (shifts ? ", offset" : "") + (margins ? ", margin" : "") + ", gamma " + std::to_string(gamma) +
          ", smoothing " + std::to_string(smoothing) + (task.by_target ? " by target" : "");

  std::vector<double> partial(total);
  task.pass = Pass::forward;
  task.loss = lay(loss, true), task.maximum = lay(maximum, true), task.total = lay(sum, true);
  run(k, task, dtype);
  SoftmaxTask back = task;
  back.pass = Pass::backward, back.loss = View{}, back.upstream_rows = lay(upstream, true);
  back.grad = lay(grad, false), back.grad_class = d;
  run(k, back, dtype);
  task.pass = Pass::fused, task.loss = task.maximum = task.total = View{};
  task.grad = lay(fused, false), task.grad_class = d, task.partial = partial.data();
  run(k, task, dtype);

  std::vector<Wide> a(classes), mass(classes), push(classes);
  for (int64_t i = 0; i < total; i++) {
    const int64_t at = i / d * row + i % d;
    const int64_t y = soft ? -1 : static_cast<int64_t>(target.get(i));
    const bool kept = soft || y != -100;
    Wide highest = -HUGE_VALL, denominator = 0, by = 0, pushed = 0, exact = 0;
    for (int64_t c = 0; c < classes; c++) {
      a[c] = input.get(at + c * d) + (shifts ? offset.get(c) : 0) - (margins && c == y ? margin.get(c) : 0);
      const Wide q = soft ? target.get(at + c * d) : c == y, w = weighs ? weight.get(c) : 1;
      mass[c] = ((1 - static_cast<Wide>(smoothing)) * q + static_cast<Wide>(smoothing) / classes) * (task.by_target ? 1 : w);
      by += w * q;
      highest = std::max(highest, a[c]);
    }
    for (int64_t c = 0; c < classes; c++) denominator += std::exp(a[c] - highest);
    const Wide v = kept ? (by_row ? row_weight.get(i) : 1) * (task.by_target ? by : 1) : 0;
    for (int64_t c = 0; c < classes; c++) {
      const Wide l = a[c] - highest - std::log(denominator), s = std::exp(l), rest = -std::expm1(l);
      const Wide full = gamma == 0 ? 1 : std::pow(rest, static_cast<Wide>(gamma));
      exact += v * mass[c] * full * -l;
      push[c] = -v * mass[c] * (full - (gamma == 0 || rest <= 0 ? 0 : gamma * l * s * std::pow(rest, static_cast<Wide>(gamma) - 1)));
      pushed += push[c];
    }
    near("loss", loss.get(i), exact, wide);
    for (int64_t c = 0; c < classes; c++) {
      const Wide s = std::exp(a[c] - highest) / denominator, g = push[c] - s * pushed;
      near("gradient", grad.get(at + c * d), g * upstream.get(i), dtype);
      near("gradient at once", fused.get(at + c * d), g, dtype);
    }
  }
}

void elements(const Kernels& k, Dtype dtype, int64_t n) {
  const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  static const Dtype targets[] = {Dtype::i64, Dtype::i8, Dtype::boolean};
  const bool binary = chance(), weighs = chance(), positive = chance();
  Memory input(dtype, n), target(binary ? targets[below(3)] : dtype, n), weight(wide, n), pos_weight(wide, n);
  Memory upstream(wide, n), loss(wide, n), grad(dtype, n);
  input.fill(-4, 4), weight.fill(0.1, 2), pos_weight.fill(0.1, 2), upstream.fill(0.5, 2);
  for (int64_t i = 0; i < n; i++) target.set(i, binary ? below(2) : uniform(0, 1));
  SigmoidTask task;
  task.pass = Pass::fused;
  task.elements = box(n, 0);
  task.input = view(input), task.target = view(target), task.upstream_elements = view(upstream);
  if (weighs) task.weight = view(weight);
  if (positive) task.pos_weight = view(pos_weight);
  static const double gammas[] = {0, 0, 1, 2, 0.5};
  task.gamma_pos = gammas[below(5)], task.gamma_neg = gammas[below(5)], task.clip = chance() ? 0.05 : 0;
  task.neg_weight = chance() ? 0.3 : 1;
  task.loss = view(loss), task.grad = view(grad);
  std::vector<double> partial(n);
  task.partial = partial.data();
  doing = std::string(k.name) + ", " + std::to_string(n) + " elements, dtype " + std::to_string(static_cast<int>(dtype)) +
          ", gammas " + std::to_string(task.gamma_pos) + " " + std::to_string(task.gamma_neg) + ", clip " +
          std::to_string(task.clip);
  run(k, task, dtype);
  for (int64_t i = 0; i < n; i++) {
    const Wide z = input.get(i), t = target.get(i), v = weighs ? weight.get(i) : 1, P = positive ? pos_weight.get(i) : 1;
    const auto value = [&](Wide x) {
      const Wide p = 1 / (1 + std::exp(-x)), u = std::max(p - static_cast<Wide>(task.clip), 0.0L);
      return v * (P * t * std::pow(1 - p, static_cast<Wide>(task.gamma_pos)) * -std::log(p) +
                  task.neg_weight * (1 - t) * std::pow(u, static_cast<Wide>(task.gamma_neg)) * -std::log1p(-u));
    };
    near("loss", loss.get(i), value(z), wide);
    const Wide step = 1e-6L;  // a difference is good to 1e-11
    if (task.clip != 0 && std::fabs(1 / (1 + std::exp(-z)) - static_cast<Wide>(task.clip)) < 1e-3L) continue;
    near("gradient", grad.get(i), (value(z + step) - value(z - step)) / (2 * step) * upstream.get(i),
         dtype == Dtype::f64 ? Dtype::f32 : dtype);
  }
}

void labels(const Kernels& k, int64_t n) {
  for (Dtype dtype : {Dtype::i64, Dtype::i32, Dtype::i16, Dtype::i8, Dtype::u8}) {
    Memory target(dtype, n), table(Dtype::f32, 9);
    table.fill(0.1, 2);
    for (int64_t i = 0; i < n; i++) target.set(i, below(9));
    LabelTask task;
    task.rows = box(n, 0), task.classes = 9, task.target = view(target), task.table = table.data;
    double mass = 0;
    task.partial = &mass;
    k.labels(task, 0, n, 0);
    Wide exact = 0;
    for (int64_t i = 0; i < n; i++) exact += table.get(static_cast<int64_t>(target.get(i)));
    doing = std::string(k.name) + ", labels";
    near("mass", mass, exact, Dtype::f32);
    target.set(n - 1, 9);
    const bool before = task.bad;
    k.labels(task, 0, n, 0);
    near("a bad label seen", task.bad && !before, 1, Dtype::f64);
  }
}

}  // namespace

int main(int count, char** given) {
  threads = count > 1 ? std::atoi(given[1]) : 1;
  const bool quick = count > 2;
  std::vector<const Kernels*> all{&baseline::kernels};
#if STEELYARD_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(&avx2::kernels);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) all.push_back(&avx512::kernels);
#endif
  for (const Kernels* k : all) {
    for (Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16}) {
      for (int64_t classes = 1; classes <= 40; classes++)
        for (int64_t n : {1, 2, 5, 16, 19, 35, 70})
          if (!quick || (classes + n) % 4 == 0) rows(*k, dtype, n, classes, 0);
      for (int64_t classes : {255, 257, 260, 1030})
        for (int64_t n : {1, 3, 18})
          for (int i = 0; i < (quick ? 2 : 12); i++) rows(*k, dtype, n, classes, 0);
      for (int64_t depth : {1, 7, 16, 63, 64, 65})
        for (int64_t classes : {1, 2, 21, 33, 40})
          for (int i = 0; i < (quick ? 1 : 12); i++) rows(*k, dtype, 2, classes, depth);
      for (int i = 0; i < (quick ? 1 : 4); i++) rows(*k, dtype, 3, 8142, 0), rows(*k, dtype, 700, 100, 0);
      for (int64_t n = 1; n <= 70; n++) elements(*k, dtype, n);
      for (int64_t n : {511, 512, 513, 16385, 40000}) elements(*k, dtype, n);
    }
    for (int64_t n : {1, 7, 1024, 1025, 3000}) labels(*k, n);
    std::printf("%s: %lld numbers as they must be\n", k->name, static_cast<long long>(checked));
  }
  std::printf("done\n");
}
