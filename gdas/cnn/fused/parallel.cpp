#include "parallel.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>

namespace gdas {
namespace {

// Threads that sleep until there is work. They live as long as the process.
class Pool {
 public:
  void run(int threads, int items, void (*task)(void*, int), void* context) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      grow(threads - 1);
      task_ = task;
      context_ = context;
      items_ = items;
      next_.store(0);
      wanted_ = std::min(threads - 1, started_);
      busy_ = wanted_;
      round_++;
    }
    wake_.notify_all();
    work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void grow(int threads) {
    while (started_ < threads) {
      try {
        std::thread([this, id = started_] { serve(id); }).detach();
      } catch (const std::system_error&) {
        return;  // no more threads to be had: those that there are do the work
      }
      started_++;
    }
  }

  void serve(int id) {
    long seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != seen && (id < wanted_ || busy_ == 0); });
        seen = round_;
        if (id >= wanted_) continue;
      }
      work();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  void work() {
    for (int i; (i = next_.fetch_add(1)) < items_;) task_(context_, i);
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<int> next_{0};
  void (*task_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int items_ = 0, started_ = 0, wanted_ = 0, busy_ = 0;
  long round_ = 0;
};

struct Buffer {
  float* start = nullptr;
  std::size_t floats = 0;
  ~Buffer() { std::free(start); }
};

}  // namespace

void run_tasks(int threads, int items, void (*task)(void*, int), void* context) {
  if (threads <= 1 || items <= 1) {
    for (int i = 0; i < items; i++) task(context, i);
    return;
  }
  // The threads of a pool do not survive fork, so a child process makes another pool. One caller
  // uses it at a time.
  static std::mutex callers;
  static Pool* pool = nullptr;
  static pid_t owner = 0;
  std::lock_guard<std::mutex> lock(callers);
  if (pool == nullptr || owner != getpid()) {
    pool = new Pool;
    owner = getpid();
  }
  pool->run(std::min(threads, items), items, task, context);
}

float* scratch(std::size_t floats) {
  static thread_local Buffer buffer;
  if (buffer.floats < floats) {
    std::free(buffer.start);
    const std::size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
    buffer.start = static_cast<float*>(std::aligned_alloc(64, bytes));
    buffer.floats = buffer.start == nullptr ? 0 : floats;
  }
  return buffer.start;
}

}  // namespace gdas
