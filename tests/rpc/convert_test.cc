#include "rpc/convert.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <doctest/doctest.h>
#include <kj/debug.h>

#include <cstring>
#include <random>
#include <string>

#include "base/limits.h"

using namespace bigcast;
using bigcast::rpc::Address;
using bigcast::rpc::BlobRefData;

namespace {

BlobRefData sample() {
  BlobRefData ref;
  ref.id = {1, 2};
  ref.size = 12345678;
  ref.chunk_size = limits::kChunkSizeDefault;
  ref.homes = {Address::tcp("192.0.2.1", 7420), Address::tcp("2001:db8::1", 1)};
  ref.root_digest = {3, 4};
  ref.name_space = "app-1";
  ref.name = "broadcast/7";
  return ref;
}

void check_refused(const std::string& bytes) {
  const auto ref = BlobRefData::from_bytes(bytes);
  REQUIRE_FALSE(ref);
  CHECK(ref.error().code == ErrorCode::kInvalidArgument);
  CHECK(ref.error().message.find('\n') == std::string::npos);
}

}  // namespace

TEST_CASE("a ref survives the way to bytes and back, at any alignment") {
  for (const bool known_size : {true, false}) {
    BlobRefData ref = sample();
    if (!known_size) ref.size.reset();
    const std::string bytes = ref.to_bytes();
    for (size_t shift = 0; shift < 8; ++shift) {
      const std::string shifted = std::string(shift, 'x') + bytes;
      const auto back = BlobRefData::from_bytes(std::string_view(shifted).substr(shift));
      REQUIRE(back);
      CHECK(back->id == ref.id);
      CHECK(back->size == ref.size);
      CHECK(back->chunk_size == ref.chunk_size);
      CHECK(back->homes == ref.homes);
      CHECK(back->root_digest == ref.root_digest);
      CHECK(back->name_space == ref.name_space);
      CHECK(back->name == ref.name);
    }
  }
}

TEST_CASE("refs outside the limits are refused") {
  const auto check_change = [](auto change) {
    BlobRefData ref = sample();
    change(ref);
    check_refused(ref.to_bytes());
  };
  check_change([](auto& ref) { ref.id = {}; });
  check_change([](auto& ref) { ref.size = limits::kBlobSizeMax + 1; });
  check_change([](auto& ref) { ref.size = uint64_t{1} << 63; });
  check_change([](auto& ref) { ref.chunk_size = 0; });
  check_change([](auto& ref) { ref.chunk_size = limits::kChunkSizeMax + 1; });
  check_change([](auto& ref) { ref.homes = {Address::tcp("localhost", 1)}; });
  check_change([](auto& ref) { ref.homes = {Address::tcp("127.0.0.1", 0)}; });
  check_change([](auto& ref) { ref.homes.assign(65, Address::tcp("127.0.0.1", 1)); });
  check_change([](auto& ref) { ref.name_space = "../x"; });
  check_change([](auto& ref) { ref.name = "a/../b"; });
  check_change([](auto& ref) { ref.name = ""; });
  check_change([](auto& ref) { ref.name = std::string(40'000, 'x'); });
  check_change([](auto& ref) { ref.stripes = 0; });
  check_change([](auto& ref) { ref.stripes = limits::kStripesMax + 1; });
  check_change([](auto& ref) { ref.stripe = 1; });
  check_change([](auto& ref) {
    ref.homes.assign(3, Address::tcp("127.0.0.1", 1));
    ref.stripes = 2;
  });
  check_change([](auto& ref) {
    ref.homes.clear();
    ref.stripes = 2;
  });
}

TEST_CASE("each stripe of a ref has an id and homes of its own") {
  BlobRefData ref = sample();
  CHECK(ref.of_stripe(0).to_bytes() == ref.to_bytes());  // there is but one
  ref.stripes = 2;
  ref.homes.clear();
  for (uint16_t port = 1; port <= 4; port++) ref.homes.push_back(Address::tcp("127.0.0.1", port));
  for (const uint32_t stripe : {0u, 1u}) {
    const auto one = BlobRefData::from_bytes(ref.of_stripe(stripe).to_bytes());
    REQUIRE(one);
    CHECK(one->id == rpc::stripe_id(ref.id, stripe));
    CHECK((one->id == ref.id) == (stripe == 0));
    CHECK(one->stripes == 2);
    CHECK(one->stripe == stripe);
    CHECK(one->homes == std::vector{ref.homes[stripe], ref.homes[stripe + 2]});
    CHECK(one->size == ref.size);
    CHECK(one->root_digest == ref.root_digest);
  }
}

TEST_CASE("damaged bytes are refused, or are still a well-formed ref") {
  const std::string bytes = sample().to_bytes();
  check_refused("");
  check_refused("garbage");
  check_refused(std::string(8, '\0'));
  check_refused(std::string(64, '\xff'));
  check_refused(std::string(limits::kRefSizeMax + 8, '\0'));
  for (size_t size = 0; size < bytes.size(); ++size) check_refused(bytes.substr(0, size));
  std::string no_segments = bytes;
  std::memset(no_segments.data(), 0xFF, 4);
  check_refused(no_segments);
  std::mt19937 random(1);
  for (int round = 0; round < 20'000; ++round) {
    std::string damaged = bytes;
    for (int flips = 0; flips < 3; ++flips) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    const auto ref = BlobRefData::from_bytes(damaged);
    if (!ref) {
      CHECK(ref.error().code == ErrorCode::kInvalidArgument);
      continue;
    }
    CHECK(check_namespace(ref->name_space));
    CHECK(check_name(ref->name));
    CHECK(ref->homes.size() <= limits::kHomesMax);
    CHECK(ref->stripes - 1 < limits::kStripesMax);
    CHECK(ref->stripe.value_or(0) < ref->stripes);
  }
}

TEST_CASE("a host has one address, however it is spelt") {
  BlobRefData ref = sample();
  ref.homes = {Address::tcp("2001:DB8:0::0001", 7420)};
  const auto back = BlobRefData::from_bytes(ref.to_bytes());
  REQUIRE(back);
  CHECK(back->homes == std::vector{Address::tcp("2001:db8::1", 7420)});
  capnp::MallocMessageBuilder message;
  auto wire = message.initRoot<bigcast::rpc::Endpoint>();
  wire.setPort(7420);
  wire.setHost(kj::StringPtr("10.0.0.1\0 and more", 18));
  CHECK_FALSE(rpc::read(wire.asReader()));
}

TEST_CASE("errors keep their code and become one bounded line") {
  capnp::MallocMessageBuilder message;
  auto wire = message.initRoot<bigcast::rpc::Error>();
  rpc::write({ErrorCode::kNotFound, "no\nblob"}, wire);
  auto error = rpc::read(wire.asReader());
  CHECK(error.code == ErrorCode::kNotFound);
  CHECK(error.message == "no blob");
  constexpr int kLast = static_cast<int>(kErrorCodeLast);
  for (const int code : {0, kLast + 1, 65535}) {
    wire.setCode(static_cast<uint16_t>(code));
    CHECK(rpc::read(wire.asReader()).code == ErrorCode::kInternal);
  }
  wire.setMessage(std::string(100'000, 'x').c_str());
  CHECK(rpc::read(wire.asReader()).message.size() == limits::kErrorMessageMax);
}

TEST_CASE("a chunk's description is checked when it is read") {
  capnp::MallocMessageBuilder message;
  auto wire = message.initRoot<bigcast::rpc::ChunkMeta>();
  const bigcast::ChunkMeta meta{7, 100, 60, Codec::kLz4, {1, 2}};
  rpc::write(meta, wire);
  CHECK(rpc::read(wire.asReader(), 100) == meta);
  CHECK_FALSE(rpc::read(wire.asReader(), 99));
  wire.setCodec(9);
  CHECK_FALSE(rpc::read(wire.asReader(), 100));
}

TEST_CASE("KJ's exceptions become our errors") {
  CHECK(rpc::to_error(KJ_EXCEPTION(DISCONNECTED, "x")).code == ErrorCode::kUnavailable);
  CHECK(rpc::to_error(KJ_EXCEPTION(OVERLOADED, "x")).code == ErrorCode::kResourceExhausted);
  CHECK(rpc::to_error(KJ_EXCEPTION(UNIMPLEMENTED, "x")).code == ErrorCode::kUnsupported);
  CHECK(rpc::to_error(KJ_EXCEPTION(FAILED, "x\ny")).message == "x y");
}
