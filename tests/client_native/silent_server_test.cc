#include <chrono>
#include <csignal>
#include <functional>

#include "tests/client_native/support.h"

using namespace bigcast;
using namespace bigcast::test;

namespace {

// It takes connections, as the system does that for it, and answers nothing.
class Stopped {
 public:
  explicit Stopped(const NodeProcess& node) : pid_(node.pid()) {
    REQUIRE(kill(pid_, SIGSTOP) == 0);
  }
  ~Stopped() { kill(pid_, SIGCONT); }
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;

 private:
  const pid_t pid_;
};

double seconds_for(const std::function<void()>& work) {
  const auto began = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

ClientOptions both(const NodeProcess& first, const NodeProcess& second) {
  auto options = options_for(first.tcp());
  options.servers.push_back(second.tcp());
  return options;
}

bool answers(Client& client, const NodeProcess& node) {
  const auto answer = client.ping();
  return answer && answer->address == node.tcp();
}

constexpr double kLoginTimeoutS = limits::kLoginTimeoutMs / 1000.0;

}  // namespace

TEST_CASE("a server that hangs and stands first costs a client less than the time for a login") {
  NodeProcess hanging;
  const NodeProcess working;
  const auto bytes = random_bytes(300'000);
  {
    const Stopped stopped(hanging);
    std::unique_ptr<Client> client;
    const double all = seconds_for([&] {
      client = connect(both(hanging, working));
      put(*client, named("a"), bytes);
      auto download = client->download_name("a");
      REQUIRE(download);
      check_same(read_all(**download), bytes);
      CHECK(client->stat("a"));
      CHECK(client->remove_name("a"));
    });
    MESSAGE("all of it: " << all << " s");
    CHECK(all < kLoginTimeoutS);
    // What no other has may be there.
    check_error(client->stat("a"), ErrorCode::kDeadlineExceeded, hanging.tcp());
    CHECK(client->ping()->address == working.tcp());
  }
  // It is the first again once it answers.
  const auto client = connect(both(hanging, working));
  CHECK(eventually([&] { return answers(*client, hanging); }));
  CHECK(hanging.end(SIGTERM) == 0);
}

TEST_CASE("a server that begins to hang is asked last") {
  NodeProcess hanging;
  const NodeProcess working;
  auto options = both(hanging, working);
  options.progress_timeout_ms = 1'000;
  const auto client = connect(std::move(options));
  CHECK(eventually([&] { return answers(*client, hanging); }));
  const auto ref = put(*connect(options_for(working.tcp())), named("a"), random_bytes(1000));
  {
    const Stopped stopped(hanging);
    CHECK(eventually([&] { return answers(*client, working); }));
    const double removal = seconds_for([&] { CHECK(client->remove_ref(ref)); });
    MESSAGE("a removal: " << removal << " s");
    CHECK(removal < limits::kNextServerMs / 1000.0);
  }
  CHECK(eventually([&] { return answers(*client, hanging); }));
  CHECK(hanging.end(SIGTERM) == 0);
}
