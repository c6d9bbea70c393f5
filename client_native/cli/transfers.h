#pragma once

#include <cstddef>

#include "base/error.h"
#include "client_native/cli/command_line.h"
#include "client_native/cli/output.h"
#include "client_native/client.h"

namespace bigcast::cli {

// Stores line.files[i] under line.keys[i]. A regular file must stay as it is meanwhile, else IO.
Result<TransferReport> put(Client& client, const CommandLine& line, size_t i);

// Fetches line.keys[0] into line.files[0].
Result<TransferReport> get(Client& client, const CommandLine& line);

}  // namespace bigcast::cli
