// Sums of terms whose normalisation was left to their reader, and the sums of their gradients.
#include "kernels.h"
#include "norm.h"
#include "parallel.h"
#include "vector.h"

#include <memory>
#include <new>

namespace gdas {
namespace {

// Floats of a run of pixels that stays in the first cache while all terms are added to it.
constexpr int BLOCK = 4096;

struct Plane {
  int batch, channels, threads, block;  // block: pixels
  long pixels;                          // of an image

  explicit Plane(const Shape& s)
      : batch(s.batch), channels(s.channels), threads(s.threads),
        block(std::max(1, std::min(256, BLOCK / s.channels))),
        pixels(static_cast<long>(s.height) * s.width) {}

  // Floats from a block to the next one, which is fetched meanwhile.
  std::size_t ahead() const { return static_cast<std::size_t>(block) * channels; }

  // f(first pixel of all, count) for every block of an image
  template <class F>
  INLINE void blocks(int image, F f) const {
    for (long i = 0; i < pixels; i += block)
      f(image * pixels + i, static_cast<int>(std::min<long>(block, pixels - i)));
  }
};

// The readings of several terms.
class Readings {
 public:
  Readings(const Term* terms, int count, int channels)
      : readings_(new (std::nothrow) std::unique_ptr<Reading>[count]) {
    ok_ = readings_ != nullptr;
    for (int t = 0; ok_ && t < count; t++) {
      readings_[t].reset(new (std::nothrow) Reading(terms[t].norm, channels));
      ok_ = readings_[t] != nullptr && static_cast<bool>(*readings_[t]);
    }
  }
  explicit operator bool() const { return ok_; }
  const Reading& operator[](int t) const { return *readings_[t]; }

 private:
  std::unique_ptr<std::unique_ptr<Reading>[]> readings_;
  bool ok_;
};

template <class Lanes>
INLINE void add_term(const Term& term, const Reading& reading, bool first, int image, long pixel,
                     int count, int channels, int c, Lanes lanes, float* out,
                     std::size_t ahead) {
  const float keep = term.keep ? term.keep[image] : 1.f;
  const Vector mean = load(reading.mean(c)), scale = load(reading.scale(c)) * keep,
               shift = load(reading.shift(c)) * keep;
  const float* from = term.map + pixel * channels + c;
  float* to = out + pixel * channels + c;
  for (int i = 0; i < count; i++, from += channels, to += channels) {
    prefetch(from + ahead);
    if (first) prefetch(to + ahead);
    const Vector v = (lanes.load(from) - mean) * scale + shift;
    lanes.store(to, first ? v : v + lanes.load(to));
  }
}

int sum(const Plane& p, int count, const Term* terms, float* out) {
  const Readings readings(terms, count, p.channels);
  if (!readings) return 1;
  const int chunks = chunks_of(p.batch);
  parallel(p.threads, chunks, [&](int i) {
    const Range range = chunk(p.batch, i);
    for (int n = range.from; n < range.to; n++)
      p.blocks(n, [&](long pixel, int pixels) {
        for (int t = 0; t < count; t++)
          for_vectors(p.channels, [&](int c, auto lanes) {
            add_term(terms[t], readings[t], t == 0, n, pixel, pixels, p.channels, c, lanes, out,
                     p.ahead());
          });
      });
  });
  return 0;
}

int gradient_sums(const Plane& p, const float* gradient, int count, const Term* terms,
                  double* sums, double* products) {
  const Readings readings(terms, count, p.channels);
  const int chunks = chunks_of(p.batch), wide = padded(p.channels);
  const std::size_t size = 2 * static_cast<std::size_t>(count) * wide;
  Shared<double> parts(chunks * size);
  if (!readings || !parts) return 1;
  parallel(p.threads, chunks, [&](int i) {
    const Range range = chunk(p.batch, i);
    for (int n = range.from; n < range.to; n++)
      p.blocks(n, [&](long pixel, int pixels) {
        for (int t = 0; t < count; t++)
          for_vectors(p.channels, [&](int c, auto lanes) {
            const Vector mean = load(readings[t].mean(c));
            const float* g = gradient + pixel * p.channels + c;
            const float* y = terms[t].map + pixel * p.channels + c;
            Vector total[2] = {}, product[2] = {};
            for (int j = 0; j < pixels; j++, g += p.channels, y += p.channels) {
              prefetch(y + p.ahead());
              if (t == 0) prefetch(g + p.ahead());
              const Vector v = lanes.load(g);
              total[j & 1] += v;
              product[j & 1] += v * (lanes.load(y) - mean);
            }
            const float keep = terms[t].keep ? terms[t].keep[n] : 1.f;
            const Vector own = (total[0] + total[1]) * keep;
            const Vector with = (product[0] + product[1]) * keep;
            double* to = parts.get() + i * size + 2 * static_cast<std::size_t>(t) * wide + c;
            for (int l = 0; l < LANES; l++) {
              to[l] += own[l];
              to[wide + l] += with[l];
            }
          });
      });
  });
  for (int t = 0; t < 2 * count; t++)
    add_up(parts.get() + static_cast<std::size_t>(t) * wide, chunks, size, p.channels,
           sums + t * p.channels);
  for (int t = 0; products && t < count; t++) {
    const double *of_gradient = sums + 2 * t * p.channels, *with = of_gradient + p.channels;
    products[t] = 0;
    for (int c = 0; c < p.channels; c++)
      products[t] += *readings[t].scale(c) * with[c] + *readings[t].shift(c) * of_gradient[c];
  }
  return 0;
}

}  // namespace
}  // namespace gdas

extern "C" int gdas_sum(const Shape* shape, int terms, const Term* term, float* out) {
  return gdas::sum(gdas::Plane(*shape), terms, term, out);
}

extern "C" int gdas_gradient_sums(const Shape* shape, const float* gradient, int terms,
                                  const Term* term, double* sums, double* products) {
  return gdas::gradient_sums(gdas::Plane(*shape), gradient, terms, term, sums, products);
}
