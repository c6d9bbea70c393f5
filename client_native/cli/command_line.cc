#include "client_native/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>
#include <string_view>

#include "base/units.h"

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
  std::string durability = "memory";
  std::string key;
  std::vector<std::string> keys;
  std::string prefix = "default";
  std::string file;
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
                 "file with the shared secret, readable by its owner only; default "
                 "$BIGCAST_SECRET_FILE, or the secret itself in $BIGCAST_SECRET")
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

void declare_commands(CLI::App& app, Typed& typed, CommandLine& line) {
  auto* put = app.add_subcommand("put", "store a file, or standard input");
  put->add_option("file", typed.file, "file to read, or - for standard input")
      ->type_name("FILE|-")
      ->required();
  put->add_option("--key", typed.key, "key to store it under; default: default/<name of the file>")
      ->type_name("KEY");
  put->add_flag("--replace", line.replace, "replace the blob that has the key, once complete");
  put->add_option("--durability", typed.durability,
                  "disk: done once it would survive a crash of the node; default memory")
      ->type_name("memory|disk");
  put->add_option("--chunk-size", typed.chunk_size, "64k to 16m; default 4m")->type_name("SIZE");
  put->add_option("--homes", typed.homes, "spread it over so many of the servers; default 1")
      ->type_name("N");
  put->add_flag("--no-compress", typed.no_compress, "store it as it is");
  put->add_flag("--mappable", typed.mappable, "readers on a node's host may map it (as it is)");

  auto* get = app.add_subcommand("get", "fetch a blob, verified");
  get->add_option("key", typed.key, "its key")->type_name("KEY")->required();
  get->add_option("file", typed.file, "file to write, or - for standard output")
      ->type_name("FILE|-")
      ->required();

  app.add_subcommand("ls", "list blobs in order of name")
      ->add_option("prefix", typed.prefix, "NAMESPACE or NAMESPACE/BEGINNING; default: default")
      ->type_name("PREFIX");
  app.add_subcommand("stat", "describe a blob")
      ->add_option("key", typed.key, "its key")
      ->type_name("KEY")
      ->required();
  app.add_subcommand("rm", "remove blobs, here and on all nodes that have copies")
      ->add_option("key", typed.keys, "their keys")
      ->type_name("KEY")
      ->required();
  app.add_subcommand("ping", "ask the nodes whether they are well");
  for (CLI::App* command : app.get_subcommands({})) {
    command->set_help_flag("-h,--help", "print this and exit");
  }
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

Result<uint32_t> read_homes(const std::string& text, size_t servers) {
  uint32_t homes = 0;
  const auto* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, homes);
  const size_t most = std::min<size_t>(servers, limits::kStripesMax);
  if (parsed.ec == std::errc() && parsed.ptr == end && homes >= 1 && homes <= most) return homes;
  return fail(ErrorCode::kInvalidArgument, "--homes: \"" + text + "\" is not a number from 1 to " +
                                               std::to_string(most) +
                                               ", as many as --server names");
}

Result<void> read_put(const Typed& typed, CommandLine& line) {
  line.command = CommandLine::Command::kPut;
  line.file = typed.file;
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
  BIGCAST_ASSIGN(line.homes, read_homes(typed.homes, line.servers.size()));
  if (typed.key.empty() && typed.file == "-") {
    return fail(ErrorCode::kInvalidArgument, "--key: standard input has no name, so it is needed");
  }
  const std::string base = typed.file.substr(typed.file.find_last_of('/') + 1);
  BIGCAST_ASSIGN(auto key, parse_key(typed.key.empty() ? "default/" + base : typed.key));
  line.keys = {std::move(key)};
  return {};
}

Result<void> read_prefix(const Typed& typed, CommandLine& line) {
  const size_t slash = typed.prefix.find('/');
  line.prefix.name_space = typed.prefix.substr(0, slash);
  if (slash != std::string::npos) line.prefix.name = typed.prefix.substr(slash + 1);
  return check_namespace(line.prefix.name_space);
}

Result<void> read_command(const std::string& name, const Typed& typed, CommandLine& line) {
  using Command = CommandLine::Command;
  if (name == "put") return read_put(typed, line);
  if (name == "ls") {
    line.command = Command::kList;
    return read_prefix(typed, line);
  }
  if (name == "ping") {
    line.command = Command::kPing;
    return {};
  }
  line.command = name == "get" ? Command::kGet : name == "stat" ? Command::kStat : Command::kRemove;
  line.file = typed.file;
  for (const auto& text : name == "rm" ? typed.keys : std::vector{typed.key}) {
    BIGCAST_ASSIGN(auto key, parse_key(text));
    line.keys.push_back(std::move(key));
  }
  return {};
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
    line.text = app.help();
    return line;
  } catch (const CLI::ParseError& error) {
    return fail(ErrorCode::kInvalidArgument, error.what());
  }
  if (typed.version) {
    line.text = "bigcast " BIGCAST_VERSION "\n";
    return line;
  }
  const auto commands = app.get_subcommands();
  if (commands.empty()) {
    return fail(ErrorCode::kInvalidArgument, "a command is needed: put, get, ls, stat, rm or ping");
  }
  BIGCAST_TRY(read_globals(typed, environment, line));
  BIGCAST_TRY(read_command(commands.front()->get_name(), typed, line));
  return line;
}

}  // namespace bigcast::cli
