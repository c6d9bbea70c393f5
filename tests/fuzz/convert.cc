// What another node answers: the first byte says which struct it is, the rest is one flat Cap'n
// Proto message.

#include "rpc/convert.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/limits.h"
#include "tests/fuzz/target.h"

namespace bigcast::rpc {
namespace {

enum Kind : char { kBlobInfo, kChunk, kEndpoint, kError };

constexpr uint32_t kChunkSize = limits::kChunkSizeDefault;

std::string seed_of(Kind kind, capnp::MessageBuilder& message) {
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asChars();
  return std::string(1, kind).append(bytes.begin(), bytes.size());
}

void require(bool holds) {
  if (!holds) std::abort();
}

// What is taken can be passed on, and means the same there.

void check_ref(BlobInfo::Reader info) {
  const auto ref = read(info.getRef());
  if (!ref) return;
  const auto again = BlobRefData::from_bytes(ref->to_bytes());
  require(again.has_value() && again->homes == ref->homes && again->spares == ref->spares &&
          again->name == ref->name && again->to_bytes() == ref->to_bytes());
}

void check_chunk(ReadResult::Reader result) {
  if (!result.isChunk()) return;
  const auto meta = read(result.getChunk().getMeta(), kChunkSize);
  if (!meta) return;
  require(meta->raw_size <= kChunkSize && meta->stored_size <= kChunkSize);
  result.getChunk().getData().size();
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<rpc::ChunkMeta>();
  write(*meta, out);
  require(read(out.asReader(), kChunkSize) == *meta);
}

void check_endpoint(Endpoint::Reader in) {
  const auto address = read(in);
  if (!address) return;
  require(Address::parse(address->to_string()) == *address);
}

void check_error(rpc::Error::Reader in) {
  const bigcast::Error error = read(in);
  require(error.code != ErrorCode::kOk && error.message.size() <= limits::kErrorMessageMax);
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7F; };
  require(std::ranges::none_of(error.message, is_control));
}

void check(Kind kind, kj::ArrayPtr<const capnp::word> words) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = limits::kRefSizeMax;
  options.nestingLimit = 8;
  capnp::FlatArrayMessageReader message(words, options);
  switch (kind) {
    case kBlobInfo:
      return check_ref(message.getRoot<BlobInfo>());
    case kChunk:
      return check_chunk(message.getRoot<ReadResult>());
    case kEndpoint:
      return check_endpoint(message.getRoot<Endpoint>());
    case kError:
      return check_error(message.getRoot<rpc::Error>());
  }
}

}  // namespace
}  // namespace bigcast::rpc

std::vector<std::string> fuzz_seeds() {
  using namespace bigcast::rpc;
  capnp::MallocMessageBuilder info;
  BlobRefData ref;
  ref.id = {1, 2};
  ref.size = 123'456'789;
  ref.chunk_size = kChunkSize;
  ref.root_digest = {3, 4};
  ref.name_space = "app";
  ref.name = "broadcast/7";
  ref.copies = 2;
  ref.homes = {*Address::parse("10.0.0.1:7420"), *Address::parse("[2001:db8::1]:7420")};
  ref.spares = {*Address::parse("10.0.0.3:7420")};
  write(ref, info.initRoot<BlobInfo>().initRef());
  capnp::MallocMessageBuilder chunk;
  auto result = chunk.initRoot<ReadResult>().initChunk();
  write({7, 300, 200, bigcast::Codec::kLz4, {5, 6}}, result.initMeta());
  result.setData(kj::StringPtr("01234567").asBytes());
  capnp::MallocMessageBuilder endpoint;
  write(ref.homes.back(), endpoint.initRoot<Endpoint>());
  capnp::MallocMessageBuilder error;
  write({bigcast::ErrorCode::kNotFound, "no such blob"}, error.initRoot<Error>());
  return {seed_of(kBlobInfo, info), seed_of(kChunk, chunk), seed_of(kEndpoint, endpoint),
          seed_of(kError, error)};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bigcast;
  uint32_t segments_less_one = 0;
  if (size < 1 + sizeof(capnp::word) || data[0] > rpc::kError) return 0;
  std::memcpy(&segments_less_one, data + 1, sizeof segments_less_one);
  if (segments_less_one >= limits::kFrameSegmentsMax) return 0;  // a frame has been refused by now
  auto words = kj::heapArray<capnp::word>((size - 1) / sizeof(capnp::word));
  std::memcpy(words.asBytes().begin(), data + 1, words.asBytes().size());
  // A damaged message is an exception, and nothing else.
  kj::runCatchingExceptions([&] { rpc::check(static_cast<rpc::Kind>(data[0]), words); });
  return 0;
}
