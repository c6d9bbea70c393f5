#include "server/status.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/followers.h"
#include "server/page.h"
#include "server/relay.h"
#include "server/upload.h"

namespace bigcast {
namespace {

using Json = nlohmann::json;

// Text of others may not be well-formed UTF-8.
HttpAnswer json_answer(const Json& value, int status = 200) {
  return {status, value.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n",
          "application/json"};
}

std::string key_of(const BlobStat& stat) { return stat.name_space + "/" + stat.name; }

// How many chunks the whole blob has as far as is known: as many as are here, at least.
uint64_t chunk_count(const BlobStat& stat) {
  const uint64_t here = uint64_t{stat.chunk_count} * stat.stripe.count;
  return stat.size ? chunks_in(*stat.size, stat.chunk_size) : here;
}

Json describe(const BlobStat& stat) {
  Json blob{{"id", stat.id.to_string()},
            {"namespace", stat.name_space},
            {"chunk_size", stat.chunk_size},
            {"chunks", chunk_count(stat)},
            {"chunks_here", stat.chunk_count},
            {"stripes", stat.stripe.count},
            {"sealed", stat.sealed},
            {"stored_bytes", stat.stored_size},
            {"memory_bytes", stat.memory_bytes},
            {"disk_bytes", stat.disk_bytes},
            {"role", stat.role == BlobRole::kHome ? "home" : "relay"},
            {"durability", stat.durability == Durability::kDisk ? "disk" : "memory"}};
  blob["size"] = stat.size ? Json(*stat.size) : Json(nullptr);
  if (!stat.name.empty()) blob["key"] = key_of(stat);
  return blob;
}

// ---- /api/node

Json tiers(const StoreUsage& usage) {
  return {{{"name", "memory"}, {"used", usage.memory_used}, {"budget", usage.memory_budget}},
          {{"name", "disk"}, {"used", usage.disk_used}, {"budget", usage.disk_budget}}};
}

Json totals(const Metrics& metrics, const StoreUsage& usage) {
  return {{"received_bytes", metrics.bytes_received()},
          {"fetched_bytes", metrics.bytes_fetched_home + metrics.bytes_fetched_peer},
          {"served_bytes", metrics.bytes_served()},
          {"chunks_demoted", usage.chunks_demoted},
          {"chunks_dropped", usage.chunks_dropped}};
}

std::string name_of(const Followers::Standing& standing) {
  return standing.address ? standing.address->to_string() : "a relay";
}

// What goes out: blobs of which a relay does not have all yet, from whomever it gets the rest.
void add_outgoing(const NodeCore& core, Json& list) {
  core.live->for_some(limits::kPageTransfersMax, [&](const LiveBlob& live) {
    if (!live.followers) return;
    const auto stat = core.store->stat(live.id);
    if (!stat) return;
    live.followers->for_some(limits::kPageHostsMax, [&](const Followers::Standing& standing) {
      const auto held = std::count(standing.held.begin(), standing.held.end(), true);
      const auto all = static_cast<std::ptrdiff_t>(stat->chunk_count);
      if ((stat->sealed && held >= all) || list.size() >= limits::kPageTransfersMax) return;
      Json blob = describe(*stat);
      blob["kind"] = "send";
      blob["to"] = name_of(standing);
      blob["chunks_here"] = held;  // there, that is
      list.push_back(std::move(blob));
    });
  });
}

// What comes in: uploads, and blobs that this node does not have all of yet; and what goes out.
Json transfers(const NodeCore& core) {
  Json list = Json::array();
  const auto add = [&](const char* kind, BlobId id) {
    const auto stat = core.store->stat(id);
    if (!stat || list.size() >= limits::kPageTransfersMax) return;
    const uint64_t wanted = chunks_in(stat->size.value_or(0), stat->chunk_size);
    if (stat->size && stat->chunk_count >= wanted / stat->stripe.count && wanted > 0) return;
    Json blob = describe(*stat);
    blob["kind"] = kind;
    list.push_back(std::move(blob));
  };
  for (const UploadService* upload : core.uploads) {
    if (upload->is_open()) add("upload", upload->id());
  }
  for (const BlobId id : core.relays->some(limits::kPageTransfersMax)) add("fetch", id);
  add_outgoing(core, list);
  return list;
}

// The other nodes that fetch from here, or that this one fetches from.
Json nodes(const NodeCore& core) {
  std::set<std::string> addresses;
  auto add = [&](const rpc::Address& address) {
    if (addresses.size() < limits::kPageNodesMax) addresses.insert(address.to_string());
  };
  core.live->for_some(limits::kPageNodesMax, [&](const LiveBlob& blob) {
    if (!blob.followers) return;
    blob.followers->for_some(limits::kPageHostsMax, [&](const Followers::Standing& standing) {
      if (standing.address) add(*standing.address);
    });
  });
  core.relays->for_links([&](const PeerLink& link) { add(link.address()); });
  return addresses;
}

// Those that use most.
Json namespaces(const NodeCore& core) {
  auto all = core.store->namespaces();
  const size_t count = std::min(all.size(), limits::kPageNamespacesMax);
  std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count), all.end(),
                    [](const auto& a, const auto& b) { return a.used > b.used; });
  Json list = Json::array();
  for (size_t i = 0; i < count; i++) {
    list.push_back({{"name", all[i].name},
                    {"used", all[i].used},
                    {"reserved", all[i].reserved},
                    {"quota", all[i].quota}});
  }
  return list;
}

Json describe_node(const NodeCore& core) {
  const StoreUsage usage = core.store->usage();
  const Metrics& metrics = *core.metrics;
  return {
      {"version", BIGCAST_VERSION},
      {"address", core.advertised ? core.advertised->to_string() : ""},
      {"uptime_seconds", std::chrono::duration_cast<std::chrono::seconds>(core.uptime()).count()},
      {"not_ready", core.not_ready()},
      {"tiers", tiers(usage)},
      {"spare_bytes", usage.memory_spare},
      {"reserved_bytes", usage.reserved},
      {"blobs", usage.blobs},
      {"sessions", metrics.sessions.load()},
      {"leases", metrics.leases.load()},
      {"relayed_blobs", metrics.relayed_blobs.load()},
      {"totals", totals(metrics, usage)},
      {"namespaces", namespaces(core)},
      {"transfers", transfers(core)},
      {"nodes", nodes(core)}};
}

// ---- /api/blobs

HttpAnswer list_blobs(const NodeCore& core, const HttpRequest& request) {
  size_t limit = limits::kPageBlobsMax;
  if (const auto text = request.parameter("limit")) {
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), limit);
    if (error != std::errc() || end != text->data() + text->size() || limit < 1 ||
        limit > limits::kPageBlobsMax) {
      return json_answer(
          {{"error", "limit: must be 1 to " + std::to_string(limits::kPageBlobsMax)}}, 400);
    }
  }
  std::string first = request.parameter("from").value_or("");
  // No key stands between another and that one with a zero behind it.
  if (auto after = request.parameter("after")) first = std::move(*after) + '\0';
  Json blobs = Json::array();
  const auto page = core.store->list_all(first, limit + 1);
  for (size_t i = 0; i < std::min(limit, page.size()); i++) blobs.push_back(describe(page[i]));
  return json_answer({{"blobs", std::move(blobs)}, {"more", page.size() > limit}});
}

// ---- /api/blobs/ID

// A blob's chunks as at most kPageCellsMax cells of the same size.
class Cells {
 public:
  explicit Cells(uint64_t chunks)
      : chunks_(chunks),
        chunks_a_cell_(
            std::max<uint64_t>(1, (chunks + limits::kPageCellsMax - 1) / limits::kPageCellsMax)),
        counts_((chunks + chunks_a_cell_ - 1) / chunks_a_cell_) {}

  void add(uint64_t index) {
    if (index < chunks_) counts_[index / chunks_a_cell_]++;
  }
  uint64_t chunks_a_cell() const { return chunks_a_cell_; }

  // A digit a cell: 0 for none of its chunks, 9 for all.
  std::string digits() const {
    std::string text;
    for (size_t cell = 0; cell < counts_.size(); cell++) {
      const uint64_t whole = std::min(chunks_a_cell_, chunks_ - cell * chunks_a_cell_);
      const uint64_t count = counts_[cell];
      const uint64_t digit = count == 0 ? 0 : count >= whole ? 9 : 1 + count * 8 / whole;
      text += static_cast<char>('0' + digit);
    }
    return text;
  }

 private:
  uint64_t chunks_;
  uint64_t chunks_a_cell_;
  std::vector<uint64_t> counts_;
};

Json row(std::string host, const Cells& held, const Cells& coming) {
  return {{"host", std::move(host)}, {"held", held.digits()}, {"coming", coming.digits()}};
}

HttpAnswer chunk_map(NodeCore& core, const BlobStat& stat) {
  const uint64_t chunks = chunk_count(stat);
  const Cells none(chunks);
  Cells here = none;
  for (const uint32_t index : core.store->stored_chunks(stat.id)) here.add(index);
  Json hosts = Json::array({row("this node", here, none)});
  const LiveBlob* live = core.live->find(stat.id);
  if (live != nullptr && live->followers) {
    live->followers->for_some(limits::kPageHostsMax, [&](const Followers::Standing& standing) {
      Cells held = none;
      Cells coming = none;
      for (uint32_t i = 0; i < standing.held.size(); i++) {
        if (standing.held[i]) held.add(i);
      }
      for (const uint32_t index : standing.coming) coming.add(index);
      hosts.push_back(row(name_of(standing), held, coming));
    });
  }
  Json blob = describe(stat);
  blob["chunks_a_cell"] = none.chunks_a_cell();
  blob["hosts"] = std::move(hosts);
  return json_answer(blob);
}

}  // namespace

std::optional<HttpAnswer> health_page(const NodeCore& core, const HttpRequest& request) {
  if (request.path == "/livez") return HttpAnswer();
  if (request.path != "/readyz") return std::nullopt;
  const std::string why = core.not_ready();
  return why.empty() ? HttpAnswer() : HttpAnswer{503, why + "\n"};
}

std::optional<HttpAnswer> status_page(NodeCore& core, const HttpRequest& request) {
  constexpr std::string_view kBlobs = "/api/blobs";
  if (request.path == "/") return HttpAnswer{200, kPageHtml, "text/html; charset=utf-8"};
  if (request.path == "/metrics") {
    return HttpAnswer{200, core.metrics->render(core.store->usage(), core.store->namespaces()),
                      "text/plain; version=0.0.4; charset=utf-8"};
  }
  if (request.path == "/api/node") return json_answer(describe_node(core));
  if (request.path == kBlobs) return list_blobs(core, request);
  if (!request.path.starts_with(kBlobs) || request.path[kBlobs.size()] != '/') return std::nullopt;
  const auto id = BlobId::parse(request.path.substr(kBlobs.size() + 1));
  if (!id) return json_answer({{"error", "not the id of a blob"}}, 400);
  const auto stat = core.store->stat(*id);
  if (!stat) return json_answer({{"error", "no such blob here"}}, 404);
  return chunk_map(core, *stat);
}

}  // namespace bigcast
