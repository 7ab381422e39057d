// Those who read a cell's output: 1 x 1 convolutions of its ReLU, and their batch norms' statistics.
//
// The output is not concatenated: its parts are read side by side. All readers share one pass over
// it, and one pass writes its gradient. A reader that reduces the size (FactorizedReduce) has two
// convolutions: of the pixels in even rows and columns, and of those in odd ones.
#include "kernels.h"
#include "matrix.h"
#include "parallel.h"
#include "pixels.h"

#include <atomic>
#include <memory>
#include <new>

namespace gdas {
namespace {

// Floats of a block of input pixels in scratch memory.
constexpr int BLOCK = 8192;

struct Plan {
  int batch, height, width, channels, parts, inner, threads, rows;
  std::size_t step;       // floats of a pixel of all parts in scratch memory
  std::size_t part_image;  // floats

  Plan(const Shape& s, int count)
      : batch(s.batch), height(s.height), width(s.width), channels(s.channels), parts(count),
        inner(s.channels * count), threads(s.threads), step(padded(inner) + LANES),
        part_image(static_cast<std::size_t>(height) * width * channels) {
    const int pairs = std::max<int>(1, BLOCK / (2 * static_cast<int>(step) * width));
    rows = std::min(2 * pairs, (height + 1) / 2 * 2);
  }
  std::size_t block() const { return rows * static_cast<std::size_t>(width) * step; }
};

// The pixels of one of a reader's convolutions: all of them, or every other one from a place on.
struct Grid {
  int from, step, height, width;  // of the output
};

Grid grid(const Plan& p, const Reader& r, int half) {
  if (r.odd == nullptr) return {0, 1, p.height, p.width};
  return {half, 2, (p.height + 1 - half) / 2, (p.width + 1 - half) / 2};
}

int halves(const Reader& r) { return r.odd ? 2 : 1; }
int own_channels(const Reader& r) { return r.channels / halves(r); }
const float* weight(const Reader& r, int half) { return half ? r.odd : r.weight; }
int out_height(const Plan& p, const Reader& r) { return r.odd ? (p.height + 1) / 2 : p.height; }
int out_width(const Plan& p, const Reader& r) { return r.odd ? (p.width + 1) / 2 : p.width; }
std::size_t out_image(const Plan& p, const Reader& r) {
  return static_cast<std::size_t>(out_height(p, r)) * out_width(p, r) * r.channels;
}

// Call f(input row in the block, output row, count) for the rows of a grid in a block of rows, or
// once for all of them if they are neighbours.
template <class F>
void grid_rows(const Grid& g, int first, int rows, int width, F f) {
  if (g.step == 1) return f(0, first, rows * width);
  for (int y = g.from; y < rows; y += 2) f(y, (first + y) / 2, g.width);
}

// Read what the parts mean, after a ReLU, side by side, and fetch as much of what comes next. Each part's padding is overwritten by the
// next part's channels.
void read_parts(const Plan& p, const Term* parts, const Reading* const* readings, std::size_t pixel,
                int count, float* to) {
  for (int k = 0; k < p.parts; k++)
    for_vectors(p.channels, [&](int c, auto lanes) {
      const Reading& reading = *readings[k];
      const Vector mean = load(reading.mean(c)), scale = load(reading.scale(c)),
                   shift = load(reading.shift(c));
      const float* from = parts[k].map + pixel * p.channels + c;
      float* at = to + k * p.channels + c;
      const std::size_t ahead = static_cast<std::size_t>(count) * p.channels;
      for (int i = 0; i < count; i++, from += p.channels, at += p.step) {
        prefetch(from + ahead);
        const Vector v = lanes.load(from);
        store(at, relu(reading.given() ? (v - mean) * scale + shift : v));
      }
    });
}

class Readings {
 public:
  Readings(const Plan& p, const Term* parts)
      : all_(new (std::nothrow) std::unique_ptr<Reading>[p.parts]), count_(p.parts) {
    ok_ = all_ != nullptr && count_ <= MOST;
    for (int k = 0; ok_ && k < count_; k++) {
      all_[k].reset(new (std::nothrow) Reading(parts[k].norm, p.channels));
      ok_ = all_[k] != nullptr && static_cast<bool>(*all_[k]);
      pointers_[k] = all_[k].get();
    }
  }
  explicit operator bool() const { return ok_; }
  const Reading* const* get() const { return pointers_; }

 private:
  static constexpr int MOST = 64;
  std::unique_ptr<std::unique_ptr<Reading>[]> all_;
  const Reading* pointers_[MOST];
  int count_;
  bool ok_;
};

// A reader's matrices, packed for one direction.
struct Packed {
  std::unique_ptr<Shared<float>> halves[2];
};

bool pack_reader(const Plan& p, const Reader& r, bool backward, Packed& to) {
  const int own = own_channels(r);
  for (int h = 0; h < halves(r); h++) {
    const float* w = weight(r, h);
    const std::size_t size = backward ? packed_size(own, p.inner) : packed_size(p.inner, own);
    to.halves[h].reset(new (std::nothrow) Shared<float>(size));
    if (to.halves[h] == nullptr || !*to.halves[h]) return false;
    if (backward)
      pack(to.halves[h]->get(), own, p.inner, [&](int o, int i) { return w[o * p.inner + i]; });
    else
      pack(to.halves[h]->get(), p.inner, own, [&](int i, int o) { return w[o * p.inner + i]; });
  }
  return true;
}

void read_block(const Plan& p, const Reader& r, const Packed& packed, const float* block, int image,
                int first, int rows, const Moments& moments, bool start) {
  float* const y = r.y + image * out_image(p, r);
  const int width = out_width(p, r), own = own_channels(r);
  if (r.odd == nullptr) {
    const float* w = packed.halves[0]->get();
    float* const to = y + static_cast<std::size_t>(first) * width * own;
    if (start)
      multiply_first(block, p.step, w, p.inner, own, to, own, rows * p.width, moments);
    else
      multiply(block, p.step, w, p.inner, own, to, own, rows * p.width, &moments);
    return;
  }
  float* const out = y + static_cast<std::size_t>(first / 2) * width * r.channels;
  const int out_rows = (rows + 1) / 2;
  std::fill(out, out + static_cast<std::size_t>(out_rows) * width * r.channels, 0.f);
  for (int h = 0; h < 2; h++)
    grid_rows(grid(p, r, h), first, rows, p.width, [&](int row, int out_row, int count) {
      multiply(block + (static_cast<std::size_t>(row) * p.width + h) * p.step, 2 * p.step,
               packed.halves[h]->get(), p.inner, own,
               y + static_cast<std::size_t>(out_row) * width * r.channels + h * own, r.channels,
               count);
    });
  collect(out, out_rows * width, r.channels, moments, start);
}

int forward(const Plan& p, const Term* parts, int count, const Reader* readers) {
  const int chunks = chunks_of(p.batch);
  const Readings readings(p, parts);
  std::unique_ptr<Packed[]> packed(new (std::nothrow) Packed[count]);
  std::unique_ptr<std::unique_ptr<Statistics>[]> statistics(
      new (std::nothrow) std::unique_ptr<Statistics>[count]);
  if (!readings || !packed || !statistics) return 1;
  for (int r = 0; r < count; r++) {
    statistics[r].reset(new (std::nothrow) Statistics(chunks, readers[r].channels));
    if (!statistics[r] || !*statistics[r] || !pack_reader(p, readers[r], false, packed[r]))
      return 1;
  }
  std::atomic<int> failed{0};
  parallel(p.threads, chunks, [&](int i) {
    float* const block = scratch(p.block());
    if (block == nullptr) {
      failed = 1;
      return;
    }
    const Range range = chunk(p.batch, i);
    for (int n = range.from; n < range.to; n++)
      for (int first = 0; first < p.height; first += p.rows) {
        const int rows = std::min(p.rows, p.height - first);
        const std::size_t pixel = (static_cast<std::size_t>(n) * p.height + first) * p.width;
        read_parts(p, parts, readings.get(), pixel, rows * p.width, block);
        for (int r = 0; r < count; r++)
          read_block(p, readers[r], packed[r], block, n, first, rows, statistics[r]->of(i),
                     n == range.from && first == 0);
      }
  });
  if (failed) return 1;
  for (int r = 0; r < count; r++) {
    const double pixels = static_cast<double>(out_height(p, readers[r])) * out_width(p, readers[r]);
    statistics[r]->finish(*readers[r].batch_norm, p.batch, pixels);
  }
  return 0;
}

// Everything that the backward pass reads, and where its sums over a chunk lie.
struct Backward {
  const Plan& p;
  const Term* parts;
  const Reading* const* readings;
  int count;
  const Reader* readers;
  const Packed* packed;
  const std::unique_ptr<Undo>* undo;
  const float* const* bases;
  float* const* gradients;
  std::size_t own_size;  // floats of one pixel of the widest reader

  void undo_block(int r, int image, int first, int rows, float* to) const {
    const Reader& reader = readers[r];
    const int width = out_width(p, reader), share = reader.odd ? 2 : 1;
    const std::size_t at = image * out_image(p, reader) +
                           static_cast<std::size_t>(first / share) * width * reader.channels;
    const int pixels = (rows + share - 1) / share * width;
    undo_norm(reader.gradient + at, 1.f, reader.y + at, *undo[r], pixels, reader.channels, to,
              static_cast<std::size_t>(pixels) * reader.channels);
  }

  // Add a reader's part of the block's gradient, and the gradient of its weights.
  void add_reader(int r, const float* own, const float* block, float* gradient, bool set, int first,
                  int rows, float* of_weights) const {
    const Reader& reader = readers[r];
    const int width = out_width(p, reader), channels = own_channels(reader);
    const std::size_t wide = padded(reader.channels);
    for (int h = 0; h < halves(reader); h++) {
      const Grid g = grid(p, reader, h);
      grid_rows(g, first, rows, p.width, [&](int row, int out_row, int count_of) {
        const std::size_t at = (static_cast<std::size_t>(row) * p.width + g.from) * p.step;
        const int above = g.step == 1 ? 0 : out_row - first / 2;
        const float* x = own + static_cast<std::size_t>(above) * width * wide + h * channels;
        const float* w = packed[r].halves[h]->get();
        if (set)
          multiply(x, wide, w, channels, p.inner, gradient + at, p.step, count_of);
        else
          multiply<Write::add>(x, wide, w, channels, p.inner, gradient + at, g.step * p.step,
                               count_of);
        if (of_weights)
          add_outer(x, wide, channels, block + at, g.step * p.step, p.inner,
                    of_weights + static_cast<std::size_t>(h) * channels * padded(p.inner),
                    padded(p.inner), count_of);
      });
    }
  }

  void write_parts(const float* block, const float* gradient, std::size_t pixel, int count_of,
                   double* sums) const {
    for (int k = 0; k < p.parts; k++)
      for_vectors(p.channels, [&](int c, auto lanes) {
        const Vector mean = load(readings[k]->mean(c));
        const float *x = block + k * p.channels + c, *g = gradient + k * p.channels + c;
        const std::size_t at = pixel * p.channels + c,
                          ahead = static_cast<std::size_t>(count_of) * p.channels;
        Vector sum{}, product{};
        for (int i = 0; i < count_of; i++, x += p.step, g += p.step) {
          const std::size_t own = at + static_cast<std::size_t>(i) * p.channels;
          prefetch((bases[k] ? bases[k] : gradients[k]) + own + ahead);
          Vector v = where_positive(load(x), load(g));
          if (bases[k]) v += lanes.load(bases[k] + own);
          lanes.store(gradients[k] + own, v);
          if (sums) {
            sum += v;
            product += v * (lanes.load(parts[k].map + own) - mean);
          }
        }
        if (sums) {
          const std::size_t wide = padded(p.channels);
          add_sums(sums + 2 * k * wide, wide, c, sum, product);
        }
      });
  }

  void image(int n, float* memory, float* of_weights, const std::size_t* starts,
             double* sums) const {
    float *const block = memory, *const gradient = block + p.block(),
                 *const own = gradient + p.block();
    for (int first = 0; first < p.height; first += p.rows) {
      const int rows = std::min(p.rows, p.height - first), pixels = rows * p.width;
      const std::size_t pixel = (static_cast<std::size_t>(n) * p.height + first) * p.width;
      read_parts(p, parts, readings, pixel, pixels, block);
      bool set = readers[0].odd == nullptr;
      if (!set) std::fill(gradient, gradient + p.step * pixels, 0.f);
      for (int r = 0; r < count; r++, set = false) {
        undo_block(r, n, first, rows, own);
        add_reader(r, own, block, gradient, set, first, rows,
                   of_weights && readers[r].of_weight ? of_weights + starts[r] : nullptr);
      }
      write_parts(block, gradient, pixel, pixels, sums);
    }
  }
};

int backward(const Plan& p, const Term* parts, int count, const Reader* readers,
             const float* const* bases, float* const* gradients, double* part_sums) {
  constexpr int MOST = 16;
  if (count > MOST) return 2;
  const int chunks = chunks_of(p.batch);
  const Readings readings(p, parts);
  std::unique_ptr<Packed[]> packed(new (std::nothrow) Packed[count]);
  std::unique_ptr<Undo> undo[MOST];
  std::size_t starts[MOST + 1] = {}, widest = 0;
  if (!readings || !packed) return 1;
  bool weights = false;
  for (int r = 0; r < count; r++) {
    const Reader& reader = readers[r];
    const double pixels = static_cast<double>(out_height(p, reader)) * out_width(p, reader);
    undo[r].reset(new (std::nothrow)
                      Undo(reader.norm, reader.sums, reader.channels, p.batch * pixels));
    if (!undo[r] || !*undo[r] || !pack_reader(p, reader, true, packed[r])) return 1;
    weights = weights || reader.of_weight;
    starts[r + 1] = starts[r] + static_cast<std::size_t>(reader.channels) * padded(p.inner);
    widest = std::max<std::size_t>(widest, padded(reader.channels));
  }
  const std::size_t wide = padded(p.channels), own_size = widest * p.rows * p.width;
  Shared<float> of_weights(weights ? chunks * starts[count] : 0);
  Shared<double> sums(part_sums ? 2 * wide * p.parts * chunks : 0);
  if (!of_weights || !sums) return 1;
  const Backward b{p,     parts,        readings.get(), count,     readers,
                   packed.get(), undo, bases,          gradients, widest};
  std::atomic<int> failed{0};
  parallel(p.threads, chunks, [&](int i) {
    float* const memory = scratch(2 * p.block() + own_size);
    if (memory == nullptr) {
      failed = 1;
      return;
    }
    const Range range = chunk(p.batch, i);
    for (int n = range.from; n < range.to; n++)
      b.image(n, memory, weights ? of_weights.get() + i * starts[count] : nullptr, starts,
              part_sums ? sums.get() + 2 * wide * p.parts * i : nullptr);
  });
  if (failed) return 1;
  for (int r = 0; r < count; r++)
    for (int o = 0; readers[r].of_weight && o < readers[r].channels; o++) {
      const int own = own_channels(readers[r]);
      float* to = o < own ? readers[r].of_weight + o * p.inner
                          : readers[r].of_odd + (o - own) * p.inner;
      const float* from = of_weights.get() + starts[r] + static_cast<std::size_t>(o) * padded(p.inner);
      add_up(from, chunks, starts[count], p.inner, to);
    }
  for (int k = 0; part_sums && k < 2 * p.parts; k++)
    add_up(sums.get() + k * wide, chunks, 2 * wide * p.parts, p.channels,
           part_sums + k * p.channels);
  return 0;
}

}  // namespace
}  // namespace gdas

extern "C" int gdas_readers_forward(const Shape* shape, int parts, const Term* part, int readers,
                                    const Reader* reader) {
  return gdas::forward(gdas::Plan(*shape, parts), part, readers, reader);
}

extern "C" int gdas_readers_backward(const Shape* shape, int parts, const Term* part, int readers,
                                     const Reader* reader, const float* const* bases,
                                     float* const* gradients, double* part_sums) {
  return gdas::backward(gdas::Plan(*shape, parts), part, readers, reader, bases, gradients,
                        part_sums);
}
