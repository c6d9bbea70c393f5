#include "server/live_blob.h"

#include <utility>

#include "server/followers.h"

namespace bigcast {
namespace {

template <typename Waiters>
kj::Promise<void> add_waiter(Waiters& waiters) {
  // Readers that went away leave their fulfiller; one waiter in, the gone ones out.
  std::erase_if(waiters, [](auto& waiter) { return !waiter->isWaiting(); });
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiters.push_back(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

}  // namespace

LiveBlob::LiveBlob(kj::Own<LiveBlobs> all, BlobId id) : id(id), all_(kj::mv(all)) {}

LiveBlob::~LiveBlob() noexcept(false) {
  const auto found = all_->blobs_.find(id);
  if (found != all_->blobs_.end() && found->second == this) all_->blobs_.erase(found);
}

void LiveBlob::wake(Waiters waiters) {
  for (auto& waiter : waiters) waiter->fulfill();
}

kj::Promise<void> LiveBlob::chunk_event(uint32_t index) {
  if (ended_) return kj::READY_NOW;
  return add_waiter(chunk_waiters_[index]);
}

kj::Promise<void> LiveBlob::watch_event() {
  if (ended_) return kj::READY_NOW;
  return add_waiter(watchers_);
}

void LiveBlob::chunk_came(uint32_t index) {
  if (followers) followers->chunk_came(index);
  const auto found = chunk_waiters_.find(index);
  if (found == chunk_waiters_.end()) return;
  Waiters waiters = std::move(found->second);
  chunk_waiters_.erase(found);
  wake(std::move(waiters));
}

void LiveBlob::wake_all_chunks() {
  for (auto& [index, waiters] : std::exchange(chunk_waiters_, {})) wake(std::move(waiters));
}

void LiveBlob::sealed() {
  has_writer = false;
  wake_all_chunks();
  if (followers) followers->changed();
}

void LiveBlob::drop_copies() {
  drops_++;
  wake(std::exchange(watchers_, {}));
}

void LiveBlob::end(Error error) {
  if (ended_) return;
  ended_ = std::move(error);
  has_writer = false;
  wake_all_chunks();
  wake(std::exchange(watchers_, {}));
  if (followers) followers->changed();
}

kj::Own<LiveBlob> LiveBlobs::get(BlobId id) {
  if (LiveBlob* blob = find(id)) return kj::addRef(*blob);
  auto blob = kj::refcounted<LiveBlob>(kj::addRef(*this), id);
  blobs_[id] = blob.get();
  return blob;
}

LiveBlob* LiveBlobs::find(BlobId id) {
  const auto found = blobs_.find(id);
  return found == blobs_.end() ? nullptr : found->second;
}

void LiveBlobs::for_some(size_t limit, kj::FunctionParam<void(const LiveBlob&)> visit) const {
  for (const auto& [id, blob] : blobs_) {
    if (limit-- == 0) return;
    visit(*blob);
  }
}

void LiveBlobs::end(BlobId id, const Error& error) {
  const auto found = blobs_.find(id);
  if (found == blobs_.end()) return;
  LiveBlob* blob = found->second;
  blobs_.erase(found);
  blob->end(error);
}

}  // namespace bigcast
