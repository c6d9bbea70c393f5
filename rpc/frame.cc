#include "rpc/frame.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <kj/debug.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "rpc/connection.h"

namespace bigcast::rpc {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian");

constexpr size_t kPooledBlockMin = 64 * limits::kKiB;
constexpr kj::uint kFirstSegmentWords = 256;

thread_local FrameBuffers* thread_buffers = nullptr;
thread_local OutgoingFrame* last_outgoing = nullptr;

}  // namespace

kj::Own<FrameBuffers> FrameBuffers::of_this_thread() {
  if (thread_buffers != nullptr) return kj::addRef(*thread_buffers);
  return kj::refcounted<FrameBuffers>();
}

std::atomic<uint64_t> FrameBuffers::made_{0};

FrameBuffers::FrameBuffers() { thread_buffers = this; }

FrameBuffers::~FrameBuffers() noexcept(false) {
  thread_buffers = nullptr;
  for (auto& [capacity, data] : free_) std::free(data);
}

FrameBuffers::Block FrameBuffers::take(size_t bytes) {
  size_t capacity = std::max<size_t>(bytes, sizeof(capnp::word));
  if (capacity >= kPooledBlockMin) {
    capacity = (capacity + kPooledBlockMin - 1) / kPooledBlockMin * kPooledBlockMin;
    const auto cached = free_.lower_bound(capacity);
    if (cached != free_.end() && cached->first <= 2 * capacity) {
      const Block block{cached->second, cached->first};
      bytes_free_ -= block.capacity;
      free_.erase(cached);
      return block;
    }
    ++made_;
  }
  auto* const data = static_cast<std::byte*>(std::malloc(capacity));
  if (data == nullptr) throw std::bad_alloc();
  return {data, capacity};
}

void FrameBuffers::give_back(Block block) {
  if (block.capacity < kPooledBlockMin || block.capacity > limits::kReceiveCacheMax) {
    std::free(block.data);
    return;
  }
  while (bytes_free_ + block.capacity > limits::kReceiveCacheMax) {
    bytes_free_ -= free_.begin()->first;
    std::free(free_.begin()->second);
    free_.erase(free_.begin());
  }
  free_.emplace(block.capacity, block.data);
  bytes_free_ += block.capacity;
}

size_t FrameTable::body_bytes() const {
  size_t total = 0;
  for (size_t i = 1; i <= count(); ++i) total += size_t{words[i]} * sizeof(capnp::word);
  return total;
}

std::string FrameTable::problem(size_t frame_max) const {
  if (!has_valid_count()) return fmt::format("{} segments", uint64_t{words[0]} + 1);
  if (words[1] == 0) return "an empty first segment";
  if (table_bytes() + body_bytes() > frame_max) {
    return fmt::format("{} bytes, {} are allowed", table_bytes() + body_bytes(), frame_max);
  }
  return {};
}

IncomingFrame::IncomingFrame(kj::Own<FrameBuffers> buffers, const FrameTable& table,
                             std::vector<kj::AutoCloseFd> fds, capnp::ReaderOptions options)
    : MessageReader(options),
      buffers_(kj::mv(buffers)),
      fds_(std::move(fds)),
      body_bytes_(table.body_bytes()),
      block_(buffers_->take(body_bytes_)) {
  const auto* next = reinterpret_cast<const capnp::word*>(block_.data);
  segments_.reserve(table.count());
  for (size_t i = 1; i <= table.count(); ++i) {
    segments_.emplace_back(next, table.words[i]);
    next += table.words[i];
  }
}

IncomingFrame::~IncomingFrame() noexcept(false) { buffers_->give_back(block_); }

kj::ArrayPtr<const capnp::word> IncomingFrame::getSegment(kj::uint id) {
  if (id >= segments_.size()) return nullptr;
  return segments_[id];
}

OutgoingFrame::OutgoingFrame(FrameSink& sink, kj::uint first_segment_words)
    : sink_(sink), message_(first_segment_words == 0 ? kFirstSegmentWords : first_segment_words) {
  last_outgoing = this;
}

OutgoingFrame::~OutgoingFrame() noexcept(false) {
  if (last_outgoing == this) last_outgoing = nullptr;
}

// Copies: the capability that owns a descriptor may go before the frame is written, and its number
// may then be another file's.
void OutgoingFrame::setFds(kj::Array<int> fds) {
  for (const int fd : fds) {
    const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) break;  // out of descriptors: the other side sees a capability without one
    fds_.emplace_back(copy);
  }
}

void OutgoingFrame::send() {
  if (last_outgoing == this) last_outgoing = nullptr;
  const auto segments = message_.getSegmentsForOutput();
  KJ_REQUIRE(segments.size() <= limits::kFrameSegmentsMax, "a message of too many segments",
             segments.size());
  table_.push_back(static_cast<uint32_t>(segments.size() - 1));
  for (const auto& segment : segments) table_.push_back(static_cast<uint32_t>(segment.size()));
  if (table_.size() % 2 != 0) table_.push_back(0);
  size_t total = table_.size() * sizeof(uint32_t);
  pieces_.push_back({table_.data(), total});
  for (const auto& segment : segments) {
    const auto bytes = segment.asBytes();
    if (bytes.size() == 0) continue;
    pieces_.push_back({const_cast<kj::byte*>(bytes.begin()), bytes.size()});
    total += bytes.size();
  }
  KJ_REQUIRE(total <= limits::kFrameMax, "a message above the frame limit", total);
  sink_.enqueue(kj::addRef(*this));
}

bool OutgoingFrame::contains(const void* pointer) {
  const auto* const at = static_cast<const capnp::word*>(pointer);
  const auto segments = message_.getSegmentsForOutput();
  return std::ranges::any_of(
      segments, [at](const auto& segment) { return at >= segment.begin() && at < segment.end(); });
}

size_t OutgoingFrame::consume(size_t bytes) {
  size_t taken = 0;
  while (next_piece_ < pieces_.size()) {
    iovec& piece = pieces_[next_piece_];
    const size_t part = std::min(piece.iov_len, bytes - taken);
    taken += part;
    if (part < piece.iov_len) {
      piece.iov_base = static_cast<std::byte*>(piece.iov_base) + part;
      piece.iov_len -= part;
      break;
    }
    ++next_piece_;
  }
  if (taken > 0) fds_.clear();  // they went with the first byte
  return taken;
}

bool pin_last_message(const void* inside, kj::Own<void>& pin) {
  if (last_outgoing == nullptr || !last_outgoing->contains(inside)) return false;
  last_outgoing->pin(kj::mv(pin));
  return true;
}

}  // namespace bigcast::rpc
