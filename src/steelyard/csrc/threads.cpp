#include "threads.h"

#include <atomic>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>
#define STEELYARD_POSIX 1
#endif

namespace steelyard {
namespace {

// PyTorch brings an OpenMP library of its own, under a name that no linker could know. It is in the process already when
// this module loads, and this is how compiled `#pragma omp parallel` enters it.
using Parallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

// A fork leaves a child with the memory of a pool but none of its threads; entering it again would wait forever.
std::atomic<bool> forked{false};

Parallel find_parallel() {
#if STEELYARD_POSIX
  pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });
  return reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#else
  return nullptr;
#endif
}

const Parallel parallel = find_parallel();

struct Region {
  std::atomic<int64_t> chunk{0};
  std::atomic<int> slot{0};
  int64_t chunks;
  void* context;
  Work work;
};

void enter(void* argument) {
  Region& region = *static_cast<Region*>(argument);
  const int slot = region.slot.fetch_add(1, std::memory_order_relaxed);
  for (int64_t c; (c = region.chunk.fetch_add(1, std::memory_order_relaxed)) < region.chunks;)
    region.work(region.context, slot, c);
}

}  // namespace

void share_out(int64_t chunks, int threads, void* context, Work work) {
  if (threads > chunks) threads = static_cast<int>(chunks);
  if (threads <= 1 || !parallel || forked.load(std::memory_order_relaxed)) {
    for (int64_t c = 0; c < chunks; c++) work(context, 0, c);
    return;
  }
  Region region;
  region.chunks = chunks;
  region.context = context;
  region.work = work;
  parallel(enter, &region, static_cast<unsigned>(threads), 0);
}

const char* thread_source() { return parallel ? "PyTorch's OpenMP" : "one thread"; }

}  // namespace steelyard
