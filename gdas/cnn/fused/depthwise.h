// Depthwise convolutions of one image in scratch memory, for one vector of channels at a time.
//
// An image has `row` floats from one row to the next and `pixel` floats from one pixel to the next.
// K kernel, S stride, D dilation, P = D * (K / 2) padding. Weights are [K * K][pixel].
#pragma once

#include "vector.h"

namespace gdas {

struct Steps {
  std::size_t row, pixel;
};

template <int K, int S, int D, int XB>
INLINE void convolve_tile(const float* x, Steps in, const float* w, float* y, Steps out) {
  Vector acc[XB];
#pragma GCC unroll 8
  for (int i = 0; i < XB; i++) acc[i] = Vector{};
  for (int ky = 0; ky < K; ky++, x += D * in.row) {
#pragma GCC unroll 7
    for (int kx = 0; kx < K; kx++, w += in.pixel) {
      const Vector weight = load(w);
#pragma GCC unroll 8
      for (int i = 0; i < XB; i++) acc[i] += weight * load(x + (i * S + kx * D) * in.pixel);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < XB; i++) store(y + i * out.pixel, acc[i]);
}

// A row of the output; x is the first input pixel that it meets, in an image padded by P.
template <int K, int S, int D>
INLINE void convolve_row(const float* x, Steps in, const float* w, float* y, Steps out, int width) {
  int i = 0;
  for (; i + 8 <= width; i += 8)
    convolve_tile<K, S, D, 8>(x + i * S * in.pixel, in, w, y + i * out.pixel, out);
  for (; i + 2 <= width; i += 2)
    convolve_tile<K, S, D, 2>(x + i * S * in.pixel, in, w, y + i * out.pixel, out);
  for (; i < width; i++)
    convolve_tile<K, S, D, 1>(x + i * S * in.pixel, in, w, y + i * out.pixel, out);
}

// The gradient of the input. Pixels of the same phase, (y % S, x % S) = (FY, FX), meet the same taps.
constexpr int tap_shift(int k, int f, int K, int S, int D) {
  const int offset = f + D * (K / 2) - k * D;
  return offset % S != 0 ? -1000 : offset / S;
}

template <int K, int S, int D, int FX, int XB, int KX>
INLINE void transposed_taps(const float* g, Steps in, const float* w, Vector* acc) {
  if constexpr (KX < K) {
    constexpr int shift = tap_shift(KX, FX, K, S, D);
    if constexpr (shift != -1000) {
      const Vector weight = load(w + KX * in.pixel);
#pragma GCC unroll 8
      for (int i = 0; i < XB; i++)
        acc[i] += weight * load(g + (i + shift) * static_cast<std::ptrdiff_t>(in.pixel));
    }
    transposed_taps<K, S, D, FX, XB, KX + 1>(g, in, w, acc);
  }
}

template <int K, int S, int D, int FX, int XB>
INLINE void transposed_tile(const float* g, Steps in, const float* w, float* x, Steps out,
                            int phase_y) {
  Vector acc[XB];
#pragma GCC unroll 8
  for (int i = 0; i < XB; i++) acc[i] = Vector{};
  for (int ky = 0; ky < K; ky++) {
    const int offset = phase_y + D * (K / 2) - ky * D;
    if (offset % S != 0) continue;
    transposed_taps<K, S, D, FX, XB, 0>(g + offset / S * static_cast<std::ptrdiff_t>(in.row), in,
                                        w + ky * K * in.pixel, acc);
  }
#pragma GCC unroll 8
  for (int i = 0; i < XB; i++) store(x + i * S * out.pixel, acc[i]);
}

template <int K, int S, int D, int FX>
INLINE void transposed_phase(const float* g, Steps in, const float* w, float* x, Steps out,
                             int width, int phase_y) {
  const int count = (width - FX + S - 1) / S;
  x += FX * out.pixel;
  int i = 0;
  for (; i + 8 <= count; i += 8)
    transposed_tile<K, S, D, FX, 8>(g + i * in.pixel, in, w, x + i * S * out.pixel, out, phase_y);
  for (; i + 2 <= count; i += 2)
    transposed_tile<K, S, D, FX, 2>(g + i * in.pixel, in, w, x + i * S * out.pixel, out, phase_y);
  for (; i < count; i++)
    transposed_tile<K, S, D, FX, 1>(g + i * in.pixel, in, w, x + i * S * out.pixel, out, phase_y);
}

// Row `y` of the input's gradient; g is pixel (0, 0) of the output's, padded by at least
// (P + S - 1) / S pixels of zeros.
template <int K, int S, int D>
INLINE void transposed_row(const float* g, Steps in, const float* w, float* x, Steps out, int width,
                           int y) {
  g += y / S * in.row;
  transposed_phase<K, S, D, 0>(g, in, w, x, out, width, y % S);
  if constexpr (S == 2) transposed_phase<K, S, D, 1>(g, in, w, x, out, width, y % S);
}

// Add the gradient of ROWS rows of the weights, from FIRST on, over a whole image.
template <int K, int S, int D, int ROWS>
INLINE void add_weight_rows(const float* x, Steps in, const float* g, Steps of_g, float* of_w,
                            int first, int height, int width) {
  constexpr int XB = 4;
  Vector acc[ROWS][K];
  x += first * D * in.row;
  of_w += first * K * in.pixel;
#pragma GCC unroll 7
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 7
    for (int k = 0; k < K; k++) acc[r][k] = load(of_w + (r * K + k) * in.pixel);
  for (int y = 0; y < height; y++) {
    const float *x_row = x + y * S * in.row, *g_row = g + y * of_g.row;
    int i = 0;
    for (; i + XB <= width; i += XB) {
      Vector d[XB];
#pragma GCC unroll 4
      for (int j = 0; j < XB; j++) d[j] = load(g_row + (i + j) * of_g.pixel);
#pragma GCC unroll 7
      for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int j = 0; j < XB; j++)
#pragma GCC unroll 7
          for (int k = 0; k < K; k++)
            acc[r][k] += d[j] * load(x_row + r * D * in.row + ((i + j) * S + k * D) * in.pixel);
    }
    for (; i < width; i++) {
      const Vector d = load(g_row + i * of_g.pixel);
#pragma GCC unroll 7
      for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 7
        for (int k = 0; k < K; k++)
          acc[r][k] += d * load(x_row + r * D * in.row + (i * S + k * D) * in.pixel);
    }
  }
#pragma GCC unroll 7
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 7
    for (int k = 0; k < K; k++) store(of_w + (r * K + k) * in.pixel, acc[r][k]);
}

// Add the gradient of the weights; x is padded by P, g is the output's gradient, height by width.
template <int K, int S, int D>
INLINE void add_weight_gradient(const float* x, Steps in, const float* g, Steps of_g, float* of_w,
                                int height, int width) {
  constexpr int ROWS = K == 3 ? 3 : MANY_REGISTERS ? (K == 5 ? 5 : 3) : 2;
  int r = 0;
  for (; r + ROWS <= K; r += ROWS)
    add_weight_rows<K, S, D, ROWS>(x, in, g, of_g, of_w, r, height, width);
  for (; r < K; r++) add_weight_rows<K, S, D, 1>(x, in, g, of_g, of_w, r, height, width);
}

}  // namespace gdas
