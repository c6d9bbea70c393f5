#pragma once

#include <kj/async.h>

#include <memory>
#include <optional>
#include <vector>

#include "client_native/blob_source.h"
#include "client_native/client_core.h"

namespace bigcast {

// Where a stripe's chunks (of most blobs: all chunks) come from: one source open at a time. When it
// fails the next one is tried; what was fetched stays. On the I/O thread only.
class StripeSources {
 public:
  // Who reads. Called from tasks that StripeSources owns, so it must not be destroyed then.
  class Reader {
   public:
    virtual void source_left(StripeSources& stripe) = 0;  // what was asked of it will not come
    // `ref`: as the source knows it. `resident`: as in OpenResult.
    virtual void source_opened(const rpc::BlobRefData& ref, capnp::Data::Reader resident) = 0;
    virtual void sources_failed(Error error) = 0;  // none makes progress any more

   protected:
    ~Reader() = default;
  };

  StripeSources(Nodes& nodes, rpc::BlobRefData ref, rpc::ReadOrder order,
                std::shared_ptr<ChunkBuffers> buffers, Reader& reader);

  // What `open` answered at `address`: used as a source without opening it again, unless a local
  // node comes first.
  void adopt(const rpc::Address& address, kj::Own<NodeSession> session,
             rpc::OpenResult::Opened::Reader opened);
  void start();  // opens a source if none is open
  bool is_open() const { return open_ != nullptr && !switching_; }
  bool is_local() const { return sources_[source_].kind == Kind::kLocal; }
  std::string address() const { return sources_[source_].address.to_string(); }
  // Requires: is_open().
  kj::Promise<Result<FetchedChunk>> fetch(uint32_t index, WaitsFor waits_for);
  void progressed();        // the open source gave what is right
  void leave(Error error);  // it did not; in the background
  // Asks the open source what it knows of the blob by now. Requires: is_open().
  kj::Promise<Result<rpc::BlobRefData>> ask_ref();

 private:
  enum class Kind : uint8_t { kLocal, kHome, kServer };
  struct Source {
    rpc::Address address;
    Kind kind;
    uint32_t failures = 0;  // since the last progress
    std::optional<Error> error;
  };
  using OpenResponse = capnp::Response<rpc::Session::OpenResults>;

  void add_source(const rpc::Address& address, Kind kind);
  kj::Promise<void> try_next_source(Error error);
  kj::Promise<void> try_source();
  std::optional<size_t> next_source() const;
  Error worst_error() const;
  kj::Promise<Result<OpenResponse>> ask_open(kj::Own<NodeSession> session, rpc::ReadOrder order);
  kj::Promise<Result<void>> open_source();
  Result<void> use_opened(kj::Own<NodeSession> session, rpc::OpenResult::Opened::Reader opened);

  Nodes& nodes_;
  const rpc::BlobRefData ref_;
  const rpc::ReadOrder order_;
  const std::shared_ptr<ChunkBuffers> buffers_;
  Reader& reader_;
  std::vector<Source> sources_;
  size_t source_ = 0;
  kj::Maybe<kj::Own<BlobSource>> open_;
  bool switching_ = false;
  bool failed_ = false;
  kj::Promise<void> switch_ = nullptr;
};

}  // namespace bigcast
