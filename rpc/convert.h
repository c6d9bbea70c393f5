#pragma once

#include <kj/exception.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "codec/codec.h"
#include "rpc/address.h"
#include "rpc/bigcast.capnp.h"

// Between the schema's structs and ours. What a peer declared is checked here, once.
namespace bigcast::rpc {

inline std::string to_std(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

// The id of a stripe of a striped blob (schema, BlobRef.stripes).
inline BlobId stripe_id(BlobId blob, uint32_t stripe) { return {blob.hi, blob.lo ^ stripe}; }

struct BlobRefData {
  BlobId id;
  std::optional<uint64_t> size;
  uint32_t chunk_size = 0;
  std::vector<Address> homes;  // TCP
  Digest128 root_digest;       // zero while unsealed
  std::string name_space;
  std::string name;
  uint32_t stripes = 1;
  std::optional<uint32_t> stripe;  // the ref of this stripe alone
  // How many homes are to have it, and where else it may be copied to. Among writers and homes
  // only.
  uint32_t copies = 1;
  std::vector<Address> spares;
  bigcast::Id128 key_id;  // of an encrypted blob, from its writer; zero: none

  // The ref of one stripe of this blob, which is one of all of it; `index` is below `stripes`.
  BlobRefData of_stripe(uint32_t index) const;
  // As a Spark broadcast handle carries it: one flat Cap'n Proto message.
  std::string to_bytes() const;
  // INVALID_ARGUMENT if `bytes` is not a well-formed ref within the limits.
  static Result<BlobRefData> from_bytes(std::string_view bytes);
};

void write(bigcast::Id128 value, rpc::Id128::Builder out);
bigcast::Id128 read(rpc::Id128::Reader in);
void write(const Address& value, rpc::Endpoint::Builder out);
Result<Address> read(rpc::Endpoint::Reader in);  // INVALID_ARGUMENT unless it can be dialled
void write(const bigcast::Error& value, rpc::Error::Builder out);
bigcast::Error read(rpc::Error::Reader in);  // unknown codes become INTERNAL
void write(const bigcast::ChunkMeta& value, rpc::ChunkMeta::Builder out);
Result<bigcast::ChunkMeta> read(rpc::ChunkMeta::Reader in, uint32_t chunk_size);  // check_meta
void write(const BlobRefData& value, rpc::BlobRef::Builder out);
Result<BlobRefData> read(rpc::BlobRef::Reader in);

// The one place where a KJ exception becomes ours: DISCONNECTED -> UNAVAILABLE, OVERLOADED ->
// RESOURCE_EXHAUSTED, UNIMPLEMENTED -> UNSUPPORTED, else INTERNAL.
bigcast::Error to_error(const kj::Exception& exception);

// For what a node answered: values that can't be are damage there or on the way, and no argument of
// the caller's.
template <typename T>
Result<T> answered(Result<T> value) {
  if (!value && value.error().code == ErrorCode::kInvalidArgument) {
    value.error().code = ErrorCode::kCorrupt;
  }
  return value;
}

}  // namespace bigcast::rpc
