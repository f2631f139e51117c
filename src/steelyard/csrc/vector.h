// Vectors as wide as the instruction set has them, and the few operations on them that the formulas need.
//
// GCC's and Clang's vector extensions give + − × ÷, comparisons and selection; intrinsics stand only where those would
// leave the choice of instruction to luck. Multiply-add is always written `fma`, never left to contraction, so that the
// same formula gives the same bits in every function that it is inlined into.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "task.h"

namespace steelyard {
namespace STEELYARD_ISA {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))

// Not <type_traits>: a template of the standard library compiled for one instruction set could be linked for all.
template <class X, class Y> struct same_type { static constexpr bool value = false; };
template <class X> struct same_type<X, X> { static constexpr bool value = true; };
template <bool first, class X, class Y> struct Either { typedef X type; };
template <class X, class Y> struct Either<false, X, Y> { typedef Y type; };

template <class A> struct Lane;
template <> struct Lane<float> {
  typedef float V __attribute__((vector_size(kBytes)));
  typedef int32_t I __attribute__((vector_size(kBytes)));
  typedef uint32_t B __attribute__((vector_size(kBytes)));
  typedef int32_t Int;
  static constexpr int W = kBytes / 4;
};
template <> struct Lane<double> {
  typedef double V __attribute__((vector_size(kBytes)));
  typedef int64_t I __attribute__((vector_size(kBytes)));
  typedef uint64_t B __attribute__((vector_size(kBytes)));
  typedef int64_t Int;
  static constexpr int W = kBytes / 8;
};
template <class A> using Vec = typename Lane<A>::V;
template <class A> using Mask = typename Lane<A>::I;  // all ones or all zeros in each lane
template <class A> using Bits = typename Lane<A>::B;  // where arithmetic may wrap around
template <class A> constexpr int kWidth = Lane<A>::W;

using VF = Vec<float>;
using VD = Vec<double>;
using MF = Mask<float>;
using MD = Mask<double>;

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

template <class T> struct Accumulation { typedef float type; };
template <> struct Accumulation<double> { typedef double type; };
template <class T> using AccumulatesIn = typename Accumulation<T>::type;

template <class A> INLINE Vec<A> splat(A x) { return x - Vec<A>{}; }
template <class A> INLINE Mask<A> splat_int(typename Lane<A>::Int x) { return x - Mask<A>{}; }
INLINE VF as_float(MF x) { return (VF)x; }
INLINE VD as_float(MD x) { return (VD)x; }
INLINE MF as_int(VF x) { return (MF)x; }
INLINE MD as_int(VD x) { return (MD)x; }

template <class A> INLINE Mask<A> lane_numbers() {
  Mask<A> m = {};
  for (int i = 0; i < kWidth<A>; i++) m[i] = i;
  return m;
}

// a·b + c, rounded once where the hardware can.
INLINE VF fma(VF a, VF b, VF c) {
#if defined(__AVX512F__)
  return (VF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (VF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (VF)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
INLINE VD fma(VD a, VD b, VD c) {
#if defined(__AVX512F__)
  return (VD)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (VD)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (VD)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

// The larger; `b` where either is NaN.
INLINE VF larger(VF a, VF b) {
#if defined(__AVX512F__)
  return (VF)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (VF)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (VF)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}
INLINE VD larger(VD a, VD b) {
#if defined(__AVX512F__)
  return (VD)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
  return (VD)_mm256_max_pd((__m256d)a, (__m256d)b);
#elif defined(__x86_64__)
  return (VD)_mm_max_pd((__m128d)a, (__m128d)b);
#else
  return a > b ? a : b;
#endif
}

INLINE VF magnitude(VF a) { return as_float(as_int(a) & 0x7fffffff); }
INLINE VD magnitude(VD a) { return as_float(as_int(a) & 0x7fffffffffffffff); }

// `a` where the mask is set, 0 elsewhere, whatever `a` holds there.
INLINE VF only(MF mask, VF a) { return as_float(as_int(a) & mask); }
INLINE VD only(MD mask, VD a) { return as_float(as_int(a) & mask); }

// ------------------------------------------------------------------------------------------------- memory and dtypes

template <class A> INLINE Vec<A> load(const A* p) {
  Vec<A> v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class A> INLINE void store(A* p, Vec<A> v) { memcpy(p, &v, sizeof v); }
template <class A> INLINE void store_int(typename Lane<A>::Int* p, Mask<A> m) { memcpy(p, &m, sizeof m); }
template <class A> INLINE Mask<A> load_int(const typename Lane<A>::Int* p) {
  Mask<A> m;
  memcpy(&m, p, sizeof m);
  return m;
}

typedef uint16_t Half __attribute__((vector_size(kBytes / 2)));
typedef uint32_t UF __attribute__((vector_size(kBytes)));

INLINE VF load(const bf16* p) {
  Half h;
  memcpy(&h, p, sizeof h);
  return (VF)(__builtin_convertvector(h, UF) << 16);
}

INLINE void store(bf16* p, VF v) {
  UF bits = (UF)v;
  UF rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  UF quiet = (bits >> 16) | 0x40;                           // NaN must stay NaN
  Half h = __builtin_convertvector((v == v) ? rounded : quiet, Half);
  memcpy(p, &h, sizeof h);
}

// IEEE half to float by its bits, for processors without the instruction.
INLINE float widen(f16 x) {
  uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff, out;
  if (rest >= 0x7c00) {
    out = sign | 0x7f800000 | ((rest & 0x3ff) << 13);
  } else if (rest >= 0x400) {
    out = sign | ((rest << 13) + 0x38000000);
  } else {
    float f = (float)rest * 0x1p-24f;
    memcpy(&out, &f, 4);
    out |= sign;
  }
  float f;
  memcpy(&f, &out, 4);
  return f;
}
INLINE float widen(bf16 x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
INLINE float widen(float x) { return x; }
INLINE double widen(double x) { return x; }

INLINE f16 narrow_half(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  uint16_t sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return f16{(uint16_t)(sign | 0x7e00)};
  if (bits >= 0x477ff000) return f16{(uint16_t)(sign | 0x7c00)};  // rounds to 65536 or more: infinity
  if (bits < 0x38800000) {                                       // subnormal: let the float adder round to 2^-24
    float f;
    memcpy(&f, &bits, 4);
    f += 0.5f;
    memcpy(&bits, &f, 4);
    return f16{(uint16_t)(sign | (bits - 0x3f000000))};
  }
  bits += 0xfff + ((bits >> 13) & 1);
  return f16{(uint16_t)(sign | ((bits - 0x38000000) >> 13))};
}

INLINE VF load(const f16* p) {
#if defined(__AVX512F__)
  return (VF)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__)
  return (VF)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
  VF v;
  for (int i = 0; i < kWidth<float>; i++) v[i] = widen(p[i]);
  return v;
#endif
}
INLINE void store(f16* p, VF v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  for (int i = 0; i < kWidth<float>; i++) p[i] = narrow_half(v[i]);
#endif
}

// Past the caches, for results too large to be found there again; `p` is aligned to the vector.
INLINE void stream(float* p, VF v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)v);
#elif defined(__x86_64__)
  _mm_stream_ps(p, (__m128)v);
#else
  store(p, v);
#endif
}
INLINE void stream(double* p, VD v) {
#if defined(__AVX512F__)
  _mm512_stream_pd(p, (__m512d)v);
#elif defined(__AVX2__)
  _mm256_stream_pd(p, (__m256d)v);
#elif defined(__x86_64__)
  _mm_stream_pd(p, (__m128d)v);
#else
  store(p, v);
#endif
}
template <class T> INLINE void stream(T* p, VF v) { store(p, v); }

// The first n < width elements; `rest` fills the other lanes.
template <class T, class A> INLINE Vec<A> load_some(const T* p, int64_t n, A rest) {
  A wide[kWidth<A>];
  for (int i = 0; i < kWidth<A>; i++) wide[i] = rest;
  for (int64_t i = 0; i < n; i++) wide[i] = widen(p[i]);
  return load(wide);
}
template <class T> INLINE void store_some(T* p, int64_t n, Vec<AccumulatesIn<T>> v) {
  T narrow[kWidth<AccumulatesIn<T>>];
  store(narrow, v);
  memcpy(p, narrow, n * sizeof(T));
}
#if defined(__AVX512F__)
INLINE VF load_some(const float* p, int64_t n, float rest) {
  return (VF)_mm512_mask_loadu_ps(_mm512_set1_ps(rest), (__mmask16)((1u << n) - 1), p);
}
INLINE void store_some(float* p, int64_t n, VF v) {
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
#endif
template <class T> INLINE void store_one(T* p, AccumulatesIn<T> x) { store_some(p, 1, splat<AccumulatesIn<T>>(x)); }

}  // namespace STEELYARD_ISA
}  // namespace steelyard
