#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/client_native/support.h"

namespace bigcast::test {

namespace {

UploadOptions mappable(const std::string& name) {
  UploadOptions options = named(name);
  options.mappable = true;
  return options;
}

std::unique_ptr<Mapping> map_or_fail(Client& client, const std::string& ref) {
  auto mapping = client.map_ref(ref);
  if (!mapping) FAIL(mapping.error().to_string());
  return std::move(*mapping);
}

bool shows(const Mapping& mapping, std::string_view bytes) {
  const auto mapped = mapping.bytes();
  return mapped.size() == bytes.size() &&
         std::memcmp(mapped.data(), bytes.data(), bytes.size()) == 0;
}

NodeOptions with_memory(const std::string& memory) {
  NodeOptions options;
  options.memory = memory;
  return options;
}

// A process that has mapped a blob.
class ReaderProcess {
 public:
  ReaderProcess(const std::string& socket, const std::string& ref) {
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) read(socket, ref, ready[1]);
    close(ready[1]);
    char answer = 0;
    const bool mapped = ::read(ready[0], &answer, 1) == 1 && answer == 'y';
    close(ready[0]);
    REQUIRE(mapped);
  }
  ReaderProcess(const ReaderProcess&) = delete;
  ReaderProcess& operator=(const ReaderProcess&) = delete;
  ~ReaderProcess() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  [[noreturn]] static void read(const std::string& socket, const std::string& ref, int ready) {
    auto client = Client::connect(options_for("", socket));
    if (!client) _exit(1);
    const auto mapping = (*client)->map_ref(ref);
    if (write(ready, mapping ? "y" : "n", 1) != 1) _exit(1);
    for (;;) pause();
  }

  pid_t pid_ = 0;
};

// How often `part` is in the only file of a folder.
size_t count_in(const std::string& folder, const std::string& part) {
  std::ostringstream text;
  text << std::ifstream(std::filesystem::directory_iterator(folder)->path()).rdbuf();
  size_t count = 0;
  for (size_t at = 0; (at = text.str().find(part, at)) != std::string::npos; ++at) ++count;
  return count;
}

bool another_user_can_open(const std::string& path) {
  constexpr uid_t kNobody = 65534;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(setuid(kNobody) == 0 && open(path.c_str(), O_RDONLY) < 0 ? 0 : 1);
  int status = 1;
  waitpid(child, &status, 0);
  return status != 0;
}

}  // namespace

TEST_CASE("a blob is mapped at its home and through a relay, in several clients") {
  const NodeProcess home;
  const NodeProcess relay;
  const auto writer = connect(options_for(home.tcp()));
  const auto at_home = connect(options_for("", home.socket()));
  const auto at_relay = connect(options_for("", relay.socket()));
  const auto another = connect(options_for("", relay.socket()));
  for (const size_t size : {size_t{1}, size_t{64 * 1024}, 5 * limits::kMiB + 13}) {
    CAPTURE(size);
    const std::string bytes = compressible_bytes(size);
    const std::string ref = put(*writer, mappable("mapped-" + std::to_string(size)), bytes);
    CHECK(shows(*map_or_fail(*at_home, ref), bytes));
    const auto mapping = map_or_fail(*at_relay, ref);
    CHECK(shows(*mapping, bytes));
    CHECK(shows(*map_or_fail(*another, ref), bytes));
    CHECK(shows(*mapping, bytes));
    CHECK(reinterpret_cast<uintptr_t>(mapping->bytes().data()) % 4096 == 0);
    check_same(read_all(*open_ref(*another, ref)), bytes);
  }
  const auto summary = writer->stat("mapped-1");
  REQUIRE(summary);
  CHECK(summary->mappable);
  CHECK(shows(*map_or_fail(*at_relay, summary->ref), compressible_bytes(1)));
}

TEST_CASE("what can't be mapped says why, and can be copied") {
  const NodeProcess node(with_memory("16m"));
  const auto by_tcp = connect(options_for(node.tcp()));
  const auto client = connect(options_for("", node.socket()));
  const std::string bytes = random_bytes(9 * limits::kMiB);
  const std::string plain = put(*by_tcp, named("plain"), bytes.substr(0, 100'000));
  const std::string empty = put(*by_tcp, mappable("empty"), "");
  const std::string large = put(*by_tcp, mappable("large"), bytes);
  check_error(client->map_ref(plain), ErrorCode::kNotMappable, "mappable");
  check_error(client->map_ref(empty), ErrorCode::kNotMappable, "empty");
  check_error(client->map_ref(large), ErrorCode::kNotMappable, "can't be mapped now");
  check_error(by_tcp->map_ref(large), ErrorCode::kNotMappable, "no node of this host");
  check_same(read_all(*open_ref(*client, large)), bytes);
  auto striped = mappable("striped");
  striped.homes = 2;
  check_error(by_tcp->upload(striped), ErrorCode::kInvalidArgument, "mappable");
  REQUIRE(by_tcp->remove_ref(large));
  check_error(client->map_ref(large), ErrorCode::kNotFound);
}

TEST_CASE("a mapping outlives its blob, its client and its connection, and is then returned") {
  NodeProcess node(with_memory("16m"));
  const auto writer = connect(options_for(node.tcp()));
  const std::string bytes = random_bytes(7 * limits::kMiB);
  const std::string other = put(*writer, mappable("other"), bytes);
  const std::string ref = put(*writer, mappable("first"), bytes);
  std::unique_ptr<Mapping> mapping;
  {
    const auto client = connect(options_for("", node.socket()));
    mapping = map_or_fail(*client, ref);
  }
  REQUIRE(writer->remove_ref(ref));
  CHECK(shows(*mapping, bytes));
  const auto client = connect(options_for("", node.socket()));
  check_error(client->map_ref(other), ErrorCode::kNotMappable, "now");
  mapping.reset();
  CHECK(eventually([&] { return client->map_ref(other).has_value(); }));
  mapping = map_or_fail(*client, other);
  node.end(SIGKILL);
  CHECK(shows(*mapping, bytes));
}

TEST_CASE("a blob is lent as a file that other processes can open and not change") {
  const NodeProcess home;
  const NodeProcess relay(with_memory("16m"));
  const auto writer = connect(options_for(home.tcp()));
  const auto client = connect(options_for("", relay.socket()));
  const std::string bytes = random_bytes(7 * limits::kMiB);
  const std::string ref = put(*writer, mappable("lent"), bytes);
  const std::string other = put(*writer, mappable("other"), bytes);
  auto lent = client->lend_ref(ref);
  REQUIRE(lent);
  const std::string path =
      "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string((*lent)->descriptor());
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(file >= 0);
  const auto content = [&] {
    std::string read(bytes.size(), '\0');
    CHECK(pread(file, read.data(), read.size(), 0) == static_cast<ssize_t>(read.size()));
    return read;
  };
  check_same(content(), bytes);
  const int writing = open(path.c_str(), O_RDWR | O_CLOEXEC);  // root may open it
  CHECK((writing < 0 || pwrite(writing, "x", 1, 0) < 0));
  if (writing >= 0) close(writing);
  CHECK((getuid() != 0 || !another_user_can_open(path)));
  check_error(client->lend_ref(other), ErrorCode::kNotMappable, "now");
  lent->reset();
  CHECK(eventually([&] { return client->lend_ref(other).has_value(); }));
  check_same(content(), bytes);  // as long as it is open
  close(file);
}

TEST_CASE("a reader that is killed gives its mappings back") {
  const NodeProcess small(with_memory("16m"));
  const NodeProcess large(with_memory("64m"));
  const NodeProcess relay(with_memory("16m"));
  const std::pair<const NodeProcess*, const NodeProcess*> pairs[] = {{&small, &small},
                                                                     {&large, &relay}};
  for (const auto& [home, node] : pairs) {
    std::string first;
    std::string second;
    const std::string bytes = random_bytes(7 * limits::kMiB);
    {
      const auto writer = connect(options_for(home->tcp()));
      first = put(*writer, mappable("first"), bytes);
      second = put(*writer, mappable("second"), bytes);
    }
    ReaderProcess reader(node->socket(), first);  // forked while this process has one thread
    const auto client = connect(options_for("", node->socket()));
    check_error(client->map_ref(second), ErrorCode::kNotMappable, "now");
    CHECK(shows(*map_or_fail(*client, first), bytes));
    reader.kill();
    CHECK(eventually([&] { return client->map_ref(second).has_value(); }));
  }
}

TEST_CASE("a child of fork leaves its parent's mapping alone") {
  const NodeProcess node;
  const auto client = connect(options_for(node.tcp(), node.socket()));
  const std::string bytes = random_bytes(limits::kMiB);
  auto mapping = map_or_fail(*client, put(*client, mappable("blob"), bytes));
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const auto view = mapping->bytes();
    mapping.reset();
    _exit(std::memcmp(view.data(), bytes.data(), bytes.size()) == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(shows(*mapping, bytes));
}

TEST_CASE("traces have what is mapped, what another node takes and what a lease's end frees") {
  std::string folder = std::filesystem::temp_directory_path() / "bigcast-traces-XXXXXX";
  REQUIRE(mkdtemp(folder.data()) != nullptr);
  const auto recording = [&](const std::string& name) {
    std::filesystem::create_directory(folder + "/" + name);
    NodeOptions options;
    options.more = {"--record-trace", folder + "/" + name, "--lease-grace", "100ms"};
    return options;
  };
  {
    const NodeProcess home(recording("home"));
    NodeProcess relay(recording("relay"));
    auto leased = options_for(home.tcp());
    leased.lease = Id128::random();
    auto writer = connect(std::move(leased));
    auto options = mappable("three chunks");
    options.until_removed = false;
    const std::string ref = put(*writer, options, random_bytes(3 * kSmallChunk));
    const auto reader = connect(options_for("", relay.socket()));
    map_or_fail(*reader, ref);
    check_same(read_all(*open_ref(*reader, ref)), random_bytes(3 * kSmallChunk));
    writer.reset();
    CHECK(eventually([&]() { return count_in(folder + "/home", "release") == 1; }));
    CHECK(relay.end(SIGTERM) == 0);
  }
  CHECK(count_in(folder + "/home", "put") == 1);
  CHECK(count_in(folder + "/home", "chunk\",") == 3);  // the relay's
  CHECK(count_in(folder + "/home", "stream") == 0);
  CHECK(count_in(folder + "/relay", "put") == 1);
  CHECK(count_in(folder + "/relay", "chunk\",") == 6);
  CHECK(count_in(folder + "/relay", "order\":\"fixed") == 1);
  CHECK(count_in(folder + "/relay", "stream") == 5);  // opened, three chunks, closed
  std::filesystem::remove_all(folder);
}

}  // namespace bigcast::test
