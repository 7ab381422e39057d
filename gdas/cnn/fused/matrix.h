// Products of pixels and small matrices, in registers: pointwise convolutions and their gradients.
//
// Pixels lie in rows of `step` floats. Columns are handled in groups of at most 4 vectors. A matrix
// is packed once for each call, group by group, so that it is read in order.
#pragma once

#include <algorithm>

#include "norm.h"
#include "vector.h"

namespace gdas {

// How many rows a tile has whose columns are `vectors` vectors; the sums must fit the registers.
constexpr int tile_rows(int vectors) {
  return MANY_REGISTERS ? (vectors == 1 ? 16 : vectors == 4 ? 4 : 8)
                        : (vectors == 1 ? 8 : vectors == 4 ? 2 : 4);
}

// The columns of a matrix, cut into groups of nearly equal numbers of vectors.
struct Groups {
  int vectors, count;
  explicit Groups(int columns)
      : vectors(padded(columns) / LANES), count((vectors + 3) / 4) {}
  int from(int i) const { return vectors * i / count; }
  int size(int i) const { return from(i + 1) - from(i); }
};

// Floats of a packed matrix.
inline std::size_t packed_size(int rows, int columns) {
  return static_cast<std::size_t>(rows) * padded(columns);
}

// Pack element(row, column); columns are padded with zeros.
template <class Element>
inline void pack(float* to, int rows, int columns, Element element) {
  const Groups groups(columns);
  for (int i = 0; i < groups.count; i++) {
    const int from = groups.from(i) * LANES, width = groups.size(i) * LANES;
    for (int r = 0; r < rows; r++)
      for (int c = from; c < from + width; c++) *to++ = c < columns ? element(r, c) : 0.f;
  }
}

enum class Write { set, add };

// Write a tile of sums to y, or add it; with a pivot also collect the sums of what is written.
template <int NB, int MB, Write WRITE, class Last>
INLINE void write_tile(Vector (&acc)[MB][NB], float* y, std::size_t y_step, Last last,
                       Vector (*sum)[NB], const float* pivot) {
#pragma GCC unroll 4
  for (int n = 0; n < NB; n++) {
    const Vector middle = pivot ? load(pivot + n * LANES) : Vector{};
#pragma GCC unroll 16
    for (int m = 0; m < MB; m++) {
      float* to = y + m * y_step + n * LANES;
      if (WRITE == Write::add)
        acc[m][n] += n == NB - 1 ? last.load(to) : load(to);
      if (n == NB - 1) last.store(to, acc[m][n]); else store(to, acc[m][n]);
      if (pivot) {
        const Vector d = acc[m][n] - middle;
        sum[0][n] += d;
        sum[1][n] += d * d;
      }
    }
  }
}

// acc[row][vector] += x[row][inner] times the packed w[inner][vectors].
template <int NB, int MB>
INLINE void add_products(Vector (&acc)[MB][NB], const float* x, std::size_t x_step, const float* w,
                         int inner) {
  for (int c = 0; c < inner; c++, w += NB * LANES) {
    Vector b[NB];
#pragma GCC unroll 4
    for (int n = 0; n < NB; n++) b[n] = load(w + n * LANES);
#pragma GCC unroll 16
    for (int m = 0; m < MB; m++) {
      const Vector a = all(x[m * x_step + c]);
#pragma GCC unroll 4
      for (int n = 0; n < NB; n++) acc[m][n] += a * b[n];
    }
  }
}

template <int NB, int MB, Write WRITE, class Last>
INLINE void multiply_tile(const float* x, std::size_t x_step, const float* w, int inner, float* y,
                          std::size_t y_step, Last last, Vector (*sum)[NB], const float* pivot) {
  Vector acc[MB][NB] = {};
  add_products(acc, x, x_step, w, inner);
  write_tile<NB, MB, WRITE>(acc, y, y_step, last, sum, pivot);
}

template <int NB, Write WRITE, class Last>
inline void multiply_group(const float* x, std::size_t x_step, const float* w, int inner, float* y,
                           std::size_t y_step, int rows, Last last, const Moments* moments,
                           int column) {
  constexpr int MB = tile_rows(NB);
  Vector sum[2][NB] = {};
  const float* pivot = moments ? moments->pivot + column : nullptr;
  int i = 0;
  for (; i + MB <= rows; i += MB)
    multiply_tile<NB, MB, WRITE>(x + i * x_step, x_step, w, inner, y + i * y_step, y_step, last, sum,
                                 pivot);
  for (; i + MB / 2 <= rows; i += MB / 2)
    multiply_tile<NB, MB / 2, WRITE>(x + i * x_step, x_step, w, inner, y + i * y_step, y_step, last,
                                     sum, pivot);
  for (; i < rows; i++)
    multiply_tile<NB, 1, WRITE>(x + i * x_step, x_step, w, inner, y + i * y_step, y_step, last, sum,
                                pivot);
  if (moments)
    for (int n = 0; n < NB; n++) moments->add(column + n * LANES, sum[0][n], sum[1][n]);
}

template <Write WRITE, class Last>
inline void multiply_group(int vectors, const float* x, std::size_t x_step, const float* w,
                           int inner, float* y, std::size_t y_step, int rows, Last last,
                           const Moments* m, int column) {
  switch (vectors) {
    case 1:
      return multiply_group<1, WRITE>(x, x_step, w, inner, y, y_step, rows, last, m, column);
    case 2:
      return multiply_group<2, WRITE>(x, x_step, w, inner, y, y_step, rows, last, m, column);
    case 3:
      return multiply_group<3, WRITE>(x, x_step, w, inner, y, y_step, rows, last, m, column);
    default:
      return multiply_group<4, WRITE>(x, x_step, w, inner, y, y_step, rows, last, m, column);
  }
}

// y[row][columns] = or += x[row][inner] times the packed w[inner][columns].
// moments: collect the sums of y; its pivot must have been set.
template <Write WRITE = Write::set>
inline void multiply(const float* x, std::size_t x_step, const float* w, int inner, int columns,
                     float* y, std::size_t y_step, int rows, const Moments* moments = nullptr) {
  const Groups groups(columns);
  const int rest = columns % LANES;
  for (int i = 0; i < groups.count; i++) {
    const int from = groups.from(i) * LANES, size = groups.size(i);
    if (rest && i == groups.count - 1)
      multiply_group<WRITE>(size, x, x_step, w, inner, y + from, y_step, rows, Part(rest), moments,
                            from);
    else
      multiply_group<WRITE>(size, x, x_step, w, inner, y + from, y_step, rows, Whole{}, moments,
                            from);
    w += static_cast<std::size_t>(inner) * size * LANES;
  }
}

// The same for the first `rows` rows of a chunk, which set the pivot.
inline void multiply_first(const float* x, std::size_t x_step, const float* w, int inner,
                           int columns, float* y, std::size_t y_step, int rows,
                           const Moments& moments) {
  const Few few(rows);
  multiply(x, few.apart * x_step, w, inner, columns, y, y_step, few.count);
  set_pivot(moments, y, few.count, y_step, columns);
  multiply(x, x_step, w, inner, columns, y, y_step, rows, &moments);
}

template <int NB, int MB>
INLINE void outer_tile(const float* x, std::size_t x_step, const float* g, std::size_t g_step,
                       float* w, std::size_t w_step, int rows) {
  Vector acc[MB][NB];
#pragma GCC unroll 16
  for (int m = 0; m < MB; m++)
#pragma GCC unroll 4
    for (int n = 0; n < NB; n++) acc[m][n] = load(w + m * w_step + n * LANES);
  for (int i = 0; i < rows; i++, x += x_step, g += g_step) {
    Vector b[NB];
#pragma GCC unroll 4
    for (int n = 0; n < NB; n++) b[n] = load(g + n * LANES);
#pragma GCC unroll 16
    for (int m = 0; m < MB; m++) {
      const Vector a = all(x[m]);
#pragma GCC unroll 4
      for (int n = 0; n < NB; n++) acc[m][n] += a * b[n];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MB; m++)
#pragma GCC unroll 4
    for (int n = 0; n < NB; n++) store(w + m * w_step + n * LANES, acc[m][n]);
}

template <int NB>
inline void outer_group(const float* x, std::size_t x_step, int inner, const float* g,
                        std::size_t g_step, float* w, std::size_t w_step, int rows) {
  constexpr int MB = tile_rows(NB);
  int c = 0;
  for (; c + MB <= inner; c += MB)
    outer_tile<NB, MB>(x + c, x_step, g, g_step, w + c * w_step, w_step, rows);
  for (; c + MB / 2 <= inner; c += MB / 2)
    outer_tile<NB, MB / 2>(x + c, x_step, g, g_step, w + c * w_step, w_step, rows);
  for (; c < inner; c++) outer_tile<NB, 1>(x + c, x_step, g, g_step, w + c * w_step, w_step, rows);
}

// w[inner][columns] += the sum over rows of x[row][inner] times g[row][columns]. The rows of g and w
// are padded to whole vectors.
inline void add_outer(const float* x, std::size_t x_step, int inner, const float* g,
                      std::size_t g_step, int columns, float* w, std::size_t w_step, int rows) {
  const Groups groups(columns);
  for (int i = 0; i < groups.count; i++) {
    const int from = groups.from(i) * LANES;
    switch (groups.size(i)) {
      case 1: outer_group<1>(x, x_step, inner, g + from, g_step, w + from, w_step, rows); break;
      case 2: outer_group<2>(x, x_step, inner, g + from, g_step, w + from, w_step, rows); break;
      case 3: outer_group<3>(x, x_step, inner, g + from, g_step, w + from, w_step, rows); break;
      default: outer_group<4>(x, x_step, inner, g + from, g_step, w + from, w_step, rows); break;
    }
  }
}

}  // namespace gdas
