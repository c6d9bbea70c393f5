#include "server/trace_recorder.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/log.h"

namespace bigcast {

Result<std::unique_ptr<TraceRecorder>> TraceRecorder::open(const std::string& path,
                                                           const Clock& clock) {
  std::FILE* const file = std::fopen(path.c_str(), "we");
  if (file == nullptr) return fail(ErrorCode::kIo, errno_message("open " + path, errno));
  return std::unique_ptr<TraceRecorder>(new TraceRecorder(path, file, clock));
}

TraceRecorder::TraceRecorder(std::string path, std::FILE* file, const Clock& clock)
    : path_(std::move(path)), file_(file), clock_(clock), started_at_(clock.now()) {}

TraceRecorder::~TraceRecorder() {
  if (file_ == nullptr) return;
  if (std::fclose(file_) != 0) {
    log().error("record_trace: {}", errno_message("write " + path_, errno));
  }
}

void TraceRecorder::write(const std::string& rest) {
  if (file_ == nullptr) return;
  const std::chrono::duration<double> time = clock_.now() - started_at_;
  const std::string line = fmt::format("{{\"t\":{:.6f},{}}}\n", time.count(), rest);
  if (std::fwrite(line.data(), 1, line.size(), file_) == line.size()) return;
  log().error("record_trace: nothing more is recorded: {}", errno_message("write " + path_, errno));
  std::fclose(file_);
  file_ = nullptr;
}

uint64_t TraceRecorder::opened(BlobId id, uint64_t stream) {
  const auto [entry, is_new] = numbers_.try_emplace(id, last_number_ + 1);
  const uint64_t number = entry->second;
  if (is_new) {
    last_number_ = number;
    // What it holds shows in what is read of it: its size may not be known yet.
    write(fmt::format(R"("op":"put","blob":{},"bytes":0)", number));
  }
  write(fmt::format(R"("op":"open","blob":{},"stream":{})", number, stream));
  return number;
}

void TraceRecorder::read(uint64_t blob, uint64_t stream, const ChunkMeta& chunk) {
  write(fmt::format(R"("op":"chunk","blob":{},"stream":{},"chunk":{},"bytes":{})", blob, stream,
                    chunk.index, chunk.stored_size));
}

void TraceRecorder::closed(uint64_t blob, uint64_t stream) {
  write(fmt::format(R"("op":"close","blob":{},"stream":{})", blob, stream));
}

void TraceRecorder::released(BlobId id) {
  const auto found = numbers_.find(id);
  if (found != numbers_.end()) write(fmt::format(R"("op":"release","blob":{})", found->second));
}

void TraceRecorder::ended(BlobId id) {
  released(id);
  numbers_.erase(id);
}

void TraceRecorder::flush() {
  if (file_ != nullptr) std::fflush(file_);  // what fails shows in the next write
}

}  // namespace bigcast
