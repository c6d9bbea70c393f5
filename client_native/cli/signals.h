#pragma once

#include <string>

namespace bigcast::cli {

// Makes SIGINT and SIGTERM end the process with 130 or 143 at any time, after removing the file
// named by set_unfinished_file. The node frees an unfinished upload when the connection closes.
// Call it first, before there are other threads.
void end_on_signals();

// The temporary file that must not stay behind; empty: none. Thread-safe.
void set_unfinished_file(const std::string& path);

// Renames the unfinished file to `path`; no signal comes between. Returns errno, 0 if all is well.
int finish_unfinished_file(const std::string& path);

}  // namespace bigcast::cli
