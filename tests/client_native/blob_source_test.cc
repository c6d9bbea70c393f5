#include "client_native/blob_source.h"

#include <sys/mman.h>
#include <unistd.h>

#include "tests/client_native/support.h"

namespace bigcast::test {

namespace {

constexpr uint32_t kSourceChunk = limits::kChunkSizeMin;

// The far side of one open blob: all chunks in one memory file, which is there or not as told.
class ScriptedBlob final : public rpc::Blob::Server {
 public:
  struct Script {
    std::string bytes;
    int fd = -1;
    bool has_file = false;        // `memory` answers a capability ...
    bool has_descriptor = false;  // ... that comes with a descriptor
    int reads_located = 0;
    int reads_inline = 0;
  };
  explicit ScriptedBlob(Script& script) : script_(script) {}

  kj::Promise<void> read(ReadContext context) override {
    const uint32_t index = context.getParams().getIndex();
    const std::string bytes = script_.bytes.substr(uint64_t{index} * kSourceChunk, kSourceChunk);
    const auto meta = encode_chunk(index, std::as_bytes(std::span(bytes)), {}, Compression::kNever);
    auto result = context.getResults().initResult();
    if (context.getParams().getMode() == rpc::ReadMode::PREFER_LOCATED) {
      ++script_.reads_located;
      auto located = result.initLocated();
      rpc::write(meta, located.initMeta());
      located.setGeneration(1);
    } else {
      ++script_.reads_inline;
      auto chunk = result.initChunk();
      rpc::write(meta, chunk.initMeta());
      chunk.setData({reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()});
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> memory(MemoryContext context) override {
    if (!script_.has_file) return kj::READY_NOW;
    context.getResults().setFile(kj::heap<File>(script_.has_descriptor ? script_.fd : -1));
    context.getResults().setGeneration(1);
    return kj::READY_NOW;
  }

 private:
  class File final : public rpc::MemoryFile::Server {
   public:
    explicit File(int fd) : fd_(fd) {}
    kj::Maybe<int> getFd() override {
      if (fd_ < 0) return nullptr;
      return fd_;
    }

   private:
    int fd_;
  };
  Script& script_;
};

// A source over a real socket to a ScriptedBlob.
struct Scripted {
  Scripted() {
    script.bytes = random_bytes(4 * kSourceChunk);
    script.fd = memfd_create("scripted", MFD_CLOEXEC);
    REQUIRE(pwrite(script.fd, script.bytes.data(), script.bytes.size(), 0) ==
            static_cast<ssize_t>(script.bytes.size()));
    const auto address =
        rpc::Address::parse("unix:@bigcast-scripted-" + Id128::random().to_string()).value();
    auto listener = rpc::Listener::listen(loop, address);
    REQUIRE(listener);
    auto accepting = (*listener)
                         ->accept_loop([this](int fd, bool is_unix) {
                           server = rpc::Connection::serve(loop, fd, is_unix, [this](auto&) {
                             return kj::heap<ScriptedBlob>(script);
                           });
                           server->allow_bulk();
                         })
                         .eagerlyEvaluate(nullptr);
    auto connected = rpc::Connection::connect(loop, address).wait(loop.wait_scope());
    REQUIRE(connected);
    (*connected)->allow_bulk();
    auto blob = (*connected)->bootstrap().castAs<rpc::Blob>();
    auto session =
        kj::refcounted<NodeSession>(kj::mv(*connected), rpc::Session::Client(nullptr), "scripted");
    SourceOptions options{&loop, limits::kProgressTimeoutMs, true, kSourceChunk,
                          std::make_shared<ChunkBuffers>(encode_bound(kSourceChunk))};
    source = kj::refcounted<BlobSource>(std::move(options), kj::mv(session), kj::mv(blob));
    fetch(3);  // so that the connection is accepted before the listener goes
  }
  ~Scripted() {
    source = nullptr;
    server = nullptr;
    close(script.fd);
  }

  void fetch(uint32_t index) {
    const auto chunk = source->fetch(index, WaitsFor::kNode).wait(loop.wait_scope());
    REQUIRE(chunk);
    const std::string expected = script.bytes.substr(uint64_t{index} * kSourceChunk, kSourceChunk);
    CHECK(std::memcmp(chunk->raw.data(), expected.data(), expected.size()) == 0);
  }

  rpc::UvLoop loop;
  ScriptedBlob::Script script;
  kj::Own<rpc::Connection> server;
  kj::Own<BlobSource> source;
};

}  // namespace

TEST_CASE("a memory file that was empty once is asked for again") {
  Scripted blob;  // its first chunk came inline
  CHECK(blob.script.reads_inline == 1);
  blob.script.has_file = blob.script.has_descriptor = true;
  for (uint32_t index = 0; index < 3; ++index) blob.fetch(index);
  CHECK(blob.script.reads_inline == 1);
  CHECK(blob.script.reads_located == 4);
}

TEST_CASE("where descriptors do not arrive, chunks are asked for inline from then on") {
  Scripted blob;
  blob.script.has_file = true;
  for (uint32_t index = 0; index < 3; ++index) blob.fetch(index);
  CHECK(blob.script.reads_located == 2);
  CHECK(blob.script.reads_inline == 4);
}

}  // namespace bigcast::test
