// One chunk of rows through the softmax formula: which layout, which buffers, what is written.
#pragma once

#include "softmax_lanes.h"
#include "softmax_rows.h"

namespace steelyard {
namespace STEELYARD_ISA {

constexpr int64_t kChunk = 16384;       // elements of a chunk, about: long enough to hand out, short enough to share
constexpr int64_t kFewClasses = 32;     // up to here rows go across the lanes even if they must be turned
constexpr int64_t kKept = 65536;        // exponentials that are kept for the gradient instead of being taken again
constexpr int64_t kRows = 16;           // that lie along the lanes, one after the other, and have their losses taken together
constexpr int64_t kTileElements = 8192;  // of a tile, where its rows allow it: half of a first-level cache

template <class A> INLINE bool across_lanes(const SoftmaxTask& task) {
  const int64_t row_stride = task.rows.ndim ? task.input.stride[task.rows.ndim - 1] : 1;
  return mode_of(task) == Mode::focused || task.classes <= kFewClasses || (task.input_class != 1 && row_stride == 1);
}

template <class A> INLINE int64_t tile_rows(const SoftmaxTask& task) {
  if (!across_lanes<A>(task)) {
    // Long rows are worth taking together too, as long as there is something left for every thread.
    const int64_t fit = kChunk / task.classes, fair = task.rows.total / 64, rows = fit > fair ? fit : fair;
    return rows < 1 ? 1 : rows > kRows ? kRows : rows;
  }
  int64_t rows = kTileElements / task.classes / kWidth<A> * kWidth<A>;
  return rows < kWidth<A> ? kWidth<A> : rows > kTile ? kTile : rows;
}

template <class A> INLINE int64_t pitch_of(const SoftmaxTask& task) {
  if (!across_lanes<A>(task)) return task.classes + kWidth<A>;
  // A power of two would put every class of a turned tile into the same few sets of the cache.
  return tile_rows<A>(task) + (task.classes <= kTileElements / kTile ? kWidth<A> : 0);
}

template <class A> INLINE int64_t buffer_bytes(const SoftmaxTask& task) {
  const int64_t lines = across_lanes<A>(task) ? task.classes : 1;
  return (lines * pitch_of<A>(task) * (int64_t)sizeof(A) + 127) / 64 * 64;
}

// Buffers of a tile: logits, exponentials, distribution, gradient.
template <class A> INLINE int64_t scratch_bytes(const SoftmaxTask& task) { return 4 * buffer_bytes<A>(task) + 64; }

template <class A> INLINE int64_t chunk_rows(const SoftmaxTask& task) {
  const int64_t tile = tile_rows<A>(task), tiles = kChunk / (task.classes * tile);
  return tile * (tiles < 1 ? 1 : tiles);
}

// Where the rows of a tile start in a view, and whether they are evenly apart.
struct Places {
  int64_t offset[kTile];
  int64_t stride = 0;
  bool even = true;

  INLINE_MEMBER Places(const Box& box, const View& view, int64_t begin, int64_t n) {
    if (!view) return;
    stride = view.stride[box.ndim - 1];
    for_runs(box, view, begin, n, [&](int64_t done, int64_t length, int64_t start) {
      if (done) even = false;
      for (int64_t i = 0; i < length; i++) offset[done + i] = start + i * stride;
    });
  }
};

template <class S, class T> INLINE S as_type(T x) {
  if constexpr (same_type<S, T>::value) return x;
  else return widen(x);
}

// A tile turned on its side: rows go across. Rows past the end are zeros, so that no lane meets what it should not.
template <class S, class T>
static void turn_in(const T* x, const Places& places, int64_t class_stride, int64_t classes, int64_t n, int padded,
                    Slab<S> to) {
  int64_t i = 0;
#if STEELYARD_TURNS
  if constexpr (same_type<S, T>::value && same_type<T, AccumulatesIn<T>>::value) {
    constexpr int W = kWidth<T>;
    for (; class_stride == 1 && i + W <= n; i += W)
      for (int64_t c = 0; c < classes; c += W) {
        const int wide = classes - c < W ? (int)(classes - c) : W;
        Vec<T> r[W];
#pragma GCC unroll 16
        for (int k = 0; k < W; k++) r[k] = load_part(x + places.offset[i + k] + c, wide, T{});
        transpose<T>(r);
#pragma GCC unroll 16
        for (int k = 0; k < W; k++)
          if (k < wide) store(to.data + (c + k) * to.pitch + i, r[k]);
      }
  }
#endif
  for (; i < n; i++) {
    const T* row = x + places.offset[i];
    S* column = to.data + i;
    for (int64_t c = 0; c < classes; c++) column[c * to.pitch] = as_type<S>(row[c * class_stride]);
  }
  for (int64_t c = 0; c < classes && n < padded; c++)
    for (int64_t i = n; i < padded; i++) to.data[c * to.pitch + i] = S{};
}
template <class T>
static void turn_out(Slab<T> from, const Places& places, int64_t class_stride, int64_t classes, int64_t n, T* g) {
  int64_t i = 0;
#if STEELYARD_TURNS
  if constexpr (same_type<T, AccumulatesIn<T>>::value) {
    constexpr int W = kWidth<T>;
    for (; class_stride == 1 && i + W <= n; i += W)
      for (int64_t c = 0; c < classes; c += W) {
        const int wide = classes - c < W ? (int)(classes - c) : W;
        Vec<T> r[W];
#pragma GCC unroll 16
        for (int k = 0; k < W; k++) r[k] = k < wide ? load(from.data + (c + k) * from.pitch + i) : Vec<T>{};
        transpose<T>(r);
#pragma GCC unroll 16
        for (int k = 0; k < W; k++) store_part(g + places.offset[i + k] + c, wide, r[k]);
      }
  }
#endif
  for (; i < n; i++) {
    T* row = g + places.offset[i];
    for (int64_t c = 0; c < classes; c++) row[c * class_stride] = from.data[c * from.pitch + i];
  }
}

template <class A> static void shift_slab(const SoftmaxTask& task, const Rows<A>& rows, Slab<A> a) {
  if (const A* offset = (const A*)task.offset)
    for (int64_t c = 0; c < task.classes; c++)
      for (int j = 0; j < rows.padded; j += kWidth<A>)
        store(a.data + c * a.pitch + j, load(a.data + c * a.pitch + j) + splat<A>(offset[c]));
  if (const A* margin = (const A*)task.margin)
    for (int64_t i = 0; i < rows.n; i++)
      if (rows.keep[i]) a.data[rows.label[i] * a.pitch + i] -= margin[rows.label[i]];
}

// What each row brings besides its logits.
template <class A> static void read_rows(const SoftmaxTask& task, Rows<A>& rows, int64_t begin, int64_t n) {
  rows.n = n;
  rows.padded = (int)((n + kWidth<A> - 1) / kWidth<A> * kWidth<A>);
  const Vec<A> one = splat<A>(1), zero = {};
  for (int j = 0; j < rows.padded; j += kWidth<A>) {
    store(rows.row + j, one), store(rows.upstream + j, splat<A>((A)task.upstream)), store(rows.target + j, one);
    store(rows.own + j, zero), store(rows.maximum + j, zero), store(rows.total + j, one);
    store(rows.away + j, zero), store(rows.mass + j, zero);
    store_int<A>(rows.label + j, ~Mask<A>{});
    store_int<A>(rows.keep + j, lane_numbers<A>() + (typename Lane<A>::Int)j < splat_int<A>((typename Lane<A>::Int)n));
  }
  if (task.row_weight) read<A>(task.rows, task.row_weight, begin, n, rows.row);
  if (task.upstream_rows) {
    read<A>(task.rows, task.upstream_rows, begin, n, rows.upstream);
    for (int64_t i = 0; i < n; i++) rows.upstream[i] *= (A)task.upstream;
  }
  if (task.pass == Pass::backward) {
    read<A>(task.rows, task.maximum, begin, n, rows.maximum);
    read<A>(task.rows, task.total, begin, n, rows.total);
  }
  if (task.soft) return;
  int64_t buffer[kTile];
  const int64_t* y = peek<int64_t>(task.rows, task.target, begin, n, buffer);
  const A* weight = (const A*)task.weight;
  for (int64_t i = 0; i < n; i++) {
    // Checked before, and here once more: nothing keeps another thread from writing to labels meanwhile. Such a row is
    // NaN, as the reference has it, and no memory is touched that is not ours.
    const int64_t label = y[i];
    const bool kept = label != task.ignore_index, inside = (uint64_t)label < (uint64_t)task.classes;
    rows.keep[i] = kept ? -1 : 0;
    rows.label[i] = kept && inside ? (typename Lane<A>::Int)label : -1;
    if (kept && !inside) rows.target[i] = (A)__builtin_nan("");
    else if (weight && kept) rows.target[i] = weight[label];
  }
}

template <class A> INLINE double write_rows(const SoftmaxTask& task, Rows<A>& rows, int64_t begin) {
  if (task.loss) write<A>(task.rows, task.loss, begin, rows.n, rows.loss);
  if (task.maximum) write<A>(task.rows, task.maximum, begin, rows.n, rows.maximum);
  if (task.total) write<A>(task.rows, task.total, begin, rows.n, rows.total);
  double sum[8] = {};
  for (int64_t j = 0; j < rows.n; j++) sum[j % 8] += (double)rows.loss[j];
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

template <class A> INLINE Masses<A> masses_of(const SoftmaxTask& task, const Rows<A>& rows) {
  return Masses<A>{(const A*)task.weight, {}, &rows, (A)(1 - task.smoothing),
                   (A)(task.smoothing / (double)task.classes), task.by_target};
}

template <class T, class A, class S, Mode mode>
static double lanes_tile(const SoftmaxTask& task, Rows<A>& rows, int64_t begin, int64_t n, char* scratch) {
  read_rows<A>(task, rows, begin, n);
  const int64_t pitch = pitch_of<A>(task), bytes = buffer_bytes<A>(task);
  const Places in(task.rows, task.input, begin, n);
  Slab<S> a{(S*)scratch, pitch};
  const bool whole = n % kWidth<A> == 0;
  const bool direct = same_type<S, T>::value && !task.offset && !task.margin && whole && in.even && in.stride == 1;
  if (direct) {
    a = {(S*)task.input.data + in.offset[0], task.input_class};
  } else {
    turn_in<S, T>((const T*)task.input.data, in, task.input_class, task.classes, n, rows.padded, a);
    if constexpr (same_type<S, A>::value) shift_slab<A>(task, rows, a);
  }
  Masses<A> masses = masses_of<A>(task, rows);
  if (task.soft) {
    const Places q(task.rows, task.target, begin, n);
    A* buffer = (A*)(scratch + bytes);
    if (task.target.dtype == DtypeOf<A>::value && whole && q.even && q.stride == 1) {
      masses.soft = {(const A*)task.target.data + q.offset[0], task.target_class};
    } else {
      alignas(64) A column[kTile] = {};
      for (int64_t c = 0; c < task.classes; c++) {
        View one = task.target;
        for_runs(task.rows, one, begin, n, [&](int64_t done, int64_t length, int64_t offset) {
          copy_as<A>(one.data, one.dtype, offset + c * task.target_class, q.stride, length, column + done);
        });
        memcpy(buffer + c * pitch, column, rows.padded * sizeof(A));
      }
      masses.soft = {buffer, pitch};
    }
  }
  for (int64_t i = 0; i < n; i++)
    if (rows.label[i] >= 0) rows.own[i] = widen(a.data[rows.label[i] * a.pitch + i]);

  double sum = 0;
  Slab<A> e;
  if (task.pass != Pass::backward) {
    if (task.pass == Pass::fused && mode != Mode::focused && task.classes * pitch <= kKept)
      e = {(A*)(same_type<S, A>::value && !direct ? scratch : scratch + 2 * bytes), pitch};
    survey<A, S, mode>(task, rows, a, e, masses);
    if constexpr (mode == Mode::focused) survey_focused<A, S>(task, rows, a, masses);
    losses<A>(task, mode, rows);
    sum = write_rows<A>(task, rows, begin);
    if (task.pass == Pass::forward) return sum;
  } else {
    if constexpr (mode == Mode::focused) survey_focused<A, S>(task, rows, a, masses);
    if constexpr (mode == Mode::soft || mode == Mode::focused) {
      if constexpr (mode == Mode::focused) {
        alignas(64) A kept[kTile];
        memcpy(kept, rows.mass, sizeof kept);
        survey_masses<A>(task, rows, masses);
        memcpy(rows.mass, kept, sizeof kept);
      } else {
        survey_masses<A>(task, rows, masses);
      }
    }
  }
  for (int j = 0; j < rows.padded; j += kWidth<A>) {
    const auto k = coefficients<A>(task, mode, rows, [&](const A* field) INLINE_LAMBDA { return load(field + j); });
    store(rows.alpha + j, k.alpha), store(rows.beta + j, k.beta), store(rows.kappa + j, k.kappa);
  }
  const Places out(task.rows, task.grad, begin, n);
  if (whole && out.even && out.stride == 1) {
    Slab<T> g{(T*)task.grad.data + out.offset[0], task.grad_class};
    gradients<A, S, T, mode>(task, rows, a, e, g, masses, task.streaming);
  } else {
    Slab<T> g{(T*)(scratch + 3 * bytes), pitch};
    gradients<A, S, T, mode>(task, rows, a, e, g, masses, false);
    turn_out<T>(g, out, task.grad_class, task.classes, n, (T*)task.grad.data);
  }
  return sum;
}

// A row between its two passes.
template <class T, class A, class S> struct Line {
  int i = -1;
  const S* x;
  const A* q;
  A* e;
  T* g;
  Coefficients<A> k;
};

// One row after the other. Where all mass is on the row's own class, the gradient of one row is written during the
// survey of the next: the memory is busy while the arithmetic is, and nobody waits for the last sum of a row.
template <class T, class A, class S, Mode mode>
static double rows_tile(const SoftmaxTask& task, Rows<A>& rows, int64_t begin, int64_t n, char* scratch) {
  read_rows<A>(task, rows, begin, n);
  const int64_t classes = task.classes, bytes = buffer_bytes<A>(task);
  const Places in(task.rows, task.input, begin, n), target(task.rows, task.soft ? task.target : View{}, begin, n);
  const Places out(task.rows, task.grad, begin, n);
  const Masses<A> masses = masses_of<A>(task, rows);
  A *shifted = (A*)scratch, *distribution = (A*)(scratch + bytes);
  T* apart = (T*)(scratch + 3 * bytes);
  const bool keeps = task.pass == Pass::fused && classes <= kKept;
  const bool trails = keeps && mode == Mode::index && task.grad_class == 1;
  const bool long_rows = task.streaming && classes * (int64_t)sizeof(T) >= kStreamedRow;

  const auto finish = [&](const Line<T, A, S>& row) {
    row_gradient<A, S, T, mode>(task, rows, row.i, row.k, row.x, row.e, row.q, row.g, masses,
                                row.g != apart && task.streaming);
    if (row.g == apart)
      for (int64_t c = 0; c < classes; c++) ((T*)task.grad.data)[out.offset[row.i] + c * task.grad_class] = row.g[c];
  };
  Line<T, A, S> before;
  for (int i = 0; i < (int)n; i++) {
    Line<T, A, S> row;
    row.i = i;
    row.x = (const S*)task.input.data + in.offset[i];
    row.e = keeps ? (A*)(scratch + 2 * bytes) : nullptr;
    row.q = nullptr;
    if constexpr (same_type<S, A>::value)
      if (task.offset || task.margin || task.input_class != 1) {
        copy_as<A>(task.input.data, task.input.dtype, in.offset[i], task.input_class, classes, shifted);
        if (const A* offset = (const A*)task.offset)
          for (int64_t c = 0; c < classes; c++) shifted[c] += offset[c];
        if (task.margin && rows.label[i] >= 0) shifted[rows.label[i]] -= ((const A*)task.margin)[rows.label[i]];
        row.x = shifted;
      }
    if (mode == Mode::soft) {
      if (task.target.dtype == DtypeOf<A>::value && task.target_class == 1) {
        row.q = (const A*)task.target.data + target.offset[i];
      } else {
        copy_as<A>(task.target.data, task.target.dtype, target.offset[i], task.target_class, classes, distribution);
        row.q = distribution;
      }
    }
    if (task.pass == Pass::backward) {
      if constexpr (mode == Mode::soft) survey_row_masses<A>(task, rows, i, row.q, masses);
    } else if (mode == Mode::index && before.i >= 0) {
      T* g = before.g;
      const A* e = before.e;
      const Vec<A> alpha = before.k.alpha;
      const bool past = long_rows && ((uintptr_t)g % kBytes) == 0;
      survey_row<A, S, mode>(task, rows, i, row.x, row.e, row.q, masses, [=](int64_t c, int width) INLINE_LAMBDA {
        const Vec<A> result = load_part<A>(e + c, width, (A)0) * alpha;
        if (width < kWidth<A>) store_some(g + c, width, result);
        else if (past) stream(g + c, result);
        else store(g + c, result);
      });
      own_gradient<A, T, mode>(rows, before.i, before.k, nullptr, g);
    } else {
      survey_row<A, S, mode>(task, rows, i, row.x, row.e, row.q, masses, [](int64_t, int) INLINE_LAMBDA {});
    }
    before.i = -1;
    // Only now that the row is at hand: before, this one number would be waited for by itself.
    if (rows.label[i] >= 0) rows.own[i] = widen(row.x[rows.label[i]]);
    if (task.pass == Pass::forward) continue;
    // From numbers just stored one by one: a vector load of them would wait until they have left the store buffer.
    row.k = coefficients<A>(task, mode, rows, [&](const A* field) INLINE_LAMBDA { return splat<A>(field[i]); });
    row.g = task.grad_class == 1 ? (T*)task.grad.data + out.offset[i] : apart;
    if (trails && rows.keep[i] && i + 1 < (int)n) before = row;
    else finish(row);
  }
  if (task.pass == Pass::backward) return 0;
  losses<A>(task, mode, rows);
  return write_rows<A>(task, rows, begin);
}

template <class T, class A, class S>
static double tile(const SoftmaxTask& task, Mode mode, bool lanes, Rows<A>& rows, int64_t begin, int64_t n, char* s) {
  if (mode == Mode::focused) return lanes_tile<T, A, S, Mode::focused>(task, rows, begin, n, s);
  if (lanes) {
    if (mode == Mode::index) return lanes_tile<T, A, S, Mode::index>(task, rows, begin, n, s);
    if (mode == Mode::smooth) return lanes_tile<T, A, S, Mode::smooth>(task, rows, begin, n, s);
    return lanes_tile<T, A, S, Mode::soft>(task, rows, begin, n, s);
  }
  if (mode == Mode::index) return rows_tile<T, A, S, Mode::index>(task, rows, begin, n, s);
  if (mode == Mode::smooth) return rows_tile<T, A, S, Mode::smooth>(task, rows, begin, n, s);
  return rows_tile<T, A, S, Mode::soft>(task, rows, begin, n, s);
}

template <class T, class A>
static void softmax_chunk(const SoftmaxTask& task, int64_t begin, int64_t end, int64_t chunk, void* scratch) {
  Rows<A> rows;
  char* buffers = (char*)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
  const Mode mode = mode_of(task);
  const bool lanes = across_lanes<A>(task);
  const int64_t step = tile_rows<A>(task);
  // Logits that must be shifted, or read at a stride by the row, go through a buffer in the accumulation dtype.
  const bool shifted = task.offset || task.margin || (!lanes && task.input_class != 1);
  double sum = 0;
  for (int64_t i = begin; i < end; i += step) {
    const int64_t n = end - i < step ? end - i : step;
    sum += shifted ? tile<T, A, A>(task, mode, lanes, rows, i, n, buffers)
                   : tile<T, A, T>(task, mode, lanes, rows, i, n, buffers);
  }
  if (task.partial) task.partial[chunk] = sum;
#if defined(__x86_64__)
  if (task.streaming) _mm_sfence();
#endif
}

}  // namespace STEELYARD_ISA
}  // namespace steelyard
