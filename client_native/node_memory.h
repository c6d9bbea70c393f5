#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bigcast {

// What the memory cgroups of a process leave free, in bytes; UINT64_MAX if none limits it. Looks at
// all levels up to the root, version 1 or 2; file cache that can be reclaimed counts as free.
// `mount` is where cgroups are mounted, `proc_cgroup` the content of /proc/self/cgroup.
uint64_t cgroup_free_memory(const std::string& mount, std::string_view proc_cgroup);

// min(1 GiB, 5 % of `ram`, half of `cgroup_free`), at least 64 MiB.
uint64_t node_memory_for(uint64_t ram, uint64_t cgroup_free);

}  // namespace bigcast
