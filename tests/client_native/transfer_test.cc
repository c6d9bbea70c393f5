#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <future>

#include "client_native/chunk_buffers.h"
#include "rpc/auth.h"
#include "rpc/frame.h"
#include "tests/client_native/support.h"

namespace bigcast::test {

TEST_CASE("blobs of every awkward size come back as they were, by TCP and by descriptor") {
  const NodeProcess node;
  const auto by_tcp = connect(options_for(node.tcp()));
  const auto by_socket = connect(options_for(node.tcp(), node.socket()));
  const size_t sizes[] = {
      0, 1, kSmallChunk - 1, kSmallChunk, kSmallChunk + 1, 10 * kSmallChunk + 7};
  for (const size_t size : sizes) {
    for (const bool random : {true, false}) {
      CAPTURE(size);
      CAPTURE(random);
      const std::string bytes = random ? random_bytes(size) : compressible_bytes(size);
      auto options = named("blob-" + std::to_string(size) + (random ? "r" : "c"));
      options.size = size;
      const std::string ref = put(*by_tcp, options, bytes);
      check_same(read_all(*open_ref(*by_tcp, ref)), bytes);
      check_same(read_all(*open_ref(*by_socket, ref)), bytes);
      auto by_name = by_tcp->download_name(options.name);
      REQUIRE(by_name);
      check_same(read_all(**by_name), bytes);
      CHECK((*by_name)->size() == size);
    }
  }
}

TEST_CASE("uploads go to the next server while one is away or about to stop") {
  NodeProcess first;
  const NodeProcess second;
  auto options = options_for(first.tcp());
  options.servers.push_back(second.tcp());
  const auto client = connect(std::move(options));
  auto upload = client->upload(named("holds the drain up"));
  REQUIRE(upload);
  CHECK((*upload)->home().advertised == first.tcp());
  REQUIRE(kill(first.pid(), SIGTERM) == 0);
  REQUIRE(eventually([&]() { return client->ping()->draining; }));
  auto other = client->upload(named("while it drains"));
  REQUIRE(other);
  CHECK((*other)->home().advertised == second.tcp());
  REQUIRE((*upload)->seal());  // what runs is let end
  CHECK(first.wait() == 0);
  auto next = client->upload(named("when it is gone"));
  REQUIRE(next);
  CHECK((*next)->home().advertised == second.tcp());
  const auto alone = Client::connect(options_for(first.tcp()));
  CHECK(alone.error().code == ErrorCode::kUnavailable);
}

TEST_CASE("a large blob goes through the local node's descriptor, and through a relay") {
  const NodeProcess home;
  const NodeProcess relay;
  const std::string bytes = random_bytes(40 * limits::kMiB + 5);
  const auto writer = connect(options_for(home.tcp()));
  const std::string ref = put(*writer, named("large", limits::kChunkSizeDefault), bytes);

  const auto at_home = connect(options_for("", home.socket()));
  const auto direct = open_ref(*at_home, ref);
  check_same(read_all(*direct), bytes);
  CHECK(direct->stats().chunks_located == 11);
  CHECK(direct->stats().through_local_node);

  const auto elsewhere = connect(options_for("", relay.socket()));
  const auto relayed = open_ref(*elsewhere, ref);
  check_same(read_all(*relayed), bytes);
  CHECK(relayed->stats().through_local_node);
  CHECK(relayed->stats().chunks == 11);

  auto bytes_only = options_for("", relay.socket());
  bytes_only.local_reads = false;
  const auto copied = connect(std::move(bytes_only));
  const auto through_socket = open_ref(*copied, ref);
  check_same(read_all(*through_socket), bytes);
  CHECK(through_socket->stats().chunks_located == 0);
}

TEST_CASE("compression shows in the figures and can be turned off") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  const std::string bytes = compressible_bytes(limits::kMiB);
  put(*client, named("small"), bytes);
  auto options = named("raw");
  options.compression = Compression::kNever;
  put(*client, options, bytes);
  CHECK(client->stat("small")->stored_size < bytes.size() / 2);
  CHECK(client->stat("raw")->stored_size == bytes.size());
}

TEST_CASE(
    "a reader to whom the order is all one gets what is in memory first, and each chunk once") {
  std::string directory = std::filesystem::temp_directory_path() / "bigcast-client-XXXXXX";
  REQUIRE(mkdtemp(directory.data()) != nullptr);
  const auto gone =
      std::shared_ptr<void>(nullptr, [&](void*) { std::filesystem::remove_all(directory); });
  NodeOptions small;
  small.memory = "8m";
  small.more = {"--disk", directory, "--disk-size", "64m"};
  const NodeProcess node(small);
  const std::string bytes = random_bytes(200 * kSmallChunk + 5);  // 12.5 MiB: the first are on disk
  for (const bool local : {true, false}) {
    CAPTURE(local);
    const auto client = connect(options_for(node.tcp(), local ? node.socket() : ""));
    auto upload = named("any", kSmallChunk);
    upload.replace = true;
    const std::string ref = put(*client, upload, bytes);
    auto download = client->download_ref(ref, {.any_order = true});
    REQUIRE(download);
    std::string got(bytes.size(), '\0');
    std::vector<uint64_t> order;
    for (;;) {
      const auto chunk = (*download)->next();
      if (!chunk) FAIL(chunk.error().to_string());
      if (chunk->empty()) break;
      const uint64_t offset = (*download)->offset();
      order.push_back(offset / kSmallChunk);
      std::memcpy(got.data() + offset, chunk->data(), chunk->size());
    }
    check_same(got, bytes);
    CHECK(order.size() == 201);
    CHECK(order.front() > 50);  // what was written last
    std::ranges::sort(order);
    CHECK(std::ranges::adjacent_find(order) == order.end());
    REQUIRE(client->remove_name("any"));
  }
}

TEST_CASE("in any order, too, a reader follows a writer and finds the end") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  auto upload = client->upload(named("any", kSmallChunk));
  REQUIRE(upload);
  const std::string bytes = random_bytes(9 * kSmallChunk + 1);
  REQUIRE(send(**upload, bytes.substr(0, 3 * kSmallChunk)));
  auto download = client->download_name("any", {.any_order = true});
  REQUIRE(download);
  std::string got(bytes.size(), '\0');
  for (int chunks = 0;; ++chunks) {
    if (chunks == 2) {
      REQUIRE(send(**upload, bytes.substr(3 * kSmallChunk)));
      REQUIRE((*upload)->seal());
    }
    const auto chunk = (*download)->next();
    if (!chunk) FAIL(chunk.error().to_string());
    if (chunk->empty()) break;
    std::memcpy(got.data() + (*download)->offset(), chunk->data(), chunk->size());
  }
  check_same(got, bytes);
}

TEST_CASE("a pin holds until it is undone or its client goes") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  const auto other = connect(options_for(node.tcp()));
  put(*client, named("pinned"), random_bytes(3 * kSmallChunk));
  const auto pins = [&] { return other->stat("pinned").value().pins; };
  REQUIRE(client->pin_name("pinned"));
  CHECK(client->pin_name("pinned").value().pins == 1);
  {
    const auto third = connect(options_for(node.tcp()));
    CHECK(third->pin_name("pinned").value().pins == 2);
  }
  CHECK(eventually([&] { return pins() == 1; }));
  REQUIRE(other->unpin_name("pinned"));  // not its own
  CHECK(pins() == 1);
  REQUIRE(client->unpin_name("pinned"));
  CHECK(pins() == 0);
  check_error(client->pin_name("nothing"), ErrorCode::kNotFound);
  check_error(client->unpin_name("nothing"), ErrorCode::kNotFound);
}

TEST_CASE("who unpins for everybody ends the pins of its namespace, and they hear of it once") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  put(*client, named("pinned"), random_bytes(kSmallChunk));
  REQUIRE(client->pin_name("pinned"));
  ClientOptions options = options_for(node.tcp());
  options.name_space = "other";
  const auto stranger = connect(std::move(options));
  check_error(stranger->unpin_name("pinned", Client::Pins::kEverybodys), ErrorCode::kNotFound);
  const auto other = connect(options_for(node.tcp()));
  const auto pins = [&] { return other->stat("pinned").value().pins; };
  CHECK(pins() == 1);
  REQUIRE(other->unpin_name("pinned", Client::Pins::kEverybodys));
  CHECK(pins() == 0);
  check_error(client->pin_name("pinned"), ErrorCode::kAborted);
  REQUIRE(client->pin_name("pinned"));
  CHECK(pins() == 1);
}

TEST_CASE("a node reports on itself and what it runs on") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  put(*client, named("one"), random_bytes(3 * kSmallChunk));
  REQUIRE(client->pin_name("one"));
  const auto report = client->report();
  REQUIRE(report);
  CHECK(report->summary.address == node.tcp());
  CHECK(report->summary.pid == static_cast<uint32_t>(node.pid()));
  CHECK(report->not_ready.empty());
  CHECK(report->blobs == 1);
  CHECK(report->sessions >= 1);
  CHECK(report->received_bytes >= 3 * kSmallChunk);
  CHECK(report->pinned_bytes >= 3 * kSmallChunk);
  CHECK(report->descriptors_open > 4);
  CHECK(report->descriptor_limit > report->descriptors_open);
  CHECK(report->memory_of_machine > report->summary.memory_budget);
  CHECK(report->disk_free == 0);  // it has no disk tier
  CHECK(report->clock_ms > 1'700'000'000'000);
  CHECK(report->unreachable.empty());
}

TEST_CASE("a blob goes when its time to live is over") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  auto options = named("short");
  options.ttl_ms = limits::kTtlMsMax + 1;
  check_error(client->upload(options), ErrorCode::kInvalidArgument, "ttl");
  options.ttl_ms = 3600 * 1000;
  put(*client, options, "lives for an hour");
  const auto stat = client->stat("short");
  REQUIRE(stat);
  CHECK(stat->ttl_ms == options.ttl_ms);
  CHECK(stat->expires_in_ms.value() <= options.ttl_ms);
  CHECK(stat->expires_in_ms.value() > 0);
  options.name = "shorter";
  options.ttl_ms = 1;
  put(*client, options, "lives for a moment");
  CHECK(eventually([&] {
    const auto gone = client->stat("shorter");
    return !gone && gone.error().code == ErrorCode::kNotFound;
  }));
  CHECK(client->stat("short"));
}

TEST_CASE("transfers hold a few chunks of memory, and none when they have ended") {
  constexpr size_t kMost = 10 * (kSmallChunk + 4096);
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  REQUIRE(ChunkBuffer::bytes_of_all() == 0);
  size_t largest = 0;
  const auto look = [&]() { largest = std::max(largest, ChunkBuffer::bytes_of_all()); };
  auto upload = client->upload(named("bounded"));
  REQUIRE(upload);
  const std::string bytes = compressible_bytes(kSmallChunk);
  for (int i = 0; i < 64; ++i) {
    REQUIRE(send(**upload, bytes));
    look();
  }
  const auto ref = (*upload)->seal();
  REQUIRE(ref);
  CHECK(largest >= kSmallChunk);
  CHECK(largest <= kMost);
  upload->reset();
  CHECK(eventually([]() { return ChunkBuffer::bytes_of_all() == 0; }));

  largest = 0;
  auto download = client->download_ref(*ref);
  REQUIRE(download);
  size_t read = 0;
  for (auto chunk = (*download)->next(); chunk && !chunk->empty(); chunk = (*download)->next()) {
    read += chunk->size();
    look();
  }
  CHECK(read == 64 * kSmallChunk);
  CHECK(largest >= kSmallChunk);
  CHECK(largest <= kMost);
  download->reset();
  CHECK(eventually([]() { return ChunkBuffer::bytes_of_all() == 0; }));
  // One that is given up in the middle.
  auto half = client->upload(named("half"));
  REQUIRE(send(**half, bytes));
  half->reset();
  CHECK(eventually([]() { return ChunkBuffer::bytes_of_all() == 0; }));
}

TEST_CASE("a reader follows a writer chunk by chunk") {
  const NodeProcess home;
  const NodeProcess relay;
  const auto writer = connect(options_for(home.tcp()));
  const std::string bytes = random_bytes(8 * kSmallChunk + 100);
  auto upload = writer->upload(named("followed"));
  REQUIRE(upload);
  const std::string_view all = bytes;
  REQUIRE(send(**upload, all.substr(0, 3 * kSmallChunk)));

  const auto reader = connect(options_for(home.tcp(), relay.socket()));
  auto download = reader->download_name("followed");
  REQUIRE(download);
  std::string got;
  for (int i = 0; i < 3; ++i) {  // before there is an end to wait for
    const auto chunk = (*download)->next();
    REQUIRE(chunk);
    got.append(reinterpret_cast<const char*>(chunk->data()), chunk->size());
  }
  REQUIRE(send(**upload, all.substr(3 * kSmallChunk)));
  REQUIRE((*upload)->seal());
  auto rest = read_all(**download);
  REQUIRE(rest);
  check_same(got + *rest, bytes);
}

TEST_CASE("a transfer makes as many buffers as its window needs, however many chunks it has") {
  constexpr uint32_t kChunks = 48;
  constexpr uint64_t kFew =
      2 * std::max(limits::kUploadWindowChunks, limits::kDownloadWindowChunks);
  NodeOptions options;
  options.memory = "256m";
  const NodeProcess node(options);
  const auto client = connect(options_for(node.tcp()));
  const auto made = [] { return rpc::FrameBuffers::made() + ChunkBuffers::made(); };
  auto upload = client->upload(named("warm", limits::kChunkSizeDefault));
  REQUIRE(upload);
  const std::string chunk = random_bytes(limits::kChunkSizeDefault);
  uint64_t before = made();
  for (uint32_t i = 0; i < kChunks; ++i) REQUIRE(send(**upload, chunk));
  const auto ref = (*upload)->seal();
  REQUIRE(ref);
  CHECK(made() - before <= kFew);
  for (int round = 0; round < 2; ++round) {
    before = made();
    const auto download = open_ref(*client, *ref);
    for (uint32_t i = 0; i < kChunks; ++i) REQUIRE(download->next()->size() == chunk.size());
    CHECK(made() - before <= kFew);
  }
}

TEST_CASE("a dropped upload frees everything; its reader gets ABORTED, others NOT_FOUND") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  auto upload = client->upload(named("abandoned"));
  REQUIRE(upload);
  REQUIRE(send(**upload, random_bytes(3 * kSmallChunk)));
  REQUIRE(eventually([&]() { return client->stat("abandoned")->chunk_count == 3; }));
  auto download = client->download_name("abandoned");
  REQUIRE(download);
  for (int i = 0; i < 3; ++i) REQUIRE((*download)->next());
  upload->reset();
  check_error((*download)->next(), ErrorCode::kAborted);
  check_error((*download)->next(), ErrorCode::kAborted);  // errors stick
  check_error(client->download_name("abandoned"), ErrorCode::kNotFound);
  CHECK(eventually([&]() { return client->ping()->memory_used == 0; }));
}

TEST_CASE("a reader goes on from the home when its local node is killed") {
  const NodeProcess home;
  auto relay = std::make_unique<NodeProcess>();
  const std::string bytes = random_bytes(40 * kSmallChunk);
  const auto writer = connect(options_for(home.tcp()));
  const std::string ref = put(*writer, named("outlives"), bytes);
  const auto reader = connect(options_for("", relay->socket()));
  const auto download = open_ref(*reader, ref);
  std::string got;
  for (int i = 0; i < 2; ++i) {
    const auto chunk = download->next();
    REQUIRE(chunk);
    got.append(reinterpret_cast<const char*>(chunk->data()), chunk->size());
  }
  relay->end(SIGKILL);
  auto rest = read_all(*download);
  REQUIRE(rest);
  check_same(got + *rest, bytes);
  CHECK(download->stats().through_local_node);
}

TEST_CASE("a client finds its node again after a restart") {
  auto node = std::make_unique<NodeProcess>();
  const std::string address = node->tcp();
  const auto client = connect(options_for(address));
  put(*client, named("before"), random_bytes(100));
  node->end(SIGKILL);
  check_error(client->stat("before"), ErrorCode::kUnavailable, address);
  NodeOptions again;
  again.listen = address;
  node = std::make_unique<NodeProcess>(again);
  REQUIRE(eventually([&]() { return client->ping().has_value(); }));
  const std::string bytes = random_bytes(100);
  check_same(read_all(*open_ref(*client, put(*client, named("after"), bytes))), bytes);
}

TEST_CASE("names are listed in order, described and removed") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  for (const char* name : {"b", "a/1", "a/2", "c"}) put(*client, named(name), "x");
  const std::string ref = put(*client, named("by-ref"), "y");
  std::string seen;
  const auto collect = [&](const BlobSummary& blob) {
    seen += blob.name + " ";
    return true;
  };
  REQUIRE(client->list("", collect));
  CHECK(seen == "a/1 a/2 b by-ref c ");
  seen.clear();
  REQUIRE(client->list("a/", collect));
  CHECK(seen == "a/1 a/2 ");
  const auto found = client->stat("a/1");
  REQUIRE(found);
  CHECK(found->sealed);
  CHECK(found->size == 1);
  CHECK(client->remove_name("a/1"));
  check_error(client->remove_name("a/1"), ErrorCode::kNotFound, "a/1");
  check_error(client->stat("a/1"), ErrorCode::kNotFound, "a/1");
  CHECK(client->drop_copies_ref(ref));
  CHECK(client->remove_ref(ref));
  check_error(client->remove_ref(ref), ErrorCode::kNotFound);
  check_error(client->download_ref("no ref"), ErrorCode::kInvalidArgument);
}

TEST_CASE("an upload that can't be is refused by name, and its error repeats") {
  const NodeProcess node;  // 64 MiB, no disk
  const auto client = connect(options_for(node.tcp()));
  put(*client, named("taken"), "x");
  check_error(client->upload(named("taken")), ErrorCode::kAlreadyExists, "taken");
  auto replacing = named("taken");
  replacing.replace = true;
  put(*client, replacing, "yy");
  CHECK(client->stat("taken")->size == 2);
  auto too_large = named("large");
  too_large.size = limits::kGiB;
  check_error(client->upload(too_large), ErrorCode::kResourceExhausted);
  too_large.size = limits::kBlobSizeMax + 1;
  check_error(client->upload(too_large), ErrorCode::kInvalidArgument, "size");
  check_error(client->upload(named("../x")), ErrorCode::kInvalidArgument);
  auto no_lease = named("leased");
  no_lease.until_removed = false;
  check_error(client->upload(no_lease), ErrorCode::kInvalidArgument);

  auto sized = named("sized");
  sized.size = 10;
  auto upload = client->upload(sized);
  REQUIRE(upload);
  check_error(send(**upload, "eleven bytes"), ErrorCode::kInvalidArgument, "10");
  check_error((*upload)->next_buffer(), ErrorCode::kInvalidArgument, "10");
  check_error((*upload)->seal(), ErrorCode::kInvalidArgument, "10");

  auto unsized = client->upload(named("endless", limits::kChunkSizeDefault));
  REQUIRE(unsized);
  check_error(send(**unsized, random_bytes(100 * limits::kMiB)), ErrorCode::kResourceExhausted);
  check_error((*unsized)->seal(), ErrorCode::kResourceExhausted);
}

TEST_CASE("sealing twice gives the same ref, and nothing can be added") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp()));
  auto upload = client->upload(named("twice"));
  REQUIRE(upload);
  REQUIRE(send(**upload, "some"));
  check_error((*upload)->next_buffer(), ErrorCode::kInvalidArgument, "last chunk");
  const auto first = (*upload)->seal();
  REQUIRE(first);
  const auto second = (*upload)->seal();
  REQUIRE(second);
  CHECK(*second == *first);
  check_error((*upload)->next_buffer(), ErrorCode::kInvalidArgument, "sealed");
}

TEST_CASE("blobs of a lease live as long as a client has it") {
  NodeOptions brief;
  brief.more = {"--lease-grace", "200ms"};
  const NodeProcess node(brief);
  auto holder_options = options_for(node.tcp());
  holder_options.lease = LeaseId::random();
  auto holder = connect(std::move(holder_options));
  auto leased = named("leased");
  leased.until_removed = false;
  put(*holder, leased, "x");
  const auto other = connect(options_for(node.tcp()));
  CHECK(other->stat("leased"));
  holder.reset();
  CHECK(eventually([&]() { return !other->stat("leased"); }));
}

TEST_CASE("whoever can't be reached or does not know the secret is named as such") {
  NodeOptions closed;
  closed.secret = kSecret;
  const NodeProcess node(closed);
  CHECK(connect(options_for(node.tcp(), "", kSecret))->ping());
  check_error(Client::connect(options_for(node.tcp(), "", kSecret + "?")),
              ErrorCode::kUnauthenticated);
  check_error(Client::connect(options_for(node.tcp())), ErrorCode::kUnauthenticated);
  const std::string key =
      rpc::NamespaceKey::derive(Secret::from_text(kSecret, "test").value(), "team").to_text();
  auto of_key = options_for(node.tcp(), "", key);
  of_key.name_space = "team";
  CHECK(connect(std::move(of_key))->ping());
  check_error(Client::connect(options_for(node.tcp(), "", key)), ErrorCode::kPermissionDenied,
              "team");
  check_error(Client::connect(options_for(node.tcp(), "", key + "0")), ErrorCode::kInvalidArgument,
              "bigcast-key-1");
  const NodeProcess open;
  check_error(Client::connect(options_for(open.tcp(), "", kSecret)), ErrorCode::kUnauthenticated);

  std::string gone;
  {
    const NodeProcess brief;
    gone = brief.tcp();
  }
  check_error(Client::connect(options_for(gone)), ErrorCode::kUnavailable, gone);
  check_error(Client::connect(options_for("unix:@bigcast-nobody")), ErrorCode::kUnavailable,
              "unix:@bigcast-nobody");
  auto several = options_for(gone, "", kSecret);
  several.servers.push_back(node.tcp());
  CHECK(connect(std::move(several))->ping()->address == node.tcp());
  check_error(Client::connect(ClientOptions{}), ErrorCode::kInvalidArgument, "servers");
  check_error(Client::connect(options_for("nonsense")), ErrorCode::kInvalidArgument, "nonsense");
}

TEST_CASE("a reader follows a writer that pauses for as long as writer and node are there") {
  const NodeProcess home;
  const auto writer = connect(options_for(home.tcp()));
  const std::string bytes = random_bytes(3 * kSmallChunk);
  auto upload = writer->upload(named("paused"));
  REQUIRE(upload);
  REQUIRE(send(**upload, bytes.substr(0, kSmallChunk)));
  constexpr uint32_t kTimeoutMs = 3000;
  auto options = options_for(home.tcp());
  options.progress_timeout_ms = kTimeoutMs;
  const auto reader = connect(std::move(options));
  const auto download = reader->download_name("paused").value();
  CHECK(download->next().value().size() == kSmallChunk);

  SUBCASE("it goes on") {
    auto rest = std::async(std::launch::async, [&]() { return read_all(*download); });
    CHECK(rest.wait_for(std::chrono::milliseconds(5 * kTimeoutMs / 2)) ==
          std::future_status::timeout);
    REQUIRE(send(**upload, bytes.substr(kSmallChunk)));
    REQUIRE((*upload)->seal());
    check_same(rest.get(), bytes.substr(kSmallChunk));
  }
  SUBCASE("it gives up") {
    upload->reset();
    check_error(download->next(), ErrorCode::kAborted);
  }
  SUBCASE("its node stops answering") {
    kill(home.pid(), SIGSTOP);
    check_error(download->next(), ErrorCode::kDeadlineExceeded);
    kill(home.pid(), SIGCONT);
  }
}

TEST_CASE("a node that stops answering is given up by progress deadline, then another one serves") {
  const NodeProcess home;
  const NodeProcess relay;
  const std::string bytes = random_bytes(20 * kSmallChunk);
  const auto writer = connect(options_for(home.tcp()));
  const std::string ref = put(*writer, named("patient"), bytes);
  auto options = options_for("", relay.socket());
  options.progress_timeout_ms = 1000;
  const auto reader = connect(std::move(options));
  const auto download = open_ref(*reader, ref);
  kill(relay.pid(), SIGSTOP);
  check_same(read_all(*download), bytes);
  CHECK(download->stats().chunks_reread > 0);
}

}  // namespace bigcast::test
