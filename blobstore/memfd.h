#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace bigcast {

// How the kernel gives pages of 2 MiB to memory files (docs/OPERATIONS.md, Large pages): kUnasked
// is also to those of which a small part is written.
enum class LargePages : uint8_t { kNever, kToWhoAsks, kUnasked };

// As the kernel's `folder` has it; kNever if that can't be read or large pages have another size.
LargePages large_pages_in(const std::string& folder);
// This machine's, as it was at the first call.
LargePages large_pages_here();

// A sparse anonymous file. Thread-safe: the kernel orders concurrent calls, so whoever reads what
// another thread punches sees zeros.
class Memfd {
 public:
  // `name` only shows in /proc. With `ask` write() asks for large pages. RESOURCE_EXHAUSTED when
  // descriptors ran out, else IO.
  static Result<std::shared_ptr<Memfd>> create(const std::string& name,
                                               bool ask = large_pages_here() ==
                                                          LargePages::kToWhoAsks);
  Memfd(const Memfd&) = delete;
  Memfd& operator=(const Memfd&) = delete;
  ~Memfd();

  // Takes new pages where there are none yet, never beyond the bytes' last one. One call at a time
  // gets at the file, as in the kernel, which would let the others spin.
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes);
  // The same where pages are already, for a quarter of the price; zeroes the rest of the last one.
  // Requires: `offset` is page-aligned.
  Result<void> overwrite(uint64_t offset, std::span<const std::byte> bytes);
  // IO if the file ends before the buffer is full.
  Result<void> read(uint64_t offset, std::span<std::byte> buffer) const;
  // The bytes in place, mapped for as long as this object lives. IO if they can't be mapped.
  // Requires: they were written. Touching what was punched since takes new pages.
  Result<std::span<const std::byte>> view(uint64_t offset, size_t length);
  // The descriptor, which stays this object's, for who is about to take whole pages up to `end`, up
  // to which the file is lengthened. IO if it is frozen and shorter.
  Result<int> descriptor_up_to(uint64_t end);
  // Seals it: from now on nobody can write, lengthen or punch it, and no new mapping can write.
  // What was mapped before still could: that is this process alone.
  Result<void> freeze();
  // Gives the pages back to the system, whoever else holds a descriptor. Both page-aligned. A
  // frozen file keeps them until it is closed.
  void punch(uint64_t offset, uint64_t length);
  // A new descriptor of the same file that can only read; the caller closes it.
  Result<int> open_reader() const;

 private:
  struct Mapping {
    std::byte* data;
    uint64_t length;
  };

  Memfd(int fd, bool asks) : fd_(fd), asks_(asks) {}
  Result<void> lengthen(uint64_t end);
  size_t write_large(uint64_t offset, std::span<const std::byte> bytes);
  Result<std::span<std::byte>> map(uint64_t offset, size_t length);

  int fd_;
  const bool asks_;  // for large pages
  std::atomic<bool> frozen_{false};
  std::mutex write_mutex_;         // held to write, and to change the next one
  std::atomic<uint64_t> end_{0};   // of the file, which only grows
  std::mutex mutex_;               // guards what follows
  std::vector<Mapping> mappings_;  // of the file's beginning, each twice as long as the one before
};

}  // namespace bigcast
