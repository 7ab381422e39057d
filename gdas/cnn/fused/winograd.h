// 3 x 3 convolutions of stride 1 in tiles of 2 x 2 outputs: 16 products of channels where there are
// 36 if every tap is taken (Winograd 1980; for networks Lavin & Gray, CVPR 2016).
//
// A tile reads 4 x 4 pixels. Sums of these, sums of the taps, and their products have 16 places, and
// a tile's outputs are sums of its products. Each place has a matrix of its own, [tiles][channels],
// for the tiles of a block. What is read lies in the middle of zeros, its sides rounded up to even
// ones. Gradients go the same ways back: of the input with the taps turned around, of the taps as a
// product of both sides' sums.
#pragma once

#include "matrix.h"

namespace gdas {

constexpr int PLACES = 16;

// The tiles of an image, and how many of its rows of tiles make up a block.
struct Tiling {
  int height, width, rows, columns, together;

  Tiling(int image_height, int image_width)
      : height(image_height), width(image_width), rows((height + 1) / 2), columns((width + 1) / 2),
        together(std::min(rows, std::max(1, TILES / columns))) {}
  // Floats of a block whose pixels have so many.
  std::size_t size(std::size_t wide) const { return PLACES * (together * columns * wide + LANES); }

 private:
  static constexpr int TILES = 16;
};

// A block of tiles.
struct TileBlock {
  const Tiling& tiling;
  int first, rows;  // of tiles

  int tiles() const { return rows * tiling.columns; }
  // Where its outputs begin among an image's pixels, and how many there are.
  std::size_t pixel() const { return static_cast<std::size_t>(2 * first) * tiling.width; }
  std::size_t pixels() const {
    return static_cast<std::size_t>(std::min(2 * rows, tiling.height - 2 * first)) * tiling.width;
  }
  // Floats from one place to the next; no power of two, of which the first cache holds few.
  std::size_t place(std::size_t wide) const { return tiles() * wide + LANES; }
};

// f(block) for all blocks of an image
template <class F>
INLINE void for_blocks(const Tiling& t, F f) {
  for (int first = 0; first < t.rows; first += t.together)
    f(TileBlock{t, first, std::min(t.together, t.rows - first)});
}

// Sums of the pixels that each tile of a block reads: to[place][tile][wide]. The first output's
// window begins at `image`.
inline void read_tiles(const TileBlock& b, const float* image, std::size_t row, std::size_t wide,
                       float* to) {
  const std::size_t place = b.place(wide);
  const int columns = b.tiling.columns, rows = b.rows;
  for (int r = 0; r < rows; r++, to += columns * wide)
    for (std::size_t c = 0; c < wide; c += LANES) {
      const float* from = image + 2 * (b.first + r) * row + c;
      float* at = to + c;
      Vector s[4][4];
      const auto read = [&](int k) {
        const Vector v0 = load(from), v1 = load(from + row), v2 = load(from + 2 * row),
                     v3 = load(from + 3 * row);
        s[0][k] = v0 - v2, s[1][k] = v1 + v2, s[2][k] = v2 - v1, s[3][k] = v1 - v3;
        from += wide;
      };
      read(2), read(3);
      for (int j = 0; j < columns; j++, at += wide) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) s[i][0] = s[i][2], s[i][1] = s[i][3];
        read(2), read(3);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          store(at + (4 * i) * place, s[i][0] - s[i][2]);
          store(at + (4 * i + 1) * place, s[i][1] + s[i][2]);
          store(at + (4 * i + 2) * place, s[i][2] - s[i][1]);
          store(at + (4 * i + 3) * place, s[i][1] - s[i][3]);
        }
      }
    }
}

// Sums of the gradients of each tile's outputs, which are the gradients of its products:
// to[place][tile][wide].
inline void read_gradient_tiles(const TileBlock& b, const float* gradient, std::size_t row,
                                std::size_t wide, float* to) {
  const std::size_t place = b.place(wide);
  const int columns = b.tiling.columns, rows = b.rows;
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < columns; j++)
      for (std::size_t c = 0; c < wide; c += LANES, to += LANES) {
        const float* const from = gradient + 2 * (b.first + r) * row + 2 * j * wide + c;
        Vector s[4][2];
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
          const float* const at = from + k * wide;
          const Vector a = load(at), d = load(at + row);
          s[0][k] = a, s[1][k] = a + d, s[2][k] = a - d, s[3][k] = Vector{} - d;
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          store(to + (4 * i) * place, s[i][0]);
          store(to + (4 * i + 1) * place, s[i][0] + s[i][1]);
          store(to + (4 * i + 2) * place, s[i][0] - s[i][1]);
          store(to + (4 * i + 3) * place, Vector{} - s[i][1]);
        }
      }
}

// Call f(row, column, value) for the outputs of a block, one vector of channels, from the products
// [place][tile][wide] that begin with these channels.
template <class F>
INLINE void for_outputs(const TileBlock& b, const float* products, std::size_t wide, F f) {
  const std::size_t place = b.place(wide);
  const int columns = b.tiling.columns, rows = b.rows, height = b.tiling.height, width = b.tiling.width;
  const float* from = products;
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < columns; j++, from += wide) {
      Vector s[2][4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) {
        const Vector d = load(from + (4 + k) * place), e = load(from + (8 + k) * place);
        s[0][k] = load(from + k * place) + d + e;
        s[1][k] = d - e - load(from + (12 + k) * place);
      }
#pragma GCC unroll 2
      for (int i = 0; i < 2; i++) {
        const int y = 2 * (b.first + r) + i;
        if (y >= height) break;
        f(y, 2 * j, s[i][0] + s[i][1] + s[i][2]);
        if (2 * j + 1 < width) f(y, 2 * j + 1, s[i][1] - s[i][2] - s[i][3]);
      }
    }
}

// The mean of the outputs of the block.
inline Vector mean_output(const TileBlock& b, const float* products, std::size_t wide) {
  Vector sum{};
  for_outputs(b, products, wide, [&](int, int, Vector v) { sum += v; });
  return sum / all(static_cast<float>(b.pixels()));
}

// Pack the sums of taps: for every place a matrix of `inner` rows, as pack() does. Columns are whole
// vectors. tap(row, column, t): 0 beyond the last column.
template <class Tap>
inline void pack_places(float* to, int inner, int columns, Tap tap) {
  const Groups groups(columns);
  const std::size_t place = packed_size(inner, columns);
  for (int i = 0; i < groups.count; i++) {
    const int from = groups.from(i) * LANES, width = groups.size(i) * LANES;
    for (int r = 0; r < inner; r++)
      for (int c = from; c < from + width; c += LANES, to += LANES) {
        Vector w[9], s[4][3];
        for (int t = 0; t < 9; t++)
          for (int l = 0; l < LANES; l++) w[t][l] = tap(r, c + l, t);
        for (int k = 0; k < 3; k++) {
          const Vector even = w[k] + w[6 + k];
          s[0][k] = w[k], s[1][k] = (even + w[3 + k]) * all(0.5f);
          s[2][k] = (even - w[3 + k]) * all(0.5f), s[3][k] = w[6 + k];
        }
        for (int k = 0; k < 4; k++) {
          const Vector even = s[k][0] + s[k][2];
          store(to + (4 * k) * place, s[k][0]);
          store(to + (4 * k + 1) * place, (even + s[k][1]) * all(0.5f));
          store(to + (4 * k + 2) * place, (even - s[k][1]) * all(0.5f));
          store(to + (4 * k + 3) * place, s[k][2]);
        }
      }
  }
}

// The gradients of nine taps from those of the sums in 16 places, in the same memory.
inline void taps_of_places(double (&v)[PLACES][LANES]) {
  for (int l = 0; l < LANES; l++) {
    double s[3][4];
    for (int k = 0; k < 4; k++) {
      const double b = v[4 + k][l], c = v[8 + k][l];
      s[0][k] = v[k][l] + 0.5 * (b + c), s[1][k] = 0.5 * (b - c);
      s[2][k] = 0.5 * (b + c) + v[12 + k][l];
    }
    for (int i = 0; i < 3; i++) {
      v[3 * i][l] = s[i][0] + 0.5 * (s[i][1] + s[i][2]);
      v[3 * i + 1][l] = 0.5 * (s[i][1] - s[i][2]);
      v[3 * i + 2][l] = 0.5 * (s[i][1] + s[i][2]) + s[i][3];
    }
  }
}

// What is fetched while a block is multiplied, a part of it at every place: so many floats from each.
struct Ahead {
  static constexpr int MOST = 4;
  const float* from[MOST];  // null: nothing
  std::size_t floats;

  INLINE void fetch(int place) const {
    constexpr std::size_t LINE = 16;
    const std::size_t lines = (floats + LINE - 1) / LINE;
    for (const float* start : from)
      for (std::size_t i = place; start && i < lines; i += PLACES) prefetch(start + i * LINE);
  }
};

// The products of a block: products[place][tile][columns] from tiles [place][tile][wide] and packed
// sums of taps. Columns are whole vectors.
inline void multiply_tiles(const TileBlock& b, const float* tiles, std::size_t wide, int inner,
                           const float* packed, int columns, float* products,
                           const Ahead& ahead) {
  const std::size_t size = packed_size(inner, columns);
  for (int i = 0; i < PLACES; i++) {
    ahead.fetch(i);
    multiply(tiles + i * b.place(wide), wide, packed + i * size, inner, columns,
             products + i * b.place(columns), columns, b.tiles());
  }
}

}  // namespace gdas
