// Memory for large results: huge pages before the first touch, and where the caches end.
#pragma once

#include <cstdint>

namespace steelyard {

// Asks for huge pages under a large result. Its pages fault in 512 times less often if they are not there yet; where
// they are, or the system has no such pages, nothing happens.
void advise_huge_pages(void* data, int64_t bytes);

// What the system says of huge pages: "always", "madvise", "never", or "unknown".
const char* huge_pages();

// Results of this many bytes and more are written past the caches.
int64_t streaming_threshold();

}  // namespace steelyard
