#include "client_native/application_secret.h"
#include "rpc/convert.h"
#include "tests/client_native/support.h"
#include "tests/support/lying_node.h"

namespace bigcast::test {

namespace {

const std::string kNodeSecret(32, 'n');
constexpr uint32_t kEncryptedChunk = limits::kChunkSizeMin;
constexpr size_t kRoom = kEncryptedChunk - kSealOverhead;

Secret secret_of(char c) { return Secret::from_text(std::string(32, c), "test").value(); }

ClientOptions encrypted(const std::string& server, const std::string& local = "",
                        char secret = 's') {
  auto options = options_for(server, local);
  options.chunk_secret = secret_of(secret);
  return options;
}

}  // namespace

TEST_CASE("an encrypted blob reads back by whoever has the secret, from memory files, too") {
  const NodeProcess node;
  const auto writer = connect(encrypted(node.tcp()));
  for (const size_t size : {size_t{0}, size_t{1}, kRoom, kRoom + 1, 40 * kRoom + 5}) {
    for (const std::string& bytes : {random_bytes(size), compressible_bytes(size)}) {
      UploadOptions options = named("blob", kEncryptedChunk);
      options.replace = true;
      options.size = size;
      const std::string ref = put(*writer, options, bytes);
      for (const std::string& local : {std::string(), node.socket()}) {
        const auto reader = connect(encrypted(node.tcp(), local));
        const auto download = open_ref(*reader, ref);
        CHECK(download->size() == size);
        check_same(read_all(*download), bytes);
        CHECK(download->stats().raw_bytes == size);
        CHECK(download->stats().chunks_forged == 0);
        if (!local.empty() && size > limits::kInlineBlobSizeMax) {
          CHECK(download->stats().chunks_located > 0);
        }
      }
    }
  }
}

TEST_CASE("stripes and relays carry sealed chunks like any others") {
  const NodeProcess one;
  const NodeProcess two;
  const NodeProcess relay;
  auto both = encrypted(one.tcp());
  both.servers.push_back(two.tcp());
  const auto writer = connect(std::move(both));
  UploadOptions options = named("blob", kEncryptedChunk);
  options.homes = 2;
  const std::string bytes = random_bytes(9 * kRoom + 1);
  const std::string ref = put(*writer, options, bytes);
  const auto reader = connect(encrypted("", relay.socket()));
  check_same(read_all(*open_ref(*reader, ref)), bytes);
}

TEST_CASE("two uploads of the same bytes have nothing in common") {
  const NodeProcess node;
  const auto writer = connect(encrypted(node.tcp()));
  const std::string bytes = compressible_bytes(3 * kRoom);
  const auto one =
      rpc::BlobRefData::from_bytes(put(*writer, named("one", kEncryptedChunk), bytes)).value();
  const auto two =
      rpc::BlobRefData::from_bytes(put(*writer, named("two", kEncryptedChunk), bytes)).value();
  CHECK(one.key_id != two.key_id);
  CHECK(one.root_digest != two.root_digest);
}

TEST_CASE("without the secret, or with another, nothing is read") {
  const NodeProcess node;
  const auto writer = connect(encrypted(node.tcp()));
  const std::string ref = put(*writer, named("blob", kEncryptedChunk), random_bytes(5 * kRoom));

  const auto stranger = connect(options_for(node.tcp()));
  check_error(stranger->download_ref(ref), ErrorCode::kPermissionDenied, "encrypted");
  auto by_name = stranger->download_name("blob");
  REQUIRE(by_name);
  check_error(read_all(**by_name), ErrorCode::kPermissionDenied, "encrypted");

  const auto other = connect(encrypted(node.tcp(), "", 't'));
  const auto download = open_ref(*other, ref);
  check_error(read_all(*download), ErrorCode::kCorrupt);
  CHECK(download->stats().chunks_forged > 0);
  CHECK(download->stats().raw_bytes == 0);
}

TEST_CASE("who has the secret reads nothing that is not encrypted, and nothing by name") {
  const NodeProcess node;
  const auto plain = connect(options_for(node.tcp()));
  const std::string bytes = random_bytes(5 * kRoom);
  const std::string plain_ref = put(*plain, named("plain", kEncryptedChunk), bytes);
  const auto reader = connect(encrypted(node.tcp()));
  check_error(reader->download_ref(plain_ref), ErrorCode::kInvalidArgument, "not encrypted");
  check_error(reader->download_name("plain"), ErrorCode::kUnsupported, "ref");

  // A ref that says otherwise does not help: the chunks are looked at.
  auto forged = rpc::BlobRefData::from_bytes(plain_ref).value();
  forged.key_id = Id128::random();
  const auto download = open_ref(*reader, forged.to_bytes());
  check_error(read_all(*download), ErrorCode::kCorrupt, "not encrypted");
  CHECK(download->stats().chunks_forged > 0);

  // What is still being written has no end that could be believed.
  forged.size.reset();
  check_error(reader->download_ref(forged.to_bytes()), ErrorCode::kInvalidArgument, "sealed");
}

TEST_CASE("a node that alters chunks and fixes their checksums is left; nothing of them is given") {
  NodeOptions options;
  options.secret = kNodeSecret;
  const NodeProcess honest(options);
  LyingNode liar("127.0.0.1:0", honest.tcp(), secret_of('n'));
  const auto connect_to = [](std::vector<std::string> servers) {
    auto options = encrypted(servers[0]);
    options.secret = secret_of('n');
    options.servers = std::move(servers);
    return connect(std::move(options));
  };
  const auto writer = connect_to({honest.tcp()});
  const std::string bytes = random_bytes(9 * kRoom);
  auto ref =
      rpc::BlobRefData::from_bytes(put(*writer, named("blob", kEncryptedChunk), bytes)).value();
  ref.homes = {rpc::Address::parse(liar.address()).value()};

  SUBCASE("another source is honest") {
    const auto reader = connect_to({liar.address(), honest.tcp()});
    const auto download = open_ref(*reader, ref.to_bytes());
    check_same(read_all(*download), bytes);
    CHECK(liar.lies() > 0);
    CHECK(download->stats().chunks_forged > 0);
  }
  SUBCASE("there is none") {
    const auto reader = connect_to({liar.address()});
    const auto download = open_ref(*reader, ref.to_bytes());
    check_error(download->next(), ErrorCode::kCorrupt, "did not make it");
    CHECK(download->stats().raw_bytes == 0);
    CHECK(download->stats().chunks_forged > 0);
    liar.lie(false);
    check_same(read_all(*open_ref(*reader, ref.to_bytes())), bytes);
  }
}

TEST_CASE("without encryption the same lie is believed until the end: why shared nodes need it") {
  const NodeProcess honest;
  LyingNode liar("127.0.0.1:0", honest.tcp(), Secret());
  const auto writer = connect(options_for(liar.address()));
  const std::string bytes = random_bytes(3 * kEncryptedChunk);
  auto ref =
      rpc::BlobRefData::from_bytes(put(*writer, named("blob", kEncryptedChunk), bytes)).value();
  ref.homes = {rpc::Address::parse(liar.address()).value()};
  const auto reader = connect(options_for(liar.address()));
  const auto download = open_ref(*reader, ref.to_bytes());
  CHECK(download->next());
  check_error(read_all(*download), ErrorCode::kCorrupt, "root digest");
}

TEST_CASE("an application's secrets differ by purpose and application") {
  const Secret root = secret_of('r');
  const std::vector<Secret> secrets = [&] {
    std::vector<Secret> made;
    for (const std::string application : {"a", "b"}) {
      made.push_back(node_secret(root, application));
      made.push_back(chunk_secret(root, application));
    }
    made.push_back(node_secret(secret_of('q'), "a"));
    return made;
  }();
  for (size_t i = 0; i < secrets.size(); ++i) {
    CHECK(secrets[i].bytes().size() == 64);
    for (size_t j = 0; j < i; ++j) CHECK(secrets[i].bytes() != secrets[j].bytes());
  }
  CHECK(node_secret(root, "a").bytes() == secrets[0].bytes());
}

}  // namespace bigcast::test
