// A convolution as it is defined: a pixel of the output is the sum over taps of pixels times
// matrices.
//
// A tile of neighbouring pixels and all columns of a group stays in registers while every tap and
// every channel of the input is added to it.
#pragma once

#include "matrix.h"

namespace gdas {

constexpr int MOST_TAPS = 9;

// Which pixels a pixel is the sum of: how far away each is, and which tap it is multiplied by.
struct Taps {
  int count = 0;
  std::size_t offset[MOST_TAPS];
  int index[MOST_TAPS];

  void add(std::size_t away, int tap) {
    offset[count] = away;
    index[count++] = tap;
  }
};

template <int NB, int MB, class Last>
INLINE void tile(const float* x, std::size_t x_step, const Taps& taps, const float* w, int inner,
                 float* y, std::size_t y_step, Last last, Vector (*sum)[NB], const float* pivot) {
  Vector acc[MB][NB] = {};
  for (int t = 0; t < taps.count; t++)
    add_products(acc, x + taps.offset[t], x_step,
                 w + static_cast<std::size_t>(taps.index[t]) * inner * NB * LANES, inner);
  write_tile<NB, MB, Write::set>(acc, y, y_step, last, sum, pivot);
}

template <int NB, class Last>
inline void group(const float* x, std::size_t x_step, const Taps& taps, const float* w, int inner,
                  float* y, std::size_t y_step, int count, Last last, const Moments* moments,
                  int column) {
  constexpr int MB = tile_rows(NB);
  Vector sum[2][NB] = {};
  const float* pivot = moments ? moments->pivot + column : nullptr;
  int i = 0;
  for (; i + MB <= count; i += MB)
    tile<NB, MB>(x + i * x_step, x_step, taps, w, inner, y + i * y_step, y_step, last, sum, pivot);
  for (; i + MB / 2 <= count; i += MB / 2)
    tile<NB, MB / 2>(x + i * x_step, x_step, taps, w, inner, y + i * y_step, y_step, last, sum,
                     pivot);
  for (; i < count; i++)
    tile<NB, 1>(x + i * x_step, x_step, taps, w, inner, y + i * y_step, y_step, last, sum, pivot);
  if (moments)
    for (int n = 0; n < NB; n++) moments->add(column + n * LANES, sum[0][n], sum[1][n]);
}

template <class Last>
inline void group(int vectors, const float* x, std::size_t x_step, const Taps& taps, const float* w,
                  int inner, float* y, std::size_t y_step, int count, Last last, const Moments* m,
                  int column) {
  switch (vectors) {
    case 1: return group<1>(x, x_step, taps, w, inner, y, y_step, count, last, m, column);
    case 2: return group<2>(x, x_step, taps, w, inner, y, y_step, count, last, m, column);
    case 3: return group<3>(x, x_step, taps, w, inner, y, y_step, count, last, m, column);
    default: return group<4>(x, x_step, taps, w, inner, y, y_step, count, last, m, column);
  }
}

// `count` pixels of the output from the packed weights, [all taps][inner][columns] group by group.
// moments: collect the sums of y; its pivot must have been set.
inline void convolve(int all_taps, const float* x, std::size_t x_step, const Taps& taps,
                     const float* w, int inner, int columns, float* y, std::size_t y_step,
                     int count, const Moments* moments = nullptr) {
  const Groups groups(columns);
  const int rest = columns % LANES;
  for (int i = 0; i < groups.count; i++) {
    const int from = groups.from(i) * LANES, size = groups.size(i);
    if (rest && i == groups.count - 1)
      group(size, x, x_step, taps, w, inner, y + from, y_step, count, Part(rest), moments, from);
    else
      group(size, x, x_step, taps, w, inner, y + from, y_step, count, Whole{}, moments, from);
    w += static_cast<std::size_t>(all_taps) * inner * size * LANES;
  }
}

}  // namespace gdas
