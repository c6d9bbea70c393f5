#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "client_native/client.h"

namespace bigcast::cli {

// What is known of one node that was asked about itself.
struct Patient {
  std::string server;          // as it was named
  std::optional<Error> error;  // why it gave no answer
  NodeReport node;             // else
  int64_t clock_ms = 0;        // this host's when the node answered
  std::string client_version;
};

struct Finding {
  std::string server;    // empty: here
  std::string check;     // what scripts look for: "unreachable", "descriptors", …
  bool serious = false;  // something does not work, or will not; else it may
  std::string problem;   // a sentence
  std::string advice;    // what to do
};

// The usual mistakes, found in what the nodes say; several nodes are also compared.
std::vector<Finding> diagnose(const std::vector<Patient>& patients);

// A secret file that can't be used.
Finding diagnose_secret(const Error& error);

}  // namespace bigcast::cli
