// The softmax formula for a tile of rows: from what a pass over the classes found to the loss and to the gradient.
//
//   a_c = z_c + δ_c − m_c·[c = y]      s = softmax(a)      A_c = w_c·q_c
//   loss = v · Σ_c A_c · (1 − s_c)^γ · (−log s_c)
//
// A pass over the classes leaves, for each row, M = max a, T = Σ e^(a − M) and, with own = a_y,
//
//   −log s_y = (M − own) + log T            the two parts are never rounded together with M itself
//   Σ A_c·(−log s_c) = Σ A_c·(M − a_c) + log T · Σ A_c
//
// and the gradient, for every mode below, is one multiply-add for each class:
//
//   ∂loss/∂z_c = α·e^(a_c − M) − κ·A_c − [c = y]·β
//
// `smooth` splits A into the mass of the row's own class (β) and the mass spread evenly (κ, where A_c is w_c or 1).
#pragma once

#include "functions.h"

namespace steelyard {
namespace STEELYARD_ISA {

enum class Mode {
  index,    // all mass on the row's own class, any γ
  smooth,   // that, and ε/C on each class; γ = 0
  soft,     // a distribution, smoothed or not; γ = 0
  focused,  // a distribution or smoothed indices, γ > 0
};

INLINE Mode mode_of(const SoftmaxTask& task) {
  if (!task.soft && task.smoothing == 0) return Mode::index;
  if (task.gamma != 0) return Mode::focused;
  return task.soft ? Mode::soft : Mode::smooth;
}

constexpr int kTile = 128;  // rows of a tile, at most

// One number for each row of a tile.
template <class A> struct alignas(64) Rows {
  A maximum[kTile], total[kTile], own[kTile];
  A mass[kTile];    // Σ A_c, or Σ A_c·(slope of the focusing)
  A away[kTile];    // Σ A_c·(M − a_c), or Σ A_c·(focused −log s_c)
  A target[kTile];  // Σ w_c·q_c of the unsmoothed target; w_y for labels
  A row[kTile];     // v
  A upstream[kTile];
  A loss[kTile], alpha[kTile], beta[kTile], kappa[kTile];
  typename Lane<A>::Int label[kTile], keep[kTile];  // −1 where kept, 0 where not
  int64_t n = 0;                                    // rows
  int padded = 0;                                   // rows, to the next full vector
};

// f(l) = −l·(1 − e^l)^γ and −f'(l) for nl = −l ≥ 0; both 0 where s has rounded to 1.
template <class A> INLINE void focus(Vec<A> nl, A gamma, Vec<A>& f, Vec<A>& slope) {
  Vec<A> rest = -expm1<A>(-nl), log_rest = log<A>(rest), s = exp<A>(-nl);
  Vec<A> sl = (s == splat<A>(0)) ? splat<A>(0) : nl * s;  // 0 at l = −∞, not 0·∞
  Vec<A> full = power<A>(rest, log_rest, gamma);
  Vec<A> less = gamma == 2 ? rest : gamma == 1 ? splat<A>(1) : exp<A>(splat<A>(gamma - 1) * log_rest);
  Mask<A> sure = rest <= splat<A>(0);
  f = only(~sure, nl * full);
  slope = only(~sure, fma(splat<A>(gamma) * sl, less, full));
}

// u·x where a weight of zero wins over an infinite x: a class that a mask rules out costs nothing.
template <class A> INLINE Vec<A> weighed(Vec<A> u, Vec<A> x) { return only(u != splat<A>(0), u * x); }

// The same for a whole row, of which NaN stays NaN.
template <class A> INLINE Vec<A> weighed_row(Vec<A> w, Vec<A> loss) {
  return only((w != splat<A>(0)) | (loss != loss), w * loss);
}

template <class A> static void losses(const SoftmaxTask& task, Mode mode, Rows<A>& rows) {
  const A eps = (A)task.smoothing, share = (A)(task.smoothing / (double)task.classes), gamma = (A)task.gamma;
  const A spread = task.by_target ? (A)task.classes : (A)task.weight_sum;
  for (int j = 0; j < rows.padded; j += kWidth<A>) {
    Vec<A> log_total = log<A>(load(rows.total + j)), w = load(rows.target + j), loss;
    Vec<A> nl = (load(rows.maximum + j) - load(rows.own + j)) + log_total;
    if (mode == Mode::index) {
      if (gamma != 0) {
        Vec<A> slope;
        focus<A>(nl, gamma, nl, slope);
      }
      loss = nl * w;
    } else if (mode == Mode::smooth) {
      Vec<A> h = task.by_target ? splat<A>(1) : w;
      Vec<A> even = fma(splat<A>(spread), log_total, load(rows.away + j));
      loss = weighed<A>(splat<A>(share), even) + weighed<A>(splat<A>(1 - eps) * h, nl);
      if (task.by_target) loss = weighed_row<A>(w, loss);
    } else {
      loss = load(rows.away + j);
      if (mode == Mode::soft) loss = fma(load(rows.mass + j), log_total, loss);
      if (task.by_target) loss = weighed_row<A>(w, loss);
    }
    loss = loss * load(rows.row + j);
    store(rows.loss + j, only(load_int<A>(rows.keep + j), loss));
  }
}

// What multiplies e^(a_c − M), [c = y] and A_c in the gradient.
template <class A> struct Coefficients {
  Vec<A> alpha, beta, kappa;
};

// `get` gives one field of the rows at hand: a vector of rows, or one row in every lane.
template <class A, class Get>
INLINE Coefficients<A> coefficients(const SoftmaxTask& task, Mode mode, const Rows<A>& rows, Get get) {
  const A eps = (A)task.smoothing, share = (A)(task.smoothing / (double)task.classes), gamma = (A)task.gamma;
  const A spread = task.by_target ? (A)task.classes : (A)task.weight_sum;
  const Vec<A> total = get(rows.total), w = get(rows.target);
  Vec<A> u = get(rows.upstream) * get(rows.row);
  Vec<A> k, beta = {}, kappa = {};
  if (mode == Mode::index) {
    k = u * w;
    if (gamma != 0) {
      Vec<A> nl = (get(rows.maximum) - get(rows.own)) + log<A>(total), f, slope;
      focus<A>(nl, gamma, f, slope);
      k = k * slope;
    }
    beta = k;
  } else {
    if (task.by_target) u = u * w;
    if (mode == Mode::smooth) {
      beta = splat<A>(1 - eps) * u;
      if (!task.by_target) beta = beta * w;
      kappa = splat<A>(share) * u;
      k = fma(splat<A>(spread), kappa, beta);
    } else {
      kappa = u;
      k = u * get(rows.mass);
    }
  }
  return {k / total, beta, kappa};
}

}  // namespace STEELYARD_ISA
}  // namespace steelyard
