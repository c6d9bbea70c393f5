#pragma once

#include <capnp/message.h>
#include <capnp/rpc.h>
#include <kj/io.h>
#include <kj/refcount.h>
#include <kj/vector.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/limits.h"

// The messages of a Connection as they travel: Cap'n Proto's stream framing.
namespace bigcast::rpc {

// Memory for incoming frames. Large buffers are kept for the next frames, up to
// limits::kReceiveCacheMax: fresh pages cost more than the copy out of the socket. One a thread,
// shared by its connections and by messages that outlive them.
class FrameBuffers final : public kj::Refcounted {
 public:
  static kj::Own<FrameBuffers> of_this_thread();
  FrameBuffers();
  ~FrameBuffers() noexcept(false) override;

  struct Block {
    std::byte* data = nullptr;
    size_t capacity = 0;
  };
  Block take(size_t bytes);
  void give_back(Block block);
  // Blocks of a chunk's size that were made anew so far, by all threads: few, once they are warm.
  static uint64_t made() { return made_; }

 private:
  static std::atomic<uint64_t> made_;
  std::multimap<size_t, std::byte*> free_;
  size_t bytes_free_ = 0;
};

// The segment table at the head of a frame, read from the wire and checked before anything is
// allocated for it.
struct FrameTable {
  std::array<uint32_t, limits::kFrameSegmentsMax + 2> words{};  // count - 1, sizes in words

  bool has_valid_count() const { return words[0] < limits::kFrameSegmentsMax; }
  size_t count() const { return size_t{words[0]} + 1; }
  size_t table_bytes() const { return (count() / 2 + 1) * sizeof(capnp::word); }
  size_t body_bytes() const;
  // What is wrong with it, or empty. A first segment without a root pointer is wrong, too.
  std::string problem(size_t frame_max) const;
};

class IncomingFrame final : public capnp::IncomingRpcMessage, private capnp::MessageReader {
 public:
  IncomingFrame(kj::Own<FrameBuffers> buffers, const FrameTable& table,
                std::vector<kj::AutoCloseFd> fds, capnp::ReaderOptions options);
  ~IncomingFrame() noexcept(false) override;

  std::span<std::byte> body() { return {block_.data, body_bytes_}; }  // to be filled
  capnp::AnyPointer::Reader getBody() override { return getRoot<capnp::AnyPointer>(); }
  kj::ArrayPtr<kj::AutoCloseFd> getAttachedFds() override { return {fds_.data(), fds_.size()}; }
  size_t sizeInWords() override { return body_bytes_ / sizeof(capnp::word); }

 private:
  kj::ArrayPtr<const capnp::word> getSegment(kj::uint id) override;

  kj::Own<FrameBuffers> buffers_;
  std::vector<kj::ArrayPtr<const capnp::word>> segments_;
  std::vector<kj::AutoCloseFd> fds_;
  size_t body_bytes_;
  FrameBuffers::Block block_;
};

class OutgoingFrame;

// Where a finished frame goes. Outlives every send(), not every frame.
class FrameSink {
 public:
  virtual void enqueue(kj::Own<OutgoingFrame> frame) = 0;

 protected:
  ~FrameSink() = default;
};

class OutgoingFrame final : public capnp::OutgoingRpcMessage, public kj::Refcounted {
 public:
  OutgoingFrame(FrameSink& sink, kj::uint first_segment_words);
  ~OutgoingFrame() noexcept(false) override;

  capnp::AnyPointer::Builder getBody() override { return message_.getRoot<capnp::AnyPointer>(); }
  void setFds(kj::Array<int> fds) override;
  void send() override;
  size_t sizeInWords() override { return message_.sizeInWords(); }

  bool contains(const void* pointer);
  void pin(kj::Own<void> pin) { pins_.push_back(kj::mv(pin)); }

  // After send(): what is left to be written. Descriptors go with the first byte.
  std::span<const iovec> unsent() const { return std::span(pieces_).subspan(next_piece_); }
  std::span<const kj::AutoCloseFd> unsent_fds() const { return fds_; }
  size_t consume(size_t bytes);  // marks up to so many bytes as written; returns how many it took
  bool is_written() const { return next_piece_ == pieces_.size(); }

 private:
  std::vector<kj::Own<void>> pins_;  // must outlive message_, whose segments they may hold
  FrameSink& sink_;
  capnp::MallocMessageBuilder message_;
  std::vector<kj::AutoCloseFd> fds_;
  std::vector<uint32_t> table_;
  std::vector<iovec> pieces_;
  size_t next_piece_ = 0;
};

}  // namespace bigcast::rpc
