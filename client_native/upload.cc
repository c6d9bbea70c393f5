#include <capnp/orphan.h>
#include <kj/async.h>
#include <kj/debug.h>

#include <cstring>
#include <deque>
#include <map>

#include "base/pages.h"
#include "client_native/chunk_buffers.h"
#include "client_native/client_core.h"
#include "client_native/upload_homes.h"
#include "client_native/waiting_calls.h"
#include "codec/chunk_seal.h"

namespace bigcast {

namespace {

using BufferPtr = std::shared_ptr<ChunkBuffer>;

struct Encoded {
  ChunkMeta meta;
  BufferPtr stored;
};

Encoded encode(uint32_t index, BufferPtr raw, size_t size, ChunkBuffers& buffers,
               Compression compression, const ChunkSeal* seal) {
  auto stored = compression == Compression::kNever ? nullptr : buffers.take();
  ChunkMeta meta = encode_chunk(index, raw->first(size),
                                stored ? stored->first(stored->capacity()) : std::span<std::byte>(),
                                compression);
  auto& used = meta.codec == Codec::kRaw ? raw : stored;
  if (seal != nullptr) meta = seal->seal(meta, used->first(meta.stored_size + kSealOverhead));
  // What goes on the wire is whole words; the buffers are whole pages.
  const size_t padded = whole_words(meta.stored_size);
  std::memset(used->data() + meta.stored_size, 0, padded - meta.stored_size);
  return {meta, std::move(used)};
}

// The half of an upload that lives on the I/O thread.
class UploadJob final : private kj::TaskSet::ErrorHandler {
 public:
  UploadJob(Nodes& nodes, const UploadOptions& options)
      : nodes_(nodes),
        options_(options),
        buffers_(std::make_shared<ChunkBuffers>(encode_bound(options.chunk_size))),
        tasks_(*this) {
    const Secret& secret = nodes.targets().chunk_secret;
    if (secret.empty()) return;
    key_id_ = Id128::random();
    seal_ = std::make_shared<const ChunkSeal>(secret, key_id_);
    room_ -= kSealOverhead;
    home_options_.mappable = false;  // what rests at the nodes is not what readers want to see
    if (options.size) home_options_.size = sealed_size(*options.size, options.chunk_size);
  }

  kj::Promise<Result<void>> create();
  kj::Promise<Result<std::span<std::byte>>> next_buffer();
  Result<void> commit(size_t size);
  kj::Promise<Result<std::string>> seal();
  HomeNode home() const { return home_; }
  TransferStats stats() const { return stats_; }

 private:
  Result<void> check_next() const;
  kj::Promise<Result<void>> send_chunk(uint32_t index, BufferPtr raw, size_t size);
  kj::Promise<Result<void>> transfer(Encoded chunk);
  kj::Promise<Result<void>> put(UploadHome& home, const Encoded& chunk);
  kj::Promise<Encoded> encode_on_pool(uint32_t index, BufferPtr raw, size_t size);
  kj::Promise<void> encoder_slot();
  void release_encoder();
  kj::Promise<void> change();  // resolves when a chunk is done or the upload failed
  void notify();
  void set_error(Error error);
  void taskFailed(kj::Exception&& exception) override { set_error(rpc::to_error(exception)); }
  void add_digest(const ChunkMeta& meta);
  kj::Promise<Result<std::string>> seal_homes();
  kj::Promise<Result<std::string>> seal_at(UploadHome& home);
  kj::Promise<Result<std::string>> ask_to_seal(UploadHome& home);
  // Whether a home whose answer to the seal was lost has sealed the blob; else the error `why`.
  struct Unanswered {
    rpc::Address home;
    BlobId id;
    Error why;
    kj::TimePoint until;
  };
  kj::Promise<Result<std::string>> ask_whether_sealed(Unanswered seal);
  using Sealed = Result<std::optional<std::string>>;  // the ref; none: it is not sealed
  kj::Promise<Sealed> open_sealed(NodeSession& session, BlobId id);
  uint64_t size_at_homes() const {
    return committed_ + (seal_ ? uint64_t{kSealOverhead} * next_index_ : 0);
  }
  Result<std::string> check_sealed(rpc::BlobRefData ref) const;

  UploadHome& home_of(uint32_t index) { return homes_[index % homes_.size()]; }
  template <typename T>
  kj::Promise<Result<T>> bounded_call(UploadHome& home, kj::Promise<Result<T>> call,
                                      WaitsFor waits_for = WaitsFor::kNode) {
    return bounded<T>(nodes_.loop(), *home.session, nodes_.targets().timeout_ms, kj::mv(call),
                      waits_for);
  }

  Nodes& nodes_;
  const UploadOptions options_;
  UploadOptions home_options_ = options_;  // with the size that homes see
  const std::shared_ptr<ChunkBuffers> buffers_;
  std::shared_ptr<const ChunkSeal> seal_;  // null: not encrypted
  Id128 key_id_;
  uint32_t room_ = options_.chunk_size;  // in a chunk, for the caller's bytes
  std::vector<UploadHome> homes_;        // none once the upload failed
  HomeNode home_;
  BufferPtr current_;  // handed out by next_buffer
  uint32_t busy_ = 0;  // chunks handed out or under way
  uint32_t encoders_ = 0;
  std::deque<kj::Own<kj::PromiseFulfiller<void>>> encoder_queue_;
  uint32_t next_index_ = 0;
  uint64_t committed_ = 0;
  bool short_chunk_seen_ = false;
  RootDigest root_;
  uint32_t digests_ = 0;                          // in root_
  std::map<uint32_t, Digest128> digests_beyond_;  // of chunks that were encoded out of order
  std::optional<Error> error_;
  std::optional<std::string> sealed_ref_;
  TransferStats stats_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> changed_;
  kj::TaskSet tasks_;  // last: its tasks use the above
};

kj::Promise<Result<void>> UploadJob::create() {
  return create_at_homes(nodes_, home_options_)
      .then([this](Result<std::vector<UploadHome>> homes) -> Result<void> {
        if (!homes) return tl::unexpected(homes.error());
        homes_ = std::move(*homes);
        home_ = homes_.front().node;
        return {};
      });
}

Result<void> UploadJob::check_next() const {
  if (error_) return tl::unexpected(*error_);
  if (sealed_ref_) return fail(ErrorCode::kInvalidArgument, "upload: it is sealed already");
  if (short_chunk_seen_) {
    return fail(ErrorCode::kInvalidArgument, "upload: only the last chunk may be short");
  }
  if (next_index_ >= limits::kChunksPerBlobMax) {
    return fail(ErrorCode::kInvalidArgument, "upload: more than " +
                                                 std::to_string(limits::kChunksPerBlobMax) +
                                                 " chunks; choose a larger chunk size");
  }
  return {};
}

kj::Promise<Result<std::span<std::byte>>> UploadJob::next_buffer() {
  using Answer = Result<std::span<std::byte>>;
  if (auto allowed = check_next(); !allowed) return Answer(tl::unexpected(allowed.error()));
  if (current_) return Answer(current_->first(room_));
  if (busy_ < limits::kUploadWindowChunks) {
    ++busy_;
    current_ = buffers_->take();
    return Answer(current_->first(room_));
  }
  return change().then([this]() { return next_buffer(); });
}

Result<void> UploadJob::commit(size_t size) {
  BIGCAST_TRY(check_next());
  if (!current_) return fail(ErrorCode::kInvalidArgument, "upload: commit without next_buffer");
  if (size < 1 || size > room_) {
    return fail(ErrorCode::kInvalidArgument, "upload: a chunk has 1 to " + std::to_string(room_) +
                                                 " bytes, not " + std::to_string(size));
  }
  if (options_.size && committed_ + size > *options_.size) {
    set_error(Error{ErrorCode::kInvalidArgument, "upload: more bytes than the declared size of " +
                                                     std::to_string(*options_.size)});
    return tl::unexpected(*error_);
  }
  committed_ += size;
  short_chunk_seen_ = size < room_;
  tasks_.add(send_chunk(next_index_++, std::move(current_), size).then([this](Result<void> sent) {
    --busy_;
    if (!sent) set_error(sent.error());
    notify();
  }));
  return {};
}

kj::Promise<Result<void>> UploadJob::send_chunk(uint32_t index, BufferPtr raw, size_t size) {
  return encode_on_pool(index, std::move(raw), size).then([this](Encoded chunk) {
    add_digest(chunk.meta);
    return transfer(std::move(chunk));
  });
}

void UploadJob::add_digest(const ChunkMeta& meta) {
  digests_beyond_[meta.index] = meta.digest;
  for (auto next = digests_beyond_.begin();
       next != digests_beyond_.end() && next->first == digests_;
       next = digests_beyond_.erase(next)) {
    root_.add(next->second);
    digests_++;
  }
}

// Encoding holds two buffers a chunk, so few chunks may be at it at once.
kj::Promise<void> UploadJob::encoder_slot() {
  if (encoders_ < limits::kEncodersPerUploadMax) {
    ++encoders_;
    return kj::READY_NOW;
  }
  auto waiter = kj::newPromiseAndFulfiller<void>();
  encoder_queue_.push_back(kj::mv(waiter.fulfiller));
  return kj::mv(waiter.promise);
}

void UploadJob::release_encoder() {
  if (encoder_queue_.empty()) {
    --encoders_;
    return;
  }
  auto next = kj::mv(encoder_queue_.front());  // inherits the slot
  encoder_queue_.pop_front();
  next->fulfill();
}

kj::Promise<Encoded> UploadJob::encode_on_pool(uint32_t index, BufferPtr raw, size_t size) {
  return encoder_slot().then([this, index, raw = std::move(raw), size]() mutable {
    auto work = [index, raw = std::move(raw), size, buffers = buffers_,
                 compression = options_.mappable ? Compression::kNever : options_.compression,
                 seal = seal_]() mutable {
      return encode(index, std::move(raw), size, *buffers, compression, seal.get());
    };
    return nodes_.loop().run_on_pool(std::move(work)).then([this](Encoded chunk) {
      release_encoder();
      return chunk;
    });
  });
}

kj::Promise<Result<void>> UploadJob::transfer(Encoded chunk) {
  if (error_) return Result<void>(tl::unexpected(*error_));
  UploadHome& home = home_of(chunk.meta.index);
  auto request = home.upload.creditRequest();
  request.setBytes(chunk.meta.stored_size);
  auto credit = bounded_call<void>(
      home, request.send().then([](capnp::Response<rpc::Upload::CreditResults>&& response) {
        auto result = response.getResult();
        return result.isError() ? Result<void>(tl::unexpected(rpc::read(result.getError())))
                                : Result<void>();
      }));
  return credit.then(
      [this, chunk = std::move(chunk)](Result<void> granted) mutable -> kj::Promise<Result<void>> {
        if (!granted) return kj::mv(granted);
        if (error_) return Result<void>(tl::unexpected(*error_));
        return put(home_of(chunk.meta.index), chunk)
            .then([this, meta = chunk.meta](Result<void> stored) {
              if (stored) {
                stats_.raw_bytes += meta.raw_size;
                stats_.stored_bytes += meta.stored_size;
                ++stats_.chunks;
              }
              return stored;
            });
      });
}

kj::Promise<Result<void>> UploadJob::put(UploadHome& home, const Encoded& chunk) {
  auto request = home.upload.putRequest(capnp::MessageSize{32, 0});
  // The request lies in the buffer, not in a copy of it, until its message is gone.
  kj::Own<void> pin = kj::heap<BufferPtr>(chunk.stored);
  const capnp::Data::Reader bytes(reinterpret_cast<const kj::byte*>(chunk.stored->data()),
                                  chunk.meta.stored_size);
  rpc::Upload::PutParams::Builder params = request;
  rpc::reply_external(params, bytes, kj::mv(pin));
  rpc::write(chunk.meta, request.initMeta());
  return bounded_call<void>(
      home, request.send().then([](capnp::Response<rpc::Upload::PutResults>&& response) {
        auto result = response.getResult();
        return result.isError() ? Result<void>(tl::unexpected(rpc::read(result.getError())))
                                : Result<void>();
      }));
}

kj::Promise<Result<std::string>> UploadJob::seal() {
  using Answer = Result<std::string>;
  if (sealed_ref_) return Answer(*sealed_ref_);
  if (error_) return Answer(tl::unexpected(*error_));
  if (current_) {  // handed out and not committed: not part of the blob
    current_ = nullptr;
    --busy_;
  }
  if (busy_ > 0) return change().then([this]() { return seal(); });
  if (options_.size && committed_ != *options_.size) {
    set_error(Error{ErrorCode::kInvalidArgument, "upload: " + std::to_string(committed_) +
                                                     " bytes, but the declared size is " +
                                                     std::to_string(*options_.size)});
    return Answer(tl::unexpected(*error_));
  }
  return seal_homes();
}

// The first home comes last: with it the blob is there for all.
kj::Promise<Result<std::string>> UploadJob::seal_homes() {
  kj::Vector<kj::Promise<Result<std::string>>> others;
  for (size_t i = 1; i < homes_.size(); i++) others.add(seal_at(homes_[i]));
  return kj::joinPromises(others.releaseAsArray())
      .then([this](kj::Array<Result<std::string>> sealed) -> kj::Promise<Result<std::string>> {
        for (auto& ref : sealed) {
          if (!ref) return kj::mv(ref);
        }
        if (error_) return Result<std::string>(tl::unexpected(*error_));
        return seal_at(homes_.front());
      })
      .then([this](Result<std::string> ref) {
        if (ref) {
          sealed_ref_ = *ref;
        } else {
          set_error(ref.error());
        }
        return ref;
      });
}

kj::Promise<Result<std::string>> UploadJob::seal_at(UploadHome& home) {
  return ask_to_seal(home).then(
      [this, &home](Result<std::string> sealed) -> kj::Promise<Result<std::string>> {
        if (sealed || !node_did_not_answer(sealed.error())) return kj::mv(sealed);
        auto address = rpc::Address::parse(home.session->address);
        if (!address) return kj::mv(sealed);
        nodes_.forget_bulk(*home.session);
        const auto timeout = nodes_.targets().timeout_ms * kj::MILLISECONDS;
        const auto until = nodes_.loop().timer().now() + timeout;
        return ask_whether_sealed({std::move(*address), home.id, sealed.error(), until});
      });
}

kj::Promise<Result<std::string>> UploadJob::ask_to_seal(UploadHome& home) {
  auto request = home.upload.sealRequest();
  request.setSize(size_at_homes());
  request.setChunkCount(next_index_);
  const Digest128 root = root_.finish();
  request.setRootDigestHi(root.hi);
  request.setRootDigestLo(root.lo);
  return bounded_call<std::string>(
      home,
      request.send().then(
          [this](capnp::Response<rpc::Upload::SealResults>&& response) -> Result<std::string> {
            auto result = response.getResult();
            if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
            BIGCAST_ASSIGN(auto ref, rpc::answered(rpc::read(result.getRef())));
            return check_sealed(std::move(ref));
          }),
      options_.replicas > 1 ? WaitsFor::kWriter : WaitsFor::kNode);  // for the others to follow
}

kj::Promise<Result<std::string>> UploadJob::ask_whether_sealed(Unanswered seal) {
  auto asked = nodes_.bulk_of(seal.home).then(
      [this, id = seal.id](Nodes::Session session) -> kj::Promise<Sealed> {
        if (!session) return Sealed(tl::unexpected(session.error()));
        return open_sealed(**session, id);
      });
  return asked.then(
      [this, seal = std::move(seal)](Sealed sealed) mutable -> kj::Promise<Result<std::string>> {
        auto& timer = nodes_.loop().timer();
        if (!sealed || (!*sealed && timer.now() >= seal.until)) {
          return Result<std::string>(tl::unexpected(seal.why));
        }
        if (*sealed) return Result<std::string>(std::move(**sealed));
        // It is at it, or has yet to notice that we were cut off.
        return timer.afterDelay(limits::kReservationRetryMs * kj::MILLISECONDS)
            .then([this, seal = std::move(seal)]() mutable {
              return ask_whether_sealed(std::move(seal));
            });
      });
}

kj::Promise<UploadJob::Sealed> UploadJob::open_sealed(NodeSession& session, BlobId id) {
  auto request = session.session.openRequest();
  rpc::write(id, request.initTarget().initHomeId());
  auto asked =
      request.send().then([this](capnp::Response<rpc::Session::OpenResults>&& response) -> Sealed {
        auto result = response.getResult();
        if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
        if (!result.isOpened()) return fail(ErrorCode::kUnsupported, "open: unknown answer");
        const auto info = result.getOpened().getInfo();
        if (!info.getSealed()) return std::nullopt;
        BIGCAST_ASSIGN(auto ref, rpc::answered(rpc::read(info.getRef())));
        BIGCAST_ASSIGN(auto sealed, check_sealed(std::move(ref)));
        return sealed;
      });
  return bounded<std::optional<std::string>>(nodes_.loop(), session, nodes_.targets().timeout_ms,
                                             kj::mv(asked));
}

// Readers believe the ref, so it must not say what only the home says.
Result<std::string> UploadJob::check_sealed(rpc::BlobRefData ref) const {
  const bool ours = ref.size == size_at_homes() && ref.chunk_size == options_.chunk_size &&
                    ref.root_digest == root_.finish() && ref.stripes == options_.homes;
  if (!ours) return fail(ErrorCode::kCorrupt, "upload: the home sealed another blob");
  ref.key_id = key_id_;
  return ref.to_bytes();
}

kj::Promise<void> UploadJob::change() {
  auto waiter = kj::newPromiseAndFulfiller<void>();
  changed_ = kj::mv(waiter.fulfiller);
  return kj::mv(waiter.promise);
}

void UploadJob::notify() {
  KJ_IF_MAYBE (waiter, changed_) {
    auto fulfiller = kj::mv(*waiter);
    changed_ = nullptr;
    fulfiller->fulfill();
  }
}

void UploadJob::set_error(Error error) {
  if (error_) return;
  error_ = std::move(error);
  homes_.clear();  // they free everything
  notify();
}

class UploadHandle final : public Upload {
 public:
  UploadHandle(std::shared_ptr<ClientCore> core, const UploadOptions& options)
      : core_(std::move(core)), calls_(core_->io()) {
    core_->io().run([&]() { job_ = std::make_unique<UploadJob>(core_->nodes(), options); });
  }
  ~UploadHandle() override {
    core_->io().run([this]() { job_.reset(); });
  }

  Result<void> create() {
    return calls_.wait_for<void>([this]() { return job_->create(); });
  }
  Result<std::span<std::byte>> next_buffer() override {
    return calls_.wait_for<std::span<std::byte>>([this]() { return job_->next_buffer(); });
  }
  Result<void> commit(size_t size) override {
    return calls_.wait_for<void>(
        [this, size]() { return kj::Promise<Result<void>>(job_->commit(size)); });
  }
  Result<std::string> seal() override {
    return calls_.wait_for<std::string>([this]() { return job_->seal(); });
  }
  void interrupt() override { calls_.interrupt(); }
  HomeNode home() const override {
    HomeNode home;
    core_->io().run([&]() { home = job_->home(); });
    return home;
  }
  TransferStats stats() const override {
    TransferStats stats;
    core_->io().run([&]() { stats = job_->stats(); });
    return stats;
  }

 private:
  const std::shared_ptr<ClientCore> core_;
  WaitingCalls calls_;
  std::unique_ptr<UploadJob> job_;  // lives on the I/O thread
};

Result<void> check_options(const UploadOptions& options) {
  BIGCAST_TRY(check_name(options.name));
  if (options.homes < 1 || options.homes > limits::kStripesMax) {
    return fail(ErrorCode::kInvalidArgument, "homes: must be 1 to " +
                                                 std::to_string(limits::kStripesMax) + ", not " +
                                                 std::to_string(options.homes));
  }
  if (options.replicas < 1 || options.replicas > limits::kReplicasMax) {
    return fail(ErrorCode::kInvalidArgument, "replicas: must be 1 to " +
                                                 std::to_string(limits::kReplicasMax) + ", not " +
                                                 std::to_string(options.replicas));
  }
  if (options.replicas > 1 && options.homes > 1) {
    return fail(ErrorCode::kInvalidArgument,
                "replicas: a blob that is spread over several homes can't have any yet");
  }
  if (options.mappable && options.homes > 1) {
    return fail(ErrorCode::kInvalidArgument, "mappable: a blob of several homes can't be mapped");
  }
  if (options.ttl_ms > limits::kTtlMsMax) {
    return fail(ErrorCode::kInvalidArgument, "ttl: " + std::to_string(options.ttl_ms) +
                                                 " ms are above " +
                                                 std::to_string(limits::kTtlMsMax));
  }
  if (options.chunk_size < limits::kChunkSizeMin || options.chunk_size > limits::kChunkSizeMax) {
    return fail(ErrorCode::kInvalidArgument, "chunk size " + std::to_string(options.chunk_size) +
                                                 ": must be " +
                                                 std::to_string(limits::kChunkSizeMin) + " to " +
                                                 std::to_string(limits::kChunkSizeMax) + " bytes");
  }
  const uint64_t size_max = std::min<uint64_t>(
      limits::kBlobSizeMax, uint64_t{options.chunk_size} * limits::kChunksPerBlobMax);
  if (options.size && *options.size > size_max) {
    return fail(ErrorCode::kInvalidArgument, "size " + std::to_string(*options.size) +
                                                 ": a blob has at most " +
                                                 std::to_string(size_max) + " bytes");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Upload>> start_upload(const std::shared_ptr<ClientCore>& core,
                                             const UploadOptions& options) {
  BIGCAST_TRY(check_options(options));
  const size_t servers = core->nodes().entry_points().size();
  const size_t wanted = size_t{options.homes} * options.replicas;
  if (wanted > servers) {
    return fail(ErrorCode::kInvalidArgument,
                std::string(options.replicas > 1 ? "replicas" : "homes") + ": " +
                    std::to_string(wanted) + " nodes are asked for, but only " +
                    std::to_string(servers) + " servers are known");
  }
  auto upload = std::make_unique<UploadHandle>(core, options);
  BIGCAST_TRY(upload->create());
  return upload;
}

}  // namespace bigcast
