#include "server/trace_recorder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <filesystem>

#include "base/limits.h"
#include "base/log.h"

namespace bigcast {
namespace {

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "host";
}

}  // namespace

Result<std::unique_ptr<TraceRecorder>> TraceRecorder::open(const std::string& path, Id128 epoch,
                                                           const Clock& clock) {
  std::error_code error;
  const std::string file_path =
      std::filesystem::is_directory(path, error)
          ? fmt::format("{}/bigcastd-{}-{}.jsonl", path, host_name(), epoch.to_string())
          : path;
  std::FILE* const file = std::fopen(file_path.c_str(), "we");
  if (file == nullptr) return fail(ErrorCode::kIo, errno_message("open " + file_path, errno));
  std::setbuf(file, nullptr);  // so that whoever kills the node leaves whole lines
  return std::unique_ptr<TraceRecorder>(new TraceRecorder(file_path, file, clock));
}

TraceRecorder::TraceRecorder(std::string path, std::FILE* file, const Clock& clock)
    : path_(std::move(path)), file_(file), clock_(clock), started_at_(clock.now()) {}

TraceRecorder::~TraceRecorder() {
  flush();
  if (file_ != nullptr) std::fclose(file_);
}

void TraceRecorder::flush() {
  const bool written =
      file_ == nullptr || std::fwrite(lines_.data(), 1, lines_.size(), file_) == lines_.size();
  lines_.clear();
  if (written) return;
  log().error("record_trace: nothing more is recorded: {}", errno_message("write " + path_, errno));
  std::fclose(file_);
  file_ = nullptr;
}

void TraceRecorder::write(const std::string& rest) {
  if (file_ == nullptr) return;
  const std::chrono::duration<double> time = clock_.now() - started_at_;
  lines_ += fmt::format("{{\"t\":{:.6f},{}}}\n", time.count(), rest);
  if (lines_.size() >= limits::kTraceBuffer) flush();
}

uint64_t TraceRecorder::number_of(BlobId id) {
  const auto [entry, is_new] = numbers_.try_emplace(id, last_number_ + 1);
  if (is_new) {
    last_number_ = entry->second;
    // What it holds shows in what is read of it: its size may not be known yet.
    write(fmt::format(R"("op":"put","blob":{},"bytes":0)", last_number_));
  }
  return entry->second;
}

void TraceRecorder::opened(uint64_t blob, uint64_t stream, eviction::ReadOrder order) {
  write(fmt::format(R"("op":"open","blob":{},"stream":{},"order":"{}")", blob, stream,
                    order == eviction::ReadOrder::kResidentFirst ? "resident-first" : "fixed"));
}

void TraceRecorder::read(uint64_t blob, uint64_t stream, const ChunkMeta& chunk) {
  const std::string of = stream == 0 ? "" : fmt::format(R"(,"stream":{})", stream);
  write(fmt::format(R"("op":"chunk","blob":{}{},"chunk":{},"bytes":{})", blob, of, chunk.index,
                    chunk.stored_size));
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

}  // namespace bigcast
