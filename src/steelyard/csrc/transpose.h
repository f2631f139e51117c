// A square of numbers turned in registers, as many rows as a vector has lanes.
#pragma once

#include <utility>  // index_sequence: types only, nothing that could be linked

#include "vector.h"

namespace steelyard {
namespace STEELYARD_ISA {

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define STEELYARD_TURNS 1
#endif
#endif

#if STEELYARD_TURNS
template <int step, class V, size_t... K> INLINE V lower(V a, V b, std::index_sequence<K...>) {
  return __builtin_shufflevector(a, b, ((K & step) ? sizeof...(K) + K - step : K)...);
}
template <int step, class V, size_t... K> INLINE V upper(V a, V b, std::index_sequence<K...>) {
  return __builtin_shufflevector(a, b, ((K & step) ? sizeof...(K) + K : K + step)...);
}

// Blocks of `step` change places across the diagonal, then blocks of half that, down to single numbers.
template <class A, int step = kWidth<A> / 2> INLINE void transpose(Vec<A> (&r)[kWidth<A>]) {
  using Lanes = std::make_index_sequence<kWidth<A>>;
#pragma GCC unroll 16
  for (int i = 0; i < kWidth<A>; i++) {
    if (i & step) continue;
    const Vec<A> a = r[i], b = r[i + step];
    r[i] = lower<step>(a, b, Lanes{});
    r[i + step] = upper<step>(a, b, Lanes{});
  }
  if constexpr (step > 1) transpose<A, step / 2>(r);
}

// The lanes of v in another order, each `step` further round.
template <int step, class V, size_t... K> INLINE V rotated(V v, std::index_sequence<K...>) {
  return __builtin_shufflevector(v, v, ((K + step) % sizeof...(K))...);
}
template <class A, int step = kWidth<A> / 2> INLINE A add_lanes(Vec<A> v) {
  v = v + rotated<step>(v, std::make_index_sequence<kWidth<A>>{});
  if constexpr (step > 1) return add_lanes<A, step / 2>(v);
  else return v[0];
}
template <class A, int step = kWidth<A> / 2> INLINE A largest_lane(Vec<A> v) {
  v = larger(v, rotated<step>(v, std::make_index_sequence<kWidth<A>>{}));
  if constexpr (step > 1) return largest_lane<A, step / 2>(v);
  else return v[0];
}
#else
template <class A> INLINE A add_lanes(Vec<A> v) {
  for (int half = kWidth<A> / 2; half; half /= 2)
    for (int i = 0; i < half; i++) v[i] += v[i + half];
  return v[0];
}
template <class A> INLINE A largest_lane(Vec<A> v) {
  A m = v[0];
  for (int i = 1; i < kWidth<A>; i++) m = v[i] > m ? v[i] : m;
  return m;
}
#endif

}  // namespace STEELYARD_ISA
}  // namespace steelyard
