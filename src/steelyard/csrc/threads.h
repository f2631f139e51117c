// Work shared out over threads: PyTorch's own, so that no second pool fights over the cores.
#pragma once

#include <cstdint>

namespace steelyard {

// Calls work(context, slot, chunk) for every chunk in [0, chunks), on at most `threads` threads; `slot` tells the
// threads at work apart. Which thread takes which chunk is left to chance, so no result may depend on it.
using Work = void (*)(void* context, int slot, int64_t chunk);
void share_out(int64_t chunks, int threads, void* context, Work work);

// Where threads come from, for show_config: "OpenMP, PyTorch's" or "none".
const char* thread_source();

}  // namespace steelyard
