#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace bigcast {

// Page-aligned memory of at least the size asked for.
class ChunkBuffer {
 public:
  explicit ChunkBuffer(size_t capacity);  // throws std::bad_alloc
  ~ChunkBuffer();
  ChunkBuffer(const ChunkBuffer&) = delete;
  ChunkBuffer& operator=(const ChunkBuffer&) = delete;
  std::byte* data() { return data_; }
  size_t capacity() const { return capacity_; }
  std::span<std::byte> first(size_t size) { return {data_, size}; }

  // What all buffers of this process take now.
  static size_t bytes_of_all();

 private:
  std::byte* data_;
  size_t capacity_;
};

// The buffers of one transfer, all of one capacity. A buffer that nobody holds any more is used
// again, so that its pages stay touched; all memory goes when the transfer does. The transfer's
// window bounds how many there are. Thread-safe.
class ChunkBuffers : public std::enable_shared_from_this<ChunkBuffers> {
 public:
  explicit ChunkBuffers(size_t capacity) : capacity_(capacity) {}
  std::shared_ptr<ChunkBuffer> take();
  size_t capacity() const { return capacity_; }
  // Buffers that were made anew so far, by all transfers.
  static uint64_t made() { return made_; }

 private:
  static std::atomic<uint64_t> made_;
  void give_back(std::unique_ptr<ChunkBuffer> buffer);

  const size_t capacity_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<ChunkBuffer>> free_;
};

}  // namespace bigcast
