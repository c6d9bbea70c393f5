#include "rpc/convert.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "base/limits.h"

namespace bigcast::rpc {
namespace {

tl::unexpected<bigcast::Error> bad_ref(std::string_view why) {
  return fail(ErrorCode::kInvalidArgument, fmt::format("blob ref: {}", why));
}

// One line of bounded length, whatever a peer sent.
std::string as_message(std::string_view text) {
  std::string line(text.substr(0, limits::kErrorMessageMax));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return line;
}

// What Cap'n Proto 0.9 does not check itself: a table that says 0xFFFFFFFF has "no" segments.
bool has_sane_segment_count(std::string_view bytes) {
  uint32_t count_less_one = 0;
  std::memcpy(&count_less_one, bytes.data(), sizeof count_less_one);
  return count_less_one < limits::kFrameSegmentsMax;
}

Result<std::vector<Address>> read_homes(capnp::List<Endpoint>::Reader homes) {
  if (homes.size() > limits::kHomesMax) {
    return bad_ref(fmt::format("at most {} homes or spares", limits::kHomesMax));
  }
  std::vector<Address> addresses;
  addresses.reserve(homes.size());
  for (const Endpoint::Reader home : homes) {
    auto address = read(home);
    if (!address) return bad_ref("a home's " + address.error().message);
    addresses.push_back(std::move(*address));
  }
  return addresses;
}

Result<void> read_stripes(rpc::BlobRef::Reader in, BlobRefData& ref) {
  ref.stripes = in.getStripes();
  if (ref.stripes < 1 || ref.stripes > limits::kStripesMax) {
    return bad_ref(
        fmt::format("stripes must be 1 to {}, not {}", limits::kStripesMax, ref.stripes));
  }
  const int8_t stripe = in.getStripe();
  if (stripe != -1) {
    if (stripe < 0 || std::cmp_greater_equal(stripe, ref.stripes)) {
      return bad_ref(fmt::format("stripe {} is not one of {}", stripe, ref.stripes));
    }
    ref.stripe = static_cast<uint32_t>(stripe);
  } else if (ref.homes.size() % ref.stripes != 0 || (ref.stripes > 1 && ref.homes.empty())) {
    return bad_ref(fmt::format("{} homes are not the same number for each of {} stripes",
                               ref.homes.size(), ref.stripes));
  }
  return {};
}

}  // namespace

void write(bigcast::Id128 value, rpc::Id128::Builder out) {
  out.setHi(value.hi);
  out.setLo(value.lo);
}

bigcast::Id128 read(rpc::Id128::Reader in) { return {in.getHi(), in.getLo()}; }

void write(const Address& value, rpc::Endpoint::Builder out) {
  out.setHost(value.host.c_str());
  out.setPort(value.port);
}

Result<Address> read(rpc::Endpoint::Reader in) {
  auto host = canonical_ip(to_std(in.getHost()));
  if (!host) return fail(ErrorCode::kInvalidArgument, "host must be an IP address");
  if (in.getPort() == 0) return fail(ErrorCode::kInvalidArgument, "port must not be 0");
  return Address::tcp(std::move(*host), in.getPort());
}

void write(const bigcast::Error& value, rpc::Error::Builder out) {
  out.setCode(static_cast<uint16_t>(value.code));
  out.setMessage(as_message(value.message).c_str());
}

bigcast::Error read(rpc::Error::Reader in) {
  const uint16_t code = in.getCode();
  const bool known = code != static_cast<uint16_t>(ErrorCode::kOk) &&
                     code <= static_cast<uint16_t>(kErrorCodeLast);
  return {known ? static_cast<ErrorCode>(code) : ErrorCode::kInternal,
          as_message(to_std(in.getMessage()))};
}

void write(const bigcast::ChunkMeta& value, rpc::ChunkMeta::Builder out) {
  out.setIndex(value.index);
  out.setRawSize(value.raw_size);
  out.setStoredSize(value.stored_size);
  out.setCodec(static_cast<uint8_t>(value.codec));
  out.setDigestHi(value.digest.hi);
  out.setDigestLo(value.digest.lo);
}

Result<bigcast::ChunkMeta> read(rpc::ChunkMeta::Reader in, uint32_t chunk_size) {
  bigcast::ChunkMeta meta;
  meta.index = in.getIndex();
  meta.raw_size = in.getRawSize();
  meta.stored_size = in.getStoredSize();
  meta.codec = static_cast<Codec>(in.getCodec());
  meta.digest = {in.getDigestHi(), in.getDigestLo()};
  BIGCAST_TRY(check_meta(meta, chunk_size));
  return meta;
}

void write(const BlobRefData& value, rpc::BlobRef::Builder out) {
  write(value.id, out.initId());
  out.setSize(value.size ? static_cast<int64_t>(*value.size) : -1);
  out.setChunkSize(value.chunk_size);
  auto homes = out.initHomes(static_cast<kj::uint>(value.homes.size()));
  for (kj::uint i = 0; i < homes.size(); ++i) {
    write(value.homes[i], homes[i]);
  }
  out.setCopies(static_cast<uint8_t>(value.copies));
  if (!value.spares.empty()) {
    auto spares = out.initSpares(static_cast<kj::uint>(value.spares.size()));
    for (kj::uint i = 0; i < spares.size(); ++i) write(value.spares[i], spares[i]);
  }
  out.setRootDigestHi(value.root_digest.hi);
  out.setRootDigestLo(value.root_digest.lo);
  out.setNameSpace(value.name_space.c_str());
  out.setName(value.name.c_str());
  out.setStripes(static_cast<uint8_t>(value.stripes));
  out.setStripe(value.stripe ? static_cast<int8_t>(*value.stripe) : int8_t{-1});
  if (!value.key_id.is_zero()) write(value.key_id, out.initKeyId());
}

Result<BlobRefData> read(rpc::BlobRef::Reader in) {
  BlobRefData ref;
  ref.id = read(in.getId());
  if (ref.id.is_zero()) return bad_ref("the id is missing");
  const int64_t size = in.getSize();
  if (size < -1 || size > static_cast<int64_t>(limits::kBlobSizeMax)) {
    return bad_ref(fmt::format("size {} is out of range", size));
  }
  if (size >= 0) ref.size = static_cast<uint64_t>(size);
  ref.chunk_size = in.getChunkSize();
  if (ref.chunk_size < limits::kChunkSizeMin || ref.chunk_size > limits::kChunkSizeMax) {
    return bad_ref(fmt::format("chunk size {} is out of range", ref.chunk_size));
  }
  BIGCAST_ASSIGN(ref.homes, read_homes(in.getHomes()));
  BIGCAST_ASSIGN(ref.spares, read_homes(in.getSpares()));
  ref.copies = in.getCopies();
  if (ref.copies < 1 || ref.copies > limits::kReplicasMax) {
    return bad_ref(fmt::format("copies must be 1 to {}, not {}", limits::kReplicasMax, ref.copies));
  }
  ref.root_digest = {in.getRootDigestHi(), in.getRootDigestLo()};
  ref.name_space = to_std(in.getNameSpace());
  ref.name = to_std(in.getName());
  BIGCAST_TRY(check_namespace(ref.name_space));
  BIGCAST_TRY(check_name(ref.name));
  BIGCAST_TRY(read_stripes(in, ref));
  ref.key_id = read(in.getKeyId());
  return ref;
}

BlobRefData BlobRefData::of_stripe(uint32_t index) const {
  BlobRefData one = *this;
  if (stripes == 1) return one;
  one.id = stripe_id(id, index);
  one.stripe = index;
  one.homes.clear();
  for (size_t i = index; i < homes.size(); i += stripes) one.homes.push_back(homes[i]);
  return one;
}

std::string BlobRefData::to_bytes() const {
  capnp::MallocMessageBuilder message;
  write(*this, message.initRoot<rpc::BlobRef>());
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asChars();
  return {bytes.begin(), bytes.size()};
}

Result<BlobRefData> BlobRefData::from_bytes(std::string_view bytes) {
  if (bytes.size() < sizeof(capnp::word) || bytes.size() % sizeof(capnp::word) != 0 ||
      bytes.size() > limits::kRefSizeMax || !has_sane_segment_count(bytes)) {
    return bad_ref(fmt::format("these {} bytes are not a ref", bytes.size()));
  }
  auto words = kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word));
  std::memcpy(words.begin(), bytes.data(), bytes.size());
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 4 * limits::kRefSizeMax / sizeof(capnp::word);
  options.nestingLimit = 8;
  Result<BlobRefData> ref = bad_ref("empty");
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() {
                 capnp::FlatArrayMessageReader message(words, options);
                 ref = read(message.getRoot<rpc::BlobRef>());
               })) {
    return bad_ref(as_message({exception->getDescription().cStr()}));
  }
  return ref;
}

bigcast::Error to_error(const kj::Exception& exception) {
  ErrorCode code = ErrorCode::kInternal;
  switch (exception.getType()) {
    case kj::Exception::Type::DISCONNECTED:
      code = ErrorCode::kUnavailable;
      break;
    case kj::Exception::Type::OVERLOADED:
      code = ErrorCode::kResourceExhausted;
      break;
    case kj::Exception::Type::UNIMPLEMENTED:
      code = ErrorCode::kUnsupported;
      break;
    case kj::Exception::Type::FAILED:
      break;
  }
  return {code, as_message({exception.getDescription().cStr()})};
}

}  // namespace bigcast::rpc
