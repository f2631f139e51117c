// Softmax with the classes of one row across the lanes of a vector: for many classes that lie side by side in memory.
#pragma once

#include "softmax_formula.h"
#include "softmax_lanes.h"

namespace steelyard {
namespace STEELYARD_ISA {

// A shorter row has too many of its lines at its ends, which go past the cache in pieces.
constexpr int64_t kStreamedRow = 16384;  // bytes

// Calls f(c, width) for full vectors and, where classes are left over, once more for those.
template <class A, class F> INLINE void for_classes(int64_t classes, F f) {
  int64_t c = 0;
  for (; c + kWidth<A> <= classes; c += kWidth<A>) f(c, kWidth<A>);
  if (c < classes) f(c, (int)(classes - c));
}
template <class A, class S> INLINE Vec<A> load_part(const S* p, int n, A rest) {
  return n == kWidth<A> ? load(p) : load_some(p, n, rest);
}
template <class T> INLINE void store_part(T* p, int n, Vec<AccumulatesIn<T>> v) {
  if (n == kWidth<AccumulatesIn<T>>) store(p, v);
  else store_some(p, n, v);
}

template <class A, class S> INLINE A row_maximum(const S* x, int64_t classes) {
  const Vec<A> low = splat<A>(-__builtin_inf());
  Vec<A> m0 = low, m1 = low, m2 = low, m3 = low;
  constexpr int W = kWidth<A>;
  int64_t c = 0;
  for (; c + 4 * W <= classes; c += 4 * W) {
    m0 = larger(load(x + c), m0);
    m1 = larger(load(x + c + W), m1);
    m2 = larger(load(x + c + 2 * W), m2);
    m3 = larger(load(x + c + 3 * W), m3);
  }
  for (; c + W <= classes; c += W) m0 = larger(load(x + c), m0);
  if (c < classes) m1 = larger(load_some(x + c, classes - c, (A)-__builtin_inf()), m1);
  return largest_lane<A>(larger(larger(m0, m1), larger(m2, m3)));
}

// A running sum whose blocks of 64 vectors are added up plainly and folded with the rounding error kept.
template <class A> struct Sum {
  Vec<A> block = {}, sum = {}, rest = {};
  INLINE_MEMBER void add(Vec<A> v) { block = block + v; }
  INLINE_MEMBER void close() {
    fold<A>(sum, rest, block);
    block = Vec<A>{};
  }
  INLINE_MEMBER A total() {
    close();
    return add_lanes<A>(sum) + add_lanes<A>(rest);
  }
};

template <class A> INLINE Vec<A> masses_part(const Masses<A>& m, const A* q, int64_t c, int n) {
  Vec<A> u = m.weight && !m.by_target ? load_part<A>(m.weight + c, n, (A)0) : splat<A>(1);
  Vec<A> live = n == kWidth<A> ? u : only(lane_numbers<A>() < splat_int<A>(n), u);
  return live * fma(splat<A>(m.keep), load_part<A>(q + c, n, (A)0), splat<A>(m.share));
}

// `trail(c, n)` is called where `e` is about to be overwritten: the gradient of the row before, written meanwhile.
template <class A, class S, Mode mode, class Trail>
static void survey_row(const SoftmaxTask& task, Rows<A>& rows, int i, const S* x, A* e, const A* q,
                       const Masses<A>& masses, Trail trail) {
  const A maximum = row_maximum<A>(x, task.classes);
  const Vec<A> m = splat<A>(maximum);
  const A* weight = (const A*)task.weight;
  const A* even = task.by_target ? nullptr : weight;
  Sum<A> total, away, mass, target;
  int64_t until_fold = kBlock;
  for_classes<A>(task.classes, [&](int64_t c, int n) INLINE_LAMBDA {
    const Vec<A> shifted = load_part<A>(x + c, n, (A)-__builtin_inf()) - m;
    // The lanes past the end are −∞ − M: 0 but where M is itself infinite or NaN, and there the row is NaN anyway.
    const Vec<A> power = exp<A>(shifted);
    total.add(power);
    trail(c, n);
    if (e) store_part(e + c, n, power);
    if constexpr (mode == Mode::smooth) {
      Vec<A> u = even ? load_part<A>(even + c, n, (A)0) : splat<A>(1);
      if (n < kWidth<A>) u = only(lane_numbers<A>() < splat_int<A>(n), u);
      away.add(weighed<A>(u, -shifted));
    }
    if constexpr (mode == Mode::soft) {
      Vec<A> mine = masses_part<A>(masses, q, c, n);
      away.add(weighed<A>(mine, -shifted));
      mass.add(mine);
      if (task.by_target) {
        Vec<A> w = weight ? load_part<A>(weight + c, n, (A)0) : splat<A>(1);
        target.add(w * load_part<A>(q + c, n, (A)0));
      }
    }
    if (--until_fold == 0) {
      until_fold = kBlock;
      total.close();
      if constexpr (mode != Mode::index) away.close();
      if constexpr (mode == Mode::soft) mass.close(), target.close();
    }
  });
  rows.maximum[i] = maximum;
  rows.total[i] = total.total();
  if constexpr (mode != Mode::index) rows.away[i] = away.total();
  if constexpr (mode == Mode::soft) rows.mass[i] = mass.total(), rows.target[i] = target.total();
}

template <class A>
static void survey_row_masses(const SoftmaxTask& task, Rows<A>& rows, int i, const A* q, const Masses<A>& masses) {
  const A* weight = (const A*)task.weight;
  Sum<A> mass, target;
  int64_t until_fold = kBlock;
  for_classes<A>(task.classes, [&](int64_t c, int n) INLINE_LAMBDA {
    mass.add(masses_part<A>(masses, q, c, n));
    if (task.by_target) {
      Vec<A> w = weight ? load_part<A>(weight + c, n, (A)0) : splat<A>(1);
      target.add(w * load_part<A>(q + c, n, (A)0));
    }
    if (--until_fold == 0) until_fold = kBlock, mass.close(), target.close();
  });
  rows.mass[i] = mass.total();
  rows.target[i] = target.total();
}

// The gradient for one class of a row, `less` being what its own class has beyond the others.
template <class A, Mode mode>
INLINE Vec<A> gradient_of(const Coefficients<A>& k, const Masses<A>& masses, const A* even, const A* q, Vec<A> power,
                          int64_t c, int n) {
  if constexpr (mode == Mode::smooth)
    return fma(power, k.alpha, -(k.kappa * (even ? load_part<A>(even + c, n, (A)0) : splat<A>(1))));
  if constexpr (mode == Mode::soft) return fma(power, k.alpha, -(k.kappa * masses_part<A>(masses, q, c, n)));
  return power * k.alpha;
}

// The row's own class again, its mass folded in before the one rounding. The logits may be overwritten by now.
template <class A, class T, Mode mode>
INLINE void own_gradient(const Rows<A>& rows, int i, const Coefficients<A>& k, const A* even, T* g) {
  const int64_t y = rows.label[i];
  if (y < 0) return;
  const Vec<A> power = exp<A>(splat<A>(rows.own[i]) - splat<A>(rows.maximum[i]));
  Vec<A> less = k.beta;
  if constexpr (mode == Mode::smooth) less = fma(k.kappa, splat<A>(even ? even[y] : (A)1), less);
  store_one(g + y, fma(power, k.alpha, -less)[0]);
}

template <class A, class S, class T, Mode mode>
static void row_gradient(const SoftmaxTask& task, const Rows<A>& rows, int i, const Coefficients<A>& k, const S* x,
                         const A* e, const A* q, T* g, const Masses<A>& masses, bool streaming) {
  const int64_t classes = task.classes;
  if (!rows.keep[i]) {
    memset((void*)g, 0, classes * sizeof(T));
    return;
  }
  const A* even = task.by_target ? nullptr : (const A*)task.weight;
  const Vec<A> m = splat<A>(rows.maximum[i]);
  const auto gradient = [&](int64_t c, int n) INLINE_LAMBDA {
    const Vec<A> power = e ? load_part<A>(e + c, n, (A)0) : exp<A>(load_part<A>(x + c, n, (A)0) - m);
    return gradient_of<A, mode>(k, masses, even, q, power, c, n);
  };
  int64_t c = 0;
  const int64_t skew = ((uintptr_t)g % kBytes) / sizeof(T);
  if (sizeof(T) == sizeof(A) && streaming && classes * (int64_t)sizeof(T) >= kStreamedRow) {
    if (skew) {
      c = kWidth<A> - skew;
      store_some(g, c, gradient(0, (int)c));
    }
    for (; c + kWidth<A> <= classes; c += kWidth<A>) stream(g + c, gradient(c, kWidth<A>));
  } else {
    for (; c + kWidth<A> <= classes; c += kWidth<A>) store(g + c, gradient(c, kWidth<A>));
  }
  if (c < classes) store_some(g + c, classes - c, gradient(c, (int)(classes - c)));
  if constexpr (mode != Mode::soft) own_gradient<A, T, mode>(rows, i, k, even, g);
}

}  // namespace STEELYARD_ISA
}  // namespace steelyard
