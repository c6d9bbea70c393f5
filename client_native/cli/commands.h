#pragma once

#include "client_native/cli/command_line.h"

namespace bigcast::cli {

// Does what the command line says; reports errors itself. Returns the exit code.
int run(const CommandLine& line);

}  // namespace bigcast::cli
