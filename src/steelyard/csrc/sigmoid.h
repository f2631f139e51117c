// One chunk of elements through the sigmoid formula.
//
//   σ = sigmoid(z)      σ₋ = max(σ − κ, 0)
//   loss = v · [ P·t·(1 − σ)^γ₊·(−log σ) + Q·(1 − t)·σ₋^γ₋·(−log(1 − σ₋)) ]
//
// With e = e^(−|z|) in (0, 1] nothing overflows and nothing cancels: −log σ = max(−z, 0) + log1p(e), and σ is one of
// 1/(1 + e) and e/(1 + e), 1 − σ the other.
#pragma once

#include "functions.h"
#include "softmax_rows.h"
#include "stream.h"

namespace steelyard {
namespace STEELYARD_ISA {

constexpr int64_t kElements = 16384;  // of a chunk
constexpr int64_t kElementBlock = 512;  // whose buffers stay in the first cache
constexpr int64_t kPeriod = 4096;       // a longer (C,) is read where it is

template <class A> struct Terms {
  A neg_weight, gamma_pos, gamma_neg, clip;
};

// Loss and slope of one vector of elements, without v.
template <class A, bool plain>
INLINE void element(const Terms<A>& terms, Vec<A> z, Vec<A> t, Vec<A> P, Vec<A>& loss, Vec<A>& slope) {
  const Vec<A> zero = {}, one = splat<A>(1);
  const Vec<A> e = exp<A, true>(-magnitude(z)), inverse = one / (one + e), l = log1p<A>(e);
  const Mask<A> below = z < zero;
  const Vec<A> less = e * inverse;
  const Vec<A> p = below ? less : inverse, n = below ? inverse : less;
  // −log σ and −log(1 − σ); `larger` hands a NaN logit through.
  const Vec<A> minus_log_p = larger(zero, -z) + l, minus_log_n = larger(zero, z) + l;
  Vec<A> positive = minus_log_p, positive_slope = n, negative = minus_log_n, negative_slope = p;
  if constexpr (!plain) {
    if (terms.gamma_pos != 0) {
      const Vec<A> g = splat<A>(terms.gamma_pos), fade = power<A>(n, -minus_log_n, terms.gamma_pos);
      positive = minus_log_p * fade;
      positive_slope = fade * fma(g * p, minus_log_p, n);
    }
    if (terms.clip == 0) {
      if (terms.gamma_neg != 0) {
        const Vec<A> g = splat<A>(terms.gamma_neg), fade = power<A>(p, -minus_log_p, terms.gamma_neg);
        negative = minus_log_n * fade;
        negative_slope = fade * fma(g * n, minus_log_n, p);
      }
    } else {
      const Vec<A> u = p - splat<A>(terms.clip), rest = n + splat<A>(terms.clip), g = splat<A>(terms.gamma_neg);
      const Vec<A> fade = power<A>(u, log<A>(u), terms.gamma_neg), log_rest = log<A>(rest);
      const Mask<A> easy = u <= zero;
      negative = only(~easy, -log_rest * fade);
      negative_slope = only(~easy, p * n * fade * (one / rest - g * log_rest / u));
    }
  }
  const Vec<A> a = t * P;
  Vec<A> b = one - t;
  if (terms.neg_weight != 1) b = b * splat<A>(terms.neg_weight);
  loss = fma(a, positive, b * negative);
  slope = fma(b, negative_slope, -(a * positive_slope));
}

// A factor of each element: one number for all, one for each class over and over, or any view.
template <class A> struct Factor {
  const Box& box;
  const View& view;
  A* buffer;
  Vec<A> constant = splat<A>(1);
  enum { none, one, period, any } kind = none;

  // `buffer` holds a block and a period.
  INLINE_MEMBER Factor(const Box& box, const View& view, A* buffer) : box(box), view(view), buffer(buffer) {
    if (!view) return;
    kind = one;
    for (int d = 0; d < box.ndim; d++)
      if (view.stride[d] != 0 && box.size[d] > 1) kind = any;
    const int64_t last = box.size[box.ndim - 1];
    if (kind == one) {
      A x;
      copy_as<A>(view.data, view.dtype, 0, 0, 1, &x);
      constant = splat<A>(x);
    } else if (box.ndim == 2 && view.stride[0] == 0 && last <= kPeriod) {
      kind = period;
      copy_as<A>(view.data, view.dtype, 0, view.stride[1], last, buffer);
      for (int64_t i = last; i < last + kElementBlock; i++) buffer[i] = buffer[i - last];
    }
  }
  INLINE_MEMBER const A* block(int64_t begin, int64_t n) const {
    if (kind == period) return buffer + begin % box.size[1];
    return kind == any ? peek<A>(box, view, begin, n, buffer) : nullptr;
  }
};

template <class A> INLINE int64_t sigmoid_scratch_bytes() {
  return (5 * kElementBlock + 3 * (kElementBlock + kPeriod)) * (int64_t)sizeof(A) + 64;
}

// `flat`: the logits lie in the order of the box, and are read where they are. `bare`: nothing but logits, targets and
// pos_weight comes in, and nothing but a sum and a flat gradient goes out.
template <class T, class A, bool flat, bool plain, bool bare>
static void sigmoid_chunk(const SigmoidTask& task, int64_t begin, int64_t end, int64_t chunk, void* scratch) {
  A* z_buffer = (A*)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
  A *t_buffer = z_buffer + kElementBlock, *loss_buffer = t_buffer + kElementBlock;
  A *grad_buffer = loss_buffer + kElementBlock, *factors = grad_buffer + kElementBlock;
  const Box& box = task.elements;
  const Factor<A> weight(box, task.weight, factors), pos_weight(box, task.pos_weight, factors + kElementBlock + kPeriod);
  const Factor<A> upstream(box, task.upstream_elements, factors + 2 * (kElementBlock + kPeriod));
  const Terms<A> terms{(A)task.neg_weight, (A)task.gamma_pos, (A)task.gamma_neg, (A)task.clip};
  const Vec<A> scale = splat<A>((A)task.upstream), ignored = splat<A>((A)task.ignore_index);
  const Vec<A> one_upstream = upstream.constant * scale;
  const bool weighs = (bool)task.weight;
  const bool wants_loss = (bool)task.loss, wants_grad = (bool)task.grad;
  const bool flat_grad = wants_grad && is_flat(box, task.grad);
  Sum<A> sum;
  int64_t until_fold = kBlock;
  for (int64_t i = begin; i < end; i += kElementBlock) {
    const int64_t count = end - i < kElementBlock ? end - i : kElementBlock;
    const typename Either<flat, T, A>::type* z;
    if constexpr (flat) z = (const T*)task.input.data + i;
    else z = peek<A>(box, task.input, i, count, z_buffer);
    const A* t = peek<A>(box, task.target, i, count, t_buffer);
    const A *v = weight.block(i, count), *p = pos_weight.block(i, count), *up = upstream.block(i, count);
    T* g = flat_grad ? (T*)task.grad.data + i : nullptr;
    const bool past = task.streaming && g && ((uintptr_t)g % kBytes) == 0;
    for_classes<A>(count, [&](int64_t j, int n) INLINE_LAMBDA {
      const Vec<A> target = load_part<A>(t + j, n, (A)0);
      Vec<A> loss, slope;
      element<A, plain>(terms, load_part<A>(z + j, n, (A)0), target,
                        p ? load_part<A>(p + j, n, (A)0) : pos_weight.constant, loss, slope);
      Vec<A> u = one_upstream;
      Mask<A> keep = ~Mask<A>{};
      if constexpr (!bare) {
        if (weighs) {
          const Vec<A> V = v ? load_part<A>(v + j, n, (A)0) : weight.constant;
          loss = loss * V;
          slope = slope * V;
        }
        if (up) u = load_part<A>(up + j, n, (A)0) * scale;
        if (task.ignores) keep = target != ignored;
      }
      Vec<A> grad = slope * u;
      if (n < kWidth<A>) keep &= lane_numbers<A>() < splat_int<A>(n);
      if (!bare || n < kWidth<A>) {
        loss = only(keep, loss);
        grad = only(keep, grad);
      }
      sum.add(loss);
      if (--until_fold == 0) until_fold = kBlock, sum.close();
      if constexpr (!bare) {
        if (wants_loss) store(loss_buffer + j, loss);
        if (!wants_grad) return;
        if (!g) return store(grad_buffer + j, grad);
      }
      if (n < kWidth<A>) store_some(g + j, n, grad);
      else if (past) stream(g + j, grad);
      else store(g + j, grad);
    });
    if (wants_loss) write<A>(box, task.loss, i, count, loss_buffer);
    if (wants_grad && !g) write_as<T>(box, task.grad, i, count, grad_buffer);
  }
  if (task.partial) {
    sum.close();
    task.partial[chunk] = (double)add_lanes<A>(sum.sum) + (double)add_lanes<A>(sum.rest);
  }
#if defined(__x86_64__)
  if (task.streaming) _mm_sfence();
#endif
}

template <class T, class A>
static void sigmoid_any(const SigmoidTask& task, int64_t begin, int64_t end, int64_t chunk, void* scratch) {
  const bool plain = task.gamma_pos == 0 && task.gamma_neg == 0 && task.clip == 0;
  const bool bare = !task.weight && !task.upstream_elements && !task.ignores && !task.loss && task.grad &&
                    is_flat(task.elements, task.grad);
  if (!is_flat(task.elements, task.input))
    plain ? sigmoid_chunk<T, A, false, true, false>(task, begin, end, chunk, scratch)
          : sigmoid_chunk<T, A, false, false, false>(task, begin, end, chunk, scratch);
  else if (plain && bare)
    sigmoid_chunk<T, A, true, true, true>(task, begin, end, chunk, scratch);
  else
    plain ? sigmoid_chunk<T, A, true, true, false>(task, begin, end, chunk, scratch)
          : sigmoid_chunk<T, A, true, false, false>(task, begin, end, chunk, scratch);
}

}  // namespace STEELYARD_ISA
}  // namespace steelyard
