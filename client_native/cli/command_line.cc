#include "client_native/cli/command_line.h"

#include <fnmatch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>
#include <string_view>

#include "base/nearest_name.h"
#include "base/units.h"
#include "client_native/cli/documents.h"
#include "rpc/auth.h"

namespace bigcast::cli {

namespace {

constexpr const char* kDefaultServer = "127.0.0.1:7420";

// As typed; empty where a flag was not given.
struct Typed {
  std::vector<std::string> servers;
  std::string local_node;
  std::string secret_file;
  std::optional<std::string> timeout;
  std::string chunk_size;
  std::string homes = "1";
  std::string replicas = "1";
  std::string durability = "memory";
  std::string key;
  std::vector<std::string> keys;
  std::vector<std::string> prefixes = {"default"};
  std::vector<std::string> files;
  std::string size = "256m";
  std::optional<std::string> ttl;
  std::optional<std::string> range;
  std::string interval = "2s";
  std::optional<std::string> repetitions;
  std::string name_space;
  std::string shell;
  bool version = false;
  bool no_compress = false;
  bool mappable = false;
};

void declare_globals(CLI::App& app, Typed& typed, CommandLine& line) {
  app.set_help_flag("-h,--help", "print this and exit");
  app.add_flag("--version", typed.version, "print the version and exit");
  app.add_option("--server", typed.servers,
                 "node to talk to, may be repeated; default $BIGCAST_SERVER or 127.0.0.1:7420")
      ->type_name("HOST:PORT|unix:PATH")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--local", typed.local_node, "read through this node of the same host")
      ->type_name("unix:PATH");
  app.add_option("--secret-file", typed.secret_file,
                 "file with the shared secret, or one namespace's key, readable by its owner only; "
                 "default $BIGCAST_SECRET_FILE, or the secret itself in $BIGCAST_SECRET")
      ->type_name("FILE");
  app.add_option("--timeout", typed.timeout, "give up after so long without progress; default 30s")
      ->type_name("DURATION");
  app.add_flag("--json", line.json, "print one JSON object a line");
  app.add_flag("--quiet", line.quiet, "print nothing but what was asked for and errors");
  app.footer(
      "Keys are NAMESPACE/NAME. Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 denied,\n"
      "5 unavailable, 130 or 143 when interrupted (an unfinished put or get leaves nothing).");
  app.fallthrough();
  app.require_subcommand(0, 1);
}

void declare_transfers(CLI::App& app, Typed& typed, CommandLine& line) {
  auto* put = app.add_subcommand("put", "store files, or standard input");
  put->add_option("file", typed.files, "files to read, or - for standard input")
      ->type_name("FILE|-")
      ->required();
  put->add_option("--key", typed.key,
                  "key to store it under, or what keys begin with, up to a '/'; default: "
                  "default/<name of the file>")
      ->type_name("KEY|NAMESPACE/[…/]");
  put->add_flag("--replace", line.replace, "replace the blob that has the key, once complete");
  put->add_option("--durability", typed.durability,
                  "disk: done once it would survive a crash of the node; default memory")
      ->type_name("memory|disk");
  put->add_option("--chunk-size", typed.chunk_size, "64k to 16m; default 4m")->type_name("SIZE");
  put->add_option("--homes", typed.homes, "spread it over so many of the servers; default 1")
      ->type_name("N");
  put->add_option("--replicas", typed.replicas, "keep it at so many of the servers; default 1")
      ->type_name("N");
  put->add_option("--ttl", typed.ttl, "remove it so long after it was put, at most 366 days")
      ->type_name("DURATION");
  put->add_flag("--no-compress", typed.no_compress, "store it as it is");
  put->add_flag("--mappable", typed.mappable, "readers on a node's host may map it (as it is)");

  auto* get = app.add_subcommand("get", "fetch a blob, verified");
  get->add_option("key", typed.key, "its key")->type_name("KEY")->required();
  get->add_option("file", typed.files, "file to write, or - for standard output")
      ->type_name("FILE|-")
      ->expected(1)
      ->required();
  get->add_option("--range", typed.range,
                  "only these bytes, counted from 0, END among them; START-: to the end; -N "
                  "(as --range=-N): the last N")
      ->type_name("START-END");
}

void declare_keys(CLI::App& app, Typed& typed) {
  constexpr const char* kPrefixHelp =
      "NAMESPACE, NAMESPACE/BEGINNING or NAMESPACE/GLOB (with * or ?); default: default";
  app.add_subcommand("ls", "list blobs in order of name")
      ->add_option("prefix", typed.prefixes, kPrefixHelp)
      ->type_name("PREFIX");
  app.add_subcommand("stat", "describe a blob")
      ->add_option("key", typed.key, "its key")
      ->type_name("KEY")
      ->required();
  app.add_subcommand("rm", "remove blobs, here and on all nodes that have copies")
      ->add_option("key", typed.keys, "their keys, or NAMESPACE/GLOB (with * or ?)")
      ->type_name("KEY")
      ->required();
  app.add_subcommand("pin", "keep what is in memory of blobs there, until this ends")
      ->add_option("key", typed.keys, "their keys")
      ->type_name("KEY")
      ->required();
  app.add_subcommand("unpin", "end all pins of blobs, whoever holds them")
      ->add_option("key", typed.keys, "their keys")
      ->type_name("KEY")
      ->required();
  app.add_subcommand("du", "add up sizes, by what is before the first '/' of names")
      ->add_option("prefix", typed.prefixes, kPrefixHelp)
      ->type_name("PREFIX");
}

void declare_nodes(CLI::App& app, Typed& typed) {
  app.add_subcommand("ping", "ask the nodes whether they are well");
  app.add_subcommand("info", "describe the nodes");
  app.add_subcommand("nodes", "list the nodes, a line each");
  auto* top = app.add_subcommand(
      "top", "show what the nodes hold and move, again and again; once if this is no terminal");
  top->add_option("--interval", typed.interval, "how often, from 100ms on; default 2s")
      ->type_name("DURATION");
  top->add_option("--count", typed.repetitions, "how many times; default: until interrupted")
      ->type_name("N");
  app.add_subcommand("doctor",
                     "look for the usual mistakes, and say what to do; 1 if it found any");
  app.add_subcommand("bench", "measure a put and a get of random bytes, which are removed again")
      ->add_option("--size", typed.size, "how many; default 256m")
      ->type_name("SIZE");
  app.add_subcommand("key",
                     "print the key of a namespace, made of the secret: with it in place of the "
                     "secret one reaches no other namespace")
      ->add_option("namespace", typed.name_space, "which one's")
      ->type_name("NAMESPACE")
      ->required();
  app.add_subcommand("version", "print the version");
  app.add_subcommand("completion", "print a script that completes command lines")
      ->add_option("shell", typed.shell, "which shell's")
      ->type_name("bash|zsh|fish")
      ->required();
  app.add_subcommand("man", "print the man page, bigcast(1)");
}

void declare_commands(CLI::App& app, Typed& typed, CommandLine& line) {
  declare_transfers(app, typed, line);
  declare_keys(app, typed);
  declare_nodes(app, typed);
  for (CLI::App* command : app.get_subcommands({})) {
    command->set_help_flag("-h,--help", "print this and exit");
    command->fallthrough();
    command->allow_extras();
  }
  app.allow_extras();
}

Result<void> read_secret(const Typed& typed, const Environment& environment, CommandLine& line) {
  const char* file = environment("BIGCAST_SECRET_FILE");
  const char* value = environment("BIGCAST_SECRET");
  if (typed.secret_file.empty() && file && value) {
    return fail(ErrorCode::kInvalidArgument,
                "BIGCAST_SECRET_FILE and BIGCAST_SECRET are both set: unset one");
  }
  if (!typed.secret_file.empty() || file) {
    BIGCAST_ASSIGN(line.secret,
                   Secret::from_file(typed.secret_file.empty() ? file : typed.secret_file));
  } else if (value) {
    BIGCAST_ASSIGN(line.secret, Secret::from_text(value, "BIGCAST_SECRET"));
  }
  BIGCAST_ASSIGN(const auto only, rpc::NamespaceKey::namespace_of(line.secret));
  if (only) line.any_namespace = *only;
  return {};
}

Result<uint32_t> read_timeout(const std::string& text) {
  const auto timeout = parse_duration(text);
  if (!timeout) return fail(timeout.error().code, "--timeout: " + timeout.error().message);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(*timeout).count();
  if (ms < 1 || ms > limits::kProgressTimeoutMsMax) {
    return fail(ErrorCode::kInvalidArgument, "--timeout: \"" + text + "\" is not from 1ms to 24h");
  }
  return static_cast<uint32_t>(ms);
}

Result<void> read_globals(const Typed& typed, const Environment& environment, CommandLine& line) {
  line.servers = typed.servers;
  line.local_node = typed.local_node;
  if (const char* listed = environment("BIGCAST_SERVER"); line.servers.empty() && listed) {
    line.servers = CLI::detail::split(listed, ',');
  }
  if (line.servers.empty()) line.servers = {kDefaultServer};
  if (typed.timeout) {
    BIGCAST_ASSIGN(line.timeout_ms, read_timeout(*typed.timeout));
  }
  return read_secret(typed, environment, line);
}

Result<Key> parse_key(const std::string& text) {
  auto key = Key::parse(text);
  if (!key) key.error().message = "KEY \"" + text + "\": " + key.error().message;
  return key;
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return number;
}

// How many of the servers an option asks for.
Result<uint32_t> read_servers(const std::string& option, const std::string& text, size_t servers,
                              uint32_t limit) {
  const auto count = parse_number(text);
  const size_t most = std::min<size_t>(servers, limit);
  if (count && *count >= 1 && *count <= most) return static_cast<uint32_t>(*count);
  return fail(ErrorCode::kInvalidArgument,
              option + ": \"" + text + "\" is not a number from 1 to " + std::to_string(most) +
                  (most < limit ? ", as many as --server names" : ""));
}

Result<void> read_put_keys(const Typed& typed, CommandLine& line) {
  const bool has_beginning = typed.key.ends_with('/');
  if (typed.files.size() > 1 && !typed.key.empty() && !has_beginning) {
    return fail(ErrorCode::kInvalidArgument,
                "--key: several files need different keys: end it with '/', and they get their "
                "names after that");
  }
  for (const std::string& file : typed.files) {
    if (file == "-" && (typed.key.empty() || has_beginning)) {
      return fail(ErrorCode::kInvalidArgument,
                  "--key: standard input has no name, so it is needed");
    }
    const std::string base = file.substr(file.find_last_of('/') + 1);
    const std::string beginning = typed.key.empty() ? "default/" : typed.key;
    BIGCAST_ASSIGN(auto key,
                   parse_key(typed.key.empty() || has_beginning ? beginning + base : typed.key));
    line.keys.push_back(std::move(key));
  }
  return {};
}

Result<void> read_put(const Typed& typed, CommandLine& line) {
  line.command = CommandLine::Command::kPut;
  line.files = typed.files;
  line.compress = !typed.no_compress;
  line.mappable = typed.mappable;
  line.durable = typed.durability == "disk";
  if (!line.durable && typed.durability != "memory") {
    return fail(ErrorCode::kInvalidArgument,
                "--durability: \"" + typed.durability + "\" is neither memory nor disk");
  }
  if (!typed.chunk_size.empty()) {
    auto size = parse_size(typed.chunk_size);
    if (!size || *size < limits::kChunkSizeMin || *size > limits::kChunkSizeMax) {
      return fail(ErrorCode::kInvalidArgument,
                  "--chunk-size: \"" + typed.chunk_size + "\" is not a size from 64k to 16m");
    }
    line.chunk_size = static_cast<uint32_t>(*size);
  }
  const size_t servers = line.servers.size();
  BIGCAST_ASSIGN(line.homes, read_servers("--homes", typed.homes, servers, limits::kStripesMax));
  BIGCAST_ASSIGN(line.replicas,
                 read_servers("--replicas", typed.replicas, servers, limits::kReplicasMax));
  if (typed.ttl) {
    const auto ttl = parse_duration(*typed.ttl);
    if (!ttl || *ttl <= Duration::zero()) {
      return fail(ErrorCode::kInvalidArgument,
                  "--ttl: \"" + *typed.ttl + "\" is not a duration, for example 90s or 12h");
    }
    line.ttl_ms =
        static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(*ttl).count());
  }
  return read_put_keys(typed, line);
}

Result<KeyPattern> parse_pattern(const std::string& text) {
  KeyPattern pattern;
  const size_t slash = text.find('/');
  pattern.name_space = text.substr(0, slash);
  if (slash != std::string::npos) pattern.text = text.substr(slash + 1);
  if (pattern.name_space.find_first_of("*?[") != std::string::npos) {
    return fail(ErrorCode::kInvalidArgument,
                "\"" + text + "\": the namespace must be one: a login is for one only");
  }
  auto valid = check_namespace(pattern.name_space);
  if (!valid) return fail(valid.error().code, "\"" + text + "\": " + valid.error().message);
  return pattern;
}

Result<void> read_patterns(const Typed& typed, CommandLine& line) {
  for (const std::string& text : typed.prefixes) {
    BIGCAST_ASSIGN(auto pattern, parse_pattern(text));
    line.listed.push_back(std::move(pattern));
  }
  return {};
}

Result<void> read_remove(const Typed& typed, CommandLine& line) {
  for (const std::string& text : typed.keys) {
    if (text.find_first_of("*?[") == std::string::npos) {
      BIGCAST_ASSIGN(auto key, parse_key(text));
      line.keys.push_back(std::move(key));
    } else {
      BIGCAST_ASSIGN(auto pattern, parse_pattern(text));
      line.listed.push_back(std::move(pattern));
    }
  }
  return {};
}

Result<void> read_keys(const Typed& typed, CommandLine& line) {
  for (const std::string& text : typed.keys) {
    BIGCAST_ASSIGN(auto key, parse_key(text));
    line.keys.push_back(std::move(key));
  }
  return {};
}

Result<void> read_one_key(const Typed& typed, CommandLine& line) {
  line.files = typed.files;
  BIGCAST_ASSIGN(auto key, parse_key(typed.key));
  line.keys.push_back(std::move(key));
  return {};
}

Result<ByteRange> parse_range(const std::string& text) {
  const size_t dash = text.find('-');
  const std::string_view before = std::string_view(text).substr(0, dash);
  const std::string_view after =
      dash == std::string::npos ? "" : std::string_view(text).substr(dash + 1);
  const auto first = parse_number(before);
  const auto last = parse_number(after);
  const bool valid = dash != std::string::npos && (first || before.empty()) &&
                     (last || after.empty()) && (first || last);
  if (valid && !first && *last > 0) return ByteRange{.last = *last};
  if (valid && first && !last) return ByteRange{.first = *first};
  if (valid && first && *last >= *first && *last < limits::kBlobSizeMax) {
    return ByteRange{.first = *first, .end = *last + 1};
  }
  return fail(ErrorCode::kInvalidArgument,
              "--range: \"" + text +
                  "\" is neither START-END (from 0 on, END included), START- nor -N (the last N)");
}

Result<void> read_get(const Typed& typed, CommandLine& line) {
  if (typed.range) {
    BIGCAST_ASSIGN(line.range, parse_range(*typed.range));
  }
  return read_one_key(typed, line);
}

Result<void> read_top(const Typed& typed, CommandLine& line) {
  constexpr auto kLeast = std::chrono::milliseconds(100);
  constexpr auto kMost = std::chrono::hours(1);
  const auto interval = parse_duration(typed.interval);
  if (!interval || *interval < kLeast || *interval > kMost) {
    return fail(ErrorCode::kInvalidArgument,
                "--interval: \"" + typed.interval + "\" is not from 100ms to 1h");
  }
  line.interval_ms = static_cast<uint32_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(*interval).count());
  if (!typed.repetitions) return {};
  const auto count = parse_number(*typed.repetitions);
  if (!count || *count < 1 || *count > UINT32_MAX) {
    return fail(ErrorCode::kInvalidArgument,
                "--count: \"" + *typed.repetitions + "\" is not a number from 1 on");
  }
  line.repetitions = static_cast<uint32_t>(*count);
  return {};
}

Result<void> read_bench(const Typed& typed, CommandLine& line) {
  const auto size = parse_size(typed.size);
  if (!size || *size == 0 || *size > limits::kBlobSizeMax) {
    return fail(ErrorCode::kInvalidArgument,
                "--size: \"" + typed.size + "\" is not a size from 1 to 256g");
  }
  line.bench_bytes = *size;
  return {};
}

// Nothing is asked of any node for it.
Result<void> read_key(const Typed& typed, CommandLine& line) {
  BIGCAST_TRY(check_namespace(typed.name_space));
  BIGCAST_ASSIGN(const auto only, rpc::NamespaceKey::namespace_of(line.secret));
  if (line.secret.empty() || only) {
    return fail(ErrorCode::kInvalidArgument,
                "--secret-file: keys are made of the nodes' secret, " +
                    (only ? "and this is the key of namespace " + *only
                          : std::string("which is needed (or BIGCAST_SECRET)")));
  }
  const std::string key = rpc::NamespaceKey::derive(line.secret, typed.name_space).to_text();
  line.text = line.json ? "{\"namespace\":\"" + typed.name_space + "\",\"key\":\"" + key + "\"}\n"
                        : key + "\n";
  return {};
}

struct Reading {
  const char* name;
  CommandLine::Command command;
  Result<void> (*read)(const Typed&, CommandLine&);
};

Result<void> read_nothing(const Typed& /*typed*/, CommandLine& /*line*/) { return {}; }

constexpr Reading kReadings[] = {
    {"put", CommandLine::Command::kPut, read_put},
    {"get", CommandLine::Command::kGet, read_get},
    {"stat", CommandLine::Command::kStat, read_one_key},
    {"ls", CommandLine::Command::kList, read_patterns},
    {"du", CommandLine::Command::kDiskUsage, read_patterns},
    {"pin", CommandLine::Command::kPin, read_keys},
    {"unpin", CommandLine::Command::kUnpin, read_keys},
    {"top", CommandLine::Command::kTop, read_top},
    {"rm", CommandLine::Command::kRemove, read_remove},
    {"ping", CommandLine::Command::kPing, read_nothing},
    {"info", CommandLine::Command::kInfo, read_nothing},
    {"nodes", CommandLine::Command::kNodes, read_nothing},
    {"doctor", CommandLine::Command::kDoctor, read_nothing},
    {"bench", CommandLine::Command::kBench, read_bench},
    {"key", CommandLine::Command::kPrint, read_key},
};

Result<void> read_command(const std::string& name, const Typed& typed, CommandLine& line) {
  for (const Reading& reading : kReadings) {
    if (name != reading.name) continue;
    line.command = reading.command;
    return reading.read(typed, line);
  }
  return fail(ErrorCode::kInternal, "unknown command");
}

// What only prints: nothing is read from the environment for it.
Result<bool> read_printing(const CLI::App& app, const std::string& name, const Typed& typed,
                           CommandLine& line) {
  if (name == "version") {
    line.text =
        line.json ? "{\"version\":\"" BIGCAST_VERSION "\"}\n" : "bigcast " BIGCAST_VERSION "\n";
  } else if (name == "man") {
    line.text = man_page(app);
  } else if (name == "completion") {
    BIGCAST_ASSIGN(line.text, completion(app, typed.shell));
  } else {
    return false;
  }
  return true;
}

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    if (option->nonpositional()) flags.push_back("--" + option->get_lnames().front());
  }
  return flags;
}

std::vector<std::string> names_of_commands(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

// What was typed and means nothing, with what it may have been meant to be.
Result<void> refuse_extras(const CLI::App& app) {
  const auto extras = app.remaining(true);
  if (extras.empty()) return {};
  const auto commands = app.get_subcommands();
  const std::string name = extras.front().substr(0, extras.front().find('='));
  if (name.starts_with('-')) {
    std::vector<std::string> flags = flags_of(app);
    if (!commands.empty()) {
      const auto more = flags_of(*commands.front());
      flags.insert(flags.end(), more.begin(), more.end());
    }
    return fail(ErrorCode::kInvalidArgument,
                did_you_mean("unknown option " + name, nearest_name(name, flags)));
  }
  if (commands.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                did_you_mean("unknown command \"" + name + "\"",
                             nearest_name(name, names_of_commands(app))));
  }
  return fail(ErrorCode::kInvalidArgument, "unexpected argument \"" + extras.front() + "\"");
}

// A secret on a command line is visible to all users: say so instead of just "unexpected".
Result<void> refuse_secret_argument(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument(argv[i]);
    if (argument == "--secret" || argument.starts_with("--secret=")) {
      return fail(ErrorCode::kInvalidArgument,
                  "unknown flag --secret: others can see the command line; use --secret-file or "
                  "BIGCAST_SECRET");
    }
  }
  return {};
}

}  // namespace

bool wants_json(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument(argv[i]);
    if (argument == "--json") return true;
    if (argument == "--") return false;
  }
  return false;
}

Result<CommandLine> parse_command_line(int argc, const char* const* argv,
                                       const Environment& environment) {
  CommandLine line;
  Typed typed;
  CLI::App app("bigcast: put, get and look after blobs on Bigcast nodes", "bigcast");
  declare_globals(app, typed, line);
  declare_commands(app, typed, line);
  BIGCAST_TRY(refuse_secret_argument(argc, argv));
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const auto asked = app.get_subcommands();
    line.text = asked.empty() ? app.help() : asked.front()->help("bigcast");
    return line;
  } catch (const CLI::ParseError& error) {
    BIGCAST_TRY(refuse_extras(app));  // a misspelt option may be why something is missing
    return fail(ErrorCode::kInvalidArgument, error.what());
  }
  BIGCAST_TRY(refuse_extras(app));
  const auto commands = app.get_subcommands();
  if (!typed.version && commands.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "a command is needed: " + CLI::detail::join(names_of_commands(app), ", "));
  }
  const std::string name = typed.version ? "version" : commands.front()->get_name();
  BIGCAST_ASSIGN(const bool prints, read_printing(app, name, typed, line));
  if (prints) return line;
  auto globals = read_globals(typed, environment, line);
  if (!globals && name == "doctor" && !line.servers.empty()) {
    line.bad_secret = globals.error();
  } else if (!globals) {
    return tl::unexpected(globals.error());
  }
  BIGCAST_TRY(read_command(name, typed, line));
  return line;
}

bool KeyPattern::matches(const std::string& name) const {
  if (!is_glob()) return name.starts_with(text);
  return fnmatch(text.c_str(), name.c_str(), FNM_NOESCAPE) == 0;
}

}  // namespace bigcast::cli
