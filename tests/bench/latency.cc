#include "tests/bench/latency.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "client_native/client.h"
#include "client_native/client_core.h"
#include "tests/bench/stalls.h"

namespace bigcast::bench {

namespace {

using Clock = std::chrono::steady_clock;

// What one client does over and over.
class Probe {
 public:
  static Result<std::unique_ptr<Probe>> connect(const LatencyOptions& options);
  Result<void> run() { return core_ ? locate() : read_first_chunk(); }

 private:
  Result<void> locate();
  Result<void> read_first_chunk();

  std::string name_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<ClientCore> core_;  // instead of a client, to make single calls
};

Result<std::unique_ptr<Probe>> Probe::connect(const LatencyOptions& options) {
  auto probe = std::make_unique<Probe>();
  probe->name_ = options.name;
  ClientOptions client;
  client.servers = {options.server};
  client.name_space = options.name_space;
  client.client_name = "bigcast-bench";
  if (options.locate_only) {
    BIGCAST_ASSIGN(auto targets, ClientTargets::from(client));
    probe->core_ = std::make_unique<ClientCore>(std::move(targets));
  } else {
    BIGCAST_ASSIGN(probe->client_, Client::connect(std::move(client)));
  }
  return probe;
}

kj::Promise<Result<void>> locate_in(rpc::Session::Client session, const std::string& name) {
  auto request = session.openRequest();
  request.initTarget().setName(name);
  return request.send().then(
      [](capnp::Response<rpc::Session::OpenResults>&& opened) -> kj::Promise<Result<void>> {
        if (opened.getResult().isError()) {
          return Result<void>(tl::unexpected(rpc::read(opened.getResult().getError())));
        }
        auto read = opened.getResult().getOpened().getBlob().readRequest();
        read.setIndex(0);
        read.setMode(rpc::ReadMode::PREFER_LOCATED);
        return read.send().then(
            [](capnp::Response<rpc::Blob::ReadResults>&& response) -> Result<void> {
              if (!response.getResult().isError()) return {};
              return tl::unexpected(rpc::read(response.getResult().getError()));
            });
      });
}

Result<void> Probe::locate() {
  return core_->io().blocking([this]() {
    auto& nodes = core_->nodes();
    return nodes.bulk_of(nodes.entry_points().front())
        .then([this](Result<kj::Own<NodeSession>> session) -> kj::Promise<Result<void>> {
          if (!session) return Result<void>(tl::unexpected(session.error()));
          return locate_in((*session)->session, name_).attach(kj::mv(*session));
        });
  });
}

Result<void> Probe::read_first_chunk() {
  BIGCAST_ASSIGN(const auto download, client_->download_name(name_));
  BIGCAST_TRY(download->next());
  return {};
}

// From when to when each call took.
Result<std::vector<Stalls::Span>> repeat(const std::function<Result<void>()>& call, uint32_t count,
                                         std::barrier<>& start) {
  Result<void> outcome;
  for (uint32_t i = 0; i < count / 10 + 1 && outcome; ++i) outcome = call();
  start.arrive_and_wait();
  BIGCAST_TRY(outcome);
  std::vector<Stalls::Span> samples;
  samples.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const auto started = Clock::now();
    BIGCAST_TRY(call());
    samples.push_back({started, Clock::now()});
  }
  return samples;
}

double in_us(Clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

// How long each took without what the stalls took of it, sorted.
std::vector<double> sorted_us(const std::vector<Stalls::Span>& calls,
                              const std::vector<Stalls::Span>& stalls) {
  std::vector<double> sorted;
  sorted.reserve(calls.size());
  for (const Stalls::Span& call : calls) {
    sorted.push_back(in_us(call.end - call.begin - Stalls::overlap(stalls, call)));
  }
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

double quantile(const std::vector<double>& sorted, double share) {
  const auto rank = static_cast<size_t>(share * static_cast<double>(sorted.size()));
  return sorted[std::min(rank, sorted.size() - 1)];
}

}  // namespace

Result<Latency> measure_calls(const std::vector<std::function<Result<void>()>>& calls,
                              uint32_t count, bool watch_stalls) {
  std::optional<Stalls> watch;
  if (watch_stalls) watch.emplace();
  std::barrier start(static_cast<std::ptrdiff_t>(calls.size()) + 1);
  std::vector<Result<std::vector<Stalls::Span>>> results(calls.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < calls.size(); ++i) {
    threads.emplace_back([&, i] { results[i] = repeat(calls[i], count, start); });
  }
  start.arrive_and_wait();
  const auto started = Clock::now();
  for (auto& thread : threads) thread.join();
  const auto ended = Clock::now();

  std::vector<Stalls::Span> all;
  for (const auto& samples : results) {
    if (!samples) return tl::unexpected(samples.error());
    all.insert(all.end(), samples->begin(), samples->end());
  }
  const auto took = sorted_us(all, {});
  Latency latency{quantile(took, 0.5),
                  quantile(took, 0.99),
                  quantile(took, 0.999),
                  static_cast<double>(all.size()) / in_us(ended - started) * 1e6,
                  {}};
  if (watch) {
    const auto stalls = watch->stop();
    const auto running = sorted_us(all, stalls);
    const auto stood_still = in_us(Stalls::overlap(stalls, {started, ended}));
    latency.running = {quantile(running, 0.5), quantile(running, 0.99),
                       stood_still / in_us(ended - started)};
  }
  return latency;
}

Result<Latency> measure_latency(const LatencyOptions& options) {
  std::vector<std::unique_ptr<Probe>> probes;
  std::vector<std::function<Result<void>()>> calls;
  for (uint32_t i = 0; i < options.clients; ++i) {
    BIGCAST_ASSIGN(auto probe, Probe::connect(options));
    calls.emplace_back([each = probe.get()] { return each->run(); });
    probes.push_back(std::move(probe));
  }
  return measure_calls(calls, options.count, options.watch_stalls);
}

}  // namespace bigcast::bench
