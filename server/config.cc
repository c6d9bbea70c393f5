#include "server/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <filesystem>

#include "base/ids.h"
#include "base/log.h"
#include "base/units.h"

namespace bigcast {
namespace {

constexpr std::string_view kVersion = BIGCAST_VERSION;

Result<void> set_address(std::optional<rpc::Address>& out, const std::string& text,
                         rpc::Address::Kind kind) {
  if (text == "none") {
    out.reset();
    return {};
  }
  BIGCAST_ASSIGN(rpc::Address address, rpc::Address::parse(text));
  if (address.kind != kind) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is not {}", text,
                            kind == rpc::Address::Kind::kTcp ? "HOST:PORT" : "unix:PATH"));
  }
  out = std::move(address);
  return {};
}

Result<void> set_bool(bool& out, const std::string& text) {
  if (text != "true" && text != "false") {
    return fail(ErrorCode::kInvalidArgument, fmt::format("'{}' is not true or false", text));
  }
  out = text == "true";
  return {};
}

template <typename T, typename Parse>
Result<void> set_parsed(T& out, const std::string& text, Parse parse) {
  BIGCAST_ASSIGN(out, parse(text));
  return {};
}

Result<void> set_path(std::string& out, const std::string& text) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(text, error);
  if (text.empty() || error) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("'{}' is not a path", text));
  }
  out = absolute.string();
  return {};
}

Result<void> set_positive(Duration& out, const std::string& text) {
  BIGCAST_ASSIGN(out, parse_duration(text));
  if (out <= Duration::zero()) return fail(ErrorCode::kInvalidArgument, "must be above 0");
  return {};
}

Result<void> set_memory(uint64_t& out, const std::string& text) {
  constexpr uint64_t kLeast = 2 * uint64_t{limits::kChunkSizeDefault};
  BIGCAST_ASSIGN(out, parse_size(text));
  if (out < kLeast) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is too little: at least {}m", text, kLeast / limits::kMiB));
  }
  return {};
}

Result<void> set_name(std::string& out, const std::string& text) {
  BIGCAST_TRY(check_namespace(text));  // the same alphabet: it ends in logs and labels
  out = text;
  return {};
}

struct Setting {
  const char* key;
  const char* value_name;
  const char* help;
  Result<void> (*set)(Config&, const std::string&);
  bool repeats = false;
};

constexpr auto kTcp = rpc::Address::Kind::kTcp;
constexpr auto kUnix = rpc::Address::Kind::kUnix;

const std::array kSettings = {
    Setting{"listen", "HOST:PORT",
            "where to serve RPC over TCP, default 127.0.0.1:7420; may be repeated; 'none'",
            [](Config& c, const std::string& text) -> Result<void> {
              std::optional<rpc::Address> address;
              BIGCAST_TRY(set_address(address, text, kTcp));
              if (address) c.listen.push_back(*address);
              return {};
            },
            true},
    Setting{"socket", "unix:PATH", "where to serve RPC on this host: unix:PATH or unix:@NAME",
            [](Config& c, const std::string& text) { return set_address(c.socket, text, kUnix); }},
    Setting{
        "advertise", "HOST:PORT", "the address that other nodes reach this one at",
        [](Config& c, const std::string& text) { return set_address(c.advertise, text, kTcp); }},
    Setting{"http", "HOST:PORT",
            "where to serve /metrics, /livez and /readyz, default 127.0.0.1:7421; 'none'",
            [](Config& c, const std::string& text) { return set_address(c.http, text, kTcp); }},
    Setting{"memory", "SIZE", "budget of the memory tier, for example 512m or 4g; default 1g",
            [](Config& c, const std::string& text) { return set_memory(c.memory_bytes, text); }},
    Setting{"disk", "DIR", "directory of the disk tier; it is emptied at the start",
            [](Config& c, const std::string& text) { return set_path(c.disk_path, text); }},
    Setting{"disk_size", "SIZE", "budget of the disk tier",
            [](Config& c, const std::string& text) {
              return set_parsed(c.disk_bytes, text, parse_size);
            }},
    Setting{"secret_file", "FILE", "file with the shared secret, readable by its owner only",
            [](Config& c, const std::string& text) { return set_path(c.secret_file, text); }},
    Setting{"lease_grace", "DURATION",
            "how long blobs outlive their last session, for example 500ms, 120s; default 120s",
            [](Config& c, const std::string& text) { return set_positive(c.lease_grace, text); }},
    Setting{
        "session_timeout", "DURATION", "a session silent for this long ends; default 30s",
        [](Config& c, const std::string& text) { return set_positive(c.session_timeout, text); }},
    Setting{"exit_when_idle", "DURATION", "exit when no session was attached for this long",
            [](Config& c, const std::string& text) -> Result<void> {
              Duration value{};
              BIGCAST_TRY(set_positive(value, text));
              c.exit_when_idle = value;
              return {};
            }},
    Setting{"daemonize", "true|false", "go on in the background once ready",
            [](Config& c, const std::string& text) { return set_bool(c.daemonize, text); }},
    Setting{"log_file", "FILE", "append the log to this file instead of standard error",
            [](Config& c, const std::string& text) { return set_path(c.log_file, text); }},
    Setting{"log_level", "LEVEL", "trace, debug, info, warn, error or off; default info",
            [](Config& c, const std::string& text) -> Result<void> {
              BIGCAST_TRY(set_log_level(text));
              c.log_level = text;
              return {};
            }},
    Setting{"name", "NAME", "this node's name in logs and to its peers",
            [](Config& c, const std::string& text) { return set_name(c.name, text); }},
};

std::string flag_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

std::string variable_of(std::string key) {
  std::transform(key.begin(), key.end(), key.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return "BIGCAST_" + key;
}

// Sets what one source says about one setting; a list replaces what an earlier source said.
Result<void> apply(Config& config, const Setting& setting, const std::vector<std::string>& values,
                   const std::string& spelling) {
  if (setting.repeats) config.listen.clear();
  for (const std::string& value : values) {
    if (auto result = setting.set(config, value); !result) {
      return fail(result.error().code, fmt::format("{}: {}", spelling, result.error().message));
    }
  }
  return {};
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(',', begin)) != std::string::npos; begin = end + 1) {
    parts.push_back(text.substr(begin, end - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

Result<std::vector<std::string>> toml_values(const toml::node& node, bool repeats) {
  if (const auto text = node.value_exact<std::string>()) return std::vector{*text};
  if (const auto number = node.value_exact<int64_t>()) return std::vector{std::to_string(*number)};
  if (const auto flag = node.value_exact<bool>()) {
    return std::vector<std::string>{*flag ? "true" : "false"};
  }
  if (const toml::array* array = node.as_array(); array != nullptr && repeats) {
    std::vector<std::string> values;
    for (const toml::node& element : *array) {
      BIGCAST_ASSIGN(std::vector<std::string> value, toml_values(element, false));
      values.push_back(std::move(value.front()));
    }
    return values;
  }
  return fail(ErrorCode::kInvalidArgument, "a wrong type of value");
}

const Setting* find_setting(std::string_view key) {
  const auto found = std::find_if(kSettings.begin(), kSettings.end(),
                                  [&](const Setting& setting) { return setting.key == key; });
  return found == kSettings.end() ? nullptr : &*found;
}

std::string unknown(const std::string& what, const std::string& near) {
  return near.empty() ? what : fmt::format("{}; did you mean {}?", what, near);
}

Result<void> apply_file(Config& config, const std::string& path) {
  toml::table table;
  try {
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) {
      return fail(ErrorCode::kInvalidArgument, fmt::format("config: {}: no such file", path));
    }
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("config: {}:{}: {}", path, error.source().begin.line,
                            std::string(error.description())));
  }
  std::vector<std::string> keys;
  keys.reserve(kSettings.size());
  for (const Setting& setting : kSettings) keys.emplace_back(setting.key);
  for (const auto& [toml_key, node] : table) {
    const std::string key(toml_key.str());
    const Setting* setting = find_setting(key);
    if (setting == nullptr) {
      return fail(
          ErrorCode::kInvalidArgument,
          unknown(fmt::format("{}: unknown setting '{}'", path, key), nearest_name(key, keys)));
    }
    const std::string spelling = fmt::format("{}: {}", path, key);
    auto values = toml_values(node, setting->repeats);
    if (!values) {
      return fail(values.error().code, fmt::format("{}: {}", spelling, values.error().message));
    }
    BIGCAST_TRY(apply(config, *setting, *values, spelling));
  }
  return {};
}

Result<void> load_secret(Config& config,
                         const std::function<const char*(const std::string&)>& environment) {
  const char* text = environment("BIGCAST_SECRET");
  if (text != nullptr && !config.secret_file.empty()) {
    return fail(ErrorCode::kInvalidArgument, "secret_file and BIGCAST_SECRET are both set");
  }
  if (text != nullptr) {
    BIGCAST_ASSIGN(config.secret, Secret::from_text(text, "BIGCAST_SECRET"));
  } else if (!config.secret_file.empty()) {
    auto secret = Secret::from_file(config.secret_file);
    if (!secret) return fail(secret.error().code, "secret_file: " + secret.error().message);
    config.secret = std::move(*secret);
  }
  return {};
}

bool is_wildcard(const rpc::Address& address) {
  return address.host == "0.0.0.0" || address.host == "::";
}

// What only shows when all settings are known.
Result<void> check_together(const Config& config) {
  auto needs_secret = [&](const rpc::Address& address, const char* setting) -> Result<void> {
    if (address.is_loopback() || !config.secret.empty()) return {};
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: {} is not a loopback address, so a secret is needed: set "
                            "secret_file, or listen on 127.0.0.1",
                            setting, address.to_string()));
  };
  for (const rpc::Address& address : config.listen) BIGCAST_TRY(needs_secret(address, "listen"));
  if (config.http) BIGCAST_TRY(needs_secret(*config.http, "http"));
  if (config.listen.empty() && !config.socket) {
    return fail(ErrorCode::kInvalidArgument, "listen and socket are both none: nobody could call");
  }
  if (!config.listen.empty() && is_wildcard(config.listen.front()) && !config.advertise) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("listen: {} is no address that others can reach: set advertise",
                            config.listen.front().to_string()));
  }
  if (config.advertise && is_wildcard(*config.advertise)) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("advertise: {} is no address that others can reach",
                            config.advertise->to_string()));
  }
  if (!config.disk_path.empty() && config.disk_bytes == 0) {
    return fail(ErrorCode::kInvalidArgument, "disk_size: must be set when disk is");
  }
  if (config.disk_path.empty() && config.disk_bytes != 0) {
    return fail(ErrorCode::kInvalidArgument, "disk: must be set when disk_size is");
  }
  return {};
}

struct Flags {
  std::array<std::vector<std::string>, kSettings.size()> values;
  std::string config_path;
  bool daemonize = false;
  bool version = false;
  bool check_config = false;
};

void declare(CLI::App& app, Flags& flags) {
  app.set_help_flag("-h,--help", "print this and exit");
  app.add_flag("--version", flags.version, "print the version and exit");
  app.add_flag("--check-config", flags.check_config, "check all settings and exit");
  app.add_option("--config", flags.config_path, "TOML file with any of these settings")
      ->type_name("FILE");
  for (size_t i = 0; i < kSettings.size(); i++) {
    const Setting& setting = kSettings[i];
    if (std::string_view(setting.key) == "daemonize") {
      app.add_flag("--daemonize", flags.daemonize, setting.help);
      continue;
    }
    auto* option = app.add_option(flag_of(setting.key), flags.values[i], setting.help)
                       ->type_name(setting.value_name)
                       ->expected(1)
                       ->allow_extra_args(false);
    option->multi_option_policy(setting.repeats ? CLI::MultiOptionPolicy::TakeAll
                                                : CLI::MultiOptionPolicy::TakeLast);
  }
  app.footer(
      "Each setting is also a key of the TOML file (disk_size) and an environment variable\n"
      "(BIGCAST_DISK_SIZE). The secret itself is taken from BIGCAST_SECRET only.\n"
      "Exit codes: 0 ok, 1 error, 2 usage or configuration; in use by another process:\n"
      "3 the socket, 4 a port, 5 the disk directory.");
  app.allow_extras();
}

Result<void> refuse_extras(const CLI::App& app) {
  std::vector<std::string> names = {"--config", "--version", "--help", "--check-config"};
  for (const Setting& setting : kSettings) names.push_back(flag_of(setting.key));
  for (const std::string& extra : app.remaining()) {
    const std::string name = extra.substr(0, extra.find('='));
    if (name.rfind("--secret", 0) == 0) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("unknown flag {}: others can see the command line; use --secret-file "
                              "or BIGCAST_SECRET",
                              name));
    }
    return fail(ErrorCode::kInvalidArgument,
                extra.rfind('-', 0) == 0
                    ? unknown(fmt::format("unknown flag {}", name), nearest_name(name, names))
                    : fmt::format("unexpected argument '{}'", extra));
  }
  return {};
}

}  // namespace

Result<CommandLine> parse_command_line(
    int argc, const char* const* argv,
    const std::function<const char*(const std::string&)>& environment) {
  CommandLine result;
  CLI::App app("bigcastd: a Bigcast node", "bigcastd");
  Flags flags;
  declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    result.action = CommandLine::Action::kPrintAndExit;
    result.text = app.help();
    return result;
  } catch (const CLI::ParseError& error) {
    return fail(ErrorCode::kInvalidArgument, error.what());
  }
  BIGCAST_TRY(refuse_extras(app));
  if (flags.version) {
    result.action = CommandLine::Action::kPrintAndExit;
    result.text = fmt::format("bigcastd {}\n", kVersion);
    return result;
  }
  if (flags.check_config) result.action = CommandLine::Action::kCheckConfig;

  Config& config = result.config;
  config.listen.push_back(rpc::Address::tcp("127.0.0.1", 7420));
  config.http = rpc::Address::tcp("127.0.0.1", 7421);
  if (flags.config_path.empty()) {
    if (const char* path = environment("BIGCAST_CONFIG")) flags.config_path = path;
  }
  if (!flags.config_path.empty()) BIGCAST_TRY(apply_file(config, flags.config_path));
  for (size_t i = 0; i < kSettings.size(); i++) {
    const Setting& setting = kSettings[i];
    const std::string variable = variable_of(setting.key);
    if (const char* text = environment(variable)) {
      BIGCAST_TRY(apply(config, setting,
                        setting.repeats ? split_commas(text) : std::vector<std::string>{text},
                        variable));
    }
    if (!flags.values[i].empty()) {
      BIGCAST_TRY(apply(config, setting, flags.values[i], flag_of(setting.key)));
    }
  }
  if (flags.daemonize) config.daemonize = true;
  BIGCAST_TRY(load_secret(config, environment));
  BIGCAST_TRY(check_together(config));
  return result;
}

std::string nearest_name(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = 1 + std::max<size_t>(2, word.size() / 2);  // farther is no help
  for (const std::string& candidate : candidates) {
    std::vector<size_t> row(candidate.size() + 1);  // Levenshtein, one row at a time
    for (size_t j = 0; j < row.size(); j++) row[j] = j;
    for (size_t i = 1; i <= word.size(); i++) {
      size_t diagonal = std::exchange(row[0], i);
      for (size_t j = 1; j < row.size(); j++) {
        const size_t change = diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, change}));
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

}  // namespace bigcast
