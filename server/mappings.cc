#include "server/mappings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <utility>
#include <vector>

#include "base/log.h"

namespace bigcast {

MappingProcess::MappingProcess(NodeCore& core, int fd)
    : core_(core),
      ended_(core.loop.uv(), fd),
      watch_(ended_.readable()
                 .then([this] { core_.mappings->process_ended(*this); })
                 .eagerlyEvaluate([](kj::Exception&& exception) {
                   log().warn("watching a reader: {}", rpc::to_error(exception).to_string());
                 })) {}

int MappingProcess::pid() const {
  std::ifstream info(fmt::format("/proc/self/fdinfo/{}", ended_.fd()));
  for (std::string line; std::getline(info, line);) {
    int pid = 0;
    if (std::sscanf(line.c_str(), "Pid: %d", &pid) == 1) return std::max(pid, 0);
  }
  return 0;
}

Result<void> Mappings::check_room() const {
  if (mappings_.size() < limits::kMappingsMax) return {};
  return fail(
      ErrorCode::kNotMappable,
      fmt::format("not now: readers have {} mappings, which is the limit", mappings_.size()));
}

Id128 Mappings::add(kj::Own<MappingProcess> process, std::string name_space, BlobId id,
                    std::shared_ptr<const Hold> hold) {
  const Id128 token = Id128::random();
  mappings_.emplace(
      token, Mapping{kj::mv(process), std::move(name_space), id, std::move(hold), {}, false});
  return token;
}

void Mappings::tick(TimePoint now) {
  for (auto& [token, mapping] : mappings_) {
    if (mapping.warned || !mapping.hold->is_left) continue;
    if (!mapping.left_at) mapping.left_at = now;
    if (now - *mapping.left_at < core_.config.mapped_warning) continue;
    mapping.warned = true;
    ++core_.metrics->mappings_overdue;
    log().warn(
        "a reader keeps the memory of a blob that has gone: process {} has had {} of namespace "
        "\"{}\" mapped for {} s since",
        mapping.process->pid(), mapping.id.to_string(), quotable(mapping.name_space),
        std::chrono::duration_cast<std::chrono::seconds>(now - *mapping.left_at).count());
  }
}

void Mappings::give_back(std::string_view name_space, Id128 token) {
  const auto found = mappings_.find(token);
  if (found == mappings_.end() || found->second.name_space != name_space) return;
  Mapping mapping = std::move(found->second);
  mappings_.erase(found);
  end(std::move(mapping));
}

void Mappings::process_ended(const MappingProcess& process) {
  std::vector<Mapping> ended;
  for (auto it = mappings_.begin(); it != mappings_.end();) {
    if (it->second.process.get() == &process) {
      ended.push_back(std::move(it->second));
      it = mappings_.erase(it);
    } else {
      ++it;
    }
  }
  if (!ended.empty()) log().info("a reader ended with {} mappings", ended.size());
  for (Mapping& mapping : ended) end(std::move(mapping));
}

void Mappings::end(Mapping mapping) {
  let_go(std::move(mapping.hold));
  core_.destroy_later(kj::mv(mapping.process));  // its watch may be what runs now
}

void Mappings::let_go(std::shared_ptr<const Hold> hold) {
  if (!hold || core_.is_stopping()) return;
  core_.background(
      core_.on_pool([store = core_.store, hold = std::move(hold)]() mutable { hold.reset(); }));
}

}  // namespace bigcast
