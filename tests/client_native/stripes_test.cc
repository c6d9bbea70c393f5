#include <csignal>
#include <list>

#include "rpc/convert.h"
#include "tests/client_native/support.h"

namespace bigcast::test {

namespace {

ClientOptions options_for_all(const std::list<NodeProcess>& nodes, const std::string& local = "") {
  ClientOptions options = options_for("", local);
  for (const NodeProcess& node : nodes) options.servers.push_back(node.tcp());
  return options;
}

UploadOptions striped(const std::string& name, uint32_t homes) {
  UploadOptions options = named(name);
  options.homes = homes;
  return options;
}

uint64_t bytes_at(const NodeProcess& node) {
  return connect(options_for(node.tcp()))->ping()->memory_used;
}

bool becomes_empty(const NodeProcess& node) {
  return eventually([&] { return bytes_at(node) == 0; });
}

}  // namespace

TEST_CASE("striped blobs of every awkward size come back as they were, whoever reads") {
  const NodeProcess relay;
  for (const uint32_t homes : {2u, 3u}) {
    CAPTURE(homes);
    const std::list<NodeProcess> nodes(homes);
    const auto client = connect(options_for_all(nodes));
    const auto at_home = connect(options_for_all(nodes, nodes.back().socket()));
    const auto elsewhere = connect(options_for("", relay.socket()));
    const size_t sizes[] = {0, 1, kSmallChunk, kSmallChunk + 1, 11 * kSmallChunk + 7};
    for (const size_t size : sizes) {
      for (const bool known : {true, false}) {
        CAPTURE(size);
        const std::string bytes = random_bytes(size, size + 1);
        auto options = striped("blob-" + std::to_string(size), homes);
        options.replace = true;
        if (known) options.size = size;
        const std::string ref = put(*client, options, bytes);
        CHECK(rpc::BlobRefData::from_bytes(ref)->homes.size() == homes);
        check_same(read_all(*open_ref(*client, ref)), bytes);
        check_same(read_all(*open_ref(*at_home, ref)), bytes);
        check_same(read_all(*open_ref(*elsewhere, ref)), bytes);
        auto by_name = client->download_name(options.name);
        REQUIRE(by_name);
        check_same(read_all(**by_name), bytes);
      }
    }
    const auto stat = client->stat("blob-" + std::to_string(sizes[4]));
    REQUIRE(stat);
    CHECK(stat->size == sizes[4]);
    CHECK(stat->chunk_count == 12);
    CHECK(stat->homes.size() == homes);
    CHECK(stat->stored_size < sizes[4]);  // what is there
  }
}

TEST_CASE("a reader follows the writer of a striped blob chunk by chunk") {
  const std::list<NodeProcess> homes(2);
  const NodeProcess relay;
  const auto writer = connect(options_for_all(homes));
  const auto reader = connect(options_for_all(homes, relay.socket()));
  const auto direct = connect(options_for_all(homes));
  const std::string bytes = random_bytes(8 * kSmallChunk + 100);
  auto upload = writer->upload(striped("live", 2));
  REQUIRE(upload);
  auto through_relay = reader->download_name("live");
  auto from_homes = direct->download_name("live");
  REQUIRE(through_relay);
  REQUIRE(from_homes);
  for (size_t offset = 0; offset < bytes.size(); offset += kSmallChunk) {
    const auto chunk = bytes.substr(offset, kSmallChunk);
    REQUIRE(send(**upload, chunk));
    for (auto* download : {&*through_relay, &*from_homes}) {
      const auto got = (*download)->next();
      REQUIRE_MESSAGE(got, (got ? "" : got.error().to_string()));
      CHECK(std::memcmp(got->data(), chunk.data(), chunk.size()) == 0);
    }
  }
  REQUIRE((*upload)->seal());
  for (auto* download : {&*through_relay, &*from_homes}) {
    const auto end = (*download)->next();
    REQUIRE_MESSAGE(end, (end ? "" : end.error().to_string()));
    CHECK(end->empty());
    CHECK((*download)->size() == bytes.size());
  }
}

TEST_CASE("a home that is lost fails the upload, and the others keep nothing") {
  std::list<NodeProcess> homes(2);
  const auto writer = connect(options_for_all(homes));
  auto upload = writer->upload(striped("lost", 2));
  REQUIRE(upload);
  REQUIRE(send(**upload, random_bytes(4 * kSmallChunk)));
  CHECK(eventually([&] { return bytes_at(homes.front()) > 0; }));
  homes.back().end(SIGKILL);
  (void)send(**upload, random_bytes(8 * kSmallChunk));  // it may take a chunk to notice
  const auto sealed = (*upload)->seal();
  check_error(sealed, ErrorCode::kUnavailable, homes.back().tcp());
  CHECK(becomes_empty(homes.front()));
  check_error(writer->stat("lost"), ErrorCode::kUnavailable);  // it may be at the dead one
}

TEST_CASE("a home that is lost is a typed error for readers; the blob can still be removed") {
  std::list<NodeProcess> homes(2);
  const NodeProcess relay;
  const auto client = connect(options_for_all(homes));
  const std::string ref = put(*client, striped("lost", 2), random_bytes(8 * kSmallChunk));
  homes.back().end(SIGKILL);
  const auto direct = connect(options_for(homes.front().tcp()));
  check_error(direct->download_ref(ref), ErrorCode::kUnavailable, homes.back().tcp());
  CHECK(direct->remove_ref(ref));
  CHECK(becomes_empty(homes.front()));
}

TEST_CASE("removals and drops of copies reach every home and relay") {
  const std::list<NodeProcess> homes(2);
  const NodeProcess relay;
  const auto client = connect(options_for_all(homes, relay.socket()));
  const std::string bytes = random_bytes(8 * kSmallChunk);
  const std::string ref = put(*client, striped("blob", 2), bytes);
  check_same(read_all(*open_ref(*client, ref)), bytes);
  CHECK(bytes_at(relay) == bytes.size());
  REQUIRE(client->drop_copies_ref(ref));
  CHECK(becomes_empty(relay));
  check_same(read_all(*open_ref(*client, ref)), bytes);
  REQUIRE(client->remove_ref(ref));
  for (const NodeProcess& home : homes) CHECK(becomes_empty(home));
  CHECK(becomes_empty(relay));
}

TEST_CASE("the number of homes is checked against the servers, and those that answer") {
  std::list<NodeProcess> nodes(3);
  const auto client = connect(options_for_all(nodes));
  for (const uint32_t wrong : {0u, 4u, limits::kStripesMax + 1}) {
    check_error(client->upload(striped("x", wrong)), ErrorCode::kInvalidArgument, "homes");
  }
  // The same node twice counts once.
  auto twice = options_for_all(nodes);
  twice.servers[1] = twice.servers[0];
  check_error(connect(std::move(twice))->upload(striped("x", 3)), ErrorCode::kUnavailable,
              "named before");

  const std::string dead = nodes.front().tcp();
  nodes.front().end(SIGKILL);
  const std::string bytes = random_bytes(4 * kSmallChunk);
  const std::string ref = put(*client, striped("x", 2), bytes);  // on the other two
  check_same(read_all(*open_ref(*client, ref)), bytes);
  check_error(client->upload(striped("y", 3)), ErrorCode::kUnavailable, dead);
}

}  // namespace bigcast::test
