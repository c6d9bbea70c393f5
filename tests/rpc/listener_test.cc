#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/io.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "rpc/socket.h"
#include "tests/rpc/support.h"

using namespace bigcast;
using namespace bigcast::rpc;
using namespace bigcast::rpc::testing;

namespace {

struct TemporaryDirectory {
  TemporaryDirectory() {
    char pattern[] = "/tmp/bigcast-test-XXXXXX";
    path = mkdtemp(pattern);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
  std::string path;
};

}  // namespace

TEST_CASE("an address in use is ALREADY_EXISTS and named") {
  UvLoop loop;
  TemporaryDirectory directory;
  for (const Address& address : {Address::tcp("127.0.0.1", 0), Address::tcp("::1", 0),
                                 Address::unix_socket(abstract_name("twice")),
                                 Address::unix_socket(directory.path + "/socket")}) {
    CAPTURE(address.to_string());
    auto first = value_of(Listener::listen(loop, address));
    const auto second = Listener::listen(loop, first->address());
    REQUIRE_FALSE(second);
    CHECK(second.error().code == ErrorCode::kAlreadyExists);
    CHECK(second.error().message.find(first->address().to_string()) != std::string::npos);
    const Address bound = first->address();
    first = nullptr;
    CHECK(Listener::listen(loop, bound));
  }
  CHECK(std::filesystem::is_empty(directory.path));
}

TEST_CASE("an address that is not ours is IO") {
  UvLoop loop;
  for (const Address& address :
       {Address::tcp("192.0.2.1", 0), Address::unix_socket("/nonexistent/socket")}) {
    const auto listener = Listener::listen(loop, address);
    REQUIRE_FALSE(listener);
    CHECK(listener.error().code == ErrorCode::kIo);
    CHECK(listener.error().message.find(address.to_string()) != std::string::npos);
  }
}

TEST_CASE("a socket file is private, replaced when stale, and never a file of others") {
  UvLoop loop;
  TemporaryDirectory directory;
  const Address address = Address::unix_socket(directory.path + "/socket");
  auto listener = value_of(Listener::listen(loop, address));
  struct stat status {};
  REQUIRE(stat(address.path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  // What a killed node leaves: a file that nobody listens on.
  const std::string kept = directory.path + "/kept";
  std::filesystem::rename(address.path, kept);
  listener = nullptr;
  std::filesystem::rename(kept, address.path);
  listener = value_of(Listener::listen(loop, address));
  // Another listener's file in our place stays when we go.
  std::filesystem::remove(address.path);
  auto other = value_of(Listener::listen(loop, address));
  listener = nullptr;
  CHECK(std::filesystem::exists(address.path));
  other = nullptr;
  CHECK_FALSE(std::filesystem::exists(address.path));
  // An ordinary file is not ours to remove.
  kj::AutoCloseFd file(open(address.path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  CHECK(Listener::listen(loop, address).error().code == ErrorCode::kAlreadyExists);
  CHECK(std::filesystem::exists(address.path));
}

TEST_CASE("when descriptors run out, accepting pauses without spinning and goes on") {
  UvLoop loop;
  auto listener = value_of(Listener::listen(loop, Address::tcp("127.0.0.1", 0)));
  std::vector<kj::AutoCloseFd> accepted;
  auto accepting = listener->accept_loop([&](int fd, bool) { accepted.emplace_back(fd); })
                       .eagerlyEvaluate(nullptr);
  RawSocket before(listener->address());
  REQUIRE(run_until(loop, [&]() { return accepted.size() == 1; }));
  RawSocket one(listener->address());
  RawSocket two(listener->address());
  {
    std::vector<kj::AutoCloseFd> fillers;
    rlimit old_limit{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &old_limit) == 0);
    const rlimit low{256, old_limit.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
    for (int fd = dup(0); fd >= 0; fd = dup(0)) fillers.emplace_back(fd);
    const clock_t cpu = clock();
    loop.timer().afterDelay(400 * kj::MILLISECONDS).wait(loop.wait_scope());
    CHECK(static_cast<double>(clock() - cpu) / CLOCKS_PER_SEC < 0.1);
    CHECK(accepted.size() == 1);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &old_limit) == 0);
  }
  CHECK(run_until(loop, [&]() { return accepted.size() == 3; }));
}
