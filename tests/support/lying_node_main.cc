// lying_node LISTEN TARGET SECRET_FILE [--next-version]: a LyingNode until it is killed, for tests
// that are no C++.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string_view>

#include "tests/support/lying_node.h"

int main(int count, char** arguments) try {
  using bigcast::test::LyingNode;
  const bool next = count == 5 && std::string_view(arguments[4]) == "--next-version";
  if (count != 4 && !next) {
    throw std::runtime_error("usage: lying_node LISTEN TARGET SECRET_FILE [--next-version]");
  }
  const auto secret = bigcast::Secret::from_file(arguments[3]);
  if (!secret) throw std::runtime_error(secret.error().message);
  const LyingNode node(arguments[1], arguments[2], *secret,
                       next ? LyingNode::Version::kNext : LyingNode::Version::kOurs);
  fmt::print("{} is ready\n", node.address());
  std::fflush(stdout);
  for (;;) pause();
} catch (const std::exception& error) {
  fmt::print(stderr, "lying_node: {}\n", error.what());
  return 1;
}
