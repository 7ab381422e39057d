// A dense convolution pass: ReLU, if there is one, 1 x 1 or 3 x 3 convolution, and batch norm's
// statistics.
//
// Image by image in cache, as in separable.cpp. A tile of neighbouring pixels and all columns of a
// group stays in registers while every tap and every channel of the input is added to it.
#include "kernels.h"
#include "matrix.h"
#include "parallel.h"
#include "pixels.h"

#include <atomic>

namespace gdas {
namespace {

constexpr int MOST_TAPS = 9;
// Floats of a block of rows whose weights' gradient is taken at once, so that it stays in cache.
constexpr int BLOCK = 5000;
constexpr int MOST_RUNS = 8;

struct Sizes {
  int batch, height, width, in, out, kernel, stride, pad, out_height, out_width, threads;
  bool relu;
  std::size_t wide_in, wide_out;      // floats of a pixel in scratch memory
  std::size_t row_in, row_out;        // floats of a padded row there
  std::size_t in_image, out_image;    // floats of an image in a tensor

  Sizes(const Shape& s, const Convolution& c)
      : batch(s.batch), height(s.height), width(s.width), in(s.channels), out(c.channels),
        kernel(s.kernel), stride(s.stride), pad(s.kernel / 2),
        out_height((s.height + s.stride - 1) / s.stride),
        out_width((s.width + s.stride - 1) / s.stride), threads(s.threads),
        relu(c.relu != 0), wide_in(padded(in)), wide_out(padded(out)), row_in((width + 2 * pad) * wide_in),
        row_out((out_width + 2 * pad) * wide_out),
        in_image(static_cast<std::size_t>(height) * width * in),
        out_image(static_cast<std::size_t>(out_height) * out_width * out) {}

  bool covered() const {
    return (kernel == 1 || kernel == 3) && (stride == 1 || stride == 2);
  }
  int taps() const { return kernel * kernel; }
  std::size_t image_size() const { return (height + 2 * pad) * row_in; }
  std::size_t gradient_size() const { return (out_height + 2 * pad) * row_out; }
  float* middle_in(float* image) const { return image + pad * (row_in + wide_in); }
  float* middle_out(float* image) const { return image + pad * (row_out + wide_out); }

  void clear_image(float* image) const {
    clear_border(image, height + 2 * pad, row_in, wide_in, pad);
  }

  // What one image means, after the ReLU, in the middle of zeros.
  void read(const float* x, const Reading& reading, float* image) const {
    if (relu)
      read_image<true>(x, reading, height, width, in, middle_in(image), row_in);
    else
      read_image<false>(x, reading, height, width, in, middle_in(image), row_in);
  }
};

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
  Vector acc[MB][NB];
#pragma GCC unroll 16
  for (int m = 0; m < MB; m++)
#pragma GCC unroll 4
    for (int n = 0; n < NB; n++) acc[m][n] = Vector{};
  for (int t = 0; t < taps.count; t++) {
    const float* from = x + taps.offset[t];
    const float* weight = w + static_cast<std::size_t>(taps.index[t]) * inner * NB * LANES;
    for (int c = 0; c < inner; c++, weight += NB * LANES) {
      Vector b[NB];
#pragma GCC unroll 4
      for (int n = 0; n < NB; n++) b[n] = load(weight + n * LANES);
#pragma GCC unroll 16
      for (int m = 0; m < MB; m++) {
        const Vector a = all(from[m * x_step + c]);
#pragma GCC unroll 4
        for (int n = 0; n < NB; n++) acc[m][n] += a * b[n];
      }
    }
  }
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

// `count` pixels of the output from the packed weights, [taps][inner][columns] group by group.
// moments: collect the sums of y; its pivot must have been set.
inline void convolve(const Sizes& z, const float* x, std::size_t x_step, const Taps& taps,
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
    w += static_cast<std::size_t>(z.taps()) * inner * size * LANES;
  }
}

Taps taps_of_output(const Sizes& z) {
  Taps taps;
  for (int t = 0; t < z.taps(); t++)
    taps.add(t / z.kernel * z.row_in + t % z.kernel * z.wide_in, t);
  return taps;
}

// The taps of the input's pixels in rows y and columns x with (y % stride, x % stride) = (fy, fx):
// pixels of the output's gradient, seen from (y / stride, x / stride).
Taps taps_of_input(const Sizes& z, int fy, int fx) {
  Taps taps;
  for (int t = 0; t < z.taps(); t++) {
    const int down = fy + z.pad - t / z.kernel, right = fx + z.pad - t % z.kernel;
    if (down % z.stride == 0 && right % z.stride == 0)
      taps.add(static_cast<std::size_t>(down / z.stride * static_cast<long>(z.row_out) +
                                        right / z.stride * static_cast<long>(z.wide_out)),
               t);
  }
  return taps;
}

struct Weight {
  const float* start;
  std::size_t of_out, of_in, of_tap;  // floats from one to the next
  float at(int o, int i, int t) const { return start[o * of_out + i * of_in + t * of_tap]; }
};

int forward(const Sizes& z, const float* x, const float* x_norm, const Weight& weight, float* y,
            const BatchNorm& batch_norm) {
  const int chunks = chunks_of(z.batch);
  const Reading reading(x_norm, z.in);
  const Statistics statistics(chunks, z.out);
  Shared<float> packed(packed_size(z.taps() * z.in, z.out));
  if (!reading || !statistics || !packed) return 1;
  pack(packed.get(), z.taps() * z.in, z.out,
       [&](int r, int o) { return weight.at(o, r % z.in, r / z.in); });
  const Taps taps = taps_of_output(z);
  const std::size_t step = z.stride * z.wide_in;
  std::atomic<int> failed{0};
  parallel(z.threads, chunks, [&](int i) {
    float* const image = scratch(z.image_size());
    if (image == nullptr) {
      failed = 1;
      return;
    }
    z.clear_image(image);
    const Moments moments = statistics.of(i);
    const Range range = chunk(z.batch, i);
    for (int n = range.from; n < range.to; n++) {
      z.read(x + n * z.in_image, reading, image);
      if (n == range.from)
        convolve(z, image, step, taps, packed.get(), z.in, z.out, moments.pivot, z.wide_out, 1);
      float* to = y + n * z.out_image;
      for (int r = 0; r < z.out_height; r++, to += static_cast<std::size_t>(z.out_width) * z.out)
        convolve(z, image + r * z.stride * z.row_in, step, taps, packed.get(), z.in, z.out, to,
                 z.out, z.out_width, &moments);
    }
  });
  if (failed) return 1;
  statistics.finish(batch_norm, z.batch, static_cast<double>(z.out_height) * z.out_width);
  return 0;
}

struct Backward {
  const Sizes& z;
  const float *gradient_y, *keep, *y, *x, *base;
  float* gradient_x;
  const Undo& undo;
  const Reading& reading;
  const float* packed;
  Taps phases[2][2];

  // The gradient of the stored output, in the middle of zeros.
  void undo_image(int n, float* gradient) const {
    const std::size_t row = static_cast<std::size_t>(z.out_width) * z.out;
    float* to = z.middle_out(gradient);
    for (int r = 0; r < z.out_height; r++, to += z.row_out)
      undo_norm(gradient_y + n * z.out_image + r * row, keep ? keep[n] : 1.f,
                y + n * z.out_image + r * row, undo, z.out_width, z.out, to);
  }

  // Add the weights' gradient, [taps][in][padded(out)].
  void add_weights(const float* image, float* gradient, float* of_weight) const {
    const float* const g = z.middle_out(gradient);
    const std::size_t of_tap = z.in * z.wide_out;
    // Rows of both images are equally long if the stride is 1, and zeros lie between the
    // gradient's; so a block of them is one long row.
    const int together = z.stride > 1 ? 1 : std::max(1, BLOCK / static_cast<int>(z.row_out));
    for (int r = 0; r < z.out_height; r += together) {
      const int rows = std::min(together, z.out_height - r);
      const int count = rows * (z.out_width + 2 * z.pad) - 2 * z.pad;
      for (int t = 0; t < z.taps(); t++)
        add_outer(image + (r * z.stride + t / z.kernel) * z.row_in + t % z.kernel * z.wide_in,
                  z.stride * z.wide_in, z.in, g + r * z.row_out, z.wide_out, z.out,
                  of_weight + t * of_tap, z.wide_out, count);
    }
  }

  // The input's gradient: `row` is scratch memory for one of its rows, `sums` [2][padded(in)].
  void write_image(int n, float* gradient, float* row, double* sums) const {
    for (int r = 0; r < z.height; r++) {
      const float* const g = z.middle_out(gradient) + r / z.stride * z.row_out;
      for (int f = 0; f < z.stride; f++)
        convolve(z, g, z.wide_out, phases[r % z.stride][f], packed, z.out,
                 static_cast<int>(z.wide_in), row + f * z.wide_in, z.stride * z.wide_in,
                 (z.width - f + z.stride - 1) / z.stride);
      const std::size_t at = n * z.in_image + static_cast<std::size_t>(r) * z.width * z.in;
      for_vectors(z.in, [&](int c, auto lanes) { write_row(lanes, row + c, at + c, c, sums); });
    }
  }

  template <class Lanes>
  INLINE void write_row(Lanes lanes, const float* from, std::size_t at, int c,
                        double* sums) const {
    const Vector mean = load(reading.mean(c)), scale = load(reading.scale(c)),
                 shift = load(reading.shift(c));
    Vector sum{}, product{};
    for (int i = 0; i < z.width; i++, from += z.wide_in, at += z.in) {
      const Vector away = lanes.load(x + at) - mean;
      Vector g = load(from);
      if (z.relu) g = where_positive(away * scale + shift, g);
      if (base) g += lanes.load(base + at);
      sum += g;
      product += g * away;
      lanes.store(gradient_x + at, g);
    }
    if (sums) add_sums(sums, z.wide_in, c, sum, product);
  }
};

// Add up the chunks' gradients of the weights, and write them as the weights lie.
void write_weights(const Sizes& z, const float* parts, int chunks, const Weight& like, float* to) {
  const std::size_t size = static_cast<std::size_t>(z.taps()) * z.in * z.wide_out;
  for (int r = 0; r < z.taps() * z.in; r++)
    for (int first = 0; first < z.out; first += LANES) {
      double sums[LANES] = {};
      for (int i = 0; i < chunks; i++) {
        const float* from = parts + i * size + r * z.wide_out + first;
        for (int k = 0; k < LANES; k++) sums[k] += from[k];
      }
      for (int o = first; o < std::min(z.out, first + LANES); o++)
        to[o * like.of_out + r % z.in * like.of_in + r / z.in * like.of_tap] =
            static_cast<float>(sums[o - first]);
    }
}

int backward(Backward b, const Weight& weight, double* x_sums, float* of_weight) {
  const Sizes& z = b.z;
  // Every run of images has a gradient of the weights of its own, which must not outgrow the images.
  const int chunks = of_weight ? std::min(z.batch, MOST_RUNS) : chunks_of(z.batch);
  const std::size_t weight_size = static_cast<std::size_t>(z.taps()) * z.in * z.wide_out;
  const std::size_t image_size = of_weight ? z.image_size() : 0;
  Shared<float> packed(packed_size(z.taps() * z.out, static_cast<int>(z.wide_in)));
  Shared<float> of_weights(of_weight ? chunks * weight_size : 0);
  ChunkSums sums(x_sums ? chunks : 0, z.in);
  if (!packed || !of_weights || !sums) return 1;
  pack(packed.get(), z.taps() * z.out, static_cast<int>(z.wide_in),
       [&](int r, int i) { return i < z.in ? weight.at(r % z.out, i, r / z.out) : 0.f; });
  b.packed = packed.get();
  for (int fy = 0; fy < z.stride; fy++)
    for (int fx = 0; fx < z.stride; fx++) b.phases[fy][fx] = taps_of_input(z, fy, fx);
  std::atomic<int> failed{0};
  parallel(z.threads, chunks, [&](int i) {
    float* const gradient =
        scratch(z.gradient_size() + (z.width + z.stride) * z.wide_in + image_size);
    if (gradient == nullptr) {
      failed = 1;
      return;
    }
    float* const row = gradient + z.gradient_size();
    float* const image = row + (z.width + z.stride) * z.wide_in;
    clear_border(gradient, z.out_height + 2 * z.pad, z.row_out, z.wide_out, z.pad);
    if (of_weight) z.clear_image(image);
    const int from = static_cast<int>(z.batch * static_cast<long>(i) / chunks);
    const int to = static_cast<int>(z.batch * (static_cast<long>(i) + 1) / chunks);
    for (int n = from; n < to; n++) {
      b.undo_image(n, gradient);
      if (of_weight) {
        z.read(b.x + n * z.in_image, b.reading, image);
        b.add_weights(image, gradient, of_weights.get() + i * weight_size);
      }
      if (b.gradient_x) b.write_image(n, gradient, row, x_sums ? sums.of(i) : nullptr);
    }
  });
  if (failed) return 1;
  if (x_sums) sums.write(x_sums);
  if (of_weight) write_weights(z, of_weights.get(), chunks, weight, of_weight);
  return 0;
}

Weight weight_of(const Convolution& c) {
  return {c.weight, static_cast<std::size_t>(c.of_out), static_cast<std::size_t>(c.of_in),
          static_cast<std::size_t>(c.of_tap)};
}

}  // namespace
}  // namespace gdas

extern "C" int gdas_convolution_forward(const Shape* shape, const Convolution* convolution,
                                        const float* x, const float* x_norm, float* y,
                                        const BatchNorm* batch_norm) {
  const gdas::Sizes z(*shape, *convolution);
  if (!z.covered()) return 2;
  return gdas::forward(z, x, x_norm, gdas::weight_of(*convolution), y, *batch_norm);
}

extern "C" int gdas_convolution_backward(const Shape* shape, const Convolution* convolution,
                                         const float* gradient_y, const float* keep, const float* y,
                                         const float* y_norm, const double* y_sums, const float* x,
                                         const float* x_norm, const float* base, float* gradient_x,
                                         double* x_sums, float* of_weight) {
  const gdas::Sizes z(*shape, *convolution);
  if (!z.covered()) return 2;
  const double count = static_cast<double>(z.batch) * z.out_height * z.out_width;
  const gdas::Undo undo(y_norm, y_sums, z.out, count);
  const gdas::Reading reading(x_norm, z.in);
  if (!undo || !reading) return 1;
  const gdas::Backward b{z, gradient_y, keep, y, x, base, gradient_x, undo, reading, nullptr, {}};
  return gdas::backward(b, gdas::weight_of(*convolution), x_sums, of_weight);
}
