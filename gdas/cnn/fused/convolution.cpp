// A dense convolution pass: ReLU, if there is one, 1 x 1 or 3 x 3 convolution, and batch norm's
// statistics, if there is one.
//
// Image by image in cache, as in separable.cpp: tap by tap (taps.h), or tile by tile where that
// takes fewer products (winograd.h).
#include "convolution.h"
#include "kernels.h"
#include "matrix.h"
#include "parallel.h"
#include "pixels.h"
#include "taps.h"
#include "winograd.h"

#include <atomic>

namespace gdas {
namespace {

// Floats of a block of rows whose weights' gradient is taken at once, so that it stays in cache.
constexpr int BLOCK = 5000;
constexpr int MOST_RUNS = 8;

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

// The weights as a matrix for every place or tap, from `inner` rows to `columns`.
// at(row, column, tap)
template <class At>
void pack_weights(const Sizes& z, float* to, int inner, int columns, At at) {
  if (z.tiled)
    pack_places(to, inner, padded(columns), [&](int r, int c, int t) {
      return c < columns ? at(r, c, t) : 0.f;
    });
  else
    pack(to, z.taps() * inner, columns, [&](int r, int c) { return at(r % inner, c, r / inner); });
}

struct Forward {
  const Sizes& z;
  const float* packed;
  Taps taps;

  void by_taps(const float* image, float* y, const Moments& moments, bool start) const {
    const std::size_t step = z.stride * z.wide_in;
    if (start) {
      const Few few(z.out_width);
      convolve(z.taps(), image, few.apart * step, taps, packed, z.in, z.out, y, z.out, few.count);
      set_pivot(moments, y, few.count, z.out, z.out);
    }
    for (int r = 0; r < z.out_height; r++, y += static_cast<std::size_t>(z.out_width) * z.out)
      convolve(z.taps(), image + r * z.stride * z.row_in, step, taps, packed, z.in, z.out, y, z.out,
               z.out_width, &moments);
  }

  // memory: for the tiles of a block, and for their products. next: the image that comes next.
  void by_tiles(const Tiling& tiling, const float* image, float* memory, const float* next,
                float* y, const Moments& moments, bool start) const {
    float* const products = memory + tiling.size(z.wide_in);
    for_blocks(tiling, [&](const TileBlock& block) {
      read_tiles(block, image, z.row_in, z.wide_in, memory);
      multiply_tiles(block, memory, z.wide_in, z.in, packed, static_cast<int>(z.wide_out), products,
                     {{next + block.pixel() * z.in, y + (block.pixel() + block.pixels()) * z.out},
                      block.pixels() * std::min(z.in, z.out)});
      for_vectors(z.out, [&](int c, auto lanes) {
        if (start && block.first == 0)
          store(moments.pivot + c, mean_output(block, products + c, z.wide_out));
        const Vector pivot = load(moments.pivot + c);
        Vector sum{}, square{};
        for_outputs(block, products + c, z.wide_out, [&](int r, int i, Vector v) {
          lanes.store(y + (static_cast<std::size_t>(r) * z.width + i) * z.out + c, v);
          const Vector d = v - pivot;
          sum += d;
          square += d * d;
        });
        moments.add(c, sum, square);
      });
    });
  }
};

int forward(const Sizes& z, const float* x, const float* x_norm, const Weight& weight, float* y,
            const BatchNorm* batch_norm) {
  const int chunks = chunks_of(z.batch);
  const Reading reading(x_norm, z.in);
  const Statistics statistics(chunks, z.out);
  Shared<float> packed(packed_size(z.places() * z.in, z.out));
  if (!reading || !statistics || !packed) return 1;
  pack_weights(z, packed.get(), z.in, z.out,
               [&](int i, int o, int t) { return weight.at(o, i, t); });
  const Forward f{z, packed.get(), taps_of_output(z)};
  const Tiling tiling(z.height, z.width);
  const std::size_t tiles = z.tiled ? tiling.size(z.wide_in) + tiling.size(z.wide_out) : 0;
  std::atomic<int> failed{0};
  parallel(z.threads, chunks, [&](int i) {
    float* const image = scratch(z.image_size() + tiles);
    if (image == nullptr) {
      failed = 1;
      return;
    }
    z.clear_image(image);
    const Moments moments = statistics.of(i);
    const Range range = chunk(z.batch, i);
    for (int n = range.from; n < range.to; n++) {
      const bool start = n == range.from;
      float* const to = y + n * z.out_image;
      z.read(x + n * z.in_image, reading, image);
      if (z.tiled)
        f.by_tiles(tiling, image, image + z.image_size(), x + (n + 1) * z.in_image, to, moments,
                   start);
      else
        f.by_taps(image, to, moments, start);
    }
  });
  if (failed) return 1;
  if (batch_norm)
    statistics.finish(*batch_norm, z.batch, static_cast<double>(z.out_height) * z.out_width);
  return 0;
}

struct Backward {
  const Sizes& z;
  const float *gradient_y, *keep, *y, *x, *base;
  float* gradient_x;
  const Undo& undo;
  const Reading& reading;
  const float* packed;
  Tiling tiling;
  Taps phases[2][2];

  // The gradient of the stored output, in the middle of zeros.
  void undo_image(int n, float* gradient) const {
    const std::size_t row = static_cast<std::size_t>(z.out_width) * z.out;
    float* to = z.middle_out(gradient);
    for (int r = 0; r < z.out_height; r++, to += z.row_out)
      undo_norm(gradient_y + n * z.out_image + r * row, keep ? keep[n] : 1.f,
                y + n * z.out_image + r * row, undo, z.out_width, z.out, to);
  }

  // Add the weights' gradient, [places][in][padded(out)].
  void add_weights(const float* image, float* gradient, float* memory, float* of_weight) const {
    if (z.tiled)
      add_by_tiles(image, z.middle_out(gradient), memory, of_weight);
    else
      add_by_taps(image, z.middle_out(gradient), of_weight);
  }

  void add_by_taps(const float* image, const float* g, float* of_weight) const {
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

  void add_by_tiles(const float* image, const float* g, float* memory, float* of_weight) const {
    float* const gradients = memory + tiling.size(z.wide_in);
    for_blocks(tiling, [&](const TileBlock& block) {
      read_tiles(block, image, z.row_in, z.wide_in, memory);
      read_gradient_tiles(block, g, z.row_out, z.wide_out, gradients);
      for (int i = 0; i < PLACES; i++)
        add_outer(memory + i * block.place(z.wide_in), z.wide_in, z.in,
                  gradients + i * block.place(z.wide_out), z.wide_out, z.out,
                  of_weight + i * z.in * z.wide_out, z.wide_out, block.tiles());
    });
  }

  // The input's gradient, [2][padded(in)] its sums.
  void write_image(int n, const float* gradient, float* memory, double* sums) const {
    if (z.tiled)
      write_by_tiles(n, gradient, memory, sums);
    else
      write_by_taps(n, gradient, memory, sums);
  }

  // row: scratch memory for a row of it. The same row of the next image is fetched meanwhile.
  void write_by_taps(int n, const float* gradient, float* row, double* sums) const {
    for (int r = 0; r < z.height; r++) {
      const float* const g = z.middle_out(gradient) + r / z.stride * z.row_out;
      for (int f = 0; f < z.stride; f++)
        convolve(z.taps(), g, z.wide_out, phases[r % z.stride][f], packed, z.out,
                 static_cast<int>(z.wide_in), row + f * z.wide_in, z.stride * z.wide_in,
                 (z.width - f + z.stride - 1) / z.stride);
      const std::size_t at = n * z.in_image + static_cast<std::size_t>(r) * z.width * z.in;
      for_vectors(z.in, [&](int c, auto lanes) {
        Written<decltype(lanes)> written(*this, lanes, c);
        for (int i = 0; i < z.width; i++) {
          const std::size_t own = at + static_cast<std::size_t>(i) * z.in + c;
          prefetch((base ? base : gradient_x) + own + z.in_image);
          prefetch(x + own + z.in_image);
          written.write(own, load(row + i * z.wide_in + c));
        }
        written.add(sums);
      });
    }
  }

  Ahead ahead(int n, const TileBlock& block) const {
    const std::size_t of_in = (n + 1) * z.in_image + block.pixel() * z.in,
                      of_out = (n + 1) * z.out_image + block.pixel() * z.out;
    return {{gradient_y + of_out, y + of_out, x + of_in, (base ? base : gradient_x) + of_in},
            block.pixels() * std::min(z.in, z.out)};
  }

  void write_by_tiles(int n, const float* gradient, float* memory, double* sums) const {
    float* const products = memory + tiling.size(z.wide_out);
    for_blocks(tiling, [&](const TileBlock& block) {
      read_tiles(block, gradient, z.row_out, z.wide_out, memory);
      multiply_tiles(block, memory, z.wide_out, z.out, packed, static_cast<int>(z.wide_in), products,
                     ahead(n, block));
      for_vectors(z.in, [&](int c, auto lanes) {
        Written<decltype(lanes)> written(*this, lanes, c);
        for_outputs(block, products + c, z.wide_in, [&](int r, int i, Vector v) {
          written.write(n * z.in_image + (static_cast<std::size_t>(r) * z.width + i) * z.in + c, v);
        });
        written.add(sums);
      });
    });
  }

  // Writes the gradient of one vector of channels, and sums it up.
  template <class Lanes>
  struct Written {
    const Backward& b;
    Lanes lanes;
    int c;
    Vector mean, scale, shift, sum{}, product{};

    INLINE Written(const Backward& all, Lanes own, int channel)
        : b(all), lanes(own), c(channel), mean(load(b.reading.mean(c))),
          scale(load(b.reading.scale(c))), shift(load(b.reading.shift(c))) {}

    INLINE void write(std::size_t at, Vector g) {
      const Vector away = lanes.load(b.x + at) - mean;
      if (b.z.relu) g = where_positive(away * scale + shift, g);
      if (b.base) g += lanes.load(b.base + at);
      sum += g;
      product += g * away;
      lanes.store(b.gradient_x + at, g);
    }
    INLINE void add(double* sums) const {
      if (sums) add_sums(sums, b.z.wide_in, c, sum, product);
    }
  };
};

// Add up the chunks' gradients of the weights, and write them as the weights lie.
void write_weights(const Sizes& z, const float* parts, int chunks, const Weight& like, float* to) {
  const std::size_t size = z.weight_size(), place = z.in * z.wide_out;
  for (int i = 0; i < z.in; i++)
    for (int first = 0; first < z.out; first += LANES) {
      double sums[PLACES][LANES] = {};
      for (int k = 0; k < z.places(); k++)
        for (int n = 0; n < chunks; n++) {
          const float* from = parts + n * size + k * place + i * z.wide_out + first;
          for (int l = 0; l < LANES; l++) sums[k][l] += from[l];
        }
      if (z.tiled) taps_of_places(sums);
      for (int o = first; o < std::min(z.out, first + LANES); o++)
        for (int t = 0; t < z.taps(); t++)
          to[o * like.of_out + i * like.of_in + t * like.of_tap] =
              static_cast<float>(sums[t][o - first]);
    }
}

int backward(Backward b, const Weight& weight, double* x_sums, float* of_weight) {
  const Sizes& z = b.z;
  // Every run of images has a gradient of the weights of its own, which must not outgrow the images.
  const int chunks = of_weight ? std::min(z.batch, MOST_RUNS) : chunks_of(z.batch);
  const std::size_t weight_size = z.weight_size();
  const std::size_t image_size = of_weight ? z.image_size() : 0;
  Shared<float> packed(packed_size(z.places() * z.out, static_cast<int>(z.wide_in)));
  Shared<float> of_weights(of_weight ? chunks * weight_size : 0);
  ChunkSums sums(x_sums ? chunks : 0, z.in);
  if (!packed || !of_weights || !sums) return 1;
  pack_weights(z, packed.get(), z.out, z.in, [&](int o, int i, int t) {
    return weight.at(o, i, z.tiled ? z.taps() - 1 - t : t);
  });
  b.packed = packed.get();
  for (int fy = 0; fy < z.stride; fy++)
    for (int fx = 0; fx < z.stride; fx++) b.phases[fy][fx] = taps_of_input(z, fy, fx);
  const std::size_t memory_size = z.tiled ? b.tiling.size(z.wide_in) + b.tiling.size(z.wide_out)
                                          : (z.width + z.stride) * z.wide_in;
  std::atomic<int> failed{0};
  parallel(z.threads, chunks, [&](int i) {
    float* const gradient =
        scratch(z.gradient_size() + memory_size + image_size);
    if (gradient == nullptr) {
      failed = 1;
      return;
    }
    float* const memory = gradient + z.gradient_size();
    float* const image = memory + memory_size;
    z.clear_gradient(gradient);
    if (of_weight) z.clear_image(image);
    const int from = static_cast<int>(z.batch * static_cast<long>(i) / chunks);
    const int to = static_cast<int>(z.batch * (static_cast<long>(i) + 1) / chunks);
    for (int n = from; n < to; n++) {
      b.undo_image(n, gradient);
      if (of_weight) {
        z.read(b.x + n * z.in_image, b.reading, image);
        b.add_weights(image, gradient, memory, of_weights.get() + i * weight_size);
      }
      if (b.gradient_x) b.write_image(n, gradient, memory, x_sums ? sums.of(i) : nullptr);
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
  return gdas::forward(z, x, x_norm, gdas::weight_of(*convolution), y, batch_norm);
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
  const gdas::Backward b{z, gradient_y, keep, y, x, base, gradient_x, undo, reading,
                         nullptr, gdas::Tiling(z.height, z.width), {}};
  return gdas::backward(b, gdas::weight_of(*convolution), x_sums, of_weight);
}
