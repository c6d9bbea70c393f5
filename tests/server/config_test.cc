#include "server/config.h"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/server/fixture.h"

namespace bigcast {
namespace {

using testing::TemporaryDirectory;
using Variables = std::map<std::string, std::string>;

Result<CommandLine> parse(std::vector<const char*> arguments, const Variables& variables = {}) {
  arguments.insert(arguments.begin(), "bigcastd");
  return parse_command_line(static_cast<int>(arguments.size()), arguments.data(),
                            [&](const std::string& name) -> const char* {
                              const auto found = variables.find(name);
                              return found == variables.end() ? nullptr : found->second.c_str();
                            });
}

const std::string kSecret(40, 's');

TEST_CASE("defaults are a loopback node without a disk") {
  const auto parsed = parse({});
  REQUIRE(parsed);
  CHECK(parsed->config.listen.front().to_string() == "127.0.0.1:7420");
  CHECK(parsed->config.http->to_string() == "127.0.0.1:7421");
  CHECK(parsed->config.memory_bytes == limits::kGiB);
  CHECK(parsed->config.disk_path.empty());
}

TEST_CASE("a wrong setting is refused by name") {
  struct Row {
    std::vector<const char*> arguments;
    Variables variables;
    std::vector<std::string> words;  // all must be in the message
  };
  const std::vector<Row> rows = {
      {{"--memroy=1g"}, {}, {"--memroy", "--memory"}},
      {{"--memory", "12x"}, {}, {"--memory", "'12x'", "size"}},
      {{"--memory", "1m"}, {}, {"--memory", "8m"}},
      {{"--memory", "99999999999g"}, {}, {"--memory", "size"}},
      {{}, {{"BIGCAST_MEMORY", "-1"}}, {"BIGCAST_MEMORY", "'-1'"}},
      {{"--lease-grace", "12"}, {}, {"--lease-grace", "suffix"}},
      {{"--lease-grace", "0s"}, {}, {"--lease-grace", "above 0"}},
      {{"--listen", "nowhere"}, {}, {"--listen", "nowhere"}},
      {{"--listen", "127.0.0.1:99999"}, {}, {"--listen", "99999"}},
      {{"--socket", "127.0.0.1:1"}, {}, {"--socket", "unix:PATH"}},
      {{"--log-level", "loud"}, {}, {"--log-level", "loud"}},
      {{"--secret", "hunter2"}, {}, {"--secret", "--secret-file", "BIGCAST_SECRET"}},
      {{"--secret=hunter2"}, {}, {"--secret-file"}},
      {{"stray"}, {}, {"stray"}},
      {{"--listen", "192.0.2.1:7420"}, {}, {"listen", "192.0.2.1:7420", "secret_file"}},
      {{"--http", "192.0.2.1:7421"}, {}, {"http", "192.0.2.1:7421", "secret_file"}},
      {{"--listen", "0.0.0.0:1"}, {{"BIGCAST_SECRET", kSecret}}, {"listen", "advertise"}},
      {{"--listen", "none"}, {}, {"listen", "socket"}},
      {{"--disk", "/tmp"}, {}, {"disk_size"}},
      {{"--disk-size", "1g"}, {}, {"disk:"}},
      {{"--config", "/no/such/file"}, {}, {"config", "/no/such/file"}},
      {{}, {{"BIGCAST_SECRET", "short"}}, {"BIGCAST_SECRET", "32"}},
      {{"--secret-file", "/no/such/secret"}, {}, {"secret_file", "/no/such/secret"}},
  };
  for (const Row& row : rows) {
    const auto parsed = parse(row.arguments, row.variables);
    REQUIRE_FALSE_MESSAGE(parsed, row.words.front());
    for (const std::string& word : row.words) {
      CHECK_MESSAGE(parsed.error().message.find(word) != std::string::npos,
                    "'" << word << "' is not in: " << parsed.error().message);
    }
    CHECK(parsed.error().message.find("hunter2") == std::string::npos);
    CHECK(parsed.error().message.find('\n') == std::string::npos);
  }
}

TEST_CASE("a file with an unknown key or a wrong value is refused by name") {
  const TemporaryDirectory directory;
  struct Row {
    std::string text;
    std::vector<std::string> words;
  };
  const std::vector<Row> rows = {
      {"disk_sise = \"1g\"", {"'disk_sise'", "disk_size"}},
      {"xyzzyplugh = 1", {"'xyzzyplugh'"}},
      {"memory = 1.5", {"memory", "type"}},
      {"memory = \"lots\"", {"memory", "'lots'"}},
      {"memory = [\"1g\"]", {"memory", "type"}},
      {"lease_grace = 3", {"lease_grace", "suffix"}},
      {"daemonize = \"maybe\"", {"daemonize", "maybe"}},
      {"listen = [1.5]", {"listen", "type"}},
      {"memory = \n", {":1:"}},
  };
  for (const Row& row : rows) {
    const std::string path = directory.write("config.toml", row.text);
    const auto parsed = parse({"--config", path.c_str()});
    REQUIRE_FALSE_MESSAGE(parsed, row.text);
    for (const std::string& word : row.words) {
      CHECK_MESSAGE(parsed.error().message.find(word) != std::string::npos,
                    "'" << word << "' is not in: " << parsed.error().message);
    }
  }
}

TEST_CASE("flags win over the environment, and that over the file") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("config.toml",
                                           "memory = \"16m\"\nlease_grace = \"1s\"\n"
                                           "session_timeout = \"1s\"\n"
                                           "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n");
  const auto parsed = parse({"--config", path.c_str(), "--memory", "64m"},
                            {{"BIGCAST_MEMORY", "32m"}, {"BIGCAST_LEASE_GRACE", "2s"}});
  REQUIRE(parsed);
  CHECK(parsed->config.memory_bytes == 64 * limits::kMiB);
  CHECK(parsed->config.lease_grace == std::chrono::seconds(2));
  CHECK(parsed->config.session_timeout == std::chrono::seconds(1));
  CHECK(parsed->config.listen.size() == 2);
}

TEST_CASE("a secret comes from a file that only its owner can read") {
  const TemporaryDirectory directory;
  const std::string good = directory.write("good", kSecret + "\n");
  const std::string open = directory.write("open", kSecret, 0644);
  const std::string small = directory.write("small", "short");
  const auto parsed = parse({"--secret-file", good.c_str(), "--listen", "192.0.2.1:7420"});
  REQUIRE(parsed);
  CHECK(parsed->config.secret.bytes() == kSecret);
  for (const std::string& path : {open, small}) {
    const auto refused = parse({"--secret-file", path.c_str()});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("secret_file") != std::string::npos);
    CHECK(refused.error().message.find(path) != std::string::npos);
    CHECK(refused.error().message.find(kSecret) == std::string::npos);
  }
  CHECK_FALSE(parse({"--secret-file", good.c_str()}, {{"BIGCAST_SECRET", kSecret}}));
}

}  // namespace
}  // namespace bigcast
