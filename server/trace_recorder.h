#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "codec/codec.h"

namespace bigcast {

// Writes what readers do, as JSON lines that policy_sim replays (tests/bench/broadcast.h): which
// blobs were opened by streams, which chunks these read and when, and what was released. No names
// and no bytes of blobs. The lines go through a buffer to the file, on the caller's thread: it is a
// tool for measurements. After a failed write nothing more is written, and the log says so. Not
// thread-safe.
class TraceRecorder {
 public:
  // Begins a new file at `path`. IO names it.
  static Result<std::unique_ptr<TraceRecorder>> open(const std::string& path, const Clock& clock);
  ~TraceRecorder();
  TraceRecorder(const TraceRecorder&) = delete;
  TraceRecorder& operator=(const TraceRecorder&) = delete;

  uint64_t opened(BlobId id, uint64_t stream);  // the blob's number in the trace
  void read(uint64_t blob, uint64_t stream, const ChunkMeta& chunk);
  void closed(uint64_t blob, uint64_t stream);
  void released(BlobId id);
  void ended(BlobId id);  // removed: its number is not used again
  void flush();           // to be called every now and then

 private:
  TraceRecorder(std::string path, std::FILE* file, const Clock& clock);
  void write(const std::string& rest);

  const std::string path_;
  std::FILE* file_;  // null after a failure
  const Clock& clock_;
  const TimePoint started_at_;
  uint64_t last_number_ = 0;
  std::unordered_map<BlobId, uint64_t> numbers_;  // of blobs that were opened and have not ended
};

}  // namespace bigcast
