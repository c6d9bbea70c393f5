#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"

namespace bigcast {

// A sparse anonymous file. Thread-safe: the kernel orders concurrent calls, so whoever reads what
// another thread punches sees zeros.
class Memfd {
 public:
  // `name` only shows in /proc. RESOURCE_EXHAUSTED when descriptors ran out, else IO.
  static Result<std::shared_ptr<Memfd>> create(const std::string& name);
  Memfd(const Memfd&) = delete;
  Memfd& operator=(const Memfd&) = delete;
  ~Memfd();

  Result<void> write(uint64_t offset, std::span<const std::byte> bytes);
  // IO if the file ends before the buffer is full.
  Result<void> read(uint64_t offset, std::span<std::byte> buffer) const;
  // Gives the pages back to the system, whoever else holds a descriptor. Both page-aligned.
  void punch(uint64_t offset, uint64_t length);
  // A new descriptor of the same file that can only read; the caller closes it.
  Result<int> open_reader() const;

 private:
  explicit Memfd(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace bigcast
