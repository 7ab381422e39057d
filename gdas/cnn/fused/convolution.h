// A dense convolution's sizes, and what its maps and weights look like in scratch memory.
#pragma once

#include "kernels.h"
#include "pixels.h"
#include "taps.h"
#include "winograd.h"

namespace gdas {

struct Sizes {
  int batch, height, width, in, out, kernel, stride, pad, out_height, out_width, threads;
  bool relu, tiled;                   // tiled: in tiles of 2 x 2, not tap by tap
  int odd_rows, odd_columns;          // tiled: 1 if a row or column lacks its pair
  std::size_t wide_in, wide_out;      // floats of a pixel in scratch memory
  std::size_t row_in, row_out;        // floats of a padded row there
  std::size_t in_image, out_image;    // floats of an image in a tensor

  Sizes(const Shape& s, const Convolution& c)
      : batch(s.batch), height(s.height), width(s.width), in(s.channels), out(c.channels),
        kernel(s.kernel), stride(s.stride), pad(s.kernel / 2),
        out_height((s.height + s.stride - 1) / s.stride),
        out_width((s.width + s.stride - 1) / s.stride), threads(s.threads),
        relu(c.relu != 0), tiled(kernel == 3 && stride == 1 && std::min(in, out) >= FEWEST),
        odd_rows(tiled ? height % 2 : 0), odd_columns(tiled ? width % 2 : 0),
        wide_in(padded(in)), wide_out(padded(out)),
        row_in((width + 2 * pad + odd_columns) * wide_in),
        row_out((out_width + 2 * pad + odd_columns) * wide_out),
        in_image(static_cast<std::size_t>(height) * width * in),
        out_image(static_cast<std::size_t>(out_height) * out_width * out) {}

  bool covered() const {
    return (kernel == 1 || kernel == 3) && (stride == 1 || stride == 2);
  }
  int taps() const { return kernel * kernel; }
  // How many matrices the weights are packed as.
  int places() const { return tiled ? PLACES : taps(); }
  std::size_t weight_size() const { return places() * in * wide_out; }
  std::size_t image_size() const { return (height + 2 * pad + odd_rows) * row_in; }
  std::size_t gradient_size() const { return (out_height + 2 * pad + odd_rows) * row_out; }
  float* middle_in(float* image) const { return image + pad * (row_in + wide_in); }
  template <class T>
  T* middle_out(T* gradient) const {
    return gradient + pad * (row_out + wide_out);
  }

  void clear_image(float* image) const { clear(image, height, row_in, wide_in); }
  void clear_gradient(float* gradient) const { clear(gradient, out_height, row_out, wide_out); }

  // What one image means, after the ReLU, in the middle of zeros.
  void read(const float* x, const Reading& reading, float* image) const {
    if (relu)
      read_image<true>(x, reading, height, width, in, middle_in(image), row_in);
    else
      read_image<false>(x, reading, height, width, in, middle_in(image), row_in);
  }

 private:
  // Fewer channels cost less in tiles than the tiles' sums.
  static constexpr int FEWEST = 8;

  void clear(float* image, int rows, std::size_t row, std::size_t wide) const {
    clear_border(image, rows, row, wide, pad, pad + odd_rows, pad + odd_columns);
  }
};

struct Weight {
  const float* start;
  std::size_t of_out, of_in, of_tap;  // floats from one to the next
  float at(int o, int i, int t) const { return start[o * of_out + i * of_in + t * of_tap]; }
};

}  // namespace gdas
