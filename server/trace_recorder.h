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
#include "eviction/policy.h"

namespace bigcast {

// Writes what readers do, as JSON lines that policy_sim replays (tests/bench/broadcast.h): which
// blobs were opened by streams and how these go through them, which chunks were read and when, and
// what was released. No names and no bytes of blobs. Whole lines go through a buffer to the file,
// on the caller's thread: it is a tool for measurements. After a failed write nothing more is
// written, and the log says so. Not thread-safe.
class TraceRecorder {
 public:
  // Begins a new file: `path`, or if that is a directory one in it, called after this host and the
  // node's `epoch`. IO names it.
  static Result<std::unique_ptr<TraceRecorder>> open(const std::string& path, Id128 epoch,
                                                     const Clock& clock);
  ~TraceRecorder();
  TraceRecorder(const TraceRecorder&) = delete;
  TraceRecorder& operator=(const TraceRecorder&) = delete;

  uint64_t number_of(BlobId id);  // the blob's in the trace, above 0
  void opened(uint64_t blob, uint64_t stream, eviction::ReadOrder order);
  // `stream` 0: of a reader that has not said how it reads, as another node.
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
  std::string lines_;  // that are not in the file yet
  uint64_t last_number_ = 0;
  std::unordered_map<BlobId, uint64_t> numbers_;  // of blobs that were read and have not ended
};

}  // namespace bigcast
