#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "server/host_facts.h"
#include "tests/server/fixture.h"
#include "tests/support/node_process.h"

namespace bigcast::testing {
namespace {

using test::NodeOptions;
using test::NodeProcess;

struct Ended {
  int code = -1;
  std::string out;
  std::string err;
};

std::string content_of(int fd) {
  std::string text(64 * 1024, '\0');
  const ssize_t size = pread(fd, text.data(), text.size(), 0);
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return text;
}

// Runs bigcastd until it ends by itself (or, daemonized, its first process does).
Ended run_bigcastd(std::vector<std::string> arguments, std::vector<std::string> variables = {}) {
  arguments.insert(arguments.begin(), BIGCAST_BIN_DIR "/bigcastd");
  variables.emplace_back("PATH=/usr/bin:/bin");
  const auto pointers = [](std::vector<std::string>& strings) {
    std::vector<char*> result;
    result.reserve(strings.size() + 1);
    for (auto& text : strings) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
  };
  const int out = memfd_create("out", MFD_CLOEXEC);
  const int err = memfd_create("err", MFD_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
  pid_t pid = -1;
  REQUIRE(posix_spawn(&pid, arguments.front().c_str(), &actions, nullptr,
                      pointers(arguments).data(), pointers(variables).data()) == 0);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  Ended ended{WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), content_of(out),
              content_of(err)};
  close(out);
  close(err);
  return ended;
}

std::string http_get(const std::string& address, const std::string& path,
                     const std::string& headers = "") {
  const size_t colon = address.rfind(':');
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  inet_pton(AF_INET, address.substr(0, colon).c_str(), &target.sin_addr);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&target), sizeof target) == 0) {
    const std::string request = "GET " + path + " HTTP/1.0\r\n" + headers + "\r\n";
    REQUIRE(write(fd, request.data(), request.size()) == static_cast<ssize_t>(request.size()));
    char buffer[4096];
    for (ssize_t size; (size = ::read(fd, buffer, sizeof buffer)) > 0;) {
      answer.append(buffer, static_cast<size_t>(size));
    }
  }
  close(fd);
  return answer;
}

bool contains(const std::string& text, const std::string& word) {
  return text.find(word) != std::string::npos;
}

NodeOptions with(std::vector<std::string> arguments) {
  NodeOptions options;
  options.more = std::move(arguments);
  return options;
}

template <typename Done>
bool eventually(Done done) {
  for (int i = 0; i < 2000; i++) {
    if (done()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST_CASE("usage and configuration errors exit 2 and name the setting") {
  struct Row {
    std::vector<std::string> arguments;
    std::string word;
  };
  const std::vector<Row> rows = {
      {{"--no-such-flag"}, "--no-such-flag"},
      {{"--memory", "much"}, "--memory"},
      {{"--listen", "192.0.2.1:0", "--http", "none"}, "secret_file"},
  };
  for (const Row& row : rows) {
    const Ended ended = run_bigcastd(row.arguments);
    CHECK(ended.code == 2);
    CHECK_MESSAGE(contains(ended.err, row.word), ended.err);
    CHECK(ended.out.empty());
  }
  CHECK(run_bigcastd({"--check-config"}).code == 0);
  CHECK(run_bigcastd({"--check-config", "--memory", "much"}).code == 2);
  const Ended version = run_bigcastd({"--version"});
  CHECK(version.code == 0);
  CHECK(version.out == fmt::format("bigcastd {0}\nneeds glibc {1}.{2} or newer; here is {3}\n",
                                   BIGCAST_VERSION, __GLIBC__, __GLIBC_MINOR__, glibc_here()));
  const Ended help = run_bigcastd({"--help"});
  CHECK(help.code == 0);
  CHECK(contains(help.out, "--lease-grace"));
}

TEST_CASE("an older glibc than a program is made for is told; a newer one is good") {
  for (const char* good : {"2.28", "2.36", "3.0", "2.28-0ubuntu1", "2.100"}) {
    CHECK_MESSAGE(check_glibc("2.28", good), good);
  }
  for (const char* old : {"2.27", "2.9", "1.99", "2.27.9000"}) {
    const auto checked = check_glibc("2.28", old);
    REQUIRE_MESSAGE(!checked, old);
    CHECK(checked.error().code == ErrorCode::kUnsupported);
    CHECK(checked.error().message == fmt::format("needs glibc 2.28 or newer, and here is {}", old));
  }
}

TEST_CASE("an unwritable disk path is an error that names it") {
  const Ended ended = run_bigcastd({"--listen", "127.0.0.1:0", "--http", "none", "--disk",
                                    "/proc/self/no-such-directory", "--disk-size", "64m"});
  CHECK(ended.code != 0);
  CHECK_MESSAGE(contains(ended.err, "/proc/self/no-such-directory"), ended.err);
}

TEST_CASE("a second node on the same socket, port or directory says which by its exit code") {
  const TemporaryDirectory directory;
  const std::vector<std::string> disk = {"--disk", directory.path(), "--disk-size", "64m"};
  std::vector<std::string> more = disk;
  more.insert(more.end(), {"--http", "127.0.0.1:0"});
  NodeProcess node(with(more));

  Ended ended = run_bigcastd({"--listen", "none", "--http", "none", "--socket", node.socket()});
  CHECK(ended.code == 3);
  CHECK_MESSAGE(contains(ended.err, "socket: "), ended.err);
  CHECK_MESSAGE(contains(ended.err, node.socket().substr(5)), ended.err);
  ended = run_bigcastd({"--listen", node.tcp(), "--http", "none"});
  CHECK(ended.code == 4);
  CHECK_MESSAGE(contains(ended.err, "listen: "), ended.err);
  CHECK_MESSAGE(contains(ended.err, node.tcp()), ended.err);
  ended = run_bigcastd({"--listen", "127.0.0.1:0", "--http", node.http()});
  CHECK(ended.code == 4);
  CHECK_MESSAGE(contains(ended.err, "http: "), ended.err);
  CHECK_MESSAGE(contains(ended.err, node.http()), ended.err);
  std::vector<std::string> same_disk = {"--listen", "127.0.0.1:0", "--http", "none"};
  same_disk.insert(same_disk.end(), disk.begin(), disk.end());
  ended = run_bigcastd(same_disk);
  CHECK(ended.code == 5);
  CHECK_MESSAGE(contains(ended.err, directory.path("bigcast/lock")), ended.err);
  CHECK(node.end(SIGTERM) == 0);
}

TEST_CASE("metrics, liveness and readiness; SIGTERM drains and exits 0") {
  NodeProcess node(with({"--http", "127.0.0.1:0"}));
  CHECK(contains(http_get(node.http(), "/livez"), "200 OK"));
  CHECK(contains(http_get(node.http(), "/readyz"), "200 OK"));
  CHECK(contains(http_get(node.http(), "/no-such-page"), "404"));

  rpc::UvLoop loop;
  TestClient client = login(loop, *rpc::Address::parse(node.tcp()));
  Caller caller(loop, client.session);
  caller.put_blob({}, 2);
  const std::string metrics = http_get(node.http(), "/metrics");
  for (const char* line : {"bigcast_build_info{version=", "bigcast_blobs 1\n",
                           "bigcast_chunks_received_total{codec=\"raw\"} 2\n",
                           "bigcast_sessions 1\n", "bigcast_uploads_total{event=\"sealed\"} 1\n",
                           "bigcast_store_budget_bytes{tier=\"memory\"} 67108864\n",
                           "bigcast_call_seconds_count{method=\"put\"} 2\n",
                           "bigcast_call_seconds_bucket{method=\"seal\",le=\"+Inf\"} 1\n"}) {
    CHECK_MESSAGE(contains(metrics, line), line << " is not in " << metrics);
  }

  auto running = caller.create({.name = "running"});  // holds the drain up
  REQUIRE(running);
  REQUIRE(kill(node.pid(), SIGTERM) == 0);
  CHECK(eventually([&] { return contains(http_get(node.http(), "/readyz"), "503"); }));
  CHECK(contains(http_get(node.http(), "/livez"), "200 OK"));
  CHECK(caller.create({.name = "late"}).error().code == ErrorCode::kUnavailable);
  CHECK(caller.send(running->upload, make_chunk(0)));
  CHECK(caller.seal(running->upload, kSmallChunk, 1));
  CHECK(node.wait() == 0);
}

TEST_CASE("metrics ask for the password, liveness and readiness do not") {
  const TemporaryDirectory directory;
  const std::string password = "scraper:" + std::string(32, 'p');
  const std::string file = directory.write("password", password + "\n");
  NodeProcess node(with({"--http", "127.0.0.1:0", "--http-password-file", file}));
  const auto status = [&](const std::string& path, const std::string& headers = "") {
    return http_get(node.http(), path, headers).substr(9, 3);
  };
  // base64 of scraper: and 32 times p
  const std::string right = "c2NyYXBlcjpwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcA==";
  CHECK(status("/livez") == "200");
  CHECK(status("/readyz") == "200");
  CHECK(status("/metrics") == "401");
  CHECK(status("/no-such-page") == "401");
  CHECK(contains(http_get(node.http(), "/metrics"), "WWW-Authenticate: Basic realm="));
  CHECK(status("/metrics", "Authorization: Basic " + right + "\r\n") == "200");
  CHECK(status("/metrics", "AUTHORIZATION:basic  " + right + " \r\n") == "200");
  CHECK(status("/metrics", "Authorization: Bearer " + right + "\r\n") == "401");
  CHECK(status("/metrics", "Authorization: Basic " + right.substr(1) + "\r\n") == "401");
  CHECK(status("/metrics", "Authorization: Basic\r\n") == "401");
  directory.write("password", "scraper:" + std::string(32, 'q'));
  REQUIRE(kill(node.pid(), SIGHUP) == 0);
  CHECK(eventually(
      [&] { return status("/metrics", "Authorization: Basic " + right + "\r\n") == "401"; }));
  CHECK_FALSE(contains(node.log(), std::string(32, 'p')));
  CHECK(node.end(SIGTERM) == 0);
}

TEST_CASE("the audit log has a line for each change and each denial") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("audit");
  NodeOptions options = with({"--audit-log", path});
  options.secret = std::string(32, 's');
  NodeProcess node(options);
  rpc::UvLoop loop;
  const auto address = *rpc::Address::parse(node.tcp());
  TestClient client = login(loop, address, {.secret = options.secret});
  Caller caller(loop, client.session);
  caller.put_blob({.name = "a\"b"}, 1);
  CHECK(caller.create({.name = "a\"b"}).error().code == ErrorCode::kAlreadyExists);
  auto half = caller.create({.name = "half"});
  REQUIRE(half);
  CHECK(caller.seal(half->upload, 1, 1).error().code == ErrorCode::kInvalidArgument);
  auto removal = client.session.removeRequest();
  removal.initTarget().setName("a\"b");
  CHECK(removal.send().wait(loop.wait_scope()).getResult().isOk());
  CHECK_FALSE(try_login(loop, address, {.name_space = "other", .secret = std::string(32, 'x')}));
  const auto lines = [&] {
    std::vector<std::string> all;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) all.push_back(line);
    return all;
  };
  REQUIRE(eventually([&] { return lines().size() == 5; }));
  const std::string start = R"(^\{"time":"[0-9T:.-]+Z","operation":)";
  const auto blob = [](const std::string& name, const std::string& bytes,
                       const std::string& outcome) {
    return R"(","client":"[^"]+","peer":"127\.0\.0\.1:[0-9]+","namespace":"app","name":")" + name +
           R"(","id":"[0-9a-f]{32}","bytes":)" + bytes + R"(,"outcome":")" + outcome + R"("\}$)";
  };
  const auto matches = [&](size_t i, const std::string& pattern) {
    CHECK_MESSAGE(std::regex_match(lines()[i], std::regex(start + pattern)), lines()[i]);
  };
  const std::string name = R"(a\\"b)";
  matches(0, R"("put)" + blob(name, "[0-9]+", "ok"));
  matches(1, R"("put)" + blob(name, "null", "ALREADY_EXISTS: .*"));
  matches(2, R"("put)" + blob("half", "null", "INVALID_ARGUMENT: .*"));
  matches(3, R"("remove)" + blob(name, "[0-9]+", "ok"));
  matches(4, R"("login","client":null,"peer":"127[^"]+","namespace":"other","name":null,"id":null,)"
             R"("bytes":null,"outcome":"UNAUTHENTICATED"\}$)");
  CHECK(node.end(SIGTERM) == 0);
}

TEST_CASE("SIGHUP opens the log and the audit log again where they were moved away") {
  const TemporaryDirectory directory;
  const std::vector<std::string> paths = {directory.path("log"), directory.path("audit")};
  const auto content = [](const std::string& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  NodeProcess node(with({"--log-file", paths[0], "--audit-log", paths[1]}));
  rpc::UvLoop loop;
  TestClient client = login(loop, *rpc::Address::parse(node.tcp()));
  Caller caller(loop, client.session);
  caller.put_blob({.name = "before"}, 1);
  CHECK(eventually([&] { return contains(content(paths[1]), "\"before\""); }));
  for (const std::string& path : paths) REQUIRE(rename(path.c_str(), (path + ".1").c_str()) == 0);
  REQUIRE(kill(node.pid(), SIGHUP) == 0);
  CHECK(eventually([&] { return contains(content(paths[0]), "reload: no setting has changed"); }));
  caller.put_blob({.name = "after"}, 1);
  CHECK(eventually([&] { return contains(content(paths[1]), "\"after\""); }));
  CHECK(node.end(SIGTERM) == 0);
  CHECK(contains(content(paths[0]), "stopped"));
  CHECK(contains(content(paths[0] + ".1"), "is ready"));
  for (const char* later : {"reload", "stopped"}) {
    CHECK_FALSE(contains(content(paths[0] + ".1"), later));
  }
  CHECK_FALSE(contains(content(paths[1] + ".1"), "\"after\""));
  CHECK_FALSE(contains(content(paths[1]), "\"before\""));
}

TEST_CASE(
    "the service manager is told of the start, each reload, the end, and that the loop turns") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("notify");
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof name.sun_path);
  path.copy(name.sun_path, path.size());
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  const timeval patience{.tv_sec = 20, .tv_usec = 0};
  REQUIRE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  setenv("WATCHDOG_USEC", "200000", 1);
  NodeProcess node;
  unsetenv("NOTIFY_SOCKET");
  unsetenv("WATCHDOG_USEC");
  const auto hear = [fd](const std::string& expected) {
    char buffer[512];
    for (ssize_t size; (size = recv(fd, buffer, sizeof buffer, 0)) > 0;) {
      if (contains({buffer, static_cast<size_t>(size)}, expected)) return true;
    }
    return false;
  };
  CHECK(hear("READY=1\nSTATUS=bigcastd ready listen="));
  CHECK(hear("WATCHDOG=1"));
  CHECK(hear("WATCHDOG=1"));
  REQUIRE(kill(node.pid(), SIGHUP) == 0);
  CHECK(hear("RELOADING=1\nMONOTONIC_USEC="));
  CHECK(hear("READY=1"));
  REQUIRE(kill(node.pid(), SIGTERM) == 0);
  CHECK(hear("STOPPING=1"));
  CHECK(node.wait() == 0);
  close(fd);
}

TEST_CASE("SIGHUP reads the configuration again; what is wrong in it changes nothing") {
  const TemporaryDirectory directory;
  const std::string secret_file = directory.write("secret", std::string(40, 's'));
  const auto write = [&](const std::string& text) {
    return directory.write("config.toml", "secret_file = \"" + secret_file + "\"\n" + text);
  };
  NodeProcess node(with({"--config", write("log_level = \"info\"\n")}));
  const auto hang_up = [&](const std::string& expected) {
    REQUIRE(kill(node.pid(), SIGHUP) == 0);
    CHECK_MESSAGE(eventually([&] { return contains(node.log(), expected); }), node.log());
  };
  rpc::UvLoop loop;
  const auto address = *rpc::Address::parse(node.tcp());
  TestClient before = login(loop, address, {.secret = std::string(40, 's')});
  write("log_levle = \"debug\"\n");
  hang_up("nothing is changed: " + directory.path("config.toml") +
          ": unknown setting 'log_levle'; did you mean log_level?");
  directory.write("secret", std::string(40, 'n'));
  CHECK_FALSE(contains(node.log(), "session of"));
  write(
      "log_format = \"json\"\nlog_level = \"debug\"\nname = \"other\"\n"
      "quota = [\"app=1m\"]\n");
  hang_up("name = other (was bigcastd): from the next start on");
  CHECK_FALSE(try_login(loop, address, {.secret = std::string(40, 's')}));
  CHECK(try_login(loop, address, {.secret = std::string(40, 'n')}));
  CHECK(eventually(
      [&] { return contains(node.log(), "\"level\":\"debug\",\"message\":\"session of"); }));
  Caller caller(loop, before.session);  // sessions go on
  caller.put_blob({}, 1);
  const auto beyond = caller.create({.name = "large", .size = 2 * limits::kMiB});
  CHECK(beyond.error().code == ErrorCode::kResourceExhausted);
  CHECK(eventually([&] {
    return std::regex_search(node.log(),
                             std::regex("\n\\{\"time\":\"[0-9T:.+-]+\",\"level\":\"warning\","
                                        "\"message\":\"login denied peer=\\\\\""));
  }));
  CHECK(node.end(SIGTERM) == 0);
}

TEST_CASE("a second SIGTERM ends the node at once") {
  NodeProcess node;
  rpc::UvLoop loop;
  TestClient client = login(loop, *rpc::Address::parse(node.socket()));
  auto running = Caller(loop, client.session).create({});
  REQUIRE(running);
  REQUIRE(kill(node.pid(), SIGTERM) == 0);
  CHECK(eventually([&] { return contains(node.log(), "stopping"); }));
  CHECK(node.end(SIGTERM) == 1);
}

TEST_CASE("in the background: ready line, secret out of sight, exit when idle") {
  const TemporaryDirectory directory;
  const std::string secret = "not-to-be-seen-" + std::string(32, 'x');
  const std::string socket = unique_socket();
  const std::vector<std::string> arguments = {"--daemonize",
                                              "--listen",
                                              "none",
                                              "--http",
                                              "none",
                                              "--socket",
                                              socket,
                                              "--exit-when-idle",
                                              "4s",
                                              "--log-file",
                                              directory.path("log")};
  const Ended started = run_bigcastd(arguments, {"BIGCAST_SECRET=" + secret});
  CHECK_MESSAGE(started.code == 0, started.err);
  REQUIRE(contains(started.out, "bigcastd ready listen=none socket=" + socket));
  const pid_t pid = std::stoi(started.out.substr(started.out.find("pid=") + 4));
  CHECK(test::process_runs(pid));
  for (const char* file : {"environ", "cmdline"}) {
    std::stringstream content;
    content << std::ifstream("/proc/" + std::to_string(pid) + "/" + file).rdbuf();
    CHECK_FALSE(contains(content.str(), "not-to-be-seen"));
  }
  {
    rpc::UvLoop loop;
    TestClient client = login(loop, *rpc::Address::parse(socket), {.secret = secret});
    run_for(loop, std::chrono::milliseconds(5000));
    CHECK(test::process_runs(pid));  // somebody is attached
    const Ended second = run_bigcastd(arguments, {"BIGCAST_SECRET=" + secret});
    CHECK(second.code == 3);
    CHECK_MESSAGE(contains(second.err, socket.substr(5)), second.err);
  }
  CHECK(eventually([&] { return !test::process_runs(pid); }));
  std::stringstream log;
  log << std::ifstream(directory.path("log")).rdbuf();
  CHECK(contains(log.str(), "ready"));
  CHECK_FALSE(contains(log.str(), "not-to-be-seen"));
}

// Asks to log in and answers any challenge with a wrong proof: the error.
Error forge_login(rpc::UvLoop& loop, const std::string& address, const std::string& name_space,
                  uint32_t version = limits::kProtocolVersion) {
  auto connection = rpc::Connection::connect(loop, *rpc::Address::parse(address));
  auto connected = connection.wait(loop.wait_scope());
  REQUIRE(connected);
  auto hello = (*connected)->bootstrap().castAs<rpc::Bootstrap>().helloRequest();
  const std::string nonce(limits::kNonceSize, 'n');
  const capnp::Data::Reader bytes(reinterpret_cast<const kj::byte*>(nonce.data()), nonce.size());
  hello.setProtocolVersion(version);
  hello.setNameSpace(name_space.c_str());
  hello.setClientNonce(bytes);
  auto answer = hello.send().wait(loop.wait_scope());
  if (answer.getResult().isError()) return rpc::read(answer.getResult().getError());
  auto prove = answer.getResult().getChallenge().getLogin().proveRequest();
  prove.setClientProof(bytes);
  return rpc::read(prove.send().wait(loop.wait_scope()).getResult().getError());
}

TEST_CASE("a client of the next protocol version is refused by a node, which says so to both") {
  NodeProcess node;
  rpc::UvLoop loop;
  constexpr uint32_t kNext = limits::kProtocolVersion + 1;
  const std::string why = fmt::format("protocol version: the client speaks {}, the node {}", kNext,
                                      limits::kProtocolVersion);
  for (const std::string& address : {node.tcp(), node.socket()}) {
    const Error error = forge_login(loop, address, "later", kNext);
    CHECK(error.code == ErrorCode::kUnsupported);
    CHECK(error.message == why);
  }
  const std::string line = "namespace=\"later\" reason=\"UNSUPPORTED: " + why + "\"";
  CHECK_MESSAGE(eventually([&] { return contains(node.log(), line); }), node.log());
  CHECK(node.end(SIGTERM) == 0);
}

TEST_CASE("a denied login leaves one line with the peer and the namespace, whatever is in them") {
  const std::string secret(32, 's');
  NodeOptions options;
  options.secret = secret;
  NodeProcess node(options);
  rpc::UvLoop loop;
  forge_login(loop, node.tcp(), "forger");
  forge_login(loop, node.tcp(), "x\" reason=\"none\"\nlogin denied peer=\"192.0.2.1:1\"");
  const LoginAs guess{.name_space = "guesser", .secret = std::string(32, 'g')};
  CHECK_FALSE(try_login(loop, *rpc::Address::parse(node.tcp()), guess));
  CHECK_FALSE(try_login(loop, *rpc::Address::parse(node.socket()), guess));
  CHECK(try_login(loop, *rpc::Address::parse(node.tcp()), {.secret = secret}));

  const auto denials = [&node] {
    std::vector<std::string> lines;
    std::istringstream log(node.log());
    for (std::string line; std::getline(log, line);) {
      if (contains(line, "login denied")) lines.push_back(line);
    }
    return lines;
  };
  CHECK(eventually([&] { return denials().size() >= 4; }));
  const std::vector<std::string> lines = denials();
  REQUIRE(lines.size() == 4);
  const auto matching = [&lines](const std::string& pattern) {
    return std::count_if(lines.begin(), lines.end(), [&](const std::string& line) {
      return std::regex_search(line, std::regex("login denied " + pattern + "$"));
    });
  };
  const std::string tcp = "peer=\"127\\.0\\.0\\.1:[0-9]+\" ";
  CHECK(matching(tcp + "namespace=\"forger\" reason=\"UNAUTHENTICATED: [^\"]*\"") == 1);
  CHECK(matching(tcp +
                 "namespace=\"x\\\\x22 reason=[^\"]*\" reason=\"INVALID_ARGUMENT: [^\"]*\"") == 1);
  CHECK(matching(tcp + "namespace=\"guesser\" reason=\"given up by the client\"") == 1);
  CHECK(matching("peer=\"unix pid=" + std::to_string(getpid()) + " uid=[0-9]+\" .*") == 1);
  CHECK(node.end(SIGTERM) == 0);
}

TEST_CASE("connections that do not log in are closed, others are served meanwhile") {
  NodeProcess node;
  const auto address = *rpc::Address::parse(node.tcp());
  std::vector<int> idle;
  for (int i = 0; i < 50; i++) {
    sockaddr_in target{};
    target.sin_family = AF_INET;
    target.sin_port = htons(address.port);
    inet_pton(AF_INET, address.host.c_str(), &target.sin_addr);
    idle.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(connect(idle.back(), reinterpret_cast<sockaddr*>(&target), sizeof target) == 0);
  }
  const uint64_t no_segments = ~uint64_t{0};
  REQUIRE(write(idle.front(), &no_segments, sizeof no_segments) == sizeof no_segments);
  char byte = 0;
  CHECK(::read(idle.front(), &byte, 1) <= 0);  // closed at once
  rpc::UvLoop loop;
  TestClient client = login(loop, address);
  Caller(loop, client.session).put_blob({}, 1);
  for (const int fd : idle) close(fd);
  CHECK(node.end(SIGTERM) == 0);
}

}  // namespace
}  // namespace bigcast::testing
