// Tensors read in the order of a box, whatever their dtype and strides: in place where they lie as a kernel wants them,
// through a buffer that fits the first cache where they don't.
#pragma once

#include "vector.h"

namespace steelyard {
namespace STEELYARD_ISA {

// Calls f(done, length, offset) for each piece of [begin, begin + n) that runs along the last dimension.
template <class F> INLINE void for_runs(const Box& box, const View& view, int64_t begin, int64_t n, F f) {
  int64_t at[kMaxDims], offset = 0, rest = begin;
  const int last = box.ndim - 1;
  for (int d = last; d > 0; d--) {
    at[d] = rest % box.size[d];
    rest /= box.size[d];
    offset += at[d] * view.stride[d];
  }
  at[0] = rest;
  offset += rest * view.stride[0];
  for (int64_t done = 0; done < n;) {
    int64_t length = box.size[last] - at[last];
    if (length > n - done) length = n - done;
    f(done, length, offset);
    done += length;
    at[last] += length;
    offset += length * view.stride[last];
    for (int d = last; d > 0 && at[d] == box.size[d]; d--) {
      offset += view.stride[d - 1] - at[d] * view.stride[d];
      at[d] = 0;
      at[d - 1]++;
    }
  }
}

INLINE bool is_flat(const Box& box, const View& view) {
  int64_t step = 1;
  for (int d = box.ndim - 1; d >= 0; d--) {
    if (box.size[d] != 1 && view.stride[d] != step) return false;
    step *= box.size[d];
  }
  return true;
}

template <class A, class T> INLINE void copy_run(const T* from, int64_t stride, int64_t n, A* to) {
  if (stride == 1)
    for (int64_t i = 0; i < n; i++) to[i] = (A)from[i];
  else if (stride == 0)
    for (int64_t i = 0; i < n; i++) to[i] = (A)from[0];
  else
    for (int64_t i = 0; i < n; i++) to[i] = (A)from[i * stride];
}
template <class A, class T> INLINE void copy_half_run(const T* from, int64_t stride, int64_t n, A* to) {
  for (int64_t i = 0; i < n; i++) to[i] = (A)widen(from[i * stride]);
}

// n elements, `stride` apart, as numbers of type A.
template <class A>
static void copy_as(const void* data, Dtype dtype, int64_t offset, int64_t stride, int64_t n, A* to) {
  switch (dtype) {
    case Dtype::f32: return copy_run((const float*)data + offset, stride, n, to);
    case Dtype::f64: return copy_run((const double*)data + offset, stride, n, to);
    case Dtype::f16: return copy_half_run((const f16*)data + offset, stride, n, to);
    case Dtype::bf16: return copy_half_run((const bf16*)data + offset, stride, n, to);
    case Dtype::i64: return copy_run((const int64_t*)data + offset, stride, n, to);
    case Dtype::i32: return copy_run((const int32_t*)data + offset, stride, n, to);
    case Dtype::i16: return copy_run((const int16_t*)data + offset, stride, n, to);
    case Dtype::i8: return copy_run((const int8_t*)data + offset, stride, n, to);
    case Dtype::u8:
    case Dtype::boolean: return copy_run((const uint8_t*)data + offset, stride, n, to);
  }
}

template <class A> struct DtypeOf;
template <> struct DtypeOf<float> { static constexpr Dtype value = Dtype::f32; };
template <> struct DtypeOf<double> { static constexpr Dtype value = Dtype::f64; };
template <> struct DtypeOf<int64_t> { static constexpr Dtype value = Dtype::i64; };
template <> struct DtypeOf<f16> { static constexpr Dtype value = Dtype::f16; };
template <> struct DtypeOf<bf16> { static constexpr Dtype value = Dtype::bf16; };

template <class A> INLINE void read(const Box& box, const View& view, int64_t begin, int64_t n, A* to) {
  for_runs(box, view, begin, n, [&](int64_t done, int64_t length, int64_t offset) {
    copy_as<A>(view.data, view.dtype, offset, view.stride[box.ndim - 1], length, to + done);
  });
}

// Elements [begin, begin + n) as numbers of type A, where they are or in `buffer`.
template <class A>
INLINE const A* peek(const Box& box, const View& view, int64_t begin, int64_t n, A* buffer) {
  if (view.dtype == DtypeOf<A>::value && is_flat(box, view)) return (const A*)view.data + begin;
  read<A>(box, view, begin, n, buffer);
  return buffer;
}

INLINE double narrow(double x, double*) { return x; }
INLINE float narrow(float x, float*) { return x; }
INLINE bf16 narrow(float x, bf16*) {
  bf16 out;
  store_one(&out, x);
  return out;
}
INLINE f16 narrow(float x, f16*) { return narrow_half(x); }

// The other way: n numbers into the places of a view, rounded once.
template <class T, class A>
INLINE void write_as(const Box& box, const View& view, int64_t begin, int64_t n, const A* from) {
  for_runs(box, view, begin, n, [&](int64_t done, int64_t length, int64_t offset) {
    T* to = (T*)view.data + offset;
    const int64_t stride = view.stride[box.ndim - 1];
    int64_t i = 0;
    if (stride == 1)
      for (; i + kWidth<A> <= length; i += kWidth<A>) store(to + i, load(from + done + i));
    for (; i < length; i++) to[i * stride] = narrow(from[done + i], (T*)nullptr);
  });
}
template <class A> INLINE void write(const Box& box, const View& view, int64_t begin, int64_t n, const A* from) {
  if constexpr (sizeof(A) == 8) {
    write_as<double>(box, view, begin, n, from);
  } else {
    if (view.dtype == Dtype::f32) write_as<float>(box, view, begin, n, from);
    else if (view.dtype == Dtype::bf16) write_as<bf16>(box, view, begin, n, from);
    else write_as<f16>(box, view, begin, n, from);
  }
}

}  // namespace STEELYARD_ISA
}  // namespace steelyard
