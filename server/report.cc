#include "server/report.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>

#include "blobstore/memfd.h"
#include "server/relay.h"
#include "server/upload.h"

namespace bigcast {
namespace {

void write_host(const HostFacts& host, rpc::NodeReport::Builder out) {
  out.setDescriptorLimit(host.descriptor_limit);
  out.setDescriptorsOpen(host.descriptors_open);
  out.setMemoryLimit(host.memory_limit);
  out.setMemoryOfMachine(host.memory_of_machine);
  out.setDiskFree(host.disk_free);
  out.setLargePagesUnasked(large_pages_here() == LargePages::kUnasked);
}

void write_usage(const StoreUsage& usage, rpc::NodeReport::Builder out) {
  out.setBlobs(usage.blobs);
  out.setReservedBytes(usage.reserved);
  out.setPinnedBytes(usage.pinned);
  out.setMappedBytes(usage.memory_mapped);
  out.setChunksDemoted(usage.chunks_demoted);
  out.setChunksDropped(usage.chunks_dropped);
  out.setChunksQuarantined(usage.chunks_damaged);
}

void write_metrics(const Metrics& metrics, uint64_t store_failures, rpc::NodeReport::Builder out) {
  out.setSessions(static_cast<uint32_t>(metrics.sessions));
  out.setConnections(static_cast<uint32_t>(metrics.connections));
  out.setRelayedBlobs(static_cast<uint32_t>(metrics.relayed_blobs));
  out.setReceivedBytes(metrics.bytes_received());
  out.setServedBytes(metrics.bytes_served());
  out.setFetchedHomeBytes(metrics.bytes_fetched_home);
  out.setFetchedPeerBytes(metrics.bytes_fetched_peer);
  out.setChecksumFailures(metrics.checksum_failures + store_failures);
  out.setLoginFailures(metrics.login_failures);
  out.setPeerFetchFailures(metrics.peer_fetch_failures);
}

void write_unreachable(const NodeCore& core, rpc::NodeReport::Builder out) {
  std::map<std::string, Error> failures;  // several links may lead to one node
  core.relays->for_links([&](const PeerLink& link) {
    if (link.failure() == nullptr || failures.size() >= limits::kPageNodesMax) return;
    failures.emplace(link.address().to_string(), *link.failure());
  });
  auto list = out.initUnreachable(static_cast<kj::uint>(failures.size()));
  kj::uint i = 0;
  for (const auto& [address, error] : failures) {
    list[i].setAddress(address);
    rpc::write(error, list[i++].initError());
  }
}

}  // namespace

void write_info(const NodeCore& core, const StoreUsage& usage, rpc::NodeInfo::Builder out) {
  out.setVersion(BIGCAST_VERSION);
  rpc::write(core.epoch, out.initEpoch());
  out.setMemoryBudget(usage.memory_budget);
  out.setMemoryUsed(usage.memory_used);
  out.setDiskBudget(usage.disk_budget);
  out.setDiskUsed(usage.disk_used);
  out.setUptimeMs(static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(core.uptime()).count()));
  if (core.advertised) {
    auto advertised = out.initAdvertised();
    advertised.setHost(core.advertised->host.c_str());
    advertised.setPort(core.advertised->port);
  }
  out.setDraining(core.draining);
  out.setPid(static_cast<uint32_t>(getpid()));
}

void write_report(const NodeCore& core, const HostFacts& host, rpc::NodeReport::Builder out) {
  const StoreUsage usage = core.store->usage();
  write_info(core, usage, out.initInfo());
  out.setName(core.config.name);
  out.setNotReady(core.not_ready());
  out.setClockMs(std::chrono::duration_cast<std::chrono::milliseconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count());
  write_host(host, out);
  write_usage(usage, out);
  write_metrics(*core.metrics, usage.checksum_failures, out);
  out.setLeases(static_cast<uint32_t>(core.leases.size()));
  out.setUploads(static_cast<uint32_t>(std::ranges::count_if(
      core.uploads, [](const UploadService* upload) { return upload->is_open(); })));
  out.setRunningCalls(static_cast<uint32_t>(core.running()));
  write_unreachable(core, out);
}

}  // namespace bigcast
