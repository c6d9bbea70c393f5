#include "client_native/chunk_buffers.h"

#include <sys/mman.h>

#include <atomic>
#include <new>
#include <utility>

#include "base/pages.h"

namespace bigcast {

namespace {
std::atomic<size_t> bytes_of_all_buffers = 0;
}  // namespace

// Mapped, not malloc'ed: a transfer's memory must go back to the system when it ends, and a JVM's
// allocator arenas would keep it.
ChunkBuffer::ChunkBuffer(size_t capacity) : capacity_(whole_pages(capacity)) {
  void* memory =
      mmap(nullptr, capacity_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(memory);
  bytes_of_all_buffers += capacity_;
}

ChunkBuffer::~ChunkBuffer() {
  munmap(data_, capacity_);
  bytes_of_all_buffers -= capacity_;
}

size_t ChunkBuffer::bytes_of_all() { return bytes_of_all_buffers; }

std::atomic<uint64_t> ChunkBuffers::made_{0};

std::shared_ptr<ChunkBuffer> ChunkBuffers::take() {
  std::unique_ptr<ChunkBuffer> buffer;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      buffer = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!buffer) {
    buffer = std::make_unique<ChunkBuffer>(capacity_);
    ++made_;
  }
  return {buffer.release(), [home = shared_from_this()](ChunkBuffer* returned) {
            home->give_back(std::unique_ptr<ChunkBuffer>(returned));
          }};
}

void ChunkBuffers::give_back(std::unique_ptr<ChunkBuffer> buffer) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(buffer));
}

}  // namespace bigcast
