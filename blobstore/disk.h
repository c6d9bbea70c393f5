#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"

namespace bigcast {

// One extent file. Thread-safe. Buffers, sizes and offsets are multiples of
// limits::kDiskAlignment. Errors: RESOURCE_EXHAUSTED when the file system is full, else IO.
class DiskFile {
 public:
  virtual ~DiskFile() = default;
  virtual Result<void> write(uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual Result<void> read(uint64_t offset, std::span<std::byte> buffer) = 0;
};

// What the disk tier needs of a file system, so that a test can make it fail. Thread-safe.
class Disk {
 public:
  virtual ~Disk() = default;
  // Creates a file of `size` bytes with its space allocated; on failure nothing is left.
  virtual Result<std::unique_ptr<DiskFile>> create(const std::string& path, uint64_t size) = 0;
  virtual Result<void> remove(const std::string& path) = 0;
};

// The real one: O_DIRECT, or buffered and dropped from the page cache where that is refused.
std::unique_ptr<Disk> make_disk();

}  // namespace bigcast
