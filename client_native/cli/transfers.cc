#include "client_native/cli/transfers.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "client_native/cli/progress.h"
#include "client_native/cli/target_file.h"

namespace bigcast::cli {

namespace {

class SourceFile {
 public:
  static Result<std::unique_ptr<SourceFile>> open(const std::string& path);
  ~SourceFile() {
    if (fd_ != STDIN_FILENO) close(fd_);
  }
  SourceFile(const SourceFile&) = delete;
  SourceFile& operator=(const SourceFile&) = delete;

  // Regular files only; what else can be read ends when it ends.
  std::optional<uint64_t> size() const {
    // Files that the kernel makes up, as those of /proc, say 0 whatever they hold.
    if (!S_ISREG(before_.st_mode) || before_.st_size == 0) return std::nullopt;
    return static_cast<uint64_t>(before_.st_size);
  }
  // Fills `buffer` unless the file ends; returns how much it read.
  Result<size_t> read(std::span<std::byte> buffer);
  // IO if a regular file is not what it was when it was opened.
  Result<void> check_unchanged(uint64_t bytes_read);

 private:
  SourceFile(std::string name, int fd) : name_(std::move(name)), fd_(fd) {}
  const std::string name_;
  const int fd_;
  struct stat before_ {};
};

Result<std::unique_ptr<SourceFile>> SourceFile::open(const std::string& path) {
  const bool standard = path == "-";
  const int fd = standard ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(ErrorCode::kIo, errno_message("open " + path, errno));
  auto file = std::unique_ptr<SourceFile>(new SourceFile(standard ? "standard input" : path, fd));
  if (standard) return file;  // from where it stands: no size is taken from it
  if (fstat(fd, &file->before_) != 0) {
    return fail(ErrorCode::kIo, errno_message("stat " + path, errno));
  }
  if (S_ISDIR(file->before_.st_mode)) {
    return fail(ErrorCode::kIo, errno_message("read " + path, EISDIR));
  }
  return file;
}

Result<size_t> SourceFile::read(std::span<std::byte> buffer) {
  size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t got = ::read(fd_, buffer.data() + done, buffer.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(ErrorCode::kIo, errno_message("read " + name_, errno));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<void> SourceFile::check_unchanged(uint64_t bytes_read) {
  if (!size()) return {};
  struct stat after {};
  if (fstat(fd_, &after) != 0) return fail(ErrorCode::kIo, errno_message("stat " + name_, errno));
  const bool same = bytes_read == *size() && after.st_size == before_.st_size &&
                    after.st_mtim.tv_sec == before_.st_mtim.tv_sec &&
                    after.st_mtim.tv_nsec == before_.st_mtim.tv_nsec;
  if (same) return {};
  return fail(ErrorCode::kIo, name_ + ": changed while it was read (" + std::to_string(bytes_read) +
                                  " bytes read, " + std::to_string(*size()) + " at the start)");
}

// Never more than the size that was declared: a file that grows is noticed by check_unchanged.
Result<uint64_t> send(Upload& upload, SourceFile& source, size_t chunk_size, Progress& progress) {
  const auto size = source.size();
  uint64_t done = 0;
  while (!size || done < *size) {
    BIGCAST_ASSIGN(const auto buffer, upload.next_buffer());
    const auto wanted =
        size ? static_cast<size_t>(std::min<uint64_t>(chunk_size, *size - done)) : chunk_size;
    BIGCAST_ASSIGN(const size_t got, source.read(buffer.first(wanted)));
    if (got == 0) break;
    done += got;
    if (got < wanted && size) break;  // it shrank: said by check_unchanged, nothing is sealed
    BIGCAST_TRY(upload.commit(got));
    progress.update(done, size);
    if (got < wanted) break;
  }
  return done;
}

TransferReport report_of(const Key& key, const TransferStats& stats,
                         std::chrono::steady_clock::time_point started) {
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  return {key.to_string(), stats.raw_bytes,     stats.stored_bytes,
          stats.chunks,    stats.chunks_reread, took.count()};
}

// Cut off at the blob's end, if that is known.
ByteRange range_of(ByteRange range, std::optional<uint64_t> size) {
  if (!size) return range;
  range = range.from_front(*size);
  range.end = std::max(range.first, std::min(range.end, *size));
  return range;
}

}  // namespace

Result<TransferReport> put(Client& client, const CommandLine& line, size_t i) {
  const auto started = std::chrono::steady_clock::now();
  BIGCAST_ASSIGN(const auto source, SourceFile::open(line.files[i]));
  UploadOptions options;
  options.name = line.keys[i].name;
  options.size = source->size();
  options.chunk_size = line.chunk_size;
  options.compression = line.compress ? Compression::kAuto : Compression::kNever;
  options.until_removed = true;
  options.replace = line.replace;
  options.homes = line.homes;
  options.replicas = line.replicas;
  options.durable = line.durable;
  options.mappable = line.mappable;
  options.ttl_ms = line.ttl_ms;
  BIGCAST_ASSIGN(const auto upload, client.upload(options));
  Progress progress(options.name, options.size, !line.quiet && !line.json);
  BIGCAST_ASSIGN(const uint64_t done, send(*upload, *source, line.chunk_size, progress));
  BIGCAST_TRY(source->check_unchanged(done));
  BIGCAST_TRY(upload->seal());
  return report_of(line.keys[i], upload->stats(), started);
}

Result<TransferReport> get(Client& client, const CommandLine& line) {
  const auto started = std::chrono::steady_clock::now();
  BIGCAST_ASSIGN(const auto target, TargetFile::open(line.files.front()));
  const DownloadOptions options{.any_order = target->takes_any_order(), .range = line.range};
  BIGCAST_ASSIGN(const auto download, client.download_name(line.keys.front().name, options));
  const ByteRange wanted = range_of(line.range.value_or(ByteRange()), download->size());
  const auto size =
      wanted.end == UINT64_MAX ? std::nullopt : std::optional(wanted.end - wanted.first);
  Progress progress(line.keys.front().name, size, !line.quiet && !line.json);
  uint64_t done = 0;
  for (;;) {
    BIGCAST_ASSIGN(const auto chunk, download->next());
    if (chunk.empty()) break;
    BIGCAST_TRY(target->write({reinterpret_cast<const char*>(chunk.data()), chunk.size()},
                              download->offset() - wanted.first));
    done += chunk.size();
    progress.update(done, line.range ? size : download->size());
  }
  BIGCAST_TRY(target->finish());
  return report_of(line.keys.front(), download->stats(), started);
}

}  // namespace bigcast::cli
