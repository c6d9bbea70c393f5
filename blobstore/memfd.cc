#include "blobstore/memfd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"

namespace bigcast {

Result<std::shared_ptr<Memfd>> Memfd::create(const std::string& name) {
  const int fd = memfd_create(name.c_str(), MFD_CLOEXEC);
  if (fd < 0) {
    const bool exhausted = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
    return fail(exhausted ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
                errno_message("memory file", errno));
  }
  std::shared_ptr<Memfd> file(new Memfd(fd));
  // Before any descriptor leaves: a memfd is born with mode 0777, and another user who was
  // passed a descriptor could open it again for writing.
  if (fchmod(fd, 0400) != 0) {
    return fail(ErrorCode::kIo, errno_message("memory file: fchmod", errno));
  }
  return file;
}

Memfd::~Memfd() { close(fd_); }

Result<void> Memfd::write(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const bool exhausted = errno == ENOSPC || errno == ENOMEM;
      return fail(exhausted ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
                  errno_message("memory file: write", errno));
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

Result<void> Memfd::read(uint64_t offset, std::span<std::byte> buffer) const {
  while (!buffer.empty()) {
    const ssize_t n = pread(fd_, buffer.data(), buffer.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(ErrorCode::kIo, errno_message("memory file: read", errno));
    if (n == 0) return fail(ErrorCode::kIo, "memory file: it ends too early");
    buffer = buffer.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

void Memfd::punch(uint64_t offset, uint64_t length) {
  if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                static_cast<off_t>(length)) != 0) {
    log().error("{}", errno_message("memory file: punch", errno));
  }
}

Result<int> Memfd::open_reader() const {
  const std::string path = fmt::format("/proc/self/fd/{}", fd_);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const bool exhausted = errno == EMFILE || errno == ENFILE;
    return fail(exhausted ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
                errno_message("memory file: open " + path, errno));
  }
  return fd;
}

}  // namespace bigcast
