#include "server/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <string_view>

#include "base/nearest_name.h"
#include "rpc/auth.h"
#include "server/metrics.h"
#include "server/settings.h"

namespace bigcast {
namespace {

constexpr std::string_view kVersion = BIGCAST_VERSION;

// Sets what one source says about one setting; a list replaces what an earlier source said.
Result<void> apply(CommandLine& line, const Setting& setting,
                   const std::vector<std::string>& values, const std::string& spelling) {
  if (setting.repeats) setting.clear(line.config);
  for (const std::string& value : values) {
    if (auto result = setting.set(line.config, value); !result) {
      return fail(result.error().code, fmt::format("{}: {}", spelling, result.error().message));
    }
  }
  line.effective[setting.key] = {fmt::format("{}", fmt::join(values, ",")), spelling};
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

Result<toml::table> read_toml(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("config: {}: no such file", path));
  }
  try {
    return toml::parse_file(path);
  } catch (const toml::parse_error& problem) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("config: {}:{}: {}", path, problem.source().begin.line,
                            std::string(problem.description())));
  }
}

Result<void> apply_file(CommandLine& line, const std::string& path) {
  BIGCAST_ASSIGN(const toml::table table, read_toml(path));
  std::vector<std::string> keys;
  keys.reserve(settings().size());
  for (const Setting& setting : settings()) keys.emplace_back(setting.key);
  for (const auto& [toml_key, node] : table) {
    const std::string key(toml_key.str());
    const Setting* setting = find_setting(key);
    if (setting == nullptr) {
      return fail(ErrorCode::kInvalidArgument,
                  did_you_mean(fmt::format("{}: unknown setting '{}'", path, key),
                               nearest_name(key, keys)));
    }
    const std::string spelling = fmt::format("{}: {}", path, key);
    auto values = toml_values(node, setting->repeats);
    if (!values) {
      return fail(values.error().code, fmt::format("{}: {}", spelling, values.error().message));
    }
    BIGCAST_TRY(apply(line, *setting, *values, spelling));
  }
  return {};
}

Result<Secret> secret_of(const char* setting, const std::string& path) {
  auto secret = Secret::from_file(path);
  if (!secret) {
    secret.error().message = fmt::format("{}: {}", setting, secret.error().message);
  }
  return secret;
}

Result<void> load_secret(Config& config, const Environment& environment) {
  const char* text = environment("BIGCAST_SECRET");
  if (text != nullptr && !config.secret_file.empty()) {
    return fail(ErrorCode::kInvalidArgument, "secret_file and BIGCAST_SECRET are both set");
  }
  if (text != nullptr) {
    BIGCAST_ASSIGN(config.secret, Secret::from_text(text, "BIGCAST_SECRET"));
  } else if (!config.secret_file.empty()) {
    BIGCAST_ASSIGN(config.secret, secret_of("secret_file", config.secret_file));
  }
  BIGCAST_ASSIGN(const auto name_space, rpc::NamespaceKey::namespace_of(config.secret));
  if (name_space) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: it is the key of namespace {}, which is for clients; a node needs "
                            "the secret that all keys are made of",
                            text == nullptr ? "secret_file" : "BIGCAST_SECRET", *name_space));
  }
  return {};
}

Result<void> load_http_password(Config& config) {
  if (config.http_password_file.empty()) return {};
  BIGCAST_ASSIGN(Secret password, secret_of("http_password_file", config.http_password_file));
  if (password.bytes().find(':') == std::string_view::npos) {
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("http_password_file: {} is not USER:PASSWORD", config.http_password_file));
  }
  config.http_password = std::move(password);
  return {};
}

Result<void> load_http_tls(Config& config) {
  const bool has_certificate = !config.http_certificate_file.empty();
  if (has_certificate != !config.http_key_file.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                has_certificate ? "http_key_file: must be set when http_certificate_file is"
                                : "http_certificate_file: must be set when http_key_file is");
  }
  if (!has_certificate) return {};
  BIGCAST_ASSIGN(const Secret key, secret_of("http_key_file", config.http_key_file));
  BIGCAST_ASSIGN(config.http_tls, TlsIdentity::load(config.http_certificate_file, key));
  return {};
}

bool is_wildcard(const rpc::Address& address) {
  return address.host == "0.0.0.0" || address.host == "::";
}

// What only shows when all settings are known.
Result<void> check_together(const Config& config) {
  const auto needs = [&](const rpc::Address& address, const char* setting, const Secret& secret,
                         const char* what, const char* remedy) -> Result<void> {
    if (address.is_loopback() || !secret.empty()) return {};
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("{}: {} is not a loopback address, so a {} is needed: set {}, or listen "
                    "on 127.0.0.1",
                    setting, address.to_string(), what, remedy));
  };
  for (const rpc::Address& address : config.listen) {
    BIGCAST_TRY(needs(address, "listen", config.secret, "secret", "secret_file"));
  }
  if (config.http) {
    BIGCAST_TRY(
        needs(*config.http, "http", config.http_password, "password", "http_password_file"));
  }
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
  if (config.memory_low > config.memory_high) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("memory_low: {}% is above memory_high, which is {}%", config.memory_low,
                            config.memory_high));
  }
  return {};
}

struct Flags {
  std::vector<std::vector<std::string>> values{settings().size()};
  std::string config_path;
  bool version = false;
  bool check_config = false;
  bool example_config = false;
  bool config_reference = false;
  bool metrics_reference = false;
  bool man = false;
};

void declare(CLI::App& app, Flags& flags) {
  app.set_help_flag("-h,--help", "print this and exit");
  app.add_flag("--version", flags.version,
               "print the version, the oldest glibc that it runs with, and exit");
  app.add_option("--config", flags.config_path, "TOML file with any of these settings")
      ->type_name("FILE");
  app.add_flag("--check-config", flags.check_config,
               "check all settings, print them with where they come from, and exit");
  app.add_flag("--example-config", flags.example_config,
               "print a TOML file with all settings at their presets, and exit");
  app.add_flag("--config-reference", flags.config_reference,
               "print the settings as a table in Markdown, and exit");
  app.add_flag("--metrics-reference", flags.metrics_reference,
               "print the metrics as a table in Markdown, and exit");
  app.add_flag("--man", flags.man, "print the man page, bigcastd(8), and exit");
  for (size_t i = 0; i < settings().size(); i++) {
    const Setting& setting = settings()[i];
    std::string help = setting.help;
    if (*setting.preset != '\0') help += fmt::format("; default {}", setting.preset);
    if (setting.is_flag()) {
      app.add_flag_callback(
          setting.flag(), [&flags, i] { flags.values[i] = {"true"}; }, setting.help);
      continue;
    }
    auto* option = app.add_option(setting.flag(), flags.values[i], help)
                       ->type_name(setting.value)
                       ->expected(1)
                       ->allow_extra_args(false);
    option->multi_option_policy(setting.repeats ? CLI::MultiOptionPolicy::TakeAll
                                                : CLI::MultiOptionPolicy::TakeLast);
  }
  app.footer(
      "Each setting is also a key of the TOML file (disk_size) and an environment variable\n"
      "(BIGCAST_DISK_SIZE). The secret itself is taken from BIGCAST_SECRET only.\n"
      "Exit codes: 0 ok, 1 error, 2 usage or configuration; in use by another process:\n"
      "3 the socket, 4 a port, 5 the disk directory; 6 what is on the disk is damaged.");
  app.allow_extras();
}

Result<void> refuse_extras(const CLI::App& app) {
  std::vector<std::string> names = {
      "--config",           "--version",           "--help", "--check-config", "--example-config",
      "--config-reference", "--metrics-reference", "--man"};
  for (const Setting& setting : settings()) names.push_back(setting.flag());
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
                    ? did_you_mean(fmt::format("unknown flag {}", name), nearest_name(name, names))
                    : fmt::format("unexpected argument '{}'", extra));
  }
  return {};
}

std::string version_text() { return fmt::format("bigcastd {}\n", kVersion); }

CommandLine printing(std::string text) {
  CommandLine line;
  line.action = CommandLine::Action::kPrintAndExit;
  line.text = std::move(text);
  return line;
}

// Presets, file, environment, flags: the later, the stronger.
Result<void> apply_all(CommandLine& line, Flags& flags, const Environment& environment) {
  for (const Setting& setting : settings()) {
    if (*setting.preset != '\0') BIGCAST_TRY(apply(line, setting, {setting.preset}, "default"));
  }
  if (flags.config_path.empty()) {
    if (const char* path = environment("BIGCAST_CONFIG")) flags.config_path = path;
  }
  if (!flags.config_path.empty()) BIGCAST_TRY(apply_file(line, flags.config_path));
  for (size_t i = 0; i < settings().size(); i++) {
    const Setting& setting = settings()[i];
    const std::string variable = setting.variable();
    if (const char* text = environment(variable)) {
      BIGCAST_TRY(apply(line, setting,
                        setting.repeats ? split_commas(text) : std::vector<std::string>{text},
                        variable));
    }
    if (!flags.values[i].empty()) {
      BIGCAST_TRY(apply(line, setting, flags.values[i], setting.flag()));
    }
  }
  return {};
}

// All of them, and what they must be together.
Result<CommandLine> settle(Flags& flags, const Environment& environment) {
  CommandLine line;
  if (flags.check_config) line.action = CommandLine::Action::kCheckConfig;
  BIGCAST_TRY(apply_all(line, flags, environment));
  BIGCAST_TRY(load_secret(line.config, environment));
  BIGCAST_TRY(load_http_password(line.config));
  BIGCAST_TRY(load_http_tls(line.config));
  BIGCAST_TRY(check_together(line.config));
  for (const auto& [key, chosen] : line.effective) {
    line.text += fmt::format("{} = {}  # {}\n", key, chosen.text, chosen.source);
  }
  return line;
}

}  // namespace

Result<CommandLine> parse_config_file(const std::string& path, const Environment& environment) {
  Flags flags;
  flags.config_path = path;
  return settle(flags, environment);
}

Result<CommandLine> parse_command_line(int argc, const char* const* argv,
                                       const Environment& environment) {
  CLI::App app("bigcastd: a Bigcast node", "bigcastd");
  Flags flags;
  declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return printing(app.help());
  } catch (const CLI::ParseError& error) {
    return fail(ErrorCode::kInvalidArgument, error.what());
  }
  BIGCAST_TRY(refuse_extras(app));
  if (flags.version) {
    CommandLine line = printing(version_text());
    line.action = CommandLine::Action::kVersion;
    return line;
  }
  if (flags.example_config) return printing(example_config());
  if (flags.config_reference) return printing(settings_reference());
  if (flags.metrics_reference) return printing(Metrics::reference());
  if (flags.man) return printing(man_page());
  return settle(flags, environment);
}

std::vector<std::string> reload(CommandLine& running, CommandLine next) {
  std::vector<std::string> told;
  for (const Setting& setting : settings()) {
    const std::string was = running.effective[setting.key].text;
    const std::string now = next.effective[setting.key].text;
    if (was == now) continue;
    told.push_back(fmt::format("{} = {} (was {}){}", setting.key, now.empty() ? "unset" : now,
                               was.empty() ? "unset" : was,
                               setting.reloads ? "" : ": from the next start on"));
    // What was checked when it was read can't fail now. What can become unset, or is more than its
    // text, is moved below.
    if (setting.reloads && !setting.repeats && !now.empty()) {
      (void)setting.set(running.config, now);
    }
    if (setting.reloads) running.effective[setting.key] = next.effective[setting.key];
  }
  if (running.config.secret.bytes() != next.config.secret.bytes()) {
    told.emplace_back("the secret has changed: logins need the new one, sessions go on");
  }
  if (running.config.http_password.bytes() != next.config.http_password.bytes()) {
    told.emplace_back("the password of http has changed");
  }
  const auto& tls = next.config.http_tls;
  if (running.config.http_tls && tls && !tls->has_same_certificate(*running.config.http_tls)) {
    told.emplace_back("the certificate of http has changed");
  }
  running.config.http_certificate_file = std::move(next.config.http_certificate_file);
  running.config.http_key_file = std::move(next.config.http_key_file);
  running.config.http_tls = std::move(next.config.http_tls);
  running.config.quota = std::move(next.config.quota);
  running.config.default_quota = next.config.default_quota;
  running.config.http_password_file = std::move(next.config.http_password_file);
  running.config.http_password = std::move(next.config.http_password);
  running.config.secret_file = std::move(next.config.secret_file);
  running.config.secret = std::move(next.config.secret);
  return told;
}

std::vector<std::string> misspelt_variables(const char* const* environment) {
  std::vector<std::string> known = {"BIGCAST_CONFIG", "BIGCAST_SECRET"};
  for (const Setting& setting : settings()) known.push_back(setting.variable());
  std::vector<std::string> told;
  for (; *environment != nullptr; environment++) {
    const std::string_view entry(*environment);
    const std::string name(entry.substr(0, entry.find('=')));
    if (!name.starts_with("BIGCAST_") || std::ranges::find(known, name) != known.end()) continue;
    // Others' variables begin like ours, too (the command line's, Kubernetes'), so this is no
    // error.
    for (const std::string& candidate : known) {
      if (edit_distance(name, candidate) <= 2) {
        told.push_back(did_you_mean(name + " is not a setting", candidate));
        break;
      }
    }
  }
  return told;
}

}  // namespace bigcast
