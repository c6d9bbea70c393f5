#pragma once

#include "base/error.h"
#include "client_native/cli/command_line.h"
#include "client_native/cli/output.h"
#include "client_native/client.h"

namespace bigcast::cli {

// Stores line.file under line.keys[0]. A regular file must stay as it is meanwhile, else IO.
Result<TransferReport> put(Client& client, const CommandLine& line);

// Fetches line.keys[0] into line.file.
Result<TransferReport> get(Client& client, const CommandLine& line);

}  // namespace bigcast::cli
