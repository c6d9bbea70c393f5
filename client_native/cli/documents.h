#pragma once

#include <string>

#include "base/error.h"

namespace CLI {
class App;
}

// What is made from the declared commands and options, so that it can't differ from them.
namespace bigcast::cli {

// A script that completes commands, options and file names; `shell` is bash, zsh or fish.
Result<std::string> completion(const CLI::App& app, const std::string& shell);

// bigcast(1) in troff.
std::string man_page(const CLI::App& app);

}  // namespace bigcast::cli
