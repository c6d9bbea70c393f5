#include "tests/server/fixture.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "rpc/login.h"

namespace bigcast::testing {
namespace {

Result<void> to_result(rpc::VoidResult::Reader result) {
  if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
  return {};
}

}  // namespace

std::string unique_socket() { return "unix:@bigcast-test-" + Id128::random().to_string(); }

TestNode::TestNode(rpc::UvLoop& loop, const std::function<void(Config&)>& adjust,
                   std::unique_ptr<Disk> disk) {
  config.listen = {rpc::Address::tcp("127.0.0.1", 0)};
  config.memory_bytes = 64 * limits::kMiB;
  if (adjust) adjust(config);
  auto started = Node::start(loop, config, std::move(disk));
  REQUIRE_MESSAGE(started, (started ? "" : started.error().error.to_string()));
  node = std::move(*started);
}

Result<TestClient> try_login(rpc::UvLoop& loop, const rpc::Address& address, const LoginAs& as) {
  auto connected = rpc::Connection::connect(loop, address).wait(loop.wait_scope());
  if (!connected) return tl::unexpected(connected.error());
  const Secret secret = as.secret.empty() ? Secret() : *Secret::from_text(as.secret, "test");
  auto session =
      rpc::login(loop, **connected, rpc::NamespaceKey::of_client(secret, as.name_space).value(),
                 as.lease, "test")
          .wait(loop.wait_scope());
  if (!session) return tl::unexpected(session.error());
  return TestClient{kj::mv(*connected), kj::mv(*session)};
}

TestClient login(rpc::UvLoop& loop, const rpc::Address& address, const LoginAs& as) {
  auto client = try_login(loop, address, as);
  REQUIRE_MESSAGE(client, (client ? "" : client.error().to_string()));
  return kj::mv(*client);
}

void run_for(rpc::UvLoop& loop, std::chrono::milliseconds time) {
  loop.timer().afterDelay(time.count() * kj::MILLISECONDS).wait(loop.wait_scope());
}

void run_until(rpc::UvLoop& loop, const std::function<bool()>& done, std::string_view what) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!done() && std::chrono::steady_clock::now() < deadline) {
    run_for(loop, std::chrono::milliseconds(5));
  }
  REQUIRE_MESSAGE(done(), "never came: " << std::string(what));
}

Chunk make_chunk(uint32_t index, uint32_t size) {
  Chunk chunk;
  chunk.bytes.resize(size);
  std::mt19937_64 random(index + 1);
  for (char& c : chunk.bytes) c = static_cast<char>(random());
  chunk.meta.index = index;
  chunk.meta.raw_size = size;
  chunk.meta.stored_size = size;
  chunk.meta.digest = digest_of(std::as_bytes(std::span(chunk.bytes)));
  return chunk;
}

Digest128 root_of_chunks(uint32_t count) {
  RootDigest root;
  for (uint32_t i = 0; i < count; i++) root.add(make_chunk(i).meta.digest);
  return root.finish();
}

Result<Created> Caller::create(const NewBlob& blob) {
  auto request = session_.createRequest();
  auto options = request.initOptions();
  options.setName(blob.name.c_str());
  options.setSize(blob.size);
  options.setChunkSize(blob.chunk_size);
  options.setUntilRemoved(blob.until_removed);
  options.setReplace(blob.replace);
  options.setAnnounceFrom(blob.announce_from);
  if (blob.durable) options.setDurability(rpc::Durability::DISK);
  if (blob.striped) rpc::write(*blob.striped, options.initPlaced());
  options.setStripe(static_cast<uint8_t>(blob.stripe));
  auto response = request.send().wait(loop_.wait_scope());
  const auto result = response.getResult();
  if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
  auto ref = rpc::read(result.getCreated().getRef());
  REQUIRE(ref);
  return Created{result.getCreated().getUpload(), *ref};
}

Result<void> Caller::credit(rpc::Upload::Client upload, uint32_t bytes) {
  auto request = upload.creditRequest();
  request.setBytes(bytes);
  return to_result(request.send().wait(loop_.wait_scope()).getResult());
}

Result<void> Caller::put(rpc::Upload::Client upload, const Chunk& chunk) {
  auto request = upload.putRequest();
  rpc::write(chunk.meta, request.initMeta());
  request.setData(capnp::Data::Reader(reinterpret_cast<const kj::byte*>(chunk.bytes.data()),
                                      chunk.bytes.size()));
  return to_result(request.send().wait(loop_.wait_scope()).getResult());
}

Result<void> Caller::send(rpc::Upload::Client upload, const Chunk& chunk) {
  BIGCAST_TRY(credit(upload, chunk.meta.stored_size));
  return put(upload, chunk);
}

capnp::RemotePromise<rpc::Upload::SealResults> start_seal(rpc::Upload::Client upload, uint64_t size,
                                                          uint32_t chunk_count, Digest128 root) {
  auto request = upload.sealRequest();
  request.setRootDigestHi(root.hi);
  request.setRootDigestLo(root.lo);
  request.setSize(size);
  request.setChunkCount(chunk_count);
  return request.send();
}

Result<rpc::BlobRefData> Caller::seal(rpc::Upload::Client upload, uint64_t size,
                                      uint32_t chunk_count, Digest128 root) {
  auto response = start_seal(upload, size, chunk_count, root).wait(loop_.wait_scope());
  const auto result = response.getResult();
  if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
  return rpc::read(result.getRef());
}

rpc::BlobRefData Caller::put_blob(const NewBlob& blob, uint32_t chunks) {
  auto created = create(blob);
  REQUIRE_MESSAGE(created, (created ? "" : created.error().to_string()));
  for (uint32_t i = 0; i < chunks; i++) {
    const auto sent = send(created->upload, make_chunk(i, blob.chunk_size));
    REQUIRE_MESSAGE(sent, (sent ? "" : sent.error().to_string()));
  }
  auto ref = seal(created->upload, uint64_t{chunks} * blob.chunk_size, chunks);
  REQUIRE_MESSAGE(ref, (ref ? "" : ref.error().to_string()));
  return *ref;
}

Result<rpc::Blob::Client> Caller::open(const std::function<void(rpc::OpenTarget::Builder)>& target,
                                       rpc::ReadOrder order) {
  auto request = session_.openRequest();
  target(request.initTarget());
  request.setOrder(order);
  auto response = request.send().wait(loop_.wait_scope());
  const auto result = response.getResult();
  if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
  return result.getOpened().getBlob();
}

Result<rpc::Blob::Client> Caller::open_name(const std::string& name) {
  return open([&](rpc::OpenTarget::Builder target) { target.setName(name.c_str()); });
}

Result<rpc::Blob::Client> Caller::open_ref(const rpc::BlobRefData& ref, rpc::ReadOrder order) {
  return open([&](rpc::OpenTarget::Builder target) { rpc::write(ref, target.initRef()); }, order);
}

Result<rpc::Blob::Client> Caller::open_home(BlobId id) {
  return open([&](rpc::OpenTarget::Builder target) { rpc::write(id, target.initHomeId()); });
}

Result<rpc::Blob::Client> Caller::open_copy(BlobId id) {
  return open([&](rpc::OpenTarget::Builder target) { rpc::write(id, target.initCopyId()); });
}

Result<void> Caller::remove_name(const std::string& name) {
  auto request = session_.removeRequest();
  request.initTarget().setName(name.c_str());
  return to_result(request.send().wait(loop_.wait_scope()).getResult());
}

Result<void> Caller::drop_copies(BlobId id) {
  auto request = session_.dropCopiesRequest();
  rpc::write(id, request.initId());
  return to_result(request.send().wait(loop_.wait_scope()).getResult());
}

Result<rpc::BlobRefData> Caller::stat(const std::string& name) {
  auto request = session_.statRequest();
  request.setName(name.c_str());
  auto response = request.send().wait(loop_.wait_scope());
  const auto result = response.getResult();
  if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
  return rpc::read(result.getInfo().getRef());
}

std::vector<std::string> Caller::list(const std::string& prefix) {
  std::vector<std::string> names;
  bool more = true;
  while (more) {
    auto request = session_.listRequest();
    request.setPrefix(prefix.c_str());
    if (!names.empty()) request.setAfter(names.back().c_str());
    request.setLimit(2);  // so that lists of a few blobs take several pages
    auto response = request.send().wait(loop_.wait_scope());
    for (const auto& info : response.getBlobs()) {
      names.emplace_back(info.getRef().getName().cStr());
    }
    more = response.getMore();
  }
  return names;
}

kj::Promise<ReadAnswer> start_read(rpc::Blob::Client blob, uint32_t index, rpc::ReadMode mode) {
  auto request = blob.readRequest();
  request.setIndex(index);
  request.setMode(mode);
  return request.send().then(
      [](capnp::Response<rpc::Blob::ReadResults> response) {
        ReadAnswer answer;
        const auto result = response.getResult();
        if (result.isError()) answer.error = rpc::read(result.getError());
        answer.is_end = result.isEnd();
        answer.is_located = result.isLocated();
        answer.is_absent = result.isAbsent();
        if (result.isLocated()) {
          answer.meta = *rpc::read(result.getLocated().getMeta(), limits::kChunkSizeMax);
        }
        if (result.isChunk()) {
          answer.meta = *rpc::read(result.getChunk().getMeta(), limits::kChunkSizeMax);
          const auto data = result.getChunk().getData();
          answer.bytes.assign(reinterpret_cast<const char*>(data.begin()),
                              std::min<size_t>(data.size(), answer.meta.stored_size));
        }
        return answer;
      },
      [](kj::Exception&& exception) {
        ReadAnswer answer;
        answer.error = rpc::to_error(exception);
        return answer;
      });
}

ReadAnswer read(rpc::UvLoop& loop, rpc::Blob::Client blob, uint32_t index, rpc::ReadMode mode) {
  return start_read(kj::mv(blob), index, mode).wait(loop.wait_scope());
}

bool matches(const ReadAnswer& answer, const Chunk& chunk) {
  return !answer.error && answer.meta == chunk.meta && answer.bytes == chunk.bytes;
}

TemporaryDirectory::TemporaryDirectory() {
  std::string text = (std::filesystem::temp_directory_path() / "bigcast-test-XXXXXX").string();
  REQUIRE(mkdtemp(text.data()) != nullptr);
  path_ = text;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::string TemporaryDirectory::path(const std::string& name) const {
  return name.empty() ? path_ : path_ + "/" + name;
}

std::string TemporaryDirectory::write(const std::string& name, const std::string& text,
                                      int mode) const {
  std::ofstream(path(name)) << text;
  REQUIRE(chmod(path(name).c_str(), static_cast<mode_t>(mode)) == 0);
  return path(name);
}

}  // namespace bigcast::testing
