// A cell by the kernels' own calls, one after the other, without Python in between.
#include "kernels.h"
#include "parallel.h"

#include <cstring>
#include <new>
#include <vector>

namespace gdas {
namespace {

// A map as a layer reads it or has written it.
struct Map {
  const float *values, *norm;
  int height, width, channels;

  std::size_t image() const { return static_cast<std::size_t>(height) * width * channels; }
};

Map map_of(const State& s) { return {s.map, s.norm, s.height, s.width, s.channels}; }

int all_edges(const State& node) { return node.edges + node.undrawn; }

Map map_of(const Layer& l, const Map& x) {
  return {l.y, l.norm.norm, (x.height + l.stride - 1) / l.stride,
          (x.width + l.stride - 1) / l.stride, l.channels};
}

Shape shape_of(const Cell& cell, const Map& x, const Layer& l) {
  return {cell.batch, x.height, x.width, x.channels, l.kernel, l.stride, l.dilation, cell.threads};
}

Shape shape_of(const Cell& cell, const Map& x) {
  return {cell.batch, x.height, x.width, x.channels, 0, 1, 1, cell.threads};
}

Convolution convolution_of(const Layer& l) {
  return {l.weight, l.of_out, l.of_in, l.of_tap, l.channels, l.relu};
}

int forward(const Cell& cell, const Layer& l, const Map& x) {
  const Shape shape = shape_of(cell, x, l);
  const BatchNorm* norm = l.norm.norm ? &l.norm : nullptr;
  switch (l.kind) {
    case SEPARABLE:
      return gdas_separable_forward(&shape, x.values, x.norm, l.weight, l.second, l.y, norm);
    case CONVOLUTION: {
      const Convolution convolution = convolution_of(l);
      return gdas_convolution_forward(&shape, &convolution, x.values, x.norm, l.y, norm);
    }
    case AVERAGE_POOLING:
    case MAX_POOLING:
      return gdas_pooling_forward(&shape, l.kind == AVERAGE_POOLING, x.values, x.norm, l.y, l.index,
                                  norm);
    case READER: {
      const Term part{x.values, x.norm, nullptr};
      Reader reader{};
      reader.weight = l.weight, reader.odd = l.second, reader.channels = l.channels;
      reader.y = l.y, reader.batch_norm = norm;
      return gdas_readers_forward(&shape, 1, &part, 1, &reader);
    }
    case REDUCING:
      return gdas_reducing_forward(&shape, x.values, x.norm, l.weight, l.second, l.y, norm);
  }
  return 2;
}

int forward(const Cell& cell) {
  const Edge* edge = cell.edges;
  const Layer* layer = cell.layers;
  std::vector<Term> terms;
  for (int n = 0; n < cell.nodes; n++) {
    const State& node = cell.states[2 + n];
    terms.clear();
    for (int e = 0; e < all_edges(node); e++, edge++) {
      Map x = map_of(cell.states[edge->source]);
      for (int i = 0; i < edge->layers; i++, layer++) {
        if (const int failed = forward(cell, *layer, x)) return failed;
        x = map_of(*layer, x);
      }
      if (e < node.edges) terms.push_back({x.values, x.norm, edge->keep});
    }
    if (terms.empty()) {
      std::memset(node.map, 0, sizeof(float) * cell.batch * map_of(node).image());
      continue;
    }
    const Shape shape = shape_of(cell, map_of(node));
    if (const int failed = gdas_sum(&shape, node.edges, terms.data(), node.map)) return failed;
  }
  return 0;
}

// The gradient of a term: that of the sum that it is in, its sums, and what multiplies its images.
struct Gradient {
  const float* values;
  const double* sums;
  const float* keep;
};

// to[i] = f(i) for all floats of a map
template <class F>
void each(const Cell& cell, const Map& x, float* to, F f) {
  parallel(cell.threads, chunks_of(cell.batch), [&](int c) {
    const Range range = chunk(cell.batch, c);
    const std::size_t end = range.to * x.image();
    for (std::size_t i = range.from * x.image(); i < end; i++) to[i] = f(i);
  });
}

// A gradient after drop path, where no kernel applies it on its way.
const float* kept(const Cell& cell, const Map& y, const Gradient& of_y, float* to) {
  if (of_y.keep == nullptr) return of_y.values;
  const std::size_t image = y.image();
  each(cell, y, to, [&](std::size_t i) { return of_y.values[i] * of_y.keep[i / image]; });
  return to;
}

struct Backward {
  const Cell& cell;
  std::vector<double> room;  // for sums
  double* between[2];        // the sums of cell.between

  Backward(const Cell& c, std::size_t widest) : cell(c), room(4 * widest) {
    between[0] = room.data();
    between[1] = room.data() + 2 * widest;
  }

  int layer(const Layer& l, const Map& x, const Gradient& of_y, const float* base, float* into,
            double* sums) const {
    const Shape shape = shape_of(cell, x, l);
    switch (l.kind) {
      case SEPARABLE:
        return gdas_separable_backward(&shape, of_y.values, of_y.keep, l.y, l.norm.norm, of_y.sums,
                                       x.values, x.norm, l.weight, l.second, base, into, sums,
                                       l.of_weight, l.of_second);
      case CONVOLUTION: {
        const Convolution convolution = convolution_of(l);
        return gdas_convolution_backward(&shape, &convolution, of_y.values, of_y.keep, l.y,
                                         l.norm.norm, of_y.sums, x.values, x.norm, base, into, sums,
                                         l.of_weight);
      }
      case AVERAGE_POOLING:
      case MAX_POOLING:
        return gdas_pooling_backward(&shape, l.kind == AVERAGE_POOLING, of_y.values, of_y.keep, l.y,
                                     l.norm.norm, of_y.sums, l.index, x.values, x.norm, base, into,
                                     sums);
      case READER: {
        const Term part{x.values, x.norm, nullptr};
        const Reader reader{l.weight,    l.second, l.channels,  l.y,         nullptr,
                            kept(cell, map_of(l, x), of_y, cell.kept), l.norm.norm,
                            of_y.sums,   l.of_weight, l.of_second};
        return gdas_readers_backward(&shape, 1, &part, 1, &reader, &base, &into, sums);
      }
      case REDUCING:
        return gdas_reducing_backward(&shape, of_y.values, l.y, l.norm.norm, of_y.sums, x.values,
                                      x.norm, l.weight, l.second, base, into, sums, l.of_weight,
                                      l.of_second);
    }
    return 2;
  }

  // An edge's gradients, that of its source added to what is known of it.
  int edge(const Edge& e, const Layer* layers, Gradient of_y) const {
    State& source = cell.states[e.source];
    if (e.layers == 0) {
      pass_on(source, of_y);
      return 0;
    }
    std::vector<Map> maps{map_of(source)};
    for (int i = 0; i < e.layers; i++) maps.push_back(map_of(layers[i], maps.back()));
    for (int i = e.layers - 1; i >= 0; i--) {
      const Layer& l = layers[i];
      float* into = i ? cell.between[i % 2] : source.into;
      double* sums = maps[i].norm == nullptr ? nullptr : i ? between[i % 2] : source.sums;
      for (int c = 0; l.of_gamma && c < l.channels; c++) {
        const float istd = l.norm.norm[l.channels + c];
        l.of_gamma[c] = static_cast<float>(of_y.sums[l.channels + c] * istd);
        l.of_beta[c] = static_cast<float>(of_y.sums[c]);
      }
      const float* base = i ? nullptr : source.gradient;
      if (const int failed = layer(l, maps[i], of_y, base, into, sums)) return failed;
      of_y = {into, sums, nullptr};
    }
    source.gradient = source.into;
    source.summed = source.norm != nullptr;
    return 0;
  }

  void pass_on(State& source, const Gradient& of_y) const {
    const Map map = map_of(source);
    if (source.gradient == nullptr) {
      source.gradient = kept(cell, map, of_y, source.into);
    } else {
      const float *base = source.gradient, *own = kept(cell, map, of_y, cell.kept);
      each(cell, map, source.into, [&](std::size_t i) { return base[i] + own[i]; });
      source.gradient = source.into;
    }
    source.summed = 0;
  }

  int node(const State& node, Edge* edges, const Layer* layers) const {
    const Map out = map_of(node);
    std::vector<Term> terms;
    std::vector<int> places(all_edges(node), -1);
    const Layer* layer = layers;
    for (int e = 0; e < all_edges(node); e++) {
      Map x = map_of(cell.states[edges[e].source]);
      for (int i = 0; i < edges[e].layers; i++, layer++) x = map_of(*layer, x);
      if (!cell.gates && x.norm == nullptr) continue;  // needs no sums
      places[e] = static_cast<int>(terms.size());
      terms.push_back({x.values, x.norm, edges[e].keep});
    }
    const std::size_t size = 2 * static_cast<std::size_t>(out.channels);
    std::vector<double> sums(terms.size() * size), products(terms.size());
    const Shape shape = shape_of(cell, out);
    if (!terms.empty())
      if (const int failed =
              gdas_gradient_sums(&shape, node.gradient, static_cast<int>(terms.size()),
                                 terms.data(), sums.data(), products.data()))
        return failed;
    for (int e = 0; e < all_edges(node); layers += edges[e].layers, e++) {
      const int place = places[e];
      if (place >= 0) edges[e].product = products[place];
      if (e >= node.edges) continue;
      if (!cell.weights && !cell.states[edges[e].source].wanted) continue;
      edges[e].ran = 1;
      const double* own = place < 0 ? nullptr : sums.data() + place * size;
      if (const int failed = edge(edges[e], layers, {node.gradient, own, edges[e].keep}))
        return failed;
    }
    return 0;
  }
};

int backward(const Cell& cell) {
  std::vector<Edge*> edges{cell.edges};
  std::vector<const Layer*> layers{cell.layers};
  std::size_t widest = 0;
  for (int n = 0; n < cell.nodes; n++) {
    Edge* const first = edges.back();
    const Layer* layer = layers.back();
    edges.push_back(first + all_edges(cell.states[2 + n]));
    for (Edge* e = first; e < edges.back(); e++)
      for (int i = 0; i < e->layers; i++, layer++)
        widest = std::max<std::size_t>(widest, layer->channels);
    layers.push_back(layer);
  }
  const Backward b(cell, widest);
  for (int n = cell.nodes - 1; n >= 0; n--) {
    const State& node = cell.states[2 + n];
    if (node.gradient == nullptr || all_edges(node) == 0) continue;
    if (const int failed = b.node(node, edges[n], layers[n])) return failed;
  }
  for (State* input = cell.states; input < cell.states + 2; input++)
    if (input->gradient != nullptr && input->gradient != input->into) {
      std::memcpy(input->into, input->gradient,
                  sizeof(float) * cell.batch * map_of(*input).image());
      input->gradient = input->into;
    }
  return 0;
}

// f(cell), or 1 if there was no memory.
template <class F>
int within_memory(F f, const Cell& cell) {
  try {
    return f(cell);
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace
}  // namespace gdas

extern "C" int gdas_cell_forward(const Cell* cell) {
  return gdas::within_memory([](const Cell& c) { return gdas::forward(c); }, *cell);
}

extern "C" int gdas_cell_backward(const Cell* cell) {
  return gdas::within_memory([](const Cell& c) { return gdas::backward(c); }, *cell);
}
