// Batch norm: statistics that are collected while a map is written, and their use on load.
//
// Sums are taken of the differences from a pivot, the mean of a few of a chunk's first pixels, and in
// double beyond a few hundred pixels. So a large mean costs no accuracy.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "kernels.h"
#include "parallel.h"
#include "vector.h"

namespace gdas {

// Memory shared by the threads of one call.
template <class T>
class Shared {
 public:
  explicit Shared(std::size_t count)
      : start_(static_cast<T*>(
            std::aligned_alloc(64, (std::max<std::size_t>(count, 1) * sizeof(T) + 63) / 64 * 64))) {
    if (start_ != nullptr) std::fill(start_, start_ + count, T{});
  }
  ~Shared() { std::free(start_); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  explicit operator bool() const { return start_ != nullptr; }
  T* get() const { return start_; }
  T& operator[](std::size_t i) const { return start_[i]; }

 private:
  T* start_;
};

// How a map is read: [3][padded(C)] mean, scale, shift; the padding is 0.
class Reading {
 public:
  Reading(const float* norm, int channels)
      : given_(norm != nullptr), wide_(padded(channels)), values_(3 * wide_) {
    if (!values_) return;
    for (int c = 0; c < channels; c++) {
      mean(c)[0] = given_ ? norm[c] : 0.f;
      scale(c)[0] = given_ ? norm[2 * channels + c] : 1.f;
      shift(c)[0] = given_ ? norm[3 * channels + c] : 0.f;
    }
  }
  explicit operator bool() const { return static_cast<bool>(values_); }
  bool given() const { return given_; }
  float* mean(int c) const { return values_.get() + c; }
  float* scale(int c) const { return values_.get() + wide_ + c; }
  float* shift(int c) const { return values_.get() + 2 * wide_ + c; }

 private:
  bool given_;
  std::size_t wide_;
  Shared<float> values_;
};

// The gradient of what is stored: per_gradient * gradient + per_value * (y - mean) + constant.
class Undo {
 public:
  Undo(const float* norm, const double* sums, int channels, double count)
      : given_(norm != nullptr), wide_(padded(channels)), values_(4 * wide_) {
    if (!values_) return;
    for (int c = 0; c < channels; c++) {
      const double istd = norm ? norm[channels + c] : 1.0;
      const double scale = norm ? norm[2 * channels + c] : 1.0;
      mean(c)[0] = norm ? norm[c] : 0.f;
      per_gradient(c)[0] = static_cast<float>(scale);
      if (norm == nullptr) continue;
      per_value(c)[0] = static_cast<float>(-scale * istd * istd * sums[channels + c] / count);
      constant(c)[0] = static_cast<float>(-scale * sums[c] / count);
    }
  }
  explicit operator bool() const { return static_cast<bool>(values_); }
  bool given() const { return given_; }
  float* mean(int c) const { return values_.get() + c; }
  float* per_gradient(int c) const { return values_.get() + wide_ + c; }
  float* per_value(int c) const { return values_.get() + 2 * wide_ + c; }
  float* constant(int c) const { return values_.get() + 3 * wide_ + c; }

 private:
  bool given_;
  std::size_t wide_;
  Shared<float> values_;
};

// Sums of one chunk of a map that is being written.
struct Moments {
  float* pivot;  // [padded(C)]
  double *sum, *square;

  void add(int c, Vector of_differences, Vector of_squares) const {
    for (int i = 0; i < LANES; i++) {
      sum[c + i] += of_differences[i];
      square[c + i] += of_squares[i];
    }
  }
};

// The pixels whose mean is a pivot: so many, so far apart, of `pixels`.
struct Few {
  int count, apart;
  explicit Few(int pixels) : count(std::min(pixels, 8)), apart(pixels / count) {}
};

// Set the pivot to the mean of `count` pixels, `step` floats apart.
inline void set_pivot(const Moments& moments, const float* y, int count, std::size_t step,
                      int channels) {
  for (int c = 0; c < channels; c++) {
    float sum = 0;
    for (int i = 0; i < count; i++) sum += y[i * step + c];
    moments.pivot[c] = sum / static_cast<float>(count);
  }
}

class Statistics {
 public:
  Statistics(int chunks, int channels)
      : chunks_(chunks), channels_(channels), wide_(padded(channels)),
        pivots_(chunks * wide_), sums_(2 * chunks * wide_) {}
  explicit operator bool() const { return pivots_ && sums_; }
  Moments of(int i) const {
    double* sum = sums_.get() + 2 * i * wide_;
    return {pivots_.get() + i * wide_, sum, sum + wide_};
  }

  // Write the norm and bring the running statistics up to date, as gdas.cnn.norm.BatchNorm does.
  // Each of the `batch` images, cut into chunks, had `pixels` values of a channel.
  void finish(const BatchNorm& batch_norm, int batch, double pixels) const {
    for (int c = 0; c < channels_; c++) {
      double count = 0, mean = 0, squares = 0;
      for (int i = 0; i < chunks_; i++) {
        const Moments m = of(i);
        const Range range = chunk(batch, i);
        const double n = (range.to - range.from) * pixels, own = m.pivot[c] + m.sum[c] / n;
        const double away = own - mean, both = count + n;
        squares += std::max(0.0, m.square[c] - m.sum[c] * m.sum[c] / n);
        squares += away * away * count * n / both;
        mean += away * n / both;
        count = both;
      }
      write(batch_norm, c, count, mean, squares);
    }
  }

 private:
  void write(const BatchNorm& b, int c, double count, double mean, double squares) const {
    const double istd = 1.0 / std::sqrt(squares / count + b.epsilon);
    b.norm[c] = static_cast<float>(mean);
    b.norm[channels_ + c] = static_cast<float>(istd);
    b.norm[2 * channels_ + c] = static_cast<float>(b.gamma ? b.gamma[c] * istd : istd);
    b.norm[3 * channels_ + c] = b.beta ? b.beta[c] : 0.f;
    if (b.running_mean == nullptr) return;
    const double m = b.momentum, unbiased = squares / (count - 1);
    b.running_mean[c] = static_cast<float>((1 - m) * b.running_mean[c] + m * mean);
    b.running_var[c] = static_cast<float>((1 - m) * b.running_var[c] + m * unbiased);
  }

  int chunks_, channels_;
  std::size_t wide_;
  Shared<float> pivots_;
  Shared<double> sums_;
};

// Collect the sums of `pixels` neighbouring pixels that have been written.
// start: whether they are the first of their chunk, and set the pivot.
inline void collect(const float* y, int pixels, int channels, const Moments& moments, bool start) {
  constexpr int BLOCK = 256;
  if (start) {
    const Few few(pixels);
    set_pivot(moments, y, few.count, static_cast<std::size_t>(few.apart) * channels, channels);
  }
  for_vectors(channels, [&](int c, auto lanes) {
    const Vector pivot = load(moments.pivot + c);
    for (int i = 0; i < pixels; i += BLOCK) {
      Vector sum{}, square{};
      for (int j = i; j < std::min(pixels, i + BLOCK); j++) {
        const Vector d = lanes.load(y + static_cast<std::size_t>(j) * channels + c) - pivot;
        sum += d;
        square += d * d;
      }
      moments.add(c, sum, square);
    }
  });
}

// Add to the sums of a gradient, [2][wide].
INLINE void add_sums(double* sums, std::size_t wide, int c, Vector sum, Vector product) {
  for (int i = 0; i < LANES; i++) {
    sums[c + i] += sum[i];
    sums[wide + c + i] += product[i];
  }
}

// Add up chunks' partial sums in their order, in double: to[i] is the sum of parts[k * step + i].
template <class From, class To>
inline void add_up(const From* parts, int chunks, std::size_t step, std::size_t count, To* to) {
  constexpr std::size_t BLOCK = 256;
  double sum[BLOCK];
  for (std::size_t from = 0; from < count; from += BLOCK) {
    const std::size_t own = std::min(BLOCK, count - from);
    std::fill(sum, sum + own, 0.0);
    for (int k = 0; k < chunks; k++)
      for (std::size_t i = 0; i < own; i++) sum[i] += parts[k * step + from + i];
    for (std::size_t i = 0; i < own; i++) to[from + i] = static_cast<To>(sum[i]);
  }
}

// The sums of a gradient, [2][C], by chunk.
class ChunkSums {
 public:
  ChunkSums(int chunks, int channels)
      : chunks_(chunks), channels_(channels), wide_(padded(channels)), sums_(2 * chunks * wide_) {}
  explicit operator bool() const { return static_cast<bool>(sums_); }
  double* of(int i) const { return sums_.get() + 2 * i * wide_; }
  void write(double* to) const {
    for (int j = 0; j < 2; j++)
      add_up(sums_.get() + j * wide_, chunks_, 2 * wide_, channels_, to + j * channels_);
  }

 private:
  int chunks_, channels_;
  std::size_t wide_;
  Shared<double> sums_;
};

}  // namespace gdas
