// The kernels' interface: plain C, called through ctypes; interface.py has the same structures.
//
// Shapes: B images, H and W height and width, C channels, k kernel, S stride, D dilation.
//
// - A feature map is float32 and channels-last, [B][H][W][C], dense, any C.
// - Its normalisation may be left to those who read it. Then a norm comes with it, [4][C] float32:
//   mean, 1 / standard deviation, scale, shift; what is meant is scale * (x - mean) + shift. Without
//   one (a null pointer), the map is meant as it is.
// - The gradient of such a map is that of what is meant, not of what is stored. The gradient of its
//   normalisation needs two sums for every channel, [2][C] float64: of the gradient, and of the
//   gradient times (x - mean).
// - keep, [B], multiplies whole images of a term: drop path. Null: no drop path.
// - base and gradient: what is computed is added to base and written to gradient, which may be the
//   same; a null base counts as zeros.
// - All return 0, or 1 if there was no memory; nothing is thrown.
#pragma once

#include <cstdint>

extern "C" {

struct Shape {
  int batch, height, width, channels;  // of the input
  int kernel, stride, dilation;
  int threads;
};

// Batch norm in training mode. gamma and beta, [C], may be null; so may the running statistics.
struct BatchNorm {
  const float *gamma, *beta;
  float *running_mean, *running_var;
  double momentum, epsilon;
  float* norm;  // [4][C], to be written
};

// A map and how it is to be read, as one term of a sum.
struct Term {
  const float *map, *norm, *keep;
};

// separable.cpp: ReLU, depthwise convolution [C][k][k], pointwise convolution [C][C], batch norm.
int gdas_separable_forward(const Shape*, const float* x, const float* x_norm,
                           const float* depthwise, const float* pointwise, float* y,
                           const BatchNorm*);

// Args:
//   gradient_y, keep, y, y_norm, y_sums: the gradient of what y means, and what belongs to it.
//   x_sums: [2][C], the sums of what is written to gradient_x; null: not wanted.
//   of_depthwise, of_pointwise: gradients of the weights, to be written; both null: not wanted.
int gdas_separable_backward(const Shape*, const float* gradient_y, const float* keep,
                            const float* y, const float* y_norm, const double* y_sums,
                            const float* x, const float* x_norm, const float* depthwise,
                            const float* pointwise, const float* base, float* gradient_x,
                            double* x_sums, float* of_depthwise, float* of_pointwise);

// convolution.cpp: ReLU, if there is one, dense convolution with k = 1 or 3, and batch norm, unless
//   it is null.
struct Convolution {
  const float* weight;         // [C'][C][k][k], in any order of memory:
  int of_out, of_in, of_tap;   // floats from one C', one C or one tap to the next
  int channels;                // C'
  int relu;                    // 0 or 1
};

int gdas_convolution_forward(const Shape*, const Convolution*, const float* x, const float* x_norm,
                             float* y, const BatchNorm*);
// The arguments are those of gdas_separable_backward; of_weight lies in memory as the weights do.
// A null gradient_x is not wanted.
int gdas_convolution_backward(const Shape*, const Convolution*, const float* gradient_y,
                              const float* keep, const float* y, const float* y_norm,
                              const double* y_sums, const float* x, const float* x_norm,
                              const float* base, float* gradient_x, double* x_sums,
                              float* of_weight);

// pooling.cpp: 3 x 3 with a padding of 1, or means of 2 x 2 without padding and of stride 2, of what
//   x means; then batch norm, unless it is null.
//   average: 0 or 1. index: [B][H'][W'][C], which of nine pixels was the largest; null: not wanted.
int gdas_pooling_forward(const Shape*, int average, const float* x, const float* x_norm, float* y,
                         uint8_t* index, const BatchNorm*);
int gdas_pooling_backward(const Shape*, int average, const float* gradient_y, const float* keep,
                          const float* y, const float* y_norm, const double* y_sums,
                          const uint8_t* index, const float* x, const float* x_norm,
                          const float* base, float* gradient_x, double* x_sums);

// readers.cpp: 1 x 1 convolutions of the ReLU of parts side by side, [C'][parts * C], and batch norm.
//   Shape's channels are those of one part. If there is a second matrix, each has C' / 2 rows; one
//   reads the pixels in even rows and columns, the other those in odd ones, and the size is halved.
struct Reader {
  const float *weight, *odd;
  int channels;  // C'
  float* y;
  const BatchNorm* batch_norm;  // forward only; the rest backward only
  const float *gradient, *norm;
  const double* sums;
  float *of_weight, *of_odd;  // null: not wanted
};

int gdas_readers_forward(const Shape*, int parts, const Term*, int readers, const Reader*);
// bases, gradients: one for each part; the sums of part_sums, [parts][2][C], are of the latter.
int gdas_readers_backward(const Shape*, int parts, const Term*, int readers, const Reader*,
                          const float* const* bases, float* const* gradients, double* part_sums);

// reducing.cpp: ReLU, 1 x 3 convolution of stride (1, 2), 3 x 1 of stride (2, 1), batch norm; the
//   convolutions in 8 groups, each weight [C][C / 8][3]. of_rows, of_columns: null: not wanted.
int gdas_reducing_forward(const Shape*, const float* x, const float* x_norm, const float* rows,
                          const float* columns, float* y, const BatchNorm*);
int gdas_reducing_backward(const Shape*, const float* gradient_y, const float* y,
                           const float* y_norm, const double* y_sums, const float* x,
                           const float* x_norm, const float* rows, const float* columns,
                           const float* base, float* gradient_x, double* x_sums, float* of_rows,
                           float* of_columns);

// sums.cpp: the sum of what terms mean, and the sums that their gradients need.
int gdas_sum(const Shape*, int terms, const Term*, float* out);
//   sums: [terms][2][C], of keep times gradient. products: for each term the inner product of the
//   gradient and what the term means; null: not wanted.
int gdas_gradient_sums(const Shape*, const float* gradient, int terms, const Term*, double* sums,
                       double* products);

// cell.cpp: a whole cell by the calls above, one after the other: the layers of every edge, the sum
// of every node. Python lists what there is (plan.py) and owns all memory.
enum LayerKind { SEPARABLE, CONVOLUTION, AVERAGE_POOLING, MAX_POOLING, READER, REDUCING };

struct Layer {
  int kind, kernel, stride, dilation;
  int channels;                     // of what it writes
  int of_out, of_in, of_tap, relu;  // of a dense convolution
  const float *weight, *second;     // depthwise and pointwise, rows and columns, even and odd
  BatchNorm norm;                   // without batch norm norm.norm is null
  float* y;
  uint8_t* index;                                         // of a max pooling; null: not wanted
  float *of_weight, *of_second, *of_gamma, *of_beta;      // backward; null: not wanted
};

struct Edge {
  int source;  // the state that it reads
  int layers;  // the next ones of the cell's; none: it passes its source on
  const float* keep;
  int ran;         // backward: whether gradients were computed
  double product;  // backward: the gradient of a factor on the edge, if it is wanted
};

// The cell's two inputs and then its nodes.
struct State {
  float* map;
  const float* norm;  // null: the map is meant as it is
  int height, width, channels;
  int edges;    // of a node: how many it is the sum of, the next ones of the cell's
  int undrawn;  // how many run after them, and are no part of the sum
  // Backward:
  int wanted;             // whether a gradient is wanted
  const float* gradient;  // what is known of it before, null: nothing; after it, all of it
  float* into;            // where it may be written
  double* sums;           // [2][C], to be written if there is a norm
  int summed;             // whether they are up to date
};

struct Cell {
  int batch, threads, nodes;
  State* states;
  Edge* edges;
  const Layer* layers;
  // Backward:
  int weights, gates;  // whether their gradients are wanted
  float* between[2];   // room for the gradient of any map between two layers
  float* kept;         // room for a node's gradient after drop path
};

int gdas_cell_forward(const Cell*);
int gdas_cell_backward(const Cell*);

}  // extern "C"
