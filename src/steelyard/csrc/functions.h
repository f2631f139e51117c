// exp, expm1, log and log1p on vectors, each to about one unit in the last place.
//
// The polynomials are minimax fits (Remez, in 60 digits). Their error is given beside them, relative to the result.
#pragma once

#include "vector.h"

namespace steelyard {
namespace STEELYARD_ISA {

template <class A, int N> INLINE Vec<A> polynomial(const A (&c)[N], Vec<A> x) {
  Vec<A> p = splat<A>(c[N - 1]);
#pragma GCC unroll 16
  for (int i = N - 2; i >= 0; i--) p = fma(p, x, splat<A>(c[i]));
  return p;
}

// The same by pairs of terms: one operation more and half the steps, where it is the wait for each step that costs.
template <class A, int N> INLINE Vec<A> paired_polynomial(const A (&c)[N], Vec<A> x) {
  const Vec<A> square = x * x;
  Vec<A> p = N % 2 ? splat<A>(c[N - 1]) : fma(splat<A>(c[N - 1]), x, splat<A>(c[N - 2]));
#pragma GCC unroll 16
  for (int i = N - 3 + N % 2; i > 0; i -= 2) p = fma(p, square, fma(splat<A>(c[i]), x, splat<A>(c[i - 1])));
  return p;
}

template <class A> struct Constants;

template <> struct Constants<float> {
  // e^r = 1 + r + r²·P(r) on |r| ≤ ½ ln 2: 4.5e-9.
  static constexpr float exp[] = {0.500000009f, 0.166665196f, 0.0416662089f, 0.00836882192f, 0.00139503379f};
  // atanh(u) = u + u·s·R(s), s = u². On s ≤ 1/9: 4.6e-9; on s ≤ 0.02945: 8.2e-10.
  static constexpr float atanh_wide[] = {0.333332072f, 0.200108228f, 0.139999299f, 0.140107237f};
  static constexpr float atanh[] = {0.333333877f, 0.199888142f, 0.149349597f};
  static constexpr float log2_e = 1.44269504f, ln_2 = 0.693359375f, ln_2_rest = -2.12194440e-4f;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float magic = 12582912.0f + bias;  // 1.5·2^23: adding it rounds to an integer in the low bits
  static constexpr float lowest = -88.02f;            // from here on 2^n has an exponent of zero: e^x is 0
  static constexpr uint32_t sqrt_half = 0x3f3504f3;
};

template <> struct Constants<double> {
  // 5e-18.
  static constexpr double exp[] = {0.5,
                                   0.166666666666666978,
                                   0.0416666666665218541,
                                   0.0083333333333078438,
                                   0.00138888889455735502,
                                   0.000198412699162189473,
                                   0.0000248014912607054492,
                                   2.75572172018721599e-6,
                                   2.76308561704778966e-7,
                                   2.51176088284143413e-8};
  // 1.3e-18 both.
  static constexpr double atanh_wide[] = {0.33333333333333158,  0.200000000000769479, 0.142857142740992261,
                                          0.111111119757635118, 0.0909087224246098872, 0.0769327465639632628,
                                          0.0665054958889984421, 0.060525905910772592, 0.0417186704474967871,
                                          0.0850617455120693586};
  static constexpr double atanh[] = {0.333333333333336523, 0.199999999997175269, 0.1428571436931127,
                                     0.111110994530940629, 0.0909177453216689332, 0.076572001155558027,
                                     0.0739639104385858125};
  static constexpr double log2_e = 1.4426950408889634, ln_2 = 0.6931471803691238, ln_2_rest = 1.9082149292705877e-10;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double magic = 6755399441055744.0 + bias;
  static constexpr double lowest = -709.09;
  static constexpr uint64_t sqrt_half = 0x3fe6a09e667f3bcd;
};

// x = n·ln 2 + r with |r| ≤ ½ ln 2, and 2^n; where x is too low for a normal number, 2^n is 0.
template <class A> INLINE void reduce_exponent(Vec<A> x, Vec<A>& r, Vec<A>& power) {
  using K = Constants<A>;
  x = larger(splat<A>(K::lowest), x);
  Vec<A> t = fma(x, splat<A>(K::log2_e), splat<A>(K::magic));
  Vec<A> n = t - splat<A>(K::magic);
  // In float the nearest ln 2 is right to 2e-9, which n ≤ 127 cannot make a rounding error of before e^x is tiny.
  if constexpr (sizeof(A) == 4) r = fma(n, splat<A>(-0.693147182f), x);
  else r = fma(n, splat<A>(-K::ln_2_rest), fma(n, splat<A>(-K::ln_2), x));
  power = (Vec<A>)((Bits<A>)t << K::mantissa);
}

// e^x for x ≤ 0, and a little above; 0 where the result would not be a normal number. NaN stays NaN. `paired` where much
// depends on the result and little else is there to do meanwhile.
template <class A, bool paired = false> INLINE Vec<A> exp(Vec<A> x) {
  Vec<A> r, power;
  reduce_exponent<A>(x, r, power);
  if constexpr (paired) {
    const Vec<A> square = r * r;
    return (splat<A>(1) + fma(paired_polynomial<A>(Constants<A>::exp, r), square, r)) * power;
  }
  Vec<A> p = polynomial<A>(Constants<A>::exp, r);
  return fma(fma(p, r, splat<A>(1)), r, splat<A>(1)) * power;
}

// e^x − 1 for x ≤ 0 without cancellation near 0.
template <class A> INLINE Vec<A> expm1(Vec<A> x) {
  Vec<A> r, power;
  reduce_exponent<A>(x, r, power);
  Vec<A> q = fma(polynomial<A>(Constants<A>::exp, r), r * r, r);
  return fma(power, q, power - splat<A>(1));
}

// log x for x > 0 and normal; −inf at 0.
template <class A> INLINE Vec<A> log(Vec<A> x) {
  using K = Constants<A>;
  Bits<A> bits = (Bits<A>)x;
  Mask<A> n = (Mask<A>)(bits - K::sqrt_half) >> K::mantissa;  // x = m·2^n with m in [√½, √2)
  Vec<A> m = (Vec<A>)(bits - ((Bits<A>)n << K::mantissa));
  Vec<A> k = __builtin_convertvector(n, Vec<A>);
  Vec<A> u = (m - splat<A>(1)) / (m + splat<A>(1)), s = u * u;
  Vec<A> twice = u + u;
  Vec<A> tail = fma(k, splat<A>(K::ln_2_rest), twice * (s * polynomial<A>(K::atanh, s)));
  Vec<A> y = fma(k, splat<A>(K::ln_2), twice + tail);
  y = (x == splat<A>(0)) ? splat<A>(-__builtin_inf()) : y;
  return (x < splat<A>(__builtin_inf())) ? y : x;  // NaN and infinity are their own logarithm
}

// log(1 + e) for e in [0, 1], to full relative accuracy however small e is.
template <class A> INLINE Vec<A> log1p(Vec<A> e) {
  Vec<A> u = e / (e + splat<A>(2)), s = u * u;
  Vec<A> twice = u + u;
  return fma(twice * s, paired_polynomial<A>(Constants<A>::atanh_wide, s), twice);
}

// x^γ for x in [0, 1], given log x. The common exponents are exact.
template <class A> INLINE Vec<A> power(Vec<A> x, Vec<A> log_x, A gamma) {
  if (gamma == 0) return splat<A>(1);
  if (gamma == 1) return x;
  if (gamma == 2) return x * x;
  return exp<A>(splat<A>(gamma) * log_x);
}

}  // namespace STEELYARD_ISA
}  // namespace steelyard
