#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client_native/cli/command_line.h"
#include "client_native/client.h"

namespace bigcast::cli {

// Does what the command line says; reports errors itself. Returns the exit code.
int run(const CommandLine& line);

// What the commands share: a connection as the command line asks for it.
Result<std::unique_ptr<Client>> connect(const CommandLine& line, const std::string& name_space);
Result<std::unique_ptr<Client>> connect_to(const CommandLine& line,
                                           std::vector<std::string> servers,
                                           const std::string& name_space);

// Those with a file of their own. Errors that end the command are returned, others are told.
Result<void> disk_usage(const CommandLine& line);  // du
Result<void> bench(const CommandLine& line);

}  // namespace bigcast::cli
