#include "pages.h"

#include <cstdio>
#include <cstring>
#include <initializer_list>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace steelyard {

void advise_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr int64_t huge = int64_t{1} << 21;
  if (bytes < 2 * huge) return;
  // Whole pages inside the result only: the memory around it is somebody else's.
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), start = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (start + page - 1) / page * page, last = (start + bytes) / page * page;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

const char* huge_pages() {
#if defined(__linux__)
  if (std::FILE* file = std::fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r")) {
    char text[64] = {};
    const bool read = std::fgets(text, sizeof text, file) != nullptr;
    std::fclose(file);
    if (read)
      for (const char* word : {"always", "madvise", "never"}) {
        char chosen[16];
        std::snprintf(chosen, sizeof chosen, "[%s]", word);
        if (std::strstr(text, chosen)) return word;
      }
  }
#endif
  return "unknown";
}

int64_t streaming_threshold() {
  // A processor may have hundreds of megabytes of third-level cache and lend one program a slice: what the system
  // reports is an upper bound that a result of this size has been measured to outgrow.
  return int64_t{32} << 20;
}

}  // namespace steelyard
