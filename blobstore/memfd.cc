#include "blobstore/memfd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/limits.h"
#include "base/log.h"
#include "base/pages.h"

namespace bigcast {
namespace {

// Page tables for all of it at once: else each page is a fault, which costs more than its copy.
// Where the kernel does not know this the faults come.
void populate(std::span<std::byte> mapped) {
  madvise(mapped.data(), mapped.size(), MADV_POPULATE_READ);
}

}  // namespace

LargePages large_pages_in(const std::string& folder) {
  uint64_t size = 0;
  std::ifstream(folder + "/hpage_pmd_size") >> size;
  std::string modes;  // all of them, the one that holds in brackets
  std::getline(std::ifstream(folder + "/shmem_enabled"), modes);
  if (size != kLargePage) return LargePages::kNever;
  const auto holds = [&](const char* mode) { return modes.find(mode) != std::string::npos; };
  if (holds("[advise]")) return LargePages::kToWhoAsks;
  const bool unasked = holds("[always]") || holds("[within_size]") || holds("[force]");
  return unasked ? LargePages::kUnasked : LargePages::kNever;
}

LargePages large_pages_here() {
  static const LargePages here = large_pages_in("/sys/kernel/mm/transparent_hugepage");
  return here;
}

Result<std::shared_ptr<Memfd>> Memfd::create(const std::string& name, bool ask) {
  const int fd = memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    const bool exhausted = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
    return fail(exhausted ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
                errno_message("memory file", errno));
  }
  std::shared_ptr<Memfd> file(new Memfd(fd, ask));
  // Before any descriptor leaves: a memfd is born with mode 0777, and another user who was
  // passed a descriptor could open it again for writing.
  if (fchmod(fd, 0400) != 0) {
    return fail(ErrorCode::kIo, errno_message("memory file: fchmod", errno));
  }
  // Our own user can still open it for writing: nobody may shorten it under a mapping of ours.
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return fail(ErrorCode::kIo, errno_message("memory file: seal", errno));
  }
  return file;
}

Memfd::~Memfd() {
  for (const Mapping& mapping : mappings_) munmap(mapping.data, mapping.length);
  close(fd_);
}

// Copies what fills large pages into new ones; returns how many bytes. The kernel gives them only
// in a mapping that asks, which goes at once: it would also make them later, of what is mapped so,
// with memory for what was punched.
size_t Memfd::write_large(uint64_t offset, std::span<const std::byte> bytes) {
  const size_t whole = bytes.size() / kLargePage * kLargePage;
  if (!asks_ || whole == 0 || offset % kLargePage != 0) return 0;
  if (!lengthen(offset + whole)) return 0;
  void* const target =
      mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, static_cast<off_t>(offset));
  if (target == MAP_FAILED) return 0;
  // All pages now: without memory for one this fails, where its first touch would be a signal.
  const bool there = madvise(target, whole, MADV_HUGEPAGE) == 0 &&
                     madvise(target, whole, MADV_POPULATE_WRITE) == 0;
  if (there) std::memcpy(target, bytes.data(), whole);
  munmap(target, whole);
  return there ? whole : 0;
}

Result<void> Memfd::write(uint64_t offset, std::span<const std::byte> bytes) {
  const size_t written = write_large(offset, bytes);
  bytes = bytes.subspan(written);
  offset += written;
  if (bytes.empty()) return {};  // there is nothing to wait for others for
  const std::scoped_lock lock(write_mutex_);
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
    end_ = std::max(end_.load(), offset);
  }
  return {};
}

// A mapping does not lengthen the file.
Result<void> Memfd::lengthen(uint64_t end) {
  if (end <= end_) return {};  // the usual case, which need not wait for a write
  const std::scoped_lock lock(write_mutex_);
  if (end <= end_) return {};
  if (ftruncate(fd_, static_cast<off_t>(end)) != 0) {
    return fail(ErrorCode::kIo, errno_message("memory file: lengthen", errno));
  }
  end_ = end;
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

Result<void> Memfd::overwrite(uint64_t offset, std::span<const std::byte> bytes) {
  const size_t whole = whole_pages(bytes.size());
  BIGCAST_TRY(lengthen(offset + whole));
  BIGCAST_ASSIGN(const auto target, map(offset, whole));
  populate(target);
  std::memcpy(target.data(), bytes.data(), bytes.size());
  std::memset(target.data() + bytes.size(), 0, whole - bytes.size());
  return {};
}

Result<std::span<const std::byte>> Memfd::view(uint64_t offset, size_t length) {
  return map(offset, length);
}

Result<int> Memfd::descriptor_up_to(uint64_t end) {
  BIGCAST_TRY(lengthen(end));
  return fd_;
}

Result<std::span<std::byte>> Memfd::map(uint64_t offset, size_t length) {
  constexpr uint64_t kShortestMapping = 64 * limits::kMiB;
  const std::scoped_lock lock(mutex_);
  const uint64_t end = offset + length;
  if (mappings_.empty() || mappings_.back().length < end) {
    const uint64_t mapped = std::max(kShortestMapping, std::bit_ceil(end));
    const int access = frozen_ ? PROT_READ : PROT_READ | PROT_WRITE;
    void* data = mmap(nullptr, mapped, access, MAP_SHARED, fd_, 0);
    if (data == MAP_FAILED) return fail(ErrorCode::kIo, errno_message("memory file: map", errno));
    mappings_.push_back({static_cast<std::byte*>(data), mapped});
  }
  return std::span<std::byte>(mappings_.back().data + offset, length);
}

Result<void> Memfd::freeze() {
  const std::scoped_lock lock(mutex_);  // no mapping that can write may be made meanwhile
  if (fcntl(fd_, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_FUTURE_WRITE) != 0) {
    return fail(ErrorCode::kIo, errno_message("memory file: seal", errno));
  }
  frozen_ = true;
  return {};
}

void Memfd::punch(uint64_t offset, uint64_t length) {
  if (frozen_) return;
  if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                static_cast<off_t>(length)) != 0) {
    log().error("memory file: {}", errno_message("punch", errno));
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
