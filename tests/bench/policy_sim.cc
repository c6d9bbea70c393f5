// Replays a trace against an eviction policy and prints what it misses; or makes a trace.
// docs/BENCHMARKS.md says what for.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/units.h"
#include "eviction/policy.h"
#include "tests/bench/broadcast.h"
#include "tests/bench/cache.h"
#include "tests/bench/trace.h"

namespace bigcast::bench {
namespace {

constexpr int kExitUsage = 2;

struct Arguments {
  std::string policy;
  std::string capacity;
  std::string order;
  std::string trace;
  bool unit_size = false;
  bool generate = false;
  uint64_t seed = 1;
};

tl::unexpected<Error> bad(std::string message) {
  return fail(ErrorCode::kInvalidArgument, std::move(message));
}

Result<Cache> make_cache(const Arguments& arguments) {
  const auto capacity = parse_size(arguments.capacity);
  if (!capacity || *capacity == 0) {
    return bad(fmt::format("--capacity-bytes: '{}' is no size above 0", arguments.capacity));
  }
  auto policy = eviction::make_policy(arguments.policy, *capacity);
  if (!policy) {
    return bad(fmt::format("--policy: '{}' is none of {}", arguments.policy,
                           fmt::join(eviction::kPolicyNames, ", ")));
  }
  return Cache(std::move(policy), *capacity, arguments.unit_size);
}

Result<void> replay_requests(Cache& cache, const Arguments& arguments, TraceFormat format) {
  if (!arguments.order.empty()) return bad("--order: only for a broadcast trace");
  BIGCAST_ASSIGN(TraceReader reader, TraceReader::open(arguments.trace, format));
  std::unordered_map<uint64_t, uint64_t> numbers;  // an object is a blob of one chunk
  while (true) {
    BIGCAST_ASSIGN(const auto request, reader.next());
    if (!request) return {};
    const uint64_t number = numbers.try_emplace(request->id, numbers.size()).first->second;
    cache.read(eviction::entry_of(number, 0), request->size);
  }
}

Result<void> replay_broadcast(Cache& cache, const Arguments& arguments) {
  std::optional<eviction::ReadOrder> order;
  if (arguments.order == "resident-first") {
    order = eviction::ReadOrder::kResidentFirst;
  } else if (arguments.order == "fixed") {
    order = eviction::ReadOrder::kAscending;
  } else if (!arguments.order.empty()) {
    return bad(fmt::format("--order: '{}' is neither fixed nor resident-first", arguments.order));
  }
  std::ifstream file(arguments.trace);
  return BroadcastReplay(cache, order).run(file);
}

Result<void> simulate(const Arguments& arguments) {
  BIGCAST_ASSIGN(Cache cache, make_cache(arguments));
  BIGCAST_ASSIGN(const TraceFormat format, format_of(arguments.trace));
  const bool broadcast = format == TraceFormat::kBroadcast;
  BIGCAST_TRY(broadcast ? replay_broadcast(cache, arguments)
                        : replay_requests(cache, arguments, format));
  const Cache::Counts& counts = cache.counts();
  const auto ratio = [](uint64_t part, uint64_t whole) {
    return static_cast<double>(part) / static_cast<double>(std::max<uint64_t>(whole, 1));
  };
  nlohmann::ordered_json line = {
      {"policy", cache.policy().name()},
      {"requests", counts.reads},
      {"bytes", counts.bytes_read},
      {"object_miss_ratio", ratio(counts.misses, counts.reads)},
      {"byte_miss_ratio", ratio(counts.bytes_missed, counts.bytes_read)},
  };
  if (broadcast) line["refetched_bytes_ratio"] = ratio(counts.bytes_refetched, counts.bytes_read);
  std::cout << line.dump() << '\n';
  return {};
}

void declare(CLI::App& app, Arguments& arguments) {
  app.add_option("--policy", arguments.policy,
                 fmt::format("one of {}", fmt::join(eviction::kPolicyNames, ", ")));
  app.add_option("--capacity-bytes", arguments.capacity,
                 "what the cache holds: bytes, or entries with --unit-size");
  app.add_flag("--unit-size", arguments.unit_size, "every entry has the size 1");
  app.add_option("--order", arguments.order,
                 "of a broadcast's readers: fixed or resident-first; default: as recorded streams "
                 "say, else fixed");
  app.add_option("TRACE", arguments.trace, "oracleGeneral, CSV (time,id,size) or broadcast");
  auto* generate = app.add_subcommand("generate", "print the reference broadcast load");
  generate->add_option("--seed", arguments.seed, "default 1");
  generate->callback([&arguments] { arguments.generate = true; });
}

Result<void> run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("replays a trace against an eviction policy", "policy_sim");
  declare(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return {};
  } catch (const CLI::ParseError& error) {
    return bad(error.what());
  }
  if (arguments.generate) {
    generate_broadcast(arguments.seed, std::cout);
    return {};
  }
  const std::pair<const char*, const std::string&> required[] = {
      {"--policy", arguments.policy},
      {"--capacity-bytes", arguments.capacity},
      {"TRACE", arguments.trace}};
  for (const auto& [name, value] : required) {
    if (value.empty()) return bad(fmt::format("{}: is required", name));
  }
  return simulate(arguments);
}

}  // namespace
}  // namespace bigcast::bench

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  const auto result = bigcast::bench::run(argc, argv);
  if (result) return std::cout.flush() ? 0 : 1;
  std::fprintf(stderr, "policy_sim: %s\n", result.error().to_string().c_str());
  return bigcast::bench::kExitUsage;
}
