#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bigcast {

// What this process runs on, as far as it can be found out; 0 where it can't (or there is none).
struct HostFacts {
  uint64_t descriptor_limit = 0;
  uint64_t descriptors_open = 0;
  uint64_t memory_limit = 0;  // the least of its control group's and those above it
  uint64_t memory_of_machine = 0;
  uint64_t disk_free = 0;  // for this user, on the file system of `disk_path`
};

// Reads a few files of /proc and /sys. `disk_path` may be empty.
HostFacts look_at_host(const std::string& disk_path);

// The part of it that reads control groups of both versions: where this process's are named, and
// where they are mounted.
uint64_t memory_limit(const std::string& own_groups, const std::string& mount);

// The glibc that this process runs with, such as "2.36".
std::string glibc_here();

// UNSUPPORTED, with a sentence for people, if glibc `here` is older than `oldest`; both as "2.36".
Result<void> check_glibc(std::string_view oldest, std::string_view here);

}  // namespace bigcast
