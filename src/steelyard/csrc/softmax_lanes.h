// Softmax with rows across the lanes of a vector: for few classes, and wherever neighbouring rows lie side by side in
// memory, as the pixels of (N, C, H, W) do.
//
// A tile holds up to 128 rows. Its logits are read in place where rows are one element apart, and else turned on their
// side into a buffer; the gradient takes the same way back.
#pragma once

#include "softmax_formula.h"
#include "stream.h"
#include "transpose.h"

namespace steelyard {
namespace STEELYARD_ISA {

// A tile of logits of type S; class c of row i is at [c·pitch + i].
template <class S> struct Slab {
  S* data = nullptr;
  int64_t pitch = 0;
};

// Sums of many numbers: a block of at most 64 is added up plainly, blocks are added with the rounding error kept.
constexpr int64_t kBlock = 64;
template <class A> INLINE void fold(Vec<A>& sum, Vec<A>& rest, Vec<A> block) {
  const Vec<A> next = sum + block, back = next - sum, error = (sum - (next - back)) + (block - back);
  rest = rest + only(next - next == Vec<A>{}, error);  // an infinite sum has no error, and must not become NaN by it
  sum = next;
}
template <class A> INLINE void fold_into(A* sum, A* rest, A* block, int j) {
  Vec<A> s = load(sum + j), r = load(rest + j);
  fold<A>(s, r, load(block + j));
  store(sum + j, s);
  store(rest + j, r);
  store(block + j, Vec<A>{});
}

// A_c of the rows at lane j, without the factor that `by_target` puts on the whole row.
template <class A> struct Masses {
  const A* weight;   // or null: 1
  Slab<const A> soft;  // or null: labels
  const Rows<A>* rows;
  A keep, share;     // 1 − ε and ε/C
  bool by_target;
  INLINE_MEMBER A of_class(int64_t c) const { return weight && !by_target ? weight[c] : (A)1; }
};
template <class A> INLINE Vec<A> mass(const Masses<A>& m, int64_t c, int j) {
  const Vec<A> u = splat<A>(m.of_class(c));
  if (m.soft.data) return u * fma(splat<A>(m.keep), load(m.soft.data + c * m.soft.pitch + j), splat<A>(m.share));
  Mask<A> own = load_int<A>(m.rows->label + j) == splat_int<A>((typename Lane<A>::Int)c);
  return u * (splat<A>(m.share) + only(own, splat<A>(m.keep)));
}

// One pass over the classes for the maximum, one for everything else. Leaves e^(a − M) in `e` where that has memory.
template <class A, class S, Mode mode>
static void survey(const SoftmaxTask& task, Rows<A>& rows, Slab<S> a, Slab<A> e, const Masses<A>& masses) {
  const int64_t classes = task.classes;
  const int width = rows.padded;
  for (int j = 0; j < width; j += kWidth<A>) store(rows.maximum + j, splat<A>(-__builtin_inf()));
  for (int64_t c = 0; c < classes; c++) {
    const S* x = a.data + c * a.pitch;
    for (int j = 0; j < width; j += kWidth<A>) store(rows.maximum + j, larger(load(x + j), load(rows.maximum + j)));
  }
  alignas(64) A total[kTile], total_rest[kTile], away[kTile], away_rest[kTile], mass_rest[kTile], mass_part[kTile];
  alignas(64) A target_part[kTile], target_rest[kTile];
  constexpr bool dense = mode == Mode::smooth || mode == Mode::soft;
  for (int j = 0; j < width; j += kWidth<A>) {
    store(total + j, Vec<A>{}), store(total_rest + j, Vec<A>{}), store(rows.total + j, Vec<A>{});
    if constexpr (mode != Mode::index) {
      store(away + j, Vec<A>{}), store(away_rest + j, Vec<A>{}), store(rows.away + j, Vec<A>{});
      store(mass_part + j, Vec<A>{}), store(mass_rest + j, Vec<A>{}), store(rows.mass + j, Vec<A>{});
      store(target_part + j, Vec<A>{}), store(target_rest + j, Vec<A>{});
      if (task.soft) store(rows.target + j, Vec<A>{});
    }
  }
  const A* weight = (const A*)task.weight;
  const A* even = task.by_target ? nullptr : weight;
  for (int64_t c = 0; c < classes; c++) {
    const S* x = a.data + c * a.pitch;
    A* out = e.data ? e.data + c * e.pitch : nullptr;
    const Vec<A> u = splat<A>(even ? even[c] : (A)1), w = splat<A>(weight ? weight[c] : (A)1);
    for (int j = 0; j < width; j += kWidth<A>) {
      Vec<A> shifted = load(x + j) - load(rows.maximum + j), power = exp<A>(shifted);
      if constexpr (mode == Mode::smooth) store(away + j, load(away + j) + weighed<A>(u, -shifted));
      if constexpr (mode == Mode::soft) {
        Vec<A> m = mass<A>(masses, c, j);
        store(away + j, load(away + j) + weighed<A>(m, -shifted));
        store(mass_part + j, load(mass_part + j) + m);
      }
      if constexpr (mode == Mode::soft || mode == Mode::focused)
        if (task.soft && task.by_target) {
          Vec<A> q = load(masses.soft.data + c * masses.soft.pitch + j);
          store(target_part + j, fma(w, q, load(target_part + j)));
        }
      if (out) store(out + j, power);
      store(total + j, load(total + j) + power);
    }
    if ((c + 1) % kBlock == 0 || c + 1 == classes)
      for (int j = 0; j < width; j += kWidth<A>) {
        fold_into(rows.total, total_rest, total, j);
        if constexpr (dense) fold_into(rows.away, away_rest, away, j);
        if constexpr (mode == Mode::soft) fold_into(rows.mass, mass_rest, mass_part, j);
        if constexpr (mode == Mode::soft || mode == Mode::focused)
          if (task.soft) fold_into(rows.target, target_rest, target_part, j);
      }
  }
  for (int j = 0; j < width; j += kWidth<A>) {
    store(rows.total + j, load(rows.total + j) + load(total_rest + j));
    if constexpr (dense) store(rows.away + j, load(rows.away + j) + load(away_rest + j));
    if constexpr (mode == Mode::soft) store(rows.mass + j, load(rows.mass + j) + load(mass_rest + j));
    if constexpr (mode == Mode::soft || mode == Mode::focused)
      if (task.soft) store(rows.target + j, load(rows.target + j) + load(target_rest + j));
  }
}

// A third pass where focusing needs log s of every class.
template <class A, class S>
static void survey_focused(const SoftmaxTask& task, Rows<A>& rows, Slab<S> a, const Masses<A>& masses) {
  const A gamma = (A)task.gamma;
  for (int j = 0; j < rows.padded; j += kWidth<A>) {
    Vec<A> log_total = log<A>(load(rows.total + j)), loss = {}, loss_rest = {}, sum = {}, sum_rest = {};
    for (int64_t c = 0; c < task.classes; c++) {
      Vec<A> nl = (load(rows.maximum + j) - load(a.data + c * a.pitch + j)) + log_total, f, slope;
      focus<A>(nl, gamma, f, slope);
      Vec<A> m = mass<A>(masses, c, j);
      fold<A>(loss, loss_rest, weighed<A>(m, f));
      fold<A>(sum, sum_rest, m * slope);
    }
    store(rows.away + j, loss + loss_rest);
    store(rows.mass + j, sum + sum_rest);
  }
}

// The backward pass of a distribution needs Σ A_c and Σ w_c·q_c again: sums over the target, not over the logits.
template <class A> static void survey_masses(const SoftmaxTask& task, Rows<A>& rows, const Masses<A>& masses) {
  const A* weight = (const A*)task.weight;
  for (int j = 0; j < rows.padded; j += kWidth<A>) {
    Vec<A> sum = {}, sum_rest = {}, target = {}, target_rest = {}, part = {}, target_part = {};
    for (int64_t c = 0; c < task.classes; c++) {
      part = part + mass<A>(masses, c, j);
      if (task.soft && task.by_target)
        target_part = fma(splat<A>(weight ? weight[c] : (A)1), load(masses.soft.data + c * masses.soft.pitch + j), target_part);
      if ((c + 1) % kBlock == 0 || c + 1 == task.classes) {
        fold<A>(sum, sum_rest, part);
        fold<A>(target, target_rest, target_part);
        part = target_part = Vec<A>{};
      }
    }
    store(rows.mass + j, sum + sum_rest);
    if (task.soft) store(rows.target + j, target + target_rest);
  }
}

// α·e − κ·A_c − [c = y]·β for every class, from `e` where the survey left it.
template <class A, class S, class T, Mode mode>
static void gradients(const SoftmaxTask& task, const Rows<A>& rows, Slab<S> a, Slab<A> e, Slab<T> out,
                      const Masses<A>& masses, bool streaming) {
  const A* even = task.by_target ? nullptr : (const A*)task.weight;
  alignas(64) A log_total[kTile];
  if constexpr (mode == Mode::focused)
    for (int j = 0; j < rows.padded; j += kWidth<A>) store(log_total + j, log<A>(load(rows.total + j)));
  for (int64_t c = 0; c < task.classes; c++) {
    const S* x = a.data + c * a.pitch;
    const A* kept = e.data ? e.data + c * e.pitch : nullptr;
    T* g = out.data + c * out.pitch;
    const bool past = streaming && ((uintptr_t)g % kBytes) == 0;
    const Vec<A> u = splat<A>(even ? even[c] : (A)1);
    const Mask<A> here = splat_int<A>((typename Lane<A>::Int)c);
    for (int j = 0; j < rows.padded; j += kWidth<A>) {
      Vec<A> shifted = {}, power;
      if (kept) {
        power = load(kept + j);
      } else {
        shifted = load(x + j) - load(rows.maximum + j);
        power = exp<A>(shifted);
      }
      Vec<A> less = {};
      if constexpr (mode == Mode::index || mode == Mode::smooth)
        less = only(load_int<A>(rows.label + j) == here, load(rows.beta + j));
      if constexpr (mode == Mode::smooth) less = fma(load(rows.kappa + j), u, less);
      if constexpr (mode == Mode::soft) less = load(rows.kappa + j) * mass<A>(masses, c, j);
      if constexpr (mode == Mode::focused) {
        Vec<A> f, slope;
        focus<A>(load(log_total + j) - shifted, (A)task.gamma, f, slope);
        less = load(rows.kappa + j) * mass<A>(masses, c, j) * slope;
      }
      Vec<A> result = fma(power, load(rows.alpha + j), -less);
      result = only(load_int<A>(rows.keep + j), result);
      if (past) stream(g + j, result);
      else store(g + j, result);
    }
  }
}

}  // namespace STEELYARD_ISA
}  // namespace steelyard
