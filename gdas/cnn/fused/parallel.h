// Threads over parts of a batch, and memory of their own to work in.
//
// A batch is cut into at most CHUNKS runs of images, however many threads there are, and every sum
// over a batch is made of the chunks' sums in their order. So results do not depend on the number
// of threads, nor on which of them does what.
#pragma once

#include <algorithm>
#include <cstddef>

namespace gdas {

constexpr int CHUNKS = 16;

// Calls task(context, i) once for every i < items, on at most `threads` threads with the caller's.
void run_tasks(int threads, int items, void (*task)(void*, int), void* context);

// At least `floats` floats of this thread, aligned to a cache line, the same at every call that asks
// for no more; nullptr if there is no memory.
float* scratch(std::size_t floats);

// f(i) for every i < items. With one thread no other is woken or started.
template <class F>
void parallel(int threads, int items, F f) {
  run_tasks(threads, items, [](void* context, int i) { (*static_cast<F*>(context))(i); }, &f);
}

struct Range {
  int from, to;
};

inline int chunks_of(int batch) { return std::min(batch, CHUNKS); }

inline Range chunk(int batch, int i) {
  const long n = chunks_of(batch);
  return {static_cast<int>(batch * static_cast<long>(i) / n),
          static_cast<int>(batch * (static_cast<long>(i) + 1) / n)};
}

}  // namespace gdas
