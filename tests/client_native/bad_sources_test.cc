#include "tests/client_native/support.h"
#include "tests/support/fault_proxy.h"

namespace bigcast::test {

namespace {

// One chunk of a megabyte in a frame: bytes at multiples of 400,000 lie in its payload.
constexpr uint32_t kBadChunk = limits::kMiB;
constexpr uint64_t kPeriod = 400'000;

NodeOptions advertising(const FaultProxy& proxy) {
  NodeOptions options;
  options.more = {"--advertise", proxy.address()};
  return options;
}

}  // namespace

TEST_CASE("a source whose bytes are damaged is left for the next; the reader sees right bytes") {
  const NodeProcess home;
  FaultProxy liar;
  liar.forward_to(home.tcp());
  liar.flip_every(kPeriod);
  const std::string bytes = random_bytes(5 * kBadChunk + 3);
  const auto writer = connect(options_for(home.tcp()));
  const std::string ref = put(*writer, named("hit", kBadChunk), bytes);
  // By name it is the proxy that answers first; the ref it gives names the home.
  const auto reader = connect(options_for(liar.address()));
  auto download = reader->download_name("hit");
  REQUIRE(download);
  check_same(read_all(**download), bytes);
  CHECK(liar.flips() > 0);
  CHECK((*download)->stats().chunks_reread > 0);
}

TEST_CASE("when every source is damaged the error is CORRUPT, and the stream never looks whole") {
  FaultProxy liar;
  const NodeProcess home(advertising(liar));
  liar.forward_to(home.tcp());
  const std::string bytes = random_bytes(5 * kBadChunk + 3);
  const auto writer = connect(options_for(home.tcp()));
  const std::string ref = put(*writer, named("hit", kBadChunk), bytes);
  const auto reader = connect(options_for(liar.address()));
  check_same(read_all(*open_ref(*reader, ref)), bytes);  // undamaged, it works

  liar.flip_every(kPeriod);
  const auto download = open_ref(*reader, ref);
  check_error(read_all(*download), ErrorCode::kCorrupt);
  check_error(download->next(), ErrorCode::kCorrupt);
}

}  // namespace bigcast::test
