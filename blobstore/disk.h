#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace rocksdb {
class Env;
}

namespace bigcast {

// One extent file. Thread-safe. Buffers, sizes and offsets are multiples of
// limits::kDiskAlignment. Errors: RESOURCE_EXHAUSTED when the file system is full; CORRUPT when the
// file ends before what is read; else IO.
class DiskFile {
 public:
  virtual ~DiskFile() = default;
  virtual Result<void> write(uint64_t offset, std::span<const std::byte> bytes) = 0;
  // Writes `size` bytes of the memory file `fd`, from `from` on, without a copy. False: that can't
  // be done here; all or part of it may have been written.
  virtual Result<bool> write_from(uint64_t offset, int fd, uint64_t from, uint64_t size) = 0;
  virtual Result<void> read(uint64_t offset, std::span<std::byte> buffer) = 0;
  // What was written before the call, and the file itself, survive a crash from now on. After an
  // error nothing is known of what was written, even if a later call succeeds.
  virtual Result<void> sync() = 0;
};

// What the disk tier needs of a file system, so that a test can make it fail. Thread-safe.
class Disk {
 public:
  virtual ~Disk() = default;
  // Creates a file of `size` bytes with its space allocated; on failure nothing is left.
  virtual Result<std::unique_ptr<DiskFile>> create(const std::string& path, uint64_t size) = 0;
  struct Opened {
    std::unique_ptr<DiskFile> file;
    uint64_t size = 0;  // bytes
  };
  virtual Result<Opened> open(const std::string& path) = 0;
  virtual Result<void> remove(const std::string& path) = 0;
  // The names of all that is in it.
  virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;
  // The file system as the index sees it; null: the real one.
  virtual rocksdb::Env* index_environment() { return nullptr; }
};

// The real one: O_DIRECT, or buffered and dropped from the page cache where that is refused.
std::unique_ptr<Disk> make_disk();

// The directory's entries survive a crash from now on. IO.
Result<void> sync_directory(const std::string& directory);

}  // namespace bigcast
