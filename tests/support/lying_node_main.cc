// lying_node LISTEN TARGET SECRET_FILE: a LyingNode until it is killed, for tests that are no C++.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "tests/support/lying_node.h"

int main(int count, char** arguments) try {
  if (count != 4) throw std::runtime_error("usage: lying_node LISTEN TARGET SECRET_FILE");
  const auto secret = bigcast::Secret::from_file(arguments[3]);
  if (!secret) throw std::runtime_error(secret.error().message);
  const bigcast::test::LyingNode node(arguments[1], arguments[2], *secret);
  fmt::print("{} is ready\n", node.address());
  std::fflush(stdout);
  for (;;) pause();
} catch (const std::exception& error) {
  fmt::print(stderr, "lying_node: {}\n", error.what());
  return 1;
}
