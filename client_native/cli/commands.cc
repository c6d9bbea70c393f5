#include "client_native/cli/commands.h"

#include <unistd.h>

#include <map>
#include <memory>

#include "client_native/cli/output.h"
#include "client_native/cli/transfers.h"

namespace bigcast::cli {

namespace {

Result<std::unique_ptr<Client>> connect(const CommandLine& line, const std::string& name_space) {
  ClientOptions options;
  options.servers = line.servers;
  options.local_node = line.local_node;
  options.secret = line.secret.clone();
  options.name_space = name_space;
  options.client_name = "bigcast";
  options.progress_timeout_ms = line.timeout_ms;
  return Client::connect(std::move(options));
}

Result<void> transfer(const CommandLine& line) {
  const bool putting = line.command == CommandLine::Command::kPut;
  BIGCAST_ASSIGN(const auto client, connect(line, line.keys.front().name_space));
  BIGCAST_ASSIGN(const auto report, putting ? put(*client, line) : get(*client, line));
  if (line.quiet) return {};
  const std::string text = line.json ? json_of(report) : text_of(report);
  const bool output_is_data = !putting && line.file == "-";
  return output_is_data ? write_all(STDERR_FILENO, text, "standard error") : print(text);
}

Result<void> list(const CommandLine& line) {
  BIGCAST_ASSIGN(const auto client, connect(line, line.prefix.name_space));
  Result<void> printed;
  BIGCAST_TRY(client->list(line.prefix.name, [&](const BlobSummary& blob) {
    printed = print(line.json ? json_of(blob) : line_of(blob));
    return printed.has_value();
  }));
  return printed;
}

Result<void> stat(const CommandLine& line) {
  const Key& key = line.keys.front();
  BIGCAST_ASSIGN(const auto client, connect(line, key.name_space));
  BIGCAST_ASSIGN(const auto blob, client->stat(key.name));
  return print(line.json ? json_of(blob) : text_of(blob));
}

// Removes what it can; the result is the first error.
Result<void> remove(const CommandLine& line) {
  std::map<std::string, std::unique_ptr<Client>> clients;
  Result<void> outcome;
  for (const Key& key : line.keys) {
    auto& client = clients[key.name_space];
    if (!client) {
      BIGCAST_ASSIGN(client, connect(line, key.name_space));
    }
    auto removed = client->remove_name(key.name);
    if (removed && !line.quiet) {
      const std::string name = key.to_string();
      BIGCAST_TRY(print(line.json ? json_of_removed(name) : "removed " + name + "\n"));
    }
    if (removed) continue;
    if (outcome) {
      outcome = std::move(removed);
    } else {
      report(removed.error(), line.json);
    }
  }
  return outcome;
}

Result<NodeSummary> ping_one(const CommandLine& line, const std::string& server) {
  ClientOptions options;
  options.servers = {server};
  options.secret = line.secret.clone();
  options.client_name = "bigcast";
  options.progress_timeout_ms = line.timeout_ms;
  BIGCAST_ASSIGN(const auto client, Client::connect(std::move(options)));
  return client->ping();
}

// Every node that was named, not just the first that answers.
Result<void> ping(const CommandLine& line) {
  auto servers = line.servers;
  if (!line.local_node.empty()) servers.push_back(line.local_node);
  Result<void> outcome;
  for (const auto& server : servers) {
    auto node = ping_one(line, server);
    if (node) {
      BIGCAST_TRY(print(line.json ? json_of(*node) : text_of(*node)));
    } else if (outcome) {
      outcome = tl::unexpected(node.error());
    } else {
      report(node.error(), line.json);
    }
  }
  return outcome;
}

Result<void> dispatch(const CommandLine& line) {
  switch (line.command) {
    case CommandLine::Command::kPrint:
      return print(line.text);
    case CommandLine::Command::kPut:
    case CommandLine::Command::kGet:
      return transfer(line);
    case CommandLine::Command::kList:
      return list(line);
    case CommandLine::Command::kStat:
      return stat(line);
    case CommandLine::Command::kRemove:
      return remove(line);
    case CommandLine::Command::kPing:
      return ping(line);
  }
  return fail(ErrorCode::kInternal, "unknown command");
}

}  // namespace

int run(const CommandLine& line) {
  const auto done = dispatch(line);
  if (done) return 0;
  // A reader that has seen enough (head) is not worth a message.
  if (!is_broken_pipe(done.error())) report(done.error(), line.json);
  return exit_code(done.error().code);
}

}  // namespace bigcast::cli
