#include "client_native/embedded_node.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <vector>

#include "tests/client_native/support.h"

namespace bigcast::test {

namespace {

EmbeddedNodeOptions embedded_options() {
  EmbeddedNodeOptions options;
  options.program = BIGCAST_BIN_DIR "/bigcastd";
  options.application_id = Id128::random().to_string();
  options.secret = Secret::from_text(kSecret, "test").value();
  options.memory_bytes = 64 * limits::kMiB;
  options.grace_ms = 6000;
  options.start_timeout_ms = 60'000;
  return options;
}

ClientOptions attached(const EmbeddedNodeOptions& options) {
  auto client = options_for("", embedded_node_address(options.application_id), kSecret);
  client.lease = Id128::parse(options.application_id).value();
  return client;
}

// What the start fails with when the loader refuses the program.
Error refused(EmbeddedNodeOptions options, const std::string& program) {
  options.program = program;
  std::ofstream(program) << "#!/bin/sh\n"
                            "echo \"$0: no GLIBC_2.28 (needed by $0)\" >&2\n"
                            "exit 1\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  const auto ensured = ensure_embedded_node(options);
  REQUIRE(!ensured);
  return ensured.error();
}

}  // namespace

TEST_CASE("of many that want a node at once exactly one starts it; it leaves when idle") {
  const auto options = embedded_options();
  constexpr int kCandidates = 8;
  std::atomic<int> started{0};
  std::atomic<int> attached_to{0};
  std::vector<std::string> errors(kCandidates);
  std::vector<std::unique_ptr<Client>> clients(kCandidates);
  std::vector<std::thread> candidates;
  for (int i = 0; i < kCandidates; ++i) {
    candidates.emplace_back([&, i]() {
      const auto result = ensure_embedded_node(options);
      if (!result) {
        errors[i] = result.error().to_string();
      } else {
        ++(*result ? started : attached_to);
        auto client = Client::connect(attached(options));  // keeps the node from leaving
        if (client) {
          clients[i] = std::move(*client);
        } else {
          errors[i] = client.error().to_string();
        }
      }
    });
  }
  for (auto& candidate : candidates) candidate.join();
  for (const auto& error : errors) CHECK(error == "");
  CHECK(started == 1);
  CHECK(attached_to == kCandidates - 1);

  auto client = std::move(clients.front());
  REQUIRE(client);
  const auto node = client->ping();
  REQUIRE(node);
  CHECK(node->memory_budget == options.memory_bytes);
  auto leased = named("broadcast");
  leased.until_removed = false;
  const std::string bytes = random_bytes(1000);
  check_same(read_all(*open_ref(*client, put(*client, leased, bytes))), bytes);
  client.reset();
  clients.clear();
  CHECK(eventually([&]() { return !process_runs(static_cast<pid_t>(node->pid)); }));
  CHECK_FALSE(Client::connect(attached(options)));
}

TEST_CASE("a node is told its secret by environment only, and keeps none of our descriptors") {
  const auto options = embedded_options();
  int ends[2];
  REQUIRE(pipe(ends) == 0);  // on purpose without CLOEXEC
  setenv("_SPARK_AUTH_SECRET", "what Spark tells its executors", 1);
  CHECK_FALSE(embedded_node_answers(options.application_id, options.secret).value());
  REQUIRE(ensure_embedded_node(options).value());
  CHECK(embedded_node_answers(options.application_id, options.secret).value());
  const auto client = connect(attached(options));
  const std::string process = "/proc/" + std::to_string(client->ping()->pid);
  std::ifstream command_line(process + "/cmdline");
  std::string words;
  std::getline(command_line, words, '\r');
  CHECK(words.find("bigcastd") != std::string::npos);
  CHECK(words.find(kSecret) == std::string::npos);
  unsetenv("_SPARK_AUTH_SECRET");
  std::string variables;
  std::getline(std::ifstream(process + "/environ"), variables, '\r');
  CHECK(variables.find("PATH=") != std::string::npos);
  CHECK(variables.find("_SPARK_") == std::string::npos);
  CHECK(variables.find(kSecret) == std::string::npos);
  const auto ours = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(ends[0]));
  for (const auto& entry : std::filesystem::directory_iterator(process + "/fd")) {
    std::error_code gone;
    CHECK(std::filesystem::read_symlink(entry.path(), gone) != ours);
  }
  close(ends[0]);
  close(ends[1]);
  kill(static_cast<pid_t>(client->ping()->pid), SIGTERM);
}

TEST_CASE("a node that is about to stop is not attached to; its successor is elected") {
  auto options = embedded_options();
  NodeOptions leaving;
  leaving.secret = kSecret;
  leaving.socket = embedded_node_address(options.application_id);
  NodeProcess node(leaving);
  const auto client = connect(options_for(node.tcp(), "", kSecret));
  auto upload = client->upload(named("holds the drain up"));
  REQUIRE(upload);
  REQUIRE(kill(node.pid(), SIGTERM) == 0);
  REQUIRE(eventually([&]() { return client->ping()->draining; }));
  SUBCASE("it stays for too long") {
    options.start_timeout_ms = 3000;
    check_error(ensure_embedded_node(options), ErrorCode::kUnavailable, "stop");
    upload->reset();
    CHECK(node.wait() == 0);
  }
  SUBCASE("it leaves") {
    auto ensured = std::async(std::launch::async, [&]() { return ensure_embedded_node(options); });
    upload->reset();
    CHECK(node.wait() == 0);
    CHECK(ensured.get().value());
    kill(static_cast<pid_t>(connect(attached(options))->ping()->pid), SIGTERM);
  }
}

TEST_CASE("each node writes a file of its own into the directory of traces") {
  auto options = embedded_options();
  std::string folder = std::filesystem::temp_directory_path() / "bigcast-traces-XXXXXX";
  REQUIRE(mkdtemp(folder.data()) != nullptr);
  options.trace_directory = folder + "/not/there/yet";
  const auto traces = [&]() {
    return std::distance(std::filesystem::directory_iterator(options.trace_directory), {});
  };
  for (int node = 1; node <= 2; ++node) {
    REQUIRE(ensure_embedded_node(options).value());
    CHECK(traces() == node);
    const auto pid = static_cast<pid_t>(connect(attached(options))->ping()->pid);
    kill(pid, SIGTERM);
    CHECK(eventually([&]() { return !process_runs(pid); }));
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("a squatter on the socket does not pass for a node") {
  const auto options = embedded_options();
  NodeOptions squatter;
  squatter.secret = "another secret that is long enough too";
  squatter.socket = embedded_node_address(options.application_id);
  squatter.listen = "none";
  const NodeProcess node(squatter);
  check_error(ensure_embedded_node(options), ErrorCode::kUnauthenticated);
  check_error(embedded_node_answers(options.application_id, options.secret),
              ErrorCode::kUnauthenticated);
}

TEST_CASE("the same failure of a program that is unpacked anew has the same words") {
  const auto here = std::filesystem::current_path();
  for (const bool is_relative : {false, false, true}) {
    std::string folder = std::filesystem::temp_directory_path() / "bigcast-refused-XXXXXX";
    REQUIRE(mkdtemp(folder.data()) != nullptr);
    std::filesystem::current_path(folder);
    const Error error = refused(embedded_options(), is_relative ? "bigcastd" : folder + "/program");
    std::filesystem::current_path(here);
    std::filesystem::remove_all(folder);
    CHECK(error.code == ErrorCode::kUnavailable);
    CHECK(error.message == "bigcastd: exit code 1: bigcastd: no GLIBC_2.28 (needed by bigcastd)");
  }
}

TEST_CASE("a node that can't start is UNAVAILABLE with its own words") {
  auto options = embedded_options();
  options.listen_host = "192.0.2.1";  // not an address of this host
  check_error(ensure_embedded_node(options), ErrorCode::kUnavailable, "192.0.2.1");
  options = embedded_options();
  options.program = "/nonexistent/bigcastd";
  check_error(ensure_embedded_node(options), ErrorCode::kUnavailable, "start bigcastd");
  options = embedded_options();
  options.disk_paths = {"/nonexistent"};
  options.disk_bytes = limits::kGiB;
  check_error(ensure_embedded_node(options), ErrorCode::kIo, "/nonexistent");
  options = embedded_options();
  options.trace_directory = "/proc/self/task/traces";
  check_error(ensure_embedded_node(options), ErrorCode::kIo, "/proc/self/task/traces");
  options.application_id = "short";
  check_error(ensure_embedded_node(options), ErrorCode::kInvalidArgument, "application id");
}

}  // namespace bigcast::test
