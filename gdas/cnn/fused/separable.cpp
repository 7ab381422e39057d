// A separable pass: ReLU, depthwise convolution, pointwise convolution, and batch norm's statistics.
//
// Image by image in cache: the input is read once, what is between is never written to memory, and
// the output is written once.
#include "depthwise.h"
#include "kernels.h"
#include "matrix.h"
#include "parallel.h"
#include "pixels.h"

#include <atomic>

namespace gdas {
namespace {

// Floats of a block of rows in scratch memory; two of them should fit the first cache.
constexpr int BLOCK = 5000;

struct Sizes {
  int batch, height, width, channels, out_height, out_width, wide, threads;
  std::size_t in_image, out_image;  // floats
  int rows;                         // of the output, in a block

  explicit Sizes(const Shape& s)
      : batch(s.batch), height(s.height), width(s.width), channels(s.channels),
        out_height((s.height + s.stride - 1) / s.stride),
        out_width((s.width + s.stride - 1) / s.stride), wide(padded(s.channels)),
        threads(s.threads),
        in_image(static_cast<std::size_t>(height) * width * channels),
        out_image(static_cast<std::size_t>(out_height) * out_width * channels),
        rows(std::max(1, std::min(out_height, BLOCK / (out_width * wide)))) {}
};

// [C][K * K] to [K * K][padded(C)]
inline void transpose_taps(const float* weight, int channels, int taps, float* to) {
  const int wide = padded(channels);
  for (int c = 0; c < channels; c++)
    for (int t = 0; t < taps; t++) to[t * wide + c] = weight[c * taps + t];
}

template <int K, int S, int D>
struct Pass {
  static constexpr int P = D * (K / 2);         // padding of the input
  static constexpr int Q = (P + S - 1) / S;     // padding of the output's gradient

  static void convolve(const Sizes& z, const float* image, Steps in, const float* taps, float* to,
                       int first, int rows) {
    const Steps out{static_cast<std::size_t>(z.out_width) * z.wide,
                    static_cast<std::size_t>(z.wide)};
    for (int c = 0; c < z.wide; c += LANES)
      for (int y = 0; y < rows; y++)
        convolve_row<K, S, D>(image + (first + y) * S * in.row + c, in, taps + c,
                              to + y * out.row + c, out, z.out_width);
  }

  static int forward(const Sizes& z, const float* x, const float* x_norm, const float* depthwise,
                     const float* pointwise, float* y, const BatchNorm& batch_norm) {
    const int C = z.channels, chunks = chunks_of(z.batch);
    const Steps in{static_cast<std::size_t>(z.width + 2 * P) * z.wide,
                   static_cast<std::size_t>(z.wide)};
    const std::size_t image_size = (z.height + 2 * P) * in.row;
    const std::size_t block_size = static_cast<std::size_t>(z.rows) * z.out_width * z.wide;
    const Reading reading(x_norm, C);
    const Statistics statistics(chunks, C);
    Shared<float> taps(static_cast<std::size_t>(K) * K * z.wide), matrix(packed_size(C, C));
    if (!reading || !statistics || !taps || !matrix) return 1;
    transpose_taps(depthwise, C, K * K, taps.get());
    pack(matrix.get(), C, C, [&](int i, int o) { return pointwise[o * C + i]; });
    std::atomic<int> failed{0};
    parallel(z.threads, chunks, [&](int i) {
      float* const image = scratch(image_size + block_size);
      if (image == nullptr) {
        failed = 1;
        return;
      }
      float* const block = image + image_size;
      clear_border(image, z.height, in.row, in.pixel, P, P, P);
      const Moments moments = statistics.of(i);
      const Range range = chunk(z.batch, i);
      for (int n = range.from; n < range.to; n++) {
        read_image<true>(x + n * z.in_image, reading, z.height, z.width, C,
                         image + P * in.row + P * in.pixel, in.row, z.in_image);
        for (int r = 0; r < z.out_height; r += z.rows) {
          const int rows = std::min(z.rows, z.out_height - r);
          convolve(z, image, in, taps.get(), block, r, rows);
          float* const to = y + n * z.out_image + static_cast<std::size_t>(r) * z.out_width * C;
          if (n == range.from && r == 0)
            multiply_first(block, z.wide, matrix.get(), C, C, to, C, rows * z.out_width, moments);
          else
            multiply(block, z.wide, matrix.get(), C, C, to, C, rows * z.out_width, &moments);
        }
      }
    });
    if (failed) return 1;
    statistics.finish(batch_norm, z.batch, static_cast<double>(z.out_height) * z.out_width);
    return 0;
  }

  struct Backward {
    const float *gradient_y, *keep, *y, *x, *base;
    float* gradient_x;
    const Undo& undo;
    const Reading& reading;
    const float *taps, *matrix;
    double* x_sums;  // [2][padded(C)] of a chunk, or null
    float *of_taps, *of_matrix;  // of a chunk, or null
  };

  // Where one thread keeps an image while it works on it.
  struct Scratch {
    Steps in, of_gradient;
    std::size_t image_size, gradient_size, block_size, row_size;
    float *image, *gradient, *of_y, *depthwise, *rows;

    explicit Scratch(const Sizes& z)
        : in{static_cast<std::size_t>(z.width + 2 * P) * z.wide, static_cast<std::size_t>(z.wide)},
          of_gradient{static_cast<std::size_t>(z.out_width + 2 * Q) * z.wide,
                      static_cast<std::size_t>(z.wide)},
          image_size((z.height + 2 * P) * in.row),
          gradient_size((z.out_height + 2 * Q) * of_gradient.row),
          block_size(static_cast<std::size_t>(z.rows) * z.out_width * z.wide),
          row_size(static_cast<std::size_t>(z.width) * z.wide) {}

    bool get(const Sizes& z, bool weights) {
      float* at = scratch((weights ? image_size + block_size : 0) + gradient_size + block_size +
                          row_size);
      if (at == nullptr) return false;
      gradient = at;
      of_y = gradient + gradient_size;
      rows = of_y + block_size;
      image = rows + row_size;
      depthwise = image + image_size;
      clear_border(gradient, z.out_height, of_gradient.row, of_gradient.pixel, Q, Q, Q);
      if (weights) clear_border(image, z.height, in.row, in.pixel, P, P, P);
      return true;
    }
  };

  static void backward_image(const Sizes& z, const Backward& b, const Scratch& s, int n) {
    const int C = z.channels;
    float* const gradient = s.gradient + Q * s.of_gradient.row + Q * s.of_gradient.pixel;
    if (b.of_taps)
      read_image<true>(b.x + n * z.in_image, b.reading, z.height, z.width, C,
                       s.image + P * s.in.row + P * s.in.pixel, s.in.row, z.in_image);
    const float keep = b.keep ? b.keep[n] : 1.f;
    for (int r = 0; r < z.out_height; r += z.rows) {
      const int rows = std::min(z.rows, z.out_height - r), pixels = rows * z.out_width;
      const std::size_t at = n * z.out_image + static_cast<std::size_t>(r) * z.out_width * C;
      undo_norm(b.gradient_y + at, keep, b.y + at, b.undo, pixels, C, s.of_y, z.out_image);
      for (int y = 0; y < rows; y++)
        multiply(s.of_y + static_cast<std::size_t>(y) * z.out_width * z.wide, z.wide, b.matrix, C,
                 z.wide, gradient + (r + y) * s.of_gradient.row, z.wide, z.out_width);
      if (b.of_taps) {
        convolve(z, s.image, s.in, b.taps, s.depthwise, r, rows);
        add_outer(s.of_y, z.wide, C, s.depthwise, z.wide, C, b.of_matrix, z.wide, pixels);
      }
    }
    if (b.of_taps)
      for (int c = 0; c < z.wide; c += LANES)
        add_weight_gradient<K, S, D>(s.image + c, s.in, gradient + c, s.of_gradient, b.of_taps + c,
                                     z.out_height, z.out_width);
    const Steps out{s.row_size, static_cast<std::size_t>(z.wide)};
    for_vectors(C, [&](int c, auto lanes) {
      Vector sum{}, product{};
      for (int y = 0; y < z.height; y++) {
        transposed_row<K, S, D>(gradient + c, s.of_gradient, b.taps + c, s.rows + c, out, z.width,
                                y);
        const std::size_t at =
            n * z.in_image + static_cast<std::size_t>(y) * z.width * C + c;
        write_row(z, b, lanes, s.rows + c, b.x + at, b.base ? b.base + at : nullptr,
                  b.gradient_x + at, c, sum, product);
      }
      if (b.x_sums) add_sums(b.x_sums, z.wide, c, sum, product);
    });
  }

  // The gradient through the ReLU, added to base and written, and its sums. What belongs to the row
  // of the next image is fetched meanwhile.
  template <class Lanes>
  static INLINE void write_row(const Sizes& z, const Backward& b, Lanes lanes, const float* from,
                               const float* x, const float* base, float* to, int c, Vector& sum,
                               Vector& product) {
    const Vector mean = load(b.reading.mean(c)), scale = load(b.reading.scale(c)),
                 shift = load(b.reading.shift(c));
    for (int i = 0; i < z.width; i++, from += z.wide, x += z.channels, to += z.channels) {
      prefetch((base ? base : to) + z.in_image);
      if (!b.of_taps) prefetch(x + z.in_image);
      const Vector away = lanes.load(x) - mean;
      Vector g = where_positive(away * scale + shift, load(from));
      if (base) {
        g += lanes.load(base);
        base += z.channels;
      }
      sum += g;
      product += g * away;
      lanes.store(to, g);
    }
  }

  static int backward(const Sizes& z, Backward b, const float* depthwise, const float* pointwise,
                      double* x_sums, float* of_depthwise, float* of_pointwise) {
    const int C = z.channels, chunks = chunks_of(z.batch);
    const std::size_t taps_size = static_cast<std::size_t>(K) * K * z.wide;
    const std::size_t matrix_size = static_cast<std::size_t>(C) * z.wide;
    const bool weights = of_depthwise != nullptr;
    Shared<float> taps(taps_size), matrix(packed_size(C, z.wide));
    ChunkSums sums(x_sums ? chunks : 0, C);
    Shared<float> of_weights(weights ? chunks * (taps_size + matrix_size) : 0);
    if (!taps || !matrix || !sums || !of_weights) return 1;
    transpose_taps(depthwise, C, K * K, taps.get());
    pack(matrix.get(), C, z.wide,
         [&](int o, int i) { return i < C ? pointwise[o * C + i] : 0.f; });
    b.taps = taps.get();
    b.matrix = matrix.get();
    std::atomic<int> failed{0};
    parallel(z.threads, chunks, [&](int i) {
      Scratch s(z);
      if (!s.get(z, weights)) {
        failed = 1;
        return;
      }
      Backward own = b;
      if (x_sums) own.x_sums = sums.of(i);
      if (weights) {
        own.of_taps = of_weights.get() + i * (taps_size + matrix_size);
        own.of_matrix = own.of_taps + taps_size;
      }
      const Range range = chunk(z.batch, i);
      for (int n = range.from; n < range.to; n++) backward_image(z, own, s, n);
    });
    if (failed) return 1;
    if (x_sums) sums.write(x_sums);
    if (!weights) return 0;
    const std::size_t step = taps_size + matrix_size;
    Shared<float> sum(taps_size);
    if (!sum) return 1;
    add_up(of_weights.get(), chunks, step, taps_size, sum.get());
    for (int c = 0; c < C; c++) {
      for (int t = 0; t < K * K; t++)
        of_depthwise[c * K * K + t] = sum[static_cast<std::size_t>(t) * z.wide + c];
      add_up(of_weights.get() + taps_size + static_cast<std::size_t>(c) * z.wide, chunks, step, C,
             of_pointwise + c * C);
    }
    return 0;
  }
};

// Call f(Pass) for the pass of a shape.
template <int K, class F>
int with_strides(const Shape& s, F f) {
  if (s.stride == 1 && s.dilation == 1) return f(Pass<K, 1, 1>{});
  if (s.stride == 2 && s.dilation == 1) return f(Pass<K, 2, 1>{});
  if (s.stride == 1 && s.dilation == 2) return f(Pass<K, 1, 2>{});
  if (s.stride == 2 && s.dilation == 2) return f(Pass<K, 2, 2>{});
  return 2;
}

template <class F>
int with_pass(const Shape& s, F f) {
  if (s.kernel == 3) return with_strides<3>(s, f);
  if (s.kernel == 5) return with_strides<5>(s, f);
  return 2;
}

}  // namespace
}  // namespace gdas

extern "C" int gdas_separable_forward(const Shape* shape, const float* x, const float* x_norm,
                                      const float* depthwise, const float* pointwise, float* y,
                                      const BatchNorm* batch_norm) {
  const gdas::Sizes z(*shape);
  return gdas::with_pass(*shape, [&](auto pass) {
    return pass.forward(z, x, x_norm, depthwise, pointwise, y, *batch_norm);
  });
}

extern "C" int gdas_separable_backward(const Shape* shape, const float* gradient_y,
                                       const float* keep, const float* y, const float* y_norm,
                                       const double* y_sums, const float* x, const float* x_norm,
                                       const float* depthwise, const float* pointwise,
                                       const float* base, float* gradient_x, double* x_sums,
                                       float* of_depthwise, float* of_pointwise) {
  const gdas::Sizes z(*shape);
  const double count = static_cast<double>(z.batch) * z.out_height * z.out_width;
  const gdas::Undo undo(y_norm, y_sums, z.channels, count);
  const gdas::Reading reading(x_norm, z.channels);
  if (!undo || !reading) return 1;
  return gdas::with_pass(*shape, [&](auto pass) {
    typename decltype(pass)::Backward b{gradient_y, keep,    y,       x,       base,    gradient_x,
                                        undo,       reading, nullptr, nullptr, nullptr, nullptr,
                                        nullptr};
    return pass.backward(z, b, depthwise, pointwise, x_sums, of_depthwise, of_pointwise);
  });
}
