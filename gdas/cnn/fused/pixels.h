// Pixels on their way between tensors and scratch memory, in which every pixel is padded with zeros
// to whole vectors.
#pragma once

#include "norm.h"
#include "vector.h"

namespace gdas {

// Zeros around the `rows` rows in the middle of a padded image, whose rows and pixels are `row` and
// `pixel` floats apart: `pad` above and on the left, `below` and `right` on the other sides.
inline void clear_border(float* image, int rows, std::size_t row, std::size_t pixel, int pad,
                         int below, int right) {
  std::fill(image, image + pad * row, 0.f);
  image += pad * row;
  for (int r = 0; r < rows; r++, image += row) {
    std::fill(image, image + pad * pixel, 0.f);
    std::fill(image + row - right * pixel, image + row, 0.f);
  }
  std::fill(image, image + below * row, 0.f);
}

// Copy an image into the middle of a padded one, `row` and `pixel` floats apart: what the map means,
// after a ReLU if RELU. What lies `ahead` floats behind is fetched meanwhile.
template <bool RELU>
inline void read_image(const float* x, const Reading& reading, int height, int width, int channels,
                       float* to, std::size_t row, std::size_t ahead = 0) {
  const std::size_t pixel = padded(channels);
  for_vectors(channels, [&](int c, auto lanes) {
    const Vector mean = load(reading.mean(c)), scale = load(reading.scale(c)),
                 shift = load(reading.shift(c));
    for (int y = 0; y < height; y++) {
      const float* from = x + static_cast<std::size_t>(y) * width * channels + c;
      float* at = to + y * row + c;
      if (reading.given())
        for (int i = 0; i < width; i++, from += channels, at += pixel) {
          prefetch(from + ahead);
          const Vector v = (lanes.load(from) - mean) * scale + shift;
          store(at, RELU ? relu(v) : v);
        }
      else
        for (int i = 0; i < width; i++, from += channels, at += pixel) {
          prefetch(from + ahead);
          const Vector v = lanes.load(from);
          store(at, RELU ? relu(v) : v);
        }
    }
  });
}

// The gradient of stored values, from that of what they mean, for `count` neighbouring pixels. What
// lies `ahead` floats behind both is fetched meanwhile. Without a norm y is not read.
inline void undo_norm(const float* gradient, float keep, const float* y, const Undo& undo, int count,
                      int channels, float* to, std::size_t ahead = 0) {
  const std::size_t pixel = padded(channels);
  for_vectors(channels, [&](int c, auto lanes) {
    const Vector mean = load(undo.mean(c)), per_gradient = load(undo.per_gradient(c)) * keep,
                 per_value = load(undo.per_value(c)), constant = load(undo.constant(c));
    const float *g = gradient + c, *v = y + c;
    float* at = to + c;
    if (!undo.given()) {
      for (int i = 0; i < count; i++, g += channels, at += pixel) {
        prefetch(g + ahead);
        store(at, per_gradient * lanes.load(g) + Vector{});
      }
      return;
    }
    for (int i = 0; i < count; i++, g += channels, v += channels, at += pixel) {
      prefetch(g + ahead);
      prefetch(v + ahead);
      store(at, per_gradient * lanes.load(g) + (per_value * (lanes.load(v) - mean) + constant));
    }
  });
}

}  // namespace gdas
