#include "server/config.h"

#include <doctest/doctest.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/troff.h"
#include "server/metrics.h"
#include "server/settings.h"
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
      {{"--scrub-rate", "17g"}, {}, {"--scrub-rate", "16g"}},
      {{"--memory-high", "101%"}, {}, {"--memory-high", "50%"}},
      {{"--memory-high", "90"}, {}, {"--memory-high", "'90'"}},
      {{"--memory-low", "96%"}, {}, {"memory_low", "memory_high"}},
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
      {{"--http", "192.0.2.1:7421"}, {}, {"http", "192.0.2.1:7421", "http_password_file"}},
      {{"--http-certificate-file", "/x"}, {}, {"http_key_file", "http_certificate_file"}},
      {{"--http-key-file", "/x"}, {}, {"http_certificate_file", "http_key_file"}},
      {{"--http-certificate-file", "/x", "--http-key-file", "/no/such/key"},
       {},
       {"http_key_file", "/no/such/key"}},
      {{"--listen", "0.0.0.0:1"}, {{"BIGCAST_SECRET", kSecret}}, {"listen", "advertise"}},
      {{"--listen", "none"}, {}, {"listen", "socket"}},
      {{"--disk", "/tmp"}, {}, {"disk_size"}},
      {{"--policy", "mru"}, {}, {"--policy", "'mru'", "demand", "s3fifo"}},
      {{"--quota", "team"}, {}, {"--quota", "'team'", "NAMESPACE=SIZE"}},
      {{"--quota", "te/am=1g"}, {}, {"--quota", "namespace"}},
      {{"--quota", "team=0"}, {}, {"--quota", "above 0"}},
      {{"--quota", "team=1x"}, {}, {"--quota", "'1x'"}},
      {{"--quota", "team=1g", "--quota", "team=2g"}, {}, {"--quota", "'team'", "already"}},
      {{"--default-quota", "much"}, {}, {"--default-quota", "'much'"}},
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
                                           "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n"
                                           "quota = [\"a=1g\", \"b=2g\"]\n");
  const auto parsed = parse(
      {"--config", path.c_str(), "--memory", "64m"},
      {{"BIGCAST_MEMORY", "32m"}, {"BIGCAST_LEASE_GRACE", "2s"}, {"BIGCAST_QUOTA", "b=3g,c=4g"}});
  REQUIRE(parsed);
  CHECK(parsed->config.memory_bytes == 64 * limits::kMiB);
  CHECK(parsed->config.lease_grace == std::chrono::seconds(2));
  CHECK(parsed->config.session_timeout == std::chrono::seconds(1));
  CHECK(parsed->config.listen.size() == 2);
  CHECK(parsed->config.policy == "demand");
  CHECK(parsed->config.quota.size() == 2);
  CHECK(parsed->config.quota.at("b") == 3 * limits::kGiB);
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
  const std::string key = "bigcast-key-1:team:" + std::string(64, 'a');
  const std::string of_client = directory.write("key", key);
  const auto is_refused = [&](const auto& refused) {
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("namespace team") != std::string::npos);
    CHECK(refused.error().message.find(key) == std::string::npos);
  };
  is_refused(parse({"--secret-file", of_client.c_str()}));
  is_refused(parse({}, {{"BIGCAST_SECRET", key}}));
  CHECK_FALSE(parse({"--secret-file", good.c_str()}, {{"BIGCAST_SECRET", kSecret}}));
}

// The values that a file sets, without where they come from.
std::map<std::string, std::string> values_of(const CommandLine& line) {
  std::map<std::string, std::string> values;
  for (const auto& [key, chosen] : line.effective) values[key] = chosen.text;
  return values;
}

std::string content_of(const std::string& path) {
  std::stringstream content;
  content << std::ifstream(path).rdbuf();
  return content.str();
}

TEST_CASE("the example sets every setting to what it is anyway") {
  const TemporaryDirectory directory;
  std::istringstream example(example_config());
  std::string active;  // its settings that have a preset, taken out of their comments
  size_t rows = 0;
  for (std::string line; std::getline(example, line);) {
    const size_t equals = line.find(" = ");
    if (!line.starts_with("#") || line.starts_with("# ") || equals == std::string::npos) continue;
    const Setting* setting = find_setting(line.substr(1, equals - 1));
    REQUIRE_MESSAGE(setting != nullptr, line);
    rows++;
    if (*setting->preset != '\0') active += line.substr(1) + "\n";
  }
  CHECK(rows == settings().size());
  const auto parsed = parse({"--config", directory.write("example.toml", active).c_str()});
  REQUIRE_MESSAGE(parsed, parsed.error().message);
  CHECK(values_of(*parsed) == values_of(*parse({})));
  CHECK(parse({"--config", directory.write("as-is.toml", example_config()).c_str()}));
}

// Failing? build/release/bin/bigcastd --metrics-reference prints it.
TEST_CASE("the table of metrics is made from the code") {
  const std::string document = content_of(BIGCAST_SOURCE_DIR "/docs/METRICS.md");
  const std::string begin = "<!-- metrics -->\n";
  const size_t at = document.find(begin);
  REQUIRE(at != std::string::npos);
  const size_t table = at + begin.size();
  CHECK(document.substr(table, document.find("<!-- /metrics -->") - table) == Metrics::reference());
}

// Failing? build/release/bin/bigcastd --example-config >docs/bigcastd.toml, and put what
// --config-reference prints between the marks in docs/CONFIG.md.
TEST_CASE("the documents are made from the settings") {
  const std::string docs = BIGCAST_SOURCE_DIR "/docs/";
  CHECK(content_of(docs + "bigcastd.toml") == example_config());
  const std::string reference = content_of(docs + "CONFIG.md");
  const std::string begin = "<!-- settings -->\n";
  const size_t at = reference.find(begin);
  REQUIRE(at != std::string::npos);
  const size_t table = at + begin.size();
  CHECK(reference.substr(table, reference.find("<!-- /settings -->") - table) ==
        settings_reference());
  const std::string help = parse({"--help"})->text;
  const std::string man = parse({"--man"})->text;
  for (const Setting& setting : settings()) {
    CHECK_MESSAGE(man.find(troff(setting.help)) != std::string::npos, setting.key);
    CHECK_MESSAGE(help.find(setting.flag()) != std::string::npos, setting.key);
  }
}

TEST_CASE("what is effective says where it comes from") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("config.toml", "lease_grace = \"1s\"\n");
  const auto parsed =
      parse({"--check-config", "--config", path.c_str(), "--memory=64m"}, {{"BIGCAST_NAME", "n1"}});
  REQUIRE(parsed);
  CHECK(parsed->action == CommandLine::Action::kCheckConfig);
  for (const std::string& line :
       {"lease_grace = 1s  # " + path + ": lease_grace\n",
        std::string("memory = 64m  # --memory\n"), std::string("name = n1  # BIGCAST_NAME\n"),
        std::string("log_level = info  # default\n")}) {
    CHECK_MESSAGE(parsed->text.find(line) != std::string::npos, parsed->text);
  }
}

TEST_CASE("a reload applies what it can, and says what waits") {
  const TemporaryDirectory directory;
  const std::string secret = directory.write("secret", kSecret);
  const std::string path = directory.write(
      "config.toml", "log_level = \"warn\"\nmemory = \"64m\"\nsecret_file = \"" + secret + "\"\n");
  auto running = parse({"--config", path.c_str()});
  REQUIRE(running);
  directory.write("secret", kSecret + "new");
  directory.write("config.toml",
                  "log_level = \"debug\"\nmemory = \"128m\"\nquota = [\"a=1m\", \"b=2m\"]\n"
                  "secret_file = \"" +
                      secret + "\"\n");
  const auto changes = reload(*running, std::move(*parse({"--config", path.c_str()})));
  CHECK(changes == std::vector<std::string>{
                       "memory = 128m (was 64m): from the next start on",
                       "quota = a=1m,b=2m (was unset)", "log_level = debug (was warn)",
                       "the secret has changed: logins need the new one, sessions go on"});
  CHECK(running->config.log_level == "debug");
  CHECK(running->config.memory_bytes == 64 * limits::kMiB);
  CHECK(running->config.secret.bytes() == kSecret + "new");
  CHECK(running->config.quota.at("b") == 2 * limits::kMiB);
  directory.write("config.toml", "secret_file = \"" + secret + "\"\n");
  reload(*running, std::move(*parse({"--config", path.c_str()})));
  CHECK(running->config.quota.empty());
}

TEST_CASE("variables that look like settings are told, others' are not") {
  const char* const variables[] = {"BIGCAST_MEMROY=1g",
                                   "BIGCAST_MEMORY=1g",
                                   "BIGCAST_SERVER=a:1",
                                   "BIGCAST_PORT_7420_TCP=tcp",
                                   "HOME=/",
                                   nullptr};
  CHECK(misspelt_variables(variables) ==
        std::vector<std::string>{"BIGCAST_MEMROY is not a setting; did you mean BIGCAST_MEMORY?"});
}

}  // namespace
}  // namespace bigcast
