#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "client_native/cli/command_line.h"

// The commands about nodes. Each asks every node that was named, not just the first that answers,
// and prints what it can; the result is the first error.
namespace bigcast::cli {

Result<void> ping(const CommandLine& line);
Result<void> info(const CommandLine& line);
Result<void> nodes(const CommandLine& line);
Result<void> doctor(const CommandLine& line);
Result<void> top(const CommandLine& line);

// What they share: the nodes that were named.
std::vector<std::string> servers_of(const CommandLine& line);

}  // namespace bigcast::cli
