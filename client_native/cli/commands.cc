#include "client_native/cli/commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <memory>
#include <thread>

#include "client_native/cli/nodes.h"
#include "client_native/cli/output.h"
#include "client_native/cli/transfers.h"

namespace bigcast::cli {

namespace {

// A client for each namespace, made when it is needed.
class Clients {
 public:
  explicit Clients(const CommandLine& line) : line_(line) {}
  Result<Client*> of(const std::string& name_space) {
    auto& client = clients_[name_space];
    if (!client) {
      BIGCAST_ASSIGN(client, connect(line_, name_space));
    }
    return client.get();
  }

 private:
  const CommandLine& line_;
  std::map<std::string, std::unique_ptr<Client>> clients_;
};

Result<void> print_report(const CommandLine& line, const TransferReport& report, bool to_stderr) {
  if (line.quiet) return {};
  const std::string text = line.json ? json_of(report) : text_of(report);
  return to_stderr ? write_all(STDERR_FILENO, text, "standard error") : print(text);
}

Result<void> put_one(Clients& clients, const CommandLine& line, size_t i) {
  BIGCAST_ASSIGN(Client* const client, clients.of(line.keys[i].name_space));
  BIGCAST_ASSIGN(const auto report, put(*client, line, i));
  return print_report(line, report, false);
}

Result<void> put_all(const CommandLine& line) {
  Clients clients(line);
  Outcome outcome(line.json);
  for (size_t i = 0; i < line.keys.size(); i++) outcome.add(put_one(clients, line, i));
  return outcome.first();
}

Result<void> get_one(const CommandLine& line) {
  BIGCAST_ASSIGN(const auto client, connect(line, line.keys.front().name_space));
  BIGCAST_ASSIGN(const auto report, get(*client, line));
  return print_report(line, report, line.files.front() == "-");
}

Result<void> list(const CommandLine& line) {
  Clients clients(line);
  for (const KeyPattern& pattern : line.listed) {
    BIGCAST_ASSIGN(Client* const client, clients.of(pattern.name_space));
    Result<void> printed;
    BIGCAST_TRY(client->list(pattern.prefix(), [&](const BlobSummary& blob) {
      if (pattern.matches(blob.name)) printed = print(line.json ? json_of(blob) : line_of(blob));
      return printed.has_value();
    }));
    BIGCAST_TRY(printed);
  }
  return {};
}

Result<void> stat(const CommandLine& line) {
  const Key& key = line.keys.front();
  BIGCAST_ASSIGN(const auto client, connect(line, key.name_space));
  BIGCAST_ASSIGN(const auto blob, client->stat(key.name));
  return print(line.json ? json_of(blob) : text_of(blob));
}

Result<void> print_done(const CommandLine& line, const char* done, const Key& key) {
  if (line.quiet) return {};
  const std::string name = key.to_string();
  return print(line.json ? json_of_key(done, name) : fmt::format("{} {}\n", done, name));
}

Result<void> remove_one(Client& client, const CommandLine& line, const Key& key) {
  BIGCAST_TRY(client.remove_name(key.name));
  return print_done(line, "removed", key);
}

// A page of names at a time: removing while the node lists would be a race with itself.
Result<void> remove_matching(Client& client, const CommandLine& line, const KeyPattern& pattern,
                             Outcome& outcome) {
  bool any = false;
  std::string after;
  for (bool more = true; more;) {
    more = false;
    std::vector<std::string> names;
    BIGCAST_TRY(client.list(pattern.prefix(), [&](const BlobSummary& blob) {
      if (blob.name <= after && !after.empty()) return true;
      if (pattern.matches(blob.name)) names.push_back(blob.name);
      more = names.size() == limits::kListPageMax;
      return !more;
    }));
    for (const std::string& name : names) {
      outcome.add(remove_one(client, line, {pattern.name_space, name}));
    }
    any = any || !names.empty();
    if (more) after = names.back();
  }
  if (any) return {};
  return fail(ErrorCode::kNotFound,
              pattern.name_space + "/" + pattern.text + ": matches no blob here");
}

// Removes what it can; the result is the first error.
Result<void> remove(const CommandLine& line) {
  Clients clients(line);
  Outcome outcome(line.json);
  for (const Key& key : line.keys) {
    BIGCAST_ASSIGN(Client* const client, clients.of(key.name_space));
    outcome.add(remove_one(*client, line, key));
  }
  for (const KeyPattern& pattern : line.listed) {
    BIGCAST_ASSIGN(Client* const client, clients.of(pattern.name_space));
    outcome.add(remove_matching(*client, line, pattern, outcome));
  }
  return outcome.first();
}

Result<BlobSummary> pin_one(Clients& clients, const Key& key) {
  BIGCAST_ASSIGN(Client* const client, clients.of(key.name_space));
  auto blob = client->pin_name(key.name);
  if (!blob && blob.error().code == ErrorCode::kAborted) {
    return fail(ErrorCode::kAborted, key.to_string() + ": " + blob.error().message);
  }
  return blob;
}

// A pin ends with its session: it is set again and again, as the connection may have been lost,
// until a signal ends this process, or others ended all of its pins.
Result<void> pin(const CommandLine& line) {
  constexpr auto kAgainAfter = std::chrono::milliseconds(limits::kSessionRenewMs);
  Clients clients(line);
  std::vector<Key> keys = line.keys;
  Outcome unpinned(line.json);
  for (bool first = true; !keys.empty(); first = false) {
    if (!first) std::this_thread::sleep_for(kAgainAfter);
    std::vector<Key> held;
    for (const Key& key : keys) {
      const auto blob = pin_one(clients, key);
      if (!blob && blob.error().code != ErrorCode::kAborted) return tl::unexpected(blob.error());
      if (!blob) {
        unpinned.add(tl::unexpected(blob.error()));
        continue;
      }
      held.push_back(key);
      if (!first || line.quiet) continue;
      BIGCAST_TRY(print(line.json ? json_of(*blob) : "pinned " + key.to_string() + "\n"));
    }
    keys = std::move(held);
  }
  return unpinned.first();
}

Result<void> unpin_one(Clients& clients, const CommandLine& line, const Key& key) {
  BIGCAST_ASSIGN(Client* const client, clients.of(key.name_space));
  BIGCAST_TRY(client->unpin_name(key.name, Client::Pins::kEverybodys));
  return print_done(line, "unpinned", key);
}

Result<void> unpin(const CommandLine& line) {
  Clients clients(line);
  Outcome outcome(line.json);
  for (const Key& key : line.keys) outcome.add(unpin_one(clients, line, key));
  return outcome.first();
}

Result<void> dispatch(const CommandLine& line) {
  switch (line.command) {
    case CommandLine::Command::kPrint:
      return print(line.text);
    case CommandLine::Command::kPut:
      return put_all(line);
    case CommandLine::Command::kGet:
      return get_one(line);
    case CommandLine::Command::kList:
      return list(line);
    case CommandLine::Command::kStat:
      return stat(line);
    case CommandLine::Command::kRemove:
      return remove(line);
    case CommandLine::Command::kDiskUsage:
      return disk_usage(line);
    case CommandLine::Command::kPing:
      return ping(line);
    case CommandLine::Command::kInfo:
      return info(line);
    case CommandLine::Command::kNodes:
      return nodes(line);
    case CommandLine::Command::kPin:
      return pin(line);
    case CommandLine::Command::kUnpin:
      return unpin(line);
    case CommandLine::Command::kTop:
      return top(line);
    case CommandLine::Command::kDoctor:
      return doctor(line);
    case CommandLine::Command::kBench:
      return bench(line);
  }
  return fail(ErrorCode::kInternal, "unknown command");
}

}  // namespace

Result<std::unique_ptr<Client>> connect(const CommandLine& line, const std::string& name_space) {
  return connect_to(line, line.servers, name_space);
}

Result<std::unique_ptr<Client>> connect_to(const CommandLine& line,
                                           std::vector<std::string> servers,
                                           const std::string& name_space) {
  ClientOptions options;
  // Named alone, a node is asked itself, not through the one of this host.
  if (servers == line.servers) options.local_node = line.local_node;
  options.servers = std::move(servers);
  options.secret = line.secret.clone();
  options.name_space = name_space;
  options.client_name = "bigcast";
  options.progress_timeout_ms = line.timeout_ms;
  return Client::connect(std::move(options));
}

int run(const CommandLine& line) {
  const auto done = dispatch(line);
  if (done) return 0;
  // A reader that has seen enough (head) is not worth a message.
  if (!is_broken_pipe(done.error())) report(done.error(), line.json);
  return exit_code(done.error().code);
}

}  // namespace bigcast::cli
