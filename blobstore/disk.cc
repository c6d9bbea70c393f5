#include "blobstore/disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <filesystem>

#include "base/limits.h"

namespace bigcast {
namespace {

tl::unexpected<Error> disk_error(const std::string& what, int error_number) {
  const bool exhausted = error_number == ENOSPC || error_number == EDQUOT ||
                         error_number == EMFILE || error_number == ENFILE;
  return fail(exhausted ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
              errno_message(what, error_number));
}

// Carries references to a file's pages to another file: neither a copy nor page tables, and the
// pages need not be pinned one by one.
class PagePipe {
 public:
  explicit PagePipe(uint64_t size) {
    const auto wanted = static_cast<int>(std::min(size, limits::kPagePipeSize));
    if (pipe2(ends_.data(), O_CLOEXEC) != 0) return;
    usable_ = fcntl(ends_[1], F_SETPIPE_SZ, wanted) >= wanted;
  }
  PagePipe(const PagePipe&) = delete;
  PagePipe& operator=(const PagePipe&) = delete;
  ~PagePipe() {
    for (const int end : ends_) {
      if (end >= 0) close(end);
    }
  }
  bool is_usable() const { return usable_; }

  ssize_t fill(int fd, uint64_t from, uint64_t size) {
    auto offset = static_cast<off_t>(from);
    return splice(fd, &offset, ends_[1], nullptr, std::min(size, limits::kPagePipeSize), 0);
  }
  ssize_t drain(int fd, uint64_t to, uint64_t size) {
    auto offset = static_cast<off_t>(to);
    return splice(ends_[0], nullptr, fd, &offset, size, 0);
  }

 private:
  std::array<int, 2> ends_{-1, -1};
  bool usable_ = false;
};

class RealDiskFile final : public DiskFile {
 public:
  RealDiskFile(int fd, bool direct, std::string path)
      : fd_(fd), direct_(direct), path_(std::move(path)) {}
  RealDiskFile(const RealDiskFile&) = delete;
  RealDiskFile& operator=(const RealDiskFile&) = delete;
  ~RealDiskFile() override { close(fd_); }

  Result<void> write(uint64_t offset, std::span<const std::byte> bytes) override {
    const auto start = static_cast<off_t>(offset);
    const auto length = static_cast<off_t>(bytes.size());
    while (!bytes.empty()) {
      const ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return disk_error(path_ + ": write", n < 0 ? errno : EIO);
      bytes = bytes.subspan(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    return leave_cache(start, length);
  }

  Result<bool> write_from(uint64_t offset, int fd, uint64_t from, uint64_t size) override {
    PagePipe pipe(size);
    if (!pipe.is_usable()) return false;
    for (uint64_t done = 0; done < size;) {
      ssize_t filled = pipe.fill(fd, from + done, size - done);
      if (filled < 0 && errno == EINTR) continue;
      if (filled <= 0) return false;  // no fault of the disk's
      while (filled > 0) {
        const ssize_t n = pipe.drain(fd_, offset + done, static_cast<uint64_t>(filled));
        if (n < 0 && errno == EINTR) continue;
        // Whoever can't do this at all says so at once, each in its own way; write() knows better.
        if (n <= 0 && done == 0) return false;
        if (n <= 0) return disk_error(path_ + ": write", n < 0 ? errno : EIO);
        filled -= n;
        done += static_cast<uint64_t>(n);
      }
    }
    BIGCAST_TRY(leave_cache(static_cast<off_t>(offset), static_cast<off_t>(size)));
    return true;
  }

  Result<void> read(uint64_t offset, std::span<std::byte> buffer) override {
    const auto start = static_cast<off_t>(offset);
    const auto length = static_cast<off_t>(buffer.size());
    while (!buffer.empty()) {
      const ssize_t n = pread(fd_, buffer.data(), buffer.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return disk_error(path_ + ": read", errno);
      if (n == 0) return fail(ErrorCode::kCorrupt, path_ + ": read: the file ends too early");
      buffer = buffer.subspan(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    if (!direct_) posix_fadvise(fd_, start, length, POSIX_FADV_DONTNEED);
    return {};
  }

  Result<void> sync() override {
    if (fdatasync(fd_) != 0) return disk_error(path_ + ": sync", errno);
    if (is_linked_) return {};
    BIGCAST_TRY(sync_directory(std::filesystem::path(path_).parent_path()));
    is_linked_ = true;
    return {};
  }

 private:
  Result<void> leave_cache(off_t start, off_t length) {
    if (direct_) return {};
    // Only clean pages can be dropped from the cache.
    if (sync_file_range(fd_, start, length,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                            SYNC_FILE_RANGE_WAIT_AFTER) != 0) {
      // Whatever it is, and whosever bytes on this file: no later sync tells it again.
      return fail(ErrorCode::kIo, errno_message(path_ + ": sync", errno));
    }
    posix_fadvise(fd_, start, length, POSIX_FADV_DONTNEED);
    return {};
  }

  int fd_;
  bool direct_;
  std::string path_;
  std::atomic<bool> is_linked_{false};  // its directory entry is synced
};

// Opens the file with O_DIRECT where that is possible.
int open_direct(const std::string& path, int flags, bool& direct) {
  direct = true;
  int fd = open(path.c_str(), flags | O_CLOEXEC | O_DIRECT, 0600);
  if (fd < 0 && errno == EINVAL) {
    direct = false;
    if ((flags & O_EXCL) != 0) unlink(path.c_str());  // some refuse only after they created it
    fd = open(path.c_str(), flags | O_CLOEXEC, 0600);
  }
  return fd;
}

class RealDisk final : public Disk {
 public:
  Result<std::unique_ptr<DiskFile>> create(const std::string& path, uint64_t size) override {
    bool direct = true;
    const int fd = open_direct(path, O_RDWR | O_CREAT | O_EXCL, direct);
    if (fd < 0) return disk_error(path + ": create", errno);
    auto file = std::make_unique<RealDiskFile>(fd, direct, path);
    int error_number = fallocate(fd, 0, 0, static_cast<off_t>(size)) == 0 ? 0 : errno;
    if (error_number == EOPNOTSUPP) {
      error_number = ftruncate(fd, static_cast<off_t>(size)) == 0 ? 0 : errno;
    }
    if (error_number != 0) {
      unlink(path.c_str());
      return disk_error(path + ": allocate", error_number);
    }
    return file;
  }

  Result<Opened> open(const std::string& path) override {
    bool direct = true;
    const int fd = open_direct(path, O_RDWR, direct);
    if (fd < 0) return disk_error(path + ": open", errno);
    Opened opened;
    opened.file = std::make_unique<RealDiskFile>(fd, direct, path);
    struct stat status {};
    if (fstat(fd, &status) != 0) return disk_error(path + ": stat", errno);
    opened.size = static_cast<uint64_t>(status.st_size);
    return opened;
  }

  Result<void> remove(const std::string& path) override {
    if (unlink(path.c_str()) != 0) return disk_error(path + ": remove", errno);
    return {};
  }

  Result<std::vector<std::string>> list(const std::string& directory) override {
    std::vector<std::string> names;
    std::error_code error;
    std::filesystem::directory_iterator it(directory, error);
    for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error) return disk_error(directory + ": list", error.value());
    return names;
  }
};

}  // namespace

Result<void> sync_directory(const std::string& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return disk_error(directory + ": open", errno);
  const int error_number = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  if (error_number != 0) return disk_error(directory + ": sync", error_number);
  return {};
}

std::unique_ptr<Disk> make_disk() { return std::make_unique<RealDisk>(); }

}  // namespace bigcast
