#include <cstdlib>

#include "client_native/cli/command_line.h"
#include "client_native/cli/commands.h"
#include "client_native/cli/output.h"
#include "client_native/cli/signals.h"

int main(int argc, char** argv) {
  using namespace bigcast;
  cli::end_on_signals();
  const auto environment = [](const char* name) -> const char* { return std::getenv(name); };
  const auto line = cli::parse_command_line(argc, argv, environment);
  if (!line) {
    cli::report(line.error(), cli::wants_json(argc, argv));
    return cli::exit_code(line.error().code);
  }
  return cli::run(*line);
}
