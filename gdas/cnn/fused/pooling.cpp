// 3 x 3 pooling with a padding of 1, which does not count in the mean, or means of 2 x 2 pixels that
// do not overlap; and batch norm's statistics.
#include "kernels.h"
#include "parallel.h"
#include "pixels.h"

#include <atomic>
#include <limits>

namespace gdas {
namespace {

struct Pool {
  int batch, height, width, channels, kernel, stride, pad, out_height, out_width, wide, threads;
  std::size_t row, in_image, out_image;  // floats; row: of an image with a border of one pixel
  float shares[4][4] = {};               // 1 / (rows * columns)

  explicit Pool(const Shape& s)
      : batch(s.batch), height(s.height), width(s.width), channels(s.channels),
        kernel(s.kernel), stride(s.stride), pad((s.kernel - 1) / 2),
        out_height((s.height + s.stride - 1) / s.stride),
        out_width((s.width + s.stride - 1) / s.stride), wide(padded(s.channels)),
        threads(s.threads), row(static_cast<std::size_t>(width + 2) * wide),
        in_image(static_cast<std::size_t>(height) * width * channels),
        out_image(static_cast<std::size_t>(out_height) * out_width * channels) {
    for (int rows = 1; rows < 4; rows++)
      for (int columns = 1; columns < 4; columns++)
        shares[rows][columns] = 1.f / static_cast<float>(rows * columns);
  }

  std::size_t image_size() const { return (height + 2) * row; }
  template <int K>
  INLINE std::size_t tap(int t) const {
    return t / K * row + t % K * static_cast<std::size_t>(wide);
  }
  float* middle(float* image) const { return image + row + wide; }
  // The first pixel that the output in row r and column i reads.
  template <class T>
  T* window(T* image, int r, int i) const {
    return image + (r * stride + 1 - pad) * row + (i * stride + 1 - pad) * static_cast<std::size_t>(wide);
  }

  // How many of the pixels that output i reads, along a side of `size`, there are.
  int inside(int i, int size) const {
    const int from = i * stride - pad;
    return std::min(from + kernel, size) - std::max(from, 0);
  }
  // 1 / the number of pixels that the outputs of row y, by their number of columns, are the mean of
  const float* weights(int y) const { return shares[inside(y, height)]; }
  // Whether there are kernels for it.
  bool covered(bool average) const {
    return kernel == 3 ? stride == 1 || stride == 2 : kernel == 2 && stride == 2 && average;
  }
  // A gradient of the mean that keeps the size is gathered by the pixels that it goes to.
  bool gathers(bool average) const { return average && stride == 1; }
};

// The largest of nine pixels and its place; of equal ones the first, not-a-number before all.
template <bool INDEX, class Lanes>
INLINE void largest(const Pool& p, const float* from, float* to, uint8_t* index, Lanes lanes) {
  Vector best = load(from);
  Integers place{};
#pragma GCC unroll 9
  for (int t = 1; t < 9; t++) {
    const Vector v = load(from + p.tap<3>(t));
    const Integers better = (v > best) | (v != v);
    best = better ? v : best;
    if (INDEX) place = better ? Integers{} + t : place;
  }
  lanes.store(to, best);
  if (INDEX) lanes.store(index, __builtin_convertvector(place, Bytes));
}

template <int K, class Lanes>
INLINE void mean(const Pool& p, const float* from, float* to, float weight, Lanes lanes) {
  Vector sum = load(from);
#pragma GCC unroll 9
  for (int t = 1; t < K * K; t++) sum += load(from + p.tap<K>(t));
  lanes.store(to, sum * weight);
}

// (A copy of the sizes need not be read again after every store.)
void pool_image(const Pool p, bool average, const float* image, float* y, uint8_t* index) {
  for_vectors(p.channels, [&](int c, auto lanes) {
    for (int r = 0; r < p.out_height; r++) {
      const float* const weights = p.weights(r);
      for (int i = 0; i < p.out_width; i++) {
        const float* from = p.window(image, r, i) + c;
        const std::size_t at = (static_cast<std::size_t>(r) * p.out_width + i) * p.channels + c;
        prefetch(y + at + p.out_image);
        if (average && p.kernel == 2)
          mean<2>(p, from, y + at, weights[p.inside(i, p.width)], lanes);
        else if (average)
          mean<3>(p, from, y + at, weights[p.inside(i, p.width)], lanes);
        else if (index)
          largest<true>(p, from, y + at, index + at, lanes);
        else
          largest<false>(p, from, y + at, nullptr, lanes);
      }
    }
  });
}

int forward(const Pool& p, bool average, const float* x, const float* x_norm, float* y,
            uint8_t* index, const BatchNorm* batch_norm) {
  const int chunks = chunks_of(p.batch);
  const Reading reading(x_norm, p.channels);
  const Statistics statistics(chunks, p.channels);
  if (!reading || !statistics) return 1;
  std::atomic<int> failed{0};
  parallel(p.threads, chunks, [&](int i) {
    float* const image = scratch(p.image_size());
    if (image == nullptr) {
      failed = 1;
      return;
    }
    const float border = average ? 0.f : -std::numeric_limits<float>::infinity();
    std::fill(image, image + p.image_size(), border);
    const Moments moments = statistics.of(i);
    const Range range = chunk(p.batch, i);
    for (int n = range.from; n < range.to; n++) {
      float* const out = y + n * p.out_image;
      read_image<false>(x + n * p.in_image, reading, p.height, p.width, p.channels,
                        p.middle(image), p.row, p.in_image);
      pool_image(p, average, image, out, index ? index + n * p.out_image : nullptr);
      if (batch_norm)
        collect(out, p.out_height * p.out_width, p.channels, moments, n == range.from);
    }
  });
  if (failed) return 1;
  if (batch_norm)
    statistics.finish(*batch_norm, p.batch, static_cast<double>(p.out_height) * p.out_width);
  return 0;
}

// Give every output's gradient, [out_height][out_width][wide], to the pixels that it comes from.
void spread(const Pool p, bool average, const float* gradient, const uint8_t* index, float* image) {
  for_vectors(p.channels, [&](int c, auto lanes) {
    for (int r = 0; r < p.out_height; r++) {
      const float* const weights = p.weights(r);
      for (int i = 0; i < p.out_width; i++) {
        const std::size_t pixel = static_cast<std::size_t>(r) * p.out_width + i;
        float* to = p.window(image, r, i) + c;
        Vector g = load(gradient + pixel * p.wide + c);
        if (average) {
          g *= weights[p.inside(i, p.width)];
#pragma GCC unroll 9
          for (int t = 0; t < 9; t++) store(to + p.tap<3>(t), load(to + p.tap<3>(t)) + g);
        } else {
          const Integers place =
              __builtin_convertvector(lanes.load(index + pixel * p.channels + c), Integers);
#pragma GCC unroll 9
          for (int t = 0; t < 9; t++)
            store(to + p.tap<3>(t), load(to + p.tap<3>(t)) + (place == t ? g : Vector{}));
        }
      }
    }
  });
}

struct Backward {
  const float *gradient_y, *keep, *y;
  const Undo& undo;
  const uint8_t* index;
  const float *x, *base;
  float* gradient_x;
  const Reading& reading;
  double* x_sums;  // [2][padded(C)] of a chunk, or null
};

// Write the input's gradient: value(row, column, channel) and what it is added to.
template <class Value>
void write_image(const Pool p, const Backward& b, int n, Value value) {
  for_vectors(p.channels, [&](int c, auto lanes) {
    const Vector middle = load(b.reading.mean(c));
    Vector sum{}, product{};
    for (int y = 0; y < p.height; y++) {
      const std::size_t at = n * p.in_image + static_cast<std::size_t>(y) * p.width * p.channels + c;
      for (int i = 0; i < p.width; i++) {
        const std::size_t own = at + static_cast<std::size_t>(i) * p.channels;
        Vector g = value(y, i, c);
        prefetch((b.base ? b.base : b.gradient_x) + own + p.in_image);
        if (b.base) g += lanes.load(b.base + own);
        lanes.store(b.gradient_x + own, g);
        if (b.x_sums) {
          prefetch(b.x + own + p.in_image);
          sum += g;
          product += g * (lanes.load(b.x + own) - middle);
        }
      }
    }
    if (b.x_sums) add_sums(b.x_sums, p.wide, c, sum, product);
  });
}

// The gradient of outputs as stored, from that of what they mean, for `count` neighbouring pixels.
void undo(const Pool& p, const Backward& b, int n, std::size_t pixel, int count, float* to) {
  const std::size_t at = n * p.out_image + pixel * p.channels;
  undo_norm(b.gradient_y + at, b.keep ? b.keep[n] : 1.f, b.y + at, b.undo, count, p.channels, to,
            p.out_image);
}

void backward_image(const Pool& p, bool average, const Backward& b, float* image, float* gradient,
                    int n) {
  std::fill(image, image + p.image_size(), 0.f);
  undo(p, b, n, 0, p.out_height * p.out_width, gradient);
  spread(p, average, gradient, b.index ? b.index + n * p.out_image : nullptr, image);
  const float* const middle = p.middle(image);
  const std::size_t row = p.row, wide = p.wide;
  write_image(p, b, n, [&](int y, int x, int c) { return load(middle + y * row + x * wide + c); });
}

// The same for means of pixels that no other output reads.
void divide_image(const Pool& p, const Backward& b, float* gradient, int n) {
  undo(p, b, n, 0, p.out_height * p.out_width, gradient);
  write_image(p, b, n, [&](int y, int x, int c) {
    const int r = y / p.stride, i = x / p.stride;
    const std::size_t pixel = static_cast<std::size_t>(r) * p.out_width + i;
    return load(gradient + pixel * p.wide + c) * all(p.weights(r)[p.inside(i, p.width)]);
  });
}

// The same for a mean that keeps the size. The border of `image` is zeros.
// shares: [4][width + 2], the weights of a row's outputs from -1 on, by the number of their rows.
void gather_image(const Pool& p, const Backward& b, float* image, const float* shares, int n) {
  for (int r = 0; r < p.height; r++)
    undo(p, b, n, static_cast<std::size_t>(r) * p.width, p.width, p.middle(image) + r * p.row);
  const std::size_t row = p.row, wide = p.wide;
  write_image(p, b, n, [&](int y, int x, int c) {
    const float* const from = image + y * row + x * wide + c;
    Vector sum{};
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) {
      const float* const share = shares + p.inside(y - 1 + i, p.height) * (p.width + 2) + x;
#pragma GCC unroll 3
      for (int j = 0; j < 3; j++) sum += load(from + i * row + j * wide) * all(share[j]);
    }
    return sum;
  });
}

int backward(const Pool& p, bool average, const Backward& b, double* x_sums) {
  const int chunks = chunks_of(p.batch);
  const std::size_t out_size = static_cast<std::size_t>(p.out_height) * p.out_width * p.wide;
  ChunkSums sums(x_sums ? chunks : 0, p.channels);
  if (!sums) return 1;
  std::atomic<int> failed{0};
  parallel(p.threads, chunks, [&](int i) {
    const bool gathers = p.gathers(average);
    const std::size_t second_size = gathers ? 4 * (static_cast<std::size_t>(p.width) + 2) : out_size;
    float* const image = scratch(p.image_size() + second_size);
    if (image == nullptr) {
      failed = 1;
      return;
    }
    float* const second = image + p.image_size();
    if (gathers) {
      std::fill(image, second, 0.f);
      for (int rows = 0; rows < 4; rows++)
        for (int x = 0; x < p.width + 2; x++)
          second[rows * (p.width + 2) + x] = p.shares[rows][p.inside(x - 1, p.width)];
    }
    Backward own = b;
    if (x_sums) own.x_sums = sums.of(i);
    const Range range = chunk(p.batch, i);
    for (int n = range.from; n < range.to; n++)
      if (gathers)
        gather_image(p, own, image, second, n);
      else if (p.kernel == p.stride)
        divide_image(p, own, second, n);
      else
        backward_image(p, average, own, image, second, n);
  });
  if (failed) return 1;
  if (x_sums) sums.write(x_sums);
  return 0;
}

}  // namespace
}  // namespace gdas

extern "C" int gdas_pooling_forward(const Shape* shape, int average, const float* x,
                                    const float* x_norm, float* y, uint8_t* index,
                                    const BatchNorm* batch_norm) {
  const gdas::Pool p(*shape);
  if (!p.covered(average != 0)) return 2;
  return gdas::forward(p, average != 0, x, x_norm, y, index, batch_norm);
}

extern "C" int gdas_pooling_backward(const Shape* shape, int average, const float* gradient_y,
                                     const float* keep, const float* y, const float* y_norm,
                                     const double* y_sums, const uint8_t* index, const float* x,
                                     const float* x_norm, const float* base, float* gradient_x,
                                     double* x_sums) {
  const gdas::Pool p(*shape);
  if (!p.covered(average != 0)) return 2;
  const double count = static_cast<double>(p.batch) * p.out_height * p.out_width;
  const gdas::Undo undo(y_norm, y_sums, p.channels, count);
  const gdas::Reading reading(x_norm, p.channels);
  if (!undo || !reading) return 1;
  return gdas::backward(p, average != 0,
                        {gradient_y, keep, y, undo, index, x, base, gradient_x, reading, nullptr},
                        x_sums);
}
