#include "server/settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <filesystem>

#include "base/ids.h"
#include "base/log.h"
#include "base/troff.h"
#include "base/units.h"
#include "eviction/policy.h"

namespace bigcast {
namespace {

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

Result<void> set_rate(uint64_t& out, const std::string& text) {
  BIGCAST_ASSIGN(out, parse_size(text));
  if (out > limits::kScrubRateMax) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is above {}g", text, limits::kScrubRateMax / limits::kGiB));
  }
  return {};
}

// A share of the memory budget.
Result<void> set_mark(uint32_t& out, const std::string& text) {
  unsigned value = 0;
  const char* end = text.data() + text.size();
  const auto [last, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || last + 1 != end || *last != '%' || value < limits::kMemoryMarkMin ||
      value > 100) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is not a share from {}% to 100%", text, limits::kMemoryMarkMin));
  }
  out = value;
  return {};
}

Result<void> set_name(std::string& out, const std::string& text) {
  BIGCAST_TRY(check_namespace(text));  // the same alphabet: it ends in logs and labels
  out = text;
  return {};
}

Result<void> set_policy(std::string& out, const std::string& text) {
  if (std::ranges::find(eviction::kPolicyNames, text) == eviction::kPolicyNames.end()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is none of {}", text, fmt::join(eviction::kPolicyNames, ", ")));
  }
  out = text;
  return {};
}

Result<void> add_quota(Config& config, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("'{}' is not NAMESPACE=SIZE", text));
  }
  const std::string name_space = text.substr(0, equals);
  BIGCAST_TRY(check_namespace(name_space));
  BIGCAST_ASSIGN(const uint64_t bytes, parse_size(text.substr(equals + 1)));
  if (bytes == 0) return fail(ErrorCode::kInvalidArgument, "must be above 0");
  if (!config.quota.try_emplace(name_space, bytes).second) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("'{}' has a quota already", name_space));
  }
  if (config.quota.size() > limits::kQuotasMax) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("at most {} namespaces", limits::kQuotasMax));
  }
  return {};
}

constexpr auto kTcp = rpc::Address::Kind::kTcp;
constexpr auto kUnix = rpc::Address::Kind::kUnix;

Result<void> set_listen(Config& config, const std::string& text) {
  std::optional<rpc::Address> address;
  BIGCAST_TRY(set_address(address, text, kTcp));
  if (address) config.listen.push_back(*address);
  return {};
}

Result<void> set_exit_when_idle(Config& config, const std::string& text) {
  Duration value{};
  BIGCAST_TRY(set_positive(value, text));
  config.exit_when_idle = value;
  return {};
}

Result<void> set_level(Config& config, const std::string& text) {
  BIGCAST_TRY(check_log_level(text));
  config.log_level = text;
  return {};
}

Result<void> set_format(Config& config, const std::string& text) {
  BIGCAST_ASSIGN(config.log_format, parse_log_format(text));
  return {};
}

constexpr const char* kNetwork = "Addresses";
constexpr const char* kStore = "Memory and disk";
constexpr const char* kLife = "Lives of blobs, sessions and the node";
constexpr const char* kAccess = "Who may do what";
constexpr const char* kLogs = "Logs";

using C = Config;
using Text = std::string;
using Done = Result<void>;

const std::array kSettings = {
    Setting{kNetwork, "listen", "HOST:PORT", "127.0.0.1:7420",
            "where to serve RPC over TCP; may be repeated; 'none'", set_listen, true, false,
            [](C& c) { c.listen.clear(); }},
    Setting{kNetwork, "socket", "unix:PATH", "",
            "where to serve RPC on this host: unix:PATH or unix:@NAME",
            [](C& c, const Text& text) { return set_address(c.socket, text, kUnix); }},
    Setting{kNetwork, "advertise", "HOST:PORT", "",
            "the address that other nodes reach this one at; else the first of listen",
            [](C& c, const Text& text) { return set_address(c.advertise, text, kTcp); }},
    Setting{kNetwork, "http", "HOST:PORT", "127.0.0.1:7421",
            "where to serve the page and its /api, /metrics, /livez and /readyz; 'none'",
            [](C& c, const Text& text) { return set_address(c.http, text, kTcp); }},
    Setting{kNetwork, "link_speed", "SIZE", "0",
            "bytes a second that its network link carries (1 Gbit/s: 119m), for the metric "
            "bigcast_fanout_efficiency; 0: unknown",
            [](C& c, const Text& text) { return set_parsed(c.link_speed, text, parse_size); }},
    Setting{kNetwork, "name", "NAME", "bigcastd", "this node's name in logs and to its peers",
            [](C& c, const Text& text) { return set_name(c.name, text); }},

    Setting{kStore, "memory", "SIZE", "1g", "budget of the memory tier, for example 512m or 4g",
            [](C& c, const Text& text) { return set_memory(c.memory_bytes, text); }},
    Setting{kStore, "disk", "DIR", "",
            "directory of the disk tier; its 'bigcast' folder belongs to the node",
            [](C& c, const Text& text) { return set_path(c.disk_path, text); }},
    Setting{kStore, "disk_size", "SIZE", "", "budget of the disk tier",
            [](C& c, const Text& text) { return set_parsed(c.disk_bytes, text, parse_size); }},
    Setting{
        kStore, "memory_high", "PERCENT", "95%",
        "with a disk: when more of the memory is used, chunks move to disk ahead of need; 50% to "
        "100%",
        [](C& c, const Text& text) { return set_mark(c.memory_high, text); }},
    Setting{kStore, "memory_low", "PERCENT", "90%",
            "... until so much is used; prefetch fills no more; 50% to memory_high",
            [](C& c, const Text& text) { return set_mark(c.memory_low, text); }},
    Setting{
        kStore, "scrub_rate", "SIZE", "8m",
        "bytes a second of what is on disk that are verified in the background; 0: none. A node "
        "with exit_when_idle does not: what it has is short-lived",
        [](C& c, const Text& text) { return set_rate(c.scrub_rate, text); }},
    Setting{kStore, "policy", "NAME", "demand",
            "which chunk leaves memory next: demand, lru or s3fifo; to compare with: fifo, clock, "
            "sieve, arc, gdsf",
            [](C& c, const Text& text) { return set_policy(c.policy, text); }},
    Setting{kStore, "quota", "NAMESPACE=SIZE", "",
            "what the blobs of a namespace may take here, in memory and on disk; may be repeated",
            add_quota, true, true, [](C& c) { c.quota.clear(); }},
    Setting{kStore, "default_quota", "SIZE", "",
            "the same for each namespace that has none of its own; 0: no limit",
            [](C& c, const Text& text) { return set_parsed(c.default_quota, text, parse_size); },
            false, true},
    Setting{kStore, "record_trace", "FILE", "",
            "write who opens, reads and releases what to FILE, or to a new file if it is a "
            "directory, for policy_sim to replay",
            [](C& c, const Text& text) { return set_path(c.record_trace, text); }},

    Setting{kLife, "lease_grace", "DURATION", "120s",
            "how long blobs outlive their last session, for example 500ms or 10m",
            [](C& c, const Text& text) { return set_positive(c.lease_grace, text); }},
    Setting{kLife, "session_timeout", "DURATION", "30s", "a session silent for this long ends",
            [](C& c, const Text& text) { return set_positive(c.session_timeout, text); }},
    Setting{kLife, "mapped_warning", "DURATION", "60s",
            "warn, once, of a reader that still has a blob mapped this long after it went",
            [](C& c, const Text& text) { return set_positive(c.mapped_warning, text); }},
    Setting{
        kLife, "drain_timeout", "DURATION", "30s", "how long running calls may take after SIGTERM",
        [](C& c, const Text& text) { return set_positive(c.drain_timeout, text); }, false, true},
    Setting{kLife, "exit_when_idle", "DURATION", "",
            "exit when no session was attached for this long; nothing survives",
            set_exit_when_idle},
    Setting{kLife, "daemonize", "true|false", "false", "go on in the background once ready",
            [](C& c, const Text& text) { return set_bool(c.daemonize, text); }},

    Setting{kAccess, "secret_file", "FILE", "",
            "file with the shared secret, readable by its owner only; without one (and without "
            "BIGCAST_SECRET) the node is open, on loopback only",
            [](C& c, const Text& text) { return set_path(c.secret_file, text); }, false, true},
    Setting{
        kAccess, "http_password_file", "FILE", "",
        "file with USER:PASSWORD, 32 bytes or more and readable by its owner only, that http asks "
        "for; /livez and /readyz stay open",
        [](C& c, const Text& text) { return set_path(c.http_password_file, text); }, false, true},
    Setting{
        kAccess, "http_certificate_file", "FILE", "",
        "certificate of http in PEM, followed by those between it and its root: HTTPS only then",
        [](C& c, const Text& text) { return set_path(c.http_certificate_file, text); }, false,
        true},
    Setting{kAccess, "http_key_file", "FILE", "",
            "its private key in PEM, without a passphrase and readable by its owner only",
            [](C& c, const Text& text) { return set_path(c.http_key_file, text); }, false, true},
    Setting{
        kAccess, "audit_log", "FILE", "",
        "append a line of JSON for each change of blobs, each refused put and each denied login to "
        "this file; SIGHUP opens it again",
        [](C& c, const Text& text) { return set_path(c.audit_log, text); }},

    Setting{kLogs, "log_file", "FILE", "",
            "append the log to this file instead of standard error; SIGHUP opens it again",
            [](C& c, const Text& text) { return set_path(c.log_file, text); }},
    Setting{kLogs, "log_level", "LEVEL", "info", "trace, debug, info, warn, error or off",
            set_level, false, true},
    Setting{kLogs, "log_format", "text|json", "text", "lines for people, or an object a line",
            set_format, false, true},
};

// TOML as a person would write it.
std::string toml_value(const Setting& setting) {
  if (setting.is_flag()) return setting.preset;
  const std::string_view preset = setting.preset;
  const std::string quoted = fmt::format("\"{}\"", preset.empty() ? setting.value : preset);
  return setting.repeats ? "[" + quoted + "]" : quoted;
}

// `text` in lines of at most 98 characters that begin with "# ".
std::string commented(std::string_view text) {
  constexpr size_t kWidth = 96;
  std::string lines;
  while (text.size() > kWidth) {
    const size_t space = text.rfind(' ', kWidth);
    lines += fmt::format("# {}\n", text.substr(0, space));
    text.remove_prefix(space + 1);
  }
  return lines + fmt::format("# {}\n", text);
}

}  // namespace

std::string Setting::flag() const {
  std::string name = key;
  std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

std::string Setting::variable() const {
  std::string name = key;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return "BIGCAST_" + name;
}

std::span<const Setting> settings() { return kSettings; }

const Setting* find_setting(std::string_view key) {
  const auto found = std::find_if(kSettings.begin(), kSettings.end(),
                                  [&](const Setting& setting) { return setting.key == key; });
  return found == kSettings.end() ? nullptr : &*found;
}

std::string example_config() {
  std::string text =
      "# bigcastd --config FILE: all settings at their presets. Made by bigcastd "
      "--example-config.\n"
      "# An environment variable (BIGCAST_DISK_SIZE) wins over this file, a flag (--disk-size) "
      "over\n"
      "# both. SIGHUP makes a running node read the file again: what it applies says so.\n";
  const char* section = nullptr;
  for (const Setting& setting : kSettings) {
    if (section != setting.section) text += fmt::format("\n# ---- {}\n", setting.section);
    section = setting.section;
    text += "\n" + commented(std::string(setting.help) + (setting.reloads ? " (SIGHUP)" : ""));
    text += fmt::format("#{} = {}\n", setting.key, toml_value(setting));
  }
  return text;
}

std::string settings_reference() {
  std::string text =
      "| setting | value | preset | what it does | SIGHUP |\n|---|---|---|---|---|\n";
  for (const Setting& setting : kSettings) {
    std::string value = setting.value;
    if (const size_t bar = value.find('|'); bar != std::string::npos) value.insert(bar, "\\");
    text += fmt::format("| `{}` | {} | {} | {} | {} |\n", setting.key, value, setting.preset,
                        setting.help, setting.reloads ? "yes" : "");
  }
  return text;
}

std::string man_page() {
  std::string text = fmt::format(
      ".TH BIGCASTD 8 \"\" \"bigcastd {}\"\n.SH NAME\nbigcastd \\- a node that keeps and spreads "
      "large objects\n.SH SYNOPSIS\n\\fBbigcastd\\fR [\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n"
      "Serves the blobs of Spark applications and of \\fBbigcast\\fR(1). Each option is also a key "
      "of "
      "the TOML file that \\fB\\-\\-config\\fR names (disk_size) and an environment variable "
      "(BIGCAST_DISK_SIZE); an option is stronger than a variable, and that than the file.\n"
      ".SH OPTIONS\n.TP\n\\fB\\-\\-config\\fR \\fIFILE\\fR\nread settings from a TOML file\n"
      ".TP\n\\fB\\-\\-check\\-config\\fR\ncheck all settings, print them with where they come "
      "from, and exit\n",
      BIGCAST_VERSION);
  const char* section = nullptr;
  for (const Setting& setting : kSettings) {
    if (section != setting.section) text += fmt::format(".SS {}\n", troff(setting.section));
    section = setting.section;
    std::string help = setting.help;
    if (!setting.is_flag() && *setting.preset != '\0')
      help += fmt::format("; default {}", setting.preset);
    if (setting.reloads) help += " (SIGHUP applies it)";
    text += fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", troff(setting.flag()),
                        setting.is_flag() ? "" : fmt::format(" \\fI{}\\fR", troff(setting.value)),
                        troff(help));
  }
  return text +
         ".SH SIGNALS\n.TP\nTERM, INT\nrunning calls may end, new ones are refused; a second one "
         "ends "
         "it at once\n.TP\nHUP\nreads the settings again and opens its logs again\n"
         ".SH EXIT STATUS\n0 ok, 1 error, 2 usage or configuration; in use by another process: 3 "
         "the "
         "socket, 4 a port, 5 the disk directory; 6 what is on the disk is damaged.\n"
         ".SH SEE ALSO\n\\fBbigcast\\fR(1)\n";
}

}  // namespace bigcast
