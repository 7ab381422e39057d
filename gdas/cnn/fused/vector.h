// A vector of floats: one value for each of LANES neighbouring channels.
//
// Written with the vector extensions of GCC and Clang, so the same source serves every processor;
// the compiler's flags decide how wide a vector is. Only loads and stores of a part of a vector, at
// the end of a pixel whose channels are no multiple of LANES, use what one processor offers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

namespace gdas {

#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr bool MANY_REGISTERS = true;  // 32, not 16
#elif defined(__AVX__)
constexpr int LANES = 8;
constexpr bool MANY_REGISTERS = false;
#elif defined(__ARM_NEON)
constexpr int LANES = 4;
constexpr bool MANY_REGISTERS = true;
#else
constexpr int LANES = 4;
constexpr bool MANY_REGISTERS = false;
#endif

#define INLINE inline __attribute__((always_inline))

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));

// `count` rounded up to whole vectors.
constexpr int padded(int count) { return (count + LANES - 1) / LANES * LANES; }

INLINE Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

INLINE void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

// Fetch what will be read soon into the second cache; the address may lie outside of the tensor.
INLINE void prefetch(const float* from) { __builtin_prefetch(from, 0, 2); }

// (Subtracting zeros is free; adding them would be an instruction, for the sake of -0.)
INLINE Vector all(float value) { return value - Vector{}; }

// max(v, 0); not-a-number stays what it is.
INLINE Vector relu(Vector v) {
  const Vector zero{};
  return v < zero ? zero : v;
}

// `v` where `of` is positive, else 0: the gradient of relu.
INLINE Vector where_positive(Vector of, Vector v) {
  const Vector zero{};
  return of > zero ? v : zero;
}

// How the channels of one vector are read from and written to a tensor: all LANES of them ...
struct Whole {
  INLINE Vector load(const float* from) const { return gdas::load(from); }
  INLINE void store(float* to, Vector v) const { gdas::store(to, v); }
  INLINE Bytes load(const uint8_t* from) const {
    Bytes v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
  INLINE void store(uint8_t* to, Bytes v) const { std::memcpy(to, &v, sizeof v); }
};

// ... or the first `count`; the others are 0 when read, and are not written.
struct Part {
  int count;
#if defined(__AVX512F__)
  __mmask16 mask;
  explicit Part(int n) : count(n), mask(static_cast<__mmask16>((1u << n) - 1u)) {}
  INLINE Vector load(const float* from) const {
    return (Vector)_mm512_maskz_loadu_ps(mask, from);
  }
  INLINE void store(float* to, Vector v) const { _mm512_mask_storeu_ps(to, mask, (__m512)v); }
#elif defined(__AVX__)
  __m256i mask;
  explicit Part(int n) : count(n) {
    alignas(32) int32_t lanes[8];
    for (int i = 0; i < 8; i++) lanes[i] = i < n ? -1 : 0;
    mask = _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
  }
  INLINE Vector load(const float* from) const { return (Vector)_mm256_maskload_ps(from, mask); }
  INLINE void store(float* to, Vector v) const { _mm256_maskstore_ps(to, mask, (__m256)v); }
#else
  explicit Part(int n) : count(n) {}
  INLINE Vector load(const float* from) const {
    Vector v{};
    for (int i = 0; i < count; i++) v[i] = from[i];
    return v;
  }
  INLINE void store(float* to, Vector v) const {
    for (int i = 0; i < count; i++) to[i] = v[i];
  }
#endif
  INLINE Bytes load(const uint8_t* from) const {
    Bytes v{};
    for (int i = 0; i < count; i++) v[i] = from[i];
    return v;
  }
  INLINE void store(uint8_t* to, Bytes v) const {
    for (int i = 0; i < count; i++) to[i] = v[i];
  }
};

// Call f(first channel, Whole or Part) for every vector of a pixel's channels.
template <class F>
INLINE void for_vectors(int channels, F f) {
  int c = 0;
  for (; c + LANES <= channels; c += LANES) f(c, Whole{});
  if (c < channels) f(c, Part(channels - c));
}

}  // namespace gdas
