#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace bigcast::bench {

// Fills a fresh `disk_path` as a node would have left it that was killed: `rows` chunks of durable
// blobs of up to 1,000 chunks each. The extents are sparse: nobody reads them at a start.
Result<void> write_index_rows(const std::string& disk_path, uint64_t rows);

struct DiskSpeed {
  double seconds = 0;
  double cpu_s = 0;
};
struct DiskSpeeds {
  DiskSpeed raw_write, demote, raw_read, promote;
};

// Moves `size` bytes in chunks of 4 MiB, in order and by `threads` at once, between a memory file
// and a disk tier below `disk_path` (reads are verified), and between memory and one preallocated
// O_DIRECT file.
Result<DiskSpeeds> measure_disk(const std::string& disk_path, uint64_t size, uint32_t threads);

}  // namespace bigcast::bench
