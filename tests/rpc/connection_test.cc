#include "rpc/connection.h"

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/limits.h"
#include "codec/codec.h"
#include "rpc/bigcast.capnp.h"
#include "rpc/frame.h"
#include "rpc/progress.h"
#include "rpc/socket.h"
#include "tests/rpc/support.h"

using namespace bigcast;
using namespace bigcast::rpc::testing;
using bigcast::rpc::Address;
using bigcast::rpc::Connection;
using bigcast::rpc::UvLoop;

namespace {

constexpr size_t kChunk = 4 * limits::kMiB;

std::vector<std::byte> random_bytes(size_t size) {
  std::vector<std::byte> bytes(size);
  std::mt19937_64 random(size);
  for (size_t i = 0; i + 8 <= size; i += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, 8);
  }
  return bytes;
}

// Counts itself while it lives, as a chunk's pin in the store does. It owns a copy of the bytes, so
// that a pin that ends too early is a use after free.
class Pin {
 public:
  Pin(const std::vector<std::byte>& bytes, int& alive) : bytes_(bytes), alive_(alive) { ++alive_; }
  ~Pin() { --alive_; }
  capnp::Data::Reader data() const {
    return {reinterpret_cast<const kj::byte*>(bytes_.data()), bytes_.size()};
  }

 private:
  std::vector<std::byte> bytes_;
  int& alive_;
};

struct Store {
  std::vector<std::byte> bytes = random_bytes(kChunk);
  int pins = 0;
  int calls = 0;
  bool wait = false;  // answer never, but fill the results first
  int memory_fd = -1;
};

class MemoryFileServer final : public rpc::MemoryFile::Server {
 public:
  explicit MemoryFileServer(int fd) : fd_(fd) {}
  kj::Maybe<int> getFd() override { return fd_.get(); }

 private:
  kj::AutoCloseFd fd_;
};

class BlobServer final : public rpc::Blob::Server {
 public:
  explicit BlobServer(Store& store) : store_(store) {}

  kj::Promise<void> read(ReadContext context) override {
    ++store_.calls;
    context.allowCancellation();
    auto pin = kj::heap<Pin>(store_.bytes, store_.pins);
    const auto data = pin->data();
    auto chunk = context.getResults(capnp::MessageSize{32, 0}).initResult().initChunk();
    chunk.initMeta().setIndex(context.getParams().getIndex());
    rpc::reply_external(chunk, data, kj::mv(pin));
    if (store_.wait) return kj::NEVER_DONE;
    return kj::READY_NOW;
  }

  kj::Promise<void> memory(MemoryContext context) override {
    const int fd = fcntl(store_.memory_fd, F_DUPFD_CLOEXEC, 0);
    // Both the capability and its descriptor are gone again before the answer is written.
    context.getResults(capnp::MessageSize{16, 1}).setFile(kj::heap<MemoryFileServer>(fd));
    return kj::READY_NOW;
  }

 private:
  Store& store_;
};

struct Fixture {
  explicit Fixture(const Address& address)
      : server(loop, address, [this](Connection& connection) -> capnp::Capability::Client {
          if (bulk) connection.allow_bulk();
          return kj::heap<BlobServer>(store);
        }) {}

  kj::Own<Connection> connect(bool as_node = false) {
    auto connection = as_node ? server.connect_as_node() : server.connect();
    connection->allow_bulk();
    return connection;
  }
  auto read(Connection& connection, uint32_t index) {
    auto request = connection.bootstrap().castAs<rpc::Blob>().readRequest();
    request.setIndex(index);
    return request.send();
  }
  bool pins_are_gone() {
    return run_until(loop, [&]() { return store.pins == 0; });
  }

  UvLoop loop;
  bool bulk = true;
  Store store;
  TestServer server;
};

Address unix_socket() { return Address::unix_socket(abstract_name("connection")); }

Digest128 digest_of_reader(capnp::Data::Reader data) {
  return digest_of({reinterpret_cast<const std::byte*>(data.begin()), data.size()});
}

}  // namespace

TEST_CASE("chunks of 4 MiB arrive whole, over every kind of socket, and their pins end") {
  for (const Address& address : {tcp(), Address::tcp("::1", 0), unix_socket()}) {
    CAPTURE(address.to_string());
    Fixture f(address);
    const Digest128 expected = digest_of(f.store.bytes);
    for (const bool as_node : {false, true}) {
      auto connection = f.connect(as_node);
      std::vector<capnp::RemotePromise<rpc::Blob::ReadResults>> window;
      for (uint32_t i = 0; i < 8; ++i) window.push_back(f.read(*connection, i));
      for (uint32_t i = 0; i < 8; ++i) {
        auto response = window[i].wait(f.loop.wait_scope());
        const auto chunk = response.getResult().getChunk();
        CHECK(chunk.getMeta().getIndex() == i);
        REQUIRE(chunk.getData().size() == kChunk);
        REQUIRE(digest_of_reader(chunk.getData()) == expected);
      }
      CHECK(f.pins_are_gone());
      CHECK(connection->bytes_received() > 8 * kChunk);
      CHECK(f.server.connections().back()->bytes_sent() == connection->bytes_received());
      CHECK(connection->is_unix() == (address.kind == Address::Kind::kUnix));
    }
  }
}

TEST_CASE("a node that gives up a connection in the middle of a chunk lets go of its memory") {
  for (const Address& address : {tcp(), unix_socket()}) {
    Fixture f(address);
    auto connection = f.connect(true);
    std::vector<capnp::RemotePromise<rpc::Blob::ReadResults>> window;
    for (uint32_t i = 0; i < 20; ++i) window.push_back(f.read(*connection, i));
    // Some of a chunk has come, not all of it.
    REQUIRE(
        run_until(f.loop, [&]() { return connection->bytes_received() % kChunk > kChunk / 8; }));
    connection = nullptr;
    CHECK_THROWS_AS(window[19].wait(f.loop.wait_scope()), kj::Exception);
    CHECK(f.pins_are_gone());
  }
}

TEST_CASE("a call that does not come over a connection copies") {
  Fixture f(tcp());
  // Another call's results message, unfinished, must not get the local call's pin.
  auto connection = f.connect();
  f.store.wait = true;
  auto remote = f.read(*connection, 1);
  REQUIRE(run_until(f.loop, [&]() { return f.store.pins == 1; }));
  f.store.wait = false;
  rpc::Blob::Client local = kj::heap<BlobServer>(f.store);
  auto response = local.readRequest().send().wait(f.loop.wait_scope());
  CHECK(f.store.pins == 1);
  CHECK(digest_of_reader(response.getResult().getChunk().getData()) == digest_of(f.store.bytes));
}

TEST_CASE("cancelled calls give their pins back") {
  for (const bool wait : {false, true}) {
    Fixture f(unix_socket());
    f.store.wait = wait;
    auto connection = f.connect();
    {
      std::vector<capnp::RemotePromise<rpc::Blob::ReadResults>> window;
      for (uint32_t i = 0; i < 50; ++i) window.push_back(f.read(*connection, i));
      REQUIRE(run_until(f.loop, [&]() { return f.store.calls == 50; }));
      if (!wait) window[0].wait(f.loop.wait_scope());
    }
    CHECK(f.pins_are_gone());
    f.store.wait = false;
    f.read(*connection, 0).wait(f.loop.wait_scope());
  }
}

TEST_CASE("a client that goes in the middle of answers leaves no pin") {
  for (const Address& address : {tcp(), unix_socket()}) {
    Fixture f(address);
    auto connection = f.connect();
    std::vector<capnp::RemotePromise<rpc::Blob::ReadResults>> window;
    for (uint32_t i = 0; i < 50; ++i) window.push_back(f.read(*connection, i));
    window[0].wait(f.loop.wait_scope());
    connection = nullptr;
    CHECK_THROWS_AS(window[49].wait(f.loop.wait_scope()), kj::Exception);
    CHECK(f.pins_are_gone());
    CHECK(run_until(f.loop, [&]() { return f.server.disconnected() == 1; }));
  }
}

TEST_CASE("a server's connection that is destroyed in the middle of answers leaves no pin") {
  Fixture f(tcp());
  auto connection = f.connect();
  std::vector<capnp::RemotePromise<rpc::Blob::ReadResults>> window;
  for (uint32_t i = 0; i < 50; ++i) window.push_back(f.read(*connection, i));
  window[0].wait(f.loop.wait_scope());
  const auto handle = f.server.connections()[0]->handle();
  CHECK(*handle == f.server.connections()[0].get());
  f.server.connections().clear();
  CHECK(*handle == nullptr);
  CHECK(f.pins_are_gone());
  CHECK_THROWS_AS(window[49].wait(f.loop.wait_scope()), kj::Exception);
  connection->on_disconnect().wait(f.loop.wait_scope());
  connection->on_disconnect().wait(f.loop.wait_scope());
  CHECK_THROWS_AS(f.read(*connection, 0).wait(f.loop.wait_scope()), kj::Exception);
}

namespace {

// Says what a client would say, and reads nothing: asks for `count` chunks.
void ask_for_chunks(int socket, uint32_t count) {
  const auto send = [&](capnp::MessageBuilder& message) {
    const auto words = capnp::messageToFlatArray(message);
    const auto bytes = words.asBytes();
    REQUIRE(::send(socket, bytes.begin(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  };
  capnp::MallocMessageBuilder bootstrap;
  bootstrap.initRoot<capnp::rpc::Message>().initBootstrap().setQuestionId(0);
  send(bootstrap);
  for (uint32_t i = 1; i <= count; ++i) {
    capnp::MallocMessageBuilder message;
    auto call = message.initRoot<capnp::rpc::Message>().initCall();
    call.setQuestionId(i);
    call.initTarget().initPromisedAnswer().setQuestionId(0);
    call.setInterfaceId(capnp::typeId<rpc::Blob>());
    call.setMethodId(0);
    call.initParams().getContent().initAs<rpc::Blob::ReadParams>().setIndex(i);
    send(message);
  }
}

}  // namespace

TEST_CASE("a reader that stalls, then vanishes, leaves no pin") {
  for (const Address& address : {tcp(), unix_socket()}) {
    Fixture f(address);
    {
      RawSocket socket(f.server.address());
      ask_for_chunks(socket.fd(), 50);
      REQUIRE(run_until(f.loop, [&]() { return f.store.calls == 50; }));
      CHECK(f.store.pins > 20);
    }
    CHECK(f.pins_are_gone());
    CHECK(run_until(f.loop, [&]() { return f.server.disconnected() == 1; }));
  }
}

namespace {

// Asks for a chunk and takes so many bytes of it a second, over a socket that holds next to none.
class SlowReader {
 public:
  SlowReader(Fixture& f, double rate) : loop_(f.loop), rate_(rate), began_(f.loop.timer().now()) {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    fd_ = kj::AutoCloseFd(ends[0]);
    const int smallest = 1;
    REQUIRE(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest) == 0);
    f.server.add(ends[1], true);
    ask_for_chunks(fd_.get(), 1);
  }
  void turn() {
    const double elapsed_s =
        static_cast<double>((loop_.timer().now() - began_) / kj::MILLISECONDS) / 1000;
    char bytes[4096];
    const auto due = static_cast<size_t>(elapsed_s * rate_) - taken_;
    const ssize_t got = recv(fd_.get(), bytes, std::min(due, sizeof bytes), 0);
    if (got > 0) taken_ += static_cast<size_t>(got);
  }
  bool is_closed() const {
    char byte = 0;
    pollfd event{fd_.get(), POLLRDHUP, 0};
    return recv(fd_.get(), &byte, 1, MSG_PEEK) == 0 ||
           (poll(&event, 1, 0) > 0 && (event.revents & (POLLHUP | POLLRDHUP)) != 0);
  }

 private:
  UvLoop& loop_;
  const double rate_;
  const kj::TimePoint began_;
  size_t taken_ = 0;
  kj::AutoCloseFd fd_;
};

}  // namespace

// Waits for real deadlines, all at once.
TEST_CASE(
    "deadlines: a peer that takes nothing or next to nothing is closed, one that is slow is not, a "
    "host that does not answer given up") {
  Fixture f(tcp());
  RawSocket stalled(f.server.address());
  ask_for_chunks(stalled.fd(), 10);
  constexpr double kRateMin =
      1000.0 * static_cast<double>(limits::kProgressBytesMin) / limits::kProgressTimeoutMs;
  SlowReader trickling(f, 0.7 * kRateMin);
  SlowReader slow(f, 4 * kRateMin);

  // A listener whose backlog is full drops what else comes.
  const kj::AutoCloseFd full(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto any = value_of(rpc::to_socket_address(tcp()));
  REQUIRE(bind(full.get(), any.get(), any.size) == 0);
  REQUIRE(listen(full.get(), 0) == 0);
  const Address mute = Address::tcp("127.0.0.1", rpc::bound_port(full.get()));
  const auto target = value_of(rpc::to_socket_address(mute));
  std::vector<kj::AutoCloseFd> fillers;
  for (int i = 0; i < 4; ++i) {
    fillers.emplace_back(value_of(rpc::open_socket(target)));
    (void)!::connect(fillers.back().get(), target.get(), target.size);
  }
  const auto result = Connection::connect(f.loop, mute).wait(f.loop.wait_scope());
  REQUIRE_FALSE(result);
  CHECK(result.error().code == ErrorCode::kUnavailable);
  CHECK(result.error().message.find(mute.to_string()) != std::string::npos);

  CHECK(f.store.pins > 0);
  CHECK(f.server.disconnected() == 0);
  CHECK(run_until(
      f.loop,
      [&]() {
        trickling.turn();
        slow.turn();
        return f.server.disconnected() == 2;
      },
      90'000));
  CHECK(trickling.is_closed());
  CHECK_FALSE(slow.is_closed());
  CHECK(f.store.pins == 1);
}

TEST_CASE("a process that stood still itself does not take its peer for stalled") {
  Fixture f(tcp());
  auto connection = f.connect();
  constexpr uint32_t kTimeoutMs = 400;
  auto stalled = rpc::stalled(f.loop, connection->handle(), kTimeoutMs);
  std::this_thread::sleep_for(std::chrono::milliseconds(2 * kTimeoutMs));
  f.loop.timer().afterDelay(1 * kj::MILLISECONDS).wait(f.loop.wait_scope());
  CHECK_FALSE(stalled.poll(f.loop.wait_scope()));
  stalled.wait(f.loop.wait_scope());
}

TEST_CASE("descriptors travel over Unix sockets, and only there") {
  for (const Address& address : {unix_socket(), tcp()}) {
    Fixture f(address);
    const kj::AutoCloseFd memory(memfd_create("bigcast-test", MFD_CLOEXEC));
    REQUIRE(pwrite(memory.get(), "hello", 5, 0) == 5);
    f.store.memory_fd = memory.get();
    auto connection = f.connect();
    // Large answers around it: descriptors must not slip to another frame.
    auto before = f.read(*connection, 0);
    std::vector<capnp::RemotePromise<rpc::Blob::MemoryResults>> asked;
    asked.reserve(20);
    for (int i = 0; i < 20; ++i) {
      asked.push_back(connection->bootstrap().castAs<rpc::Blob>().memoryRequest().send());
    }
    auto after = f.read(*connection, 1);
    for (auto& promise : asked) {
      auto file = promise.wait(f.loop.wait_scope()).getFile();
      const kj::Maybe<int> fd = file.getFd().wait(f.loop.wait_scope());
      if (address.kind == Address::Kind::kTcp) {
        CHECK(fd == nullptr);
        continue;
      }
      KJ_IF_MAYBE (received, fd) {
        char text[5] = {};
        CHECK(pread(*received, text, 5, 0) == 5);
        CHECK(std::string(text, 5) == "hello");
        CHECK((fcntl(*received, F_GETFD) & FD_CLOEXEC) != 0);
      } else {
        FAIL_CHECK("no descriptor arrived");
      }
    }
    before.wait(f.loop.wait_scope());
    after.wait(f.loop.wait_scope());
  }
}

TEST_CASE("frames that lie are closed at once; others go on") {
  Fixture f(tcp());
  f.bulk = false;
  auto good = f.connect();
  const std::vector<std::vector<uint32_t>> frames = {
      {0xFFFFFFFF, 0xFFFFFFFF},            // "no" segments
      {0x7FFFFFFF, 1},                     // 2^31 segments
      {limits::kFrameSegmentsMax, 1},      // one too many
      {0, 0},                              // empty
      {1, 0, 1, 0, 7, 7},                  // empty first segment
      {0, limits::kPreLoginFrameMax / 8},  // a word more than before login
      {0, 0xFFFFFFFF},                     // 32 GiB
      {3, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0},
      {0, 1, 0xFFFFFFFF, 0xFFFFFFFF},  // a root pointer to nowhere
      {0, 2, 0, 1, 9, 9},              // a message of an unknown kind
  };
  size_t closed = 0;
  for (const auto& frame : frames) {
    CAPTURE(closed);
    RawSocket socket(f.server.address());
    socket.send(frame);
    if (closed == 9) break;  // answered by `unimplemented`, not closed
    ++closed;
    REQUIRE(run_until(f.loop, [&]() { return f.server.disconnected() == closed; }));
    char rest[4096];
    ssize_t got = 1;
    while (got > 0) got = recv(socket.fd(), rest, sizeof rest, 0);
    CHECK(got <= 0);
  }
  good->on_disconnect();
  auto call = f.read(*good, 0);
  call.wait(f.loop.wait_scope());
  CHECK(f.store.calls == 1);
}

TEST_CASE("random bytes never do more than end their connection") {
  Fixture f(unix_socket());
  std::mt19937 random(7);
  for (size_t round = 0; round < 200; ++round) {
    RawSocket socket(f.server.address());
    std::vector<uint32_t> words = {0, 8};
    for (int i = 0; i < 16; ++i) {
      words.push_back(random() % 3 == 0 ? static_cast<uint32_t>(random()) : random() % 16);
    }
    socket.send(words);
    f.loop.timer().afterDelay(1 * kj::MILLISECONDS).wait(f.loop.wait_scope());
  }
  CHECK(run_until(f.loop, [&]() { return f.server.disconnected() == 200; }));
  auto connection = f.connect();
  f.read(*connection, 0).wait(f.loop.wait_scope());
}

TEST_CASE("a client that is not allowed bulk frames refuses them") {
  Fixture f(tcp());
  auto connection = f.server.connect();
  CHECK_THROWS_AS(f.read(*connection, 0).wait(f.loop.wait_scope()), kj::Exception);
  CHECK(f.pins_are_gone());
}

TEST_CASE("a peer can't have more calls open than the limit") {
  Fixture f(tcp());
  f.bulk = false;
  f.store.wait = true;
  auto connection = f.connect();
  std::vector<capnp::RemotePromise<rpc::Blob::ReadResults>> calls;
  for (uint32_t i = 0; i < limits::kPreLoginCallsMax; ++i) calls.push_back(f.read(*connection, i));
  // The bootstrap was answered; so many calls are open, and one more is too much.
  CHECK(run_until(f.loop, [&]() { return f.store.calls == limits::kPreLoginCallsMax; }));
  CHECK(f.server.disconnected() == 0);
  calls.push_back(f.read(*connection, 99));
  CHECK(run_until(f.loop, [&]() { return f.server.disconnected() == 1; }));
}

TEST_CASE("connecting to nobody is UNAVAILABLE and names the address") {
  UvLoop loop;
  const auto check_refused = [&](const Address& address) {
    const auto result = Connection::connect(loop, address).wait(loop.wait_scope());
    REQUIRE_FALSE(result);
    CHECK(result.error().code == ErrorCode::kUnavailable);
    CHECK(result.error().message.find(address.to_string()) != std::string::npos);
  };
  Address closed_port = tcp();
  {
    const auto listener = value_of(rpc::Listener::listen(loop, tcp()));
    closed_port = listener->address();
  }
  check_refused(closed_port);
  check_refused(Address::unix_socket(abstract_name("nobody")));
  check_refused(Address::unix_socket("/nonexistent/socket"));
  const auto bad = Connection::connect(loop, Address::tcp("localhost", 1)).wait(loop.wait_scope());
  REQUIRE_FALSE(bad);
  CHECK(bad.error().code == ErrorCode::kInvalidArgument);
}

TEST_CASE("an idle connection costs no CPU") {
  Fixture f(tcp());
  auto connection = f.connect();
  f.read(*connection, 0).wait(f.loop.wait_scope());
  REQUIRE(f.pins_are_gone());
  const clock_t before = clock();
  f.loop.timer().afterDelay(300 * kj::MILLISECONDS).wait(f.loop.wait_scope());
  CHECK(static_cast<double>(clock() - before) / CLOCKS_PER_SEC < 0.1);
}
