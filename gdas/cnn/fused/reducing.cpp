// The convolutions of the fixed reduction cell: ReLU, 1 x 3 with stride (1, 2), 3 x 1 with stride
// (2, 1), both in 8 groups of channels, and batch norm's statistics.
//
// A group is narrower than a vector, or not a multiple of one. So an output vector takes all inputs
// of the groups that it meets, with zeros as weights between the others.
#include "kernels.h"
#include "matrix.h"
#include "parallel.h"
#include "pixels.h"

#include <atomic>

namespace gdas {
namespace {

constexpr int GROUPS = 8, TAPS = 3;

struct Sizes {
  int batch, height, width, channels, out_height, out_width, wide, group, threads;
  std::size_t in_image, out_image;  // floats
  // In scratch memory: rows of the input with a pixel more on both sides, and of the middle, which
  // has a row more above and below.
  std::size_t in_row, row;

  explicit Sizes(const Shape& s)
      : batch(s.batch), height(s.height), width(s.width), channels(s.channels),
        out_height((s.height + 1) / 2), out_width((s.width + 1) / 2), wide(padded(s.channels)),
        group(s.channels / GROUPS), threads(s.threads),
        in_image(static_cast<std::size_t>(height) * width * channels),
        out_image(static_cast<std::size_t>(out_height) * out_width * channels),
        in_row(static_cast<std::size_t>(width + 2) * wide),
        row(static_cast<std::size_t>(out_width) * wide) {}

  std::size_t input() const { return height * in_row; }
  std::size_t middle() const { return (height + 2) * row; }
  std::size_t output() const { return out_height * row; }
  int vectors() const { return wide / LANES; }

  // The channels of the groups that vector v meets.
  Range met(int v) const {
    const int last = std::min(v * LANES + LANES, channels) - 1;
    return {v * LANES / group * group, (last / group + 1) * group};
  }
};

// The matrices of one convolution, one for each tap, [in][out] or, transposed, [out][in].
class Matrices {
 public:
  Matrices(const Sizes& z, const float* weight, bool transposed)
      : sizes_(z), starts_(z.vectors() + 1), values_(TAPS * size(z)) {
    if (!values_ || !starts_) return;
    float* to = values_.get();
    for (int t = 0; t < TAPS; t++)
      for (int v = 0; v < z.vectors(); v++) {
        const Range met = z.met(v);
        if (t == 0) starts_[v] = to - values_.get();
        for (int a = met.from; a < met.to; a++)
          for (int b = v * LANES; b < (v + 1) * LANES; b++)
            *to++ = transposed ? element(weight, a, b, t) : element(weight, b, a, t);
      }
  }
  explicit operator bool() const { return static_cast<bool>(values_) && static_cast<bool>(starts_); }
  const float* of(int tap, int v) const { return values_.get() + tap * size(sizes_) + starts_[v]; }

  // y[i] += x[i] times the matrix of a tap, for `count` pixels
  void add(int tap, const float* x, std::size_t x_step, float* y, std::size_t y_step,
           int count) const {
    for (int v = 0; v < sizes_.vectors(); v++) {
      const Range met = sizes_.met(v);
      multiply<Write::add>(x + met.from, x_step, of(tap, v), met.to - met.from, LANES,
                           y + v * LANES, y_step, count);
    }
  }

 private:
  static std::size_t size(const Sizes& z) {
    std::size_t floats = 0;
    for (int v = 0; v < z.vectors(); v++) floats += (z.met(v).to - z.met(v).from) * LANES;
    return floats;
  }
  float element(const float* weight, int out, int in, int tap) const {
    const int g = sizes_.group;
    if (out >= sizes_.channels || in >= sizes_.channels || out / g != in / g) return 0.f;
    return weight[(out * g + in % g) * TAPS + tap];
  }

  Sizes sizes_;
  Shared<std::size_t> starts_;
  Shared<float> values_;
};

// Add the gradient of one tap's weights, [out][wide]: the sum of g[i][out] times x[i][in].
void add_weights(const Sizes& z, const float* g, std::size_t g_step, const float* x,
                 std::size_t x_step, float* to, int count) {
  for (int v = 0; v < z.vectors(); v++) {
    const Range met = z.met(v);
    add_outer(g + met.from, g_step, met.to - met.from, x + v * LANES, x_step, LANES,
              to + static_cast<std::size_t>(met.from) * z.wide + v * LANES, z.wide, count);
  }
}

// The rows of the middle, from an input whose first pixel is the padding.
void run_rows(const Sizes& z, const Matrices& w, const float* input, float* middle) {
  std::fill(middle, middle + z.middle(), 0.f);
  for (int y = 0; y < z.height; y++)
    for (int t = 0; t < TAPS; t++)
      w.add(t, input + y * z.in_row + static_cast<std::size_t>(t) * z.wide, 2 * z.wide,
            middle + (y + 1) * z.row, z.wide, z.out_width);
}

// How many taps of an output row there are: the last may lie below the padded middle, never read.
void run_columns(const Sizes& z, const Matrices& w, const float* middle, float* output) {
  std::fill(output, output + z.output(), 0.f);
  for (int y = 0; y < z.out_height; y++)
    for (int t = 0; t < TAPS; t++)
      w.add(t, middle + (2 * y + t) * z.row, z.wide, output + y * z.row, z.wide, z.out_width);
}

void write_pixels(const Sizes& z, const float* from, float* to) {
  for_vectors(z.channels, [&](int c, auto lanes) {
    for (int i = 0; i < z.out_height * z.out_width; i++)
      lanes.store(to + static_cast<std::size_t>(i) * z.channels + c,
                  load(from + static_cast<std::size_t>(i) * z.wide + c));
  });
}

int forward(const Sizes& z, const float* x, const float* x_norm, const float* rows,
            const float* columns, float* y, const BatchNorm& batch_norm) {
  const int chunks = chunks_of(z.batch);
  const Reading reading(x_norm, z.channels);
  const Statistics statistics(chunks, z.channels);
  const Matrices row(z, rows, false), column(z, columns, false);
  if (!reading || !statistics || !row || !column) return 1;
  std::atomic<int> failed{0};
  parallel(z.threads, chunks, [&](int i) {
    float* const input = scratch(z.input() + z.middle() + z.output());
    if (input == nullptr) {
      failed = 1;
      return;
    }
    float *const middle = input + z.input(), *const output = middle + z.middle();
    std::fill(input, input + z.input(), 0.f);
    const Range range = chunk(z.batch, i);
    for (int n = range.from; n < range.to; n++) {
      read_image<true>(x + n * z.in_image, reading, z.height, z.width, z.channels, input + z.wide,
                       z.in_row);
      run_rows(z, row, input, middle);
      run_columns(z, column, middle, output);
      write_pixels(z, output, y + n * z.out_image);
      collect(y + n * z.out_image, z.out_height * z.out_width, z.channels, statistics.of(i),
              n == range.from);
    }
  });
  if (failed) return 1;
  statistics.finish(batch_norm, z.batch, static_cast<double>(z.out_height) * z.out_width);
  return 0;
}

struct Backward {
  const float *gradient_y, *y, *x, *base;
  float* gradient_x;
  const Undo& undo;
  const Reading& reading;
  const Matrices &row, &back_row, &back_column;
  double* x_sums;     // [2][wide] of a chunk, or null
  float* of_weights;  // of a chunk, rows' taps then columns', [TAPS][C][wide] each; or null
};

void write_input(const Sizes& z, const Backward& b, const float* input, const float* of_input,
                 int n) {
  for_vectors(z.channels, [&](int c, auto lanes) {
    const Vector mean = load(b.reading.mean(c));
    Vector sum{}, product{};
    for (int y = 0; y < z.height; y++)
      for (int i = 0; i < z.width; i++) {
        const std::size_t own = y * z.in_row + static_cast<std::size_t>(i + 1) * z.wide + c;
        const std::size_t at = n * z.in_image +
                               (static_cast<std::size_t>(y) * z.width + i) * z.channels + c;
        Vector g = where_positive(load(input + own), load(of_input + own));
        if (b.base) g += lanes.load(b.base + at);
        lanes.store(b.gradient_x + at, g);
        if (b.x_sums) {
          sum += g;
          product += g * (lanes.load(b.x + at) - mean);
        }
      }
    if (b.x_sums) add_sums(b.x_sums, z.wide, c, sum, product);
  });
}

void backward_image(const Sizes& z, const Backward& b, float* memory, int n) {
  float *const input = memory, *const of_input = input + z.input(),
               *const middle = of_input + z.input(), *const of_middle = middle + z.middle(),
               *const of_output = of_middle + z.middle();
  const std::size_t tap = static_cast<std::size_t>(z.channels) * z.wide;
  read_image<true>(b.x + n * z.in_image, b.reading, z.height, z.width, z.channels, input + z.wide,
                   z.in_row);
  undo_norm(b.gradient_y + n * z.out_image, 1.f, b.y + n * z.out_image, b.undo,
            z.out_height * z.out_width, z.channels, of_output);
  std::fill(of_middle, of_middle + z.middle(), 0.f);
  std::fill(of_input, of_input + z.input(), 0.f);
  if (b.of_weights) run_rows(z, b.row, input, middle);
  for (int y = 0; y < z.out_height; y++)
    for (int t = 0; t < TAPS; t++) {
      const std::size_t at = (2 * y + t) * z.row;
      b.back_column.add(t, of_output + y * z.row, z.wide, of_middle + at, z.wide, z.out_width);
      if (b.of_weights)
        add_weights(z, of_output + y * z.row, z.wide, middle + at, z.wide,
                    b.of_weights + (TAPS + t) * tap, z.out_width);
    }
  for (int y = 0; y < z.height; y++)
    for (int t = 0; t < TAPS; t++) {
      const std::size_t at = y * z.in_row + static_cast<std::size_t>(t) * z.wide;
      const float* from = of_middle + (y + 1) * z.row;
      b.back_row.add(t, from, z.wide, of_input + at, 2 * z.wide, z.out_width);
      if (b.of_weights)
        add_weights(z, from, z.wide, input + at, 2 * z.wide, b.of_weights + t * tap, z.out_width);
    }
  write_input(z, b, input, of_input, n);
}

// Copy a gradient, [TAPS][C][wide], to a weight's order, [C][C / GROUPS][TAPS].
void write_weights(const Sizes& z, const float* from, float* to) {
  for (int o = 0; o < z.channels; o++)
    for (int i = 0; i < z.group; i++)
      for (int t = 0; t < TAPS; t++)
        to[(o * z.group + i) * TAPS + t] =
            from[(static_cast<std::size_t>(t) * z.channels + o) * z.wide + o / z.group * z.group + i];
}

int backward(const Sizes& z, const Backward& b, double* x_sums, float* of_rows,
             float* of_columns) {
  const int chunks = chunks_of(z.batch);
  const bool weights = of_rows != nullptr;
  const std::size_t size = 2 * TAPS * static_cast<std::size_t>(z.channels) * z.wide;
  ChunkSums sums(x_sums ? chunks : 0, z.channels);
  Shared<float> of_weights(weights ? (chunks + 1) * size : 0);
  if (!sums || !of_weights) return 1;
  std::atomic<int> failed{0};
  parallel(z.threads, chunks, [&](int i) {
    float* const memory = scratch(2 * z.input() + 2 * z.middle() + z.output());
    if (memory == nullptr) {
      failed = 1;
      return;
    }
    std::fill(memory, memory + z.input(), 0.f);
    Backward own = b;
    if (x_sums) own.x_sums = sums.of(i);
    if (weights) own.of_weights = of_weights.get() + (i + 1) * size;
    const Range range = chunk(z.batch, i);
    for (int n = range.from; n < range.to; n++) backward_image(z, own, memory, n);
  });
  if (failed) return 1;
  if (x_sums) sums.write(x_sums);
  if (!weights) return 0;
  add_up(of_weights.get() + size, chunks, size, size, of_weights.get());
  write_weights(z, of_weights.get(), of_rows);
  write_weights(z, of_weights.get() + size / 2, of_columns);
  return 0;
}

}  // namespace
}  // namespace gdas

extern "C" int gdas_reducing_forward(const Shape* shape, const float* x, const float* x_norm,
                                     const float* rows, const float* columns, float* y,
                                     const BatchNorm* batch_norm) {
  return gdas::forward(gdas::Sizes(*shape), x, x_norm, rows, columns, y, *batch_norm);
}

extern "C" int gdas_reducing_backward(const Shape* shape, const float* gradient_y, const float* y,
                                      const float* y_norm, const double* y_sums, const float* x,
                                      const float* x_norm, const float* rows,
                                      const float* columns, const float* base, float* gradient_x,
                                      double* x_sums, float* of_rows, float* of_columns) {
  const gdas::Sizes z(*shape);
  const double count = static_cast<double>(z.batch) * z.out_height * z.out_width;
  const gdas::Undo undo(y_norm, y_sums, z.channels, count);
  const gdas::Reading reading(x_norm, z.channels);
  const gdas::Matrices row(z, rows, false), back_row(z, rows, true), back_column(z, columns, true);
  if (!undo || !reading || !row || !back_row || !back_column) return 1;
  return gdas::backward(z,
                        {gradient_y, y, x, base, gradient_x, undo, reading, row, back_row,
                         back_column, nullptr, nullptr},
                        x_sums, of_rows, of_columns);
}
