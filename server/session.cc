#include "server/session.h"

#include <fmt/format.h>
#include <kj/debug.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "server/blob_reader.h"
#include "server/copy.h"
#include "server/copy_maker.h"
#include "server/host_facts.h"
#include "server/mappings.h"
#include "server/relay.h"
#include "server/replicas.h"
#include "server/report.h"
#include "server/stripe_keeper.h"
#include "server/upload.h"

namespace bigcast {
namespace {

constexpr uint32_t kChunkAlignment = 4096;

Result<void> check_chunk_size(uint32_t chunk_size) {
  if (chunk_size < limits::kChunkSizeMin || chunk_size > limits::kChunkSizeMax ||
      chunk_size % kChunkAlignment != 0) {
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("chunkSize: must be a multiple of {} from {} to {}, not {}", kChunkAlignment,
                    limits::kChunkSizeMin, limits::kChunkSizeMax, chunk_size));
  }
  return {};
}

Result<std::optional<uint64_t>> check_size(int64_t size, uint32_t chunk_size) {
  if (size == -1) return std::nullopt;
  const uint64_t size_max =
      std::min(limits::kBlobSizeMax, uint64_t{limits::kChunksPerBlobMax} * chunk_size);
  if (size < 0 || static_cast<uint64_t>(size) > size_max) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("size: must be -1 or 0 to {}, not {}", size_max, size));
  }
  return static_cast<uint64_t>(size);
}

Result<Durability> read_durability(rpc::Durability durability) {
  switch (durability) {
    case rpc::Durability::MEMORY:
      return Durability::kMemory;
    case rpc::Durability::DISK:
      return Durability::kDisk;
  }
  return fail(ErrorCode::kInvalidArgument, "durability: this node does not know that level");
}

void reply_stat(const NodeCore& core, const Result<BlobStat>& stat, rpc::StatResult::Builder out) {
  if (stat) {
    write_info(core, *stat, out.initInfo());
  } else {
    reply_error(out, stat.error());
  }
}

}  // namespace

SessionService::SessionService(kj::Own<SessionState> state)
    : state_(kj::mv(state)), core_(*state_->core) {}

SessionService::~SessionService() noexcept(false) { state_->detach(); }

kj::Promise<void> SessionService::renew(RenewContext context) {
  heard();
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::info(InfoContext context) {
  heard();
  write_info(core_, core_.store->usage(), context.getResults().initInfo());
  return kj::READY_NOW;
}

// It reads files of /proc and asks the file system: not on the loop.
kj::Promise<void> SessionService::report(ReportContext context) {
  heard();
  return core_.on_pool([path = core_.config.disk_path] { return look_at_host(path); })
      .then([this, context](const HostFacts& host) mutable {
        write_report(core_, host, context.getResults().initReport());
      });
}

Result<bigcast::CreateOptions> SessionService::check_create(rpc::CreateOptions::Reader in,
                                                            LeaseId lease) const {
  if (core_.draining) return fail(ErrorCode::kUnavailable, "this node is about to stop");
  bigcast::CreateOptions options;
  options.name = rpc::to_std(in.getName());
  BIGCAST_TRY(check_name(options.name));
  if (in.getChunkSize() != 0) options.chunk_size = in.getChunkSize();
  BIGCAST_TRY(check_chunk_size(options.chunk_size));
  BIGCAST_ASSIGN(options.size, check_size(in.getSize(), options.chunk_size));
  if (state_->uploads >= limits::kUploadsPerSessionMax) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("at most {} uploads a session", limits::kUploadsPerSessionMax));
  }
  if (!in.getUntilRemoved()) {
    if (lease.is_zero()) {
      return fail(ErrorCode::kInvalidArgument,
                  "untilRemoved: must be set in a session without a lease");
    }
    if (core_.leases_ending.contains(lease)) {
      return fail(ErrorCode::kUnavailable, "the lease has just ended; try again");
    }
    options.lease = lease;
  }
  options.id = BlobId::random();
  options.name_space = state_->name_space;
  options.replace = in.getReplace();
  BIGCAST_ASSIGN(options.durability, read_durability(in.getDurability()));
  options.mappable = in.getMappable();
  if (in.getTtlMs() > limits::kTtlMsMax) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("ttlMs: {} is above {}", in.getTtlMs(), limits::kTtlMsMax));
  }
  options.ttl = std::chrono::milliseconds(in.getTtlMs());
  if (in.hasPlaced()) BIGCAST_TRY(check_placed(in, options));
  return options;
}

// Takes over what the writer says of a blob that is to be here, or one stripe of it.
Result<void> SessionService::check_placed(rpc::CreateOptions::Reader in,
                                          bigcast::CreateOptions& options) const {
  const auto refuse = [](std::string message) {
    return fail(ErrorCode::kInvalidArgument, std::move(message));
  };
  BIGCAST_ASSIGN(rpc::BlobRefData whole, rpc::read(in.getPlaced()));
  if (whole.stripe || whole.stripes * whole.copies < 2) {
    return refuse("placed: must be a whole blob of several stripes or copies");
  }
  if (whole.stripes > 1 && whole.copies > 1) {
    return refuse("copies: a blob of several stripes can't have copies yet");
  }
  if (whole.name_space != options.name_space || whole.name != options.name ||
      whole.chunk_size != options.chunk_size) {
    return refuse("placed: namespace, name and chunk size must be those of the stripe");
  }
  const uint32_t stripe = in.getStripe();
  if (stripe >= whole.stripes) {
    return refuse(fmt::format("stripe: must be below {}, not {}", whole.stripes, stripe));
  }
  options.id = rpc::stripe_id(whole.id, stripe);
  options.stripe = {stripe, whole.stripes};
  whole.size = options.size;
  whole.root_digest = {};
  options.note = whole.to_bytes();
  return {};
}

Result<void> SessionService::check_first_home(const bigcast::CreateOptions& options) const {
  if (options.note.empty()) return {};
  BIGCAST_ASSIGN(const auto whole, rpc::BlobRefData::from_bytes(options.note));
  const uint32_t stripe = options.stripe.index;
  if (whole.homes.size() != size_t{whole.stripes} * whole.copies) {
    return fail(ErrorCode::kInvalidArgument,
                "placed: must have a home for each copy of each stripe");
  }
  if (core_.is_myself(whole.homes[stripe])) return {};
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("placed: the home of stripe {} is {}, which is not this node", stripe,
                          whole.homes[stripe].to_string()));
}

kj::Promise<void> SessionService::create(CreateContext context) {
  heard();
  const auto options = check_create(context.getParams().getOptions(), state_->lease);
  auto stat = [&]() -> Result<BlobStat> {
    if (!options) return tl::unexpected(options.error());
    BIGCAST_TRY(check_first_home(*options));
    if (core_.is_removing(options->id)) {
      return fail(ErrorCode::kAlreadyExists, "placed: a blob of that id was just removed");
    }
    BIGCAST_TRY(core_.store->create(*options));
    return core_.store->stat(options->id);
  }();
  if (options && !stat) {
    state_->audit("put", options->name, options->id, options->size, stat.error().to_string());
  }
  auto result = context.getResults().initResult();
  if (!stat) {
    reply_error(result, stat.error());
    return kj::READY_NOW;
  }
  auto created = result.initCreated();
  write_ref(core_, *stat, created.initRef());
  const auto asked = context.getParams().getOptions();
  auto upload = kj::heap<UploadService>(kj::addRef(*state_), *stat, asked.getAnnounceFrom());
  const auto whole = whole_ref(*stat);
  if (whole && stat->stripe.index > 0) core_.stripes->keep(stat->id, *whole);
  if (!whole || whole->copies < 2) {
    created.setUpload(kj::mv(upload));
    return kj::READY_NOW;
  }
  auto started = upload->start_copies(*stat, *whole, options->replace);
  rpc::Upload::Client client = kj::mv(upload);
  created.setUpload(client);
  return started.then(
      [this, context, stat = *stat, client = kj::mv(client)](const Result<void>& copies) mutable {
        if (copies) return;
        state_->audit("put", stat.name, stat.id, stat.size, copies.error().to_string());
        reply_error(context.getResults().initResult(), copies.error());
      });
}

// ---- Between homes.

Result<bigcast::CreateOptions> SessionService::check_copy(
    rpc::Session::CopyParams::Reader params) const {
  if (!state_->is_peer || !core_.advertised) {
    return fail(ErrorCode::kInvalidArgument, "copy: only from node to node");
  }
  BIGCAST_ASSIGN(auto options, check_create(params.getOptions(), rpc::read(params.getLease())));
  BIGCAST_ASSIGN(auto whole, rpc::BlobRefData::from_bytes(options.note));
  if (whole.copies < 2 || whole.homes.empty()) {
    return fail(ErrorCode::kInvalidArgument, "placed: must name the homes to copy from");
  }
  if (options.durability == Durability::kDisk && !core_.config.keeps()) {  // another node may
    return fail(ErrorCode::kUnavailable, "copy: this node keeps nothing beyond its end");
  }
  return options;
}

kj::Promise<void> SessionService::copy(CopyContext context) {
  heard();
  auto options = check_copy(context.getParams());
  if (!options) {
    reply_error(context.getResults().initResult(), options.error());
    return kj::READY_NOW;
  }
  const BlobId id = options->id;
  return core_.relays->make_way(id).then([this, context, options = std::move(*options)]() mutable {
    auto copy = start_copy(options);
    auto result = context.getResults().initResult();
    if (!copy) return reply_error(result, copy.error());
    auto copying = result.initCopying();
    copying.setCopy(kj::mv(*copy));
    rpc::write(*core_.advertised, copying.initAt());
    state_->audit("copy", options.name, options.id, options.size);
  });
}

Result<rpc::Copy::Client> SessionService::start_copy(const bigcast::CreateOptions& options) {
  const auto here = stat_in(core_, state_->name_space, options.id);
  if (here && here->role == BlobRole::kHome && here->sealed) {
    return rpc::Copy::Client(kj::heap<CopyService>(
        kj::addRef(*state_), options.id, kj::Maybe<kj::Own<RelayBlob>>(nullptr), kj::Own<void>()));
  }
  if (here && here->role == BlobRole::kHome) {
    return fail(ErrorCode::kUnavailable, "copy: the blob is being copied here already");
  }
  if (core_.is_removing(options.id)) {
    return fail(ErrorCode::kUnavailable, "copy: the blob was just removed here");
  }
  auto use = core_.relays->use(state_->name_space, LeaseId{});
  BIGCAST_ASSIGN(const auto ref, rpc::BlobRefData::from_bytes(options.note));
  BIGCAST_TRY(core_.store->create(options));
  if (!options.lease.is_zero() && !core_.leases.alive(options.lease)) {
    core_.leases.attach(options.lease);  // its grace begins
    core_.leases.detach(options.lease);
  }
  auto relayed = core_.relays->keep(ref.of_stripe(options.stripe.index));
  if (!relayed) {
    core_.remove_blob(options.id, relayed.error());
    return tl::unexpected<Error>(relayed.error());
  }
  return rpc::Copy::Client(
      kj::heap<CopyService>(kj::addRef(*state_), options.id, kj::mv(*relayed), kj::mv(use)));
}

kj::Promise<void> SessionService::compareBlobs(CompareBlobsContext context) {
  heard();
  const auto params = context.getParams();
  const bool fits = params.getBlobs().size() <= limits::kComparedMax &&
                    params.getRemoved().size() <= limits::kComparedMax;
  KJ_REQUIRE(fits && state_->is_peer, "compareBlobs: only from node to node, and within limits");
  core_.replicas->compare(*state_, params, context.getResults());
  return kj::READY_NOW;
}

Result<BlobStat> SessionService::home_of(BlobId id) const {
  BIGCAST_ASSIGN(BlobStat stat, stat_in(core_, state_->name_space, id));
  const LiveBlob* live = core_.live->find(id);
  // Neither sealed nor being written: its upload ended and it is about to be freed.
  const bool abandoned = !stat.sealed && (live == nullptr || !live->has_writer);
  if (stat.role != BlobRole::kHome || abandoned) {
    return fail(ErrorCode::kNotFound, fmt::format("no blob {} here", id.to_string()));
  }
  return stat;
}

Result<BlobStat> SessionService::find_home(const std::string& name) const {
  BIGCAST_TRY(check_name(name));
  auto stat = [&]() -> Result<BlobStat> {
    BIGCAST_ASSIGN(const BlobId id, core_.store->find(state_->name_space, name));
    return home_of(id);
  }();
  if (!stat && stat.error().code == ErrorCode::kNotFound) {
    return fail(ErrorCode::kNotFound, fmt::format("no blob named {}/{}", state_->name_space, name));
  }
  return stat;
}

Result<BlobStat> SessionService::home_of(rpc::OpenTarget::Reader target) const {
  switch (target.which()) {
    case rpc::OpenTarget::NAME:
      return find_home(rpc::to_std(target.getName()));
    case rpc::OpenTarget::COPY_ID:
      return stat_in(core_, state_->name_space, rpc::read(target.getCopyId()));
    case rpc::OpenTarget::HOME_ID:
      return home_of(rpc::read(target.getHomeId()));
    case rpc::OpenTarget::REF: {
      BIGCAST_ASSIGN(const rpc::BlobRefData ref, rpc::read(target.getRef()));
      return home_of(ref.id);
    }
  }
  return fail(ErrorCode::kUnsupported, "target: unknown kind");
}

kj::Promise<void> SessionService::open(OpenContext context) {
  heard();
  auto timing = core_.time(core_.metrics->calls.open);
  if (state_->opens >= limits::kOpensPerSessionMax) {
    reply_error(context.getResults().initResult(),
                {ErrorCode::kResourceExhausted,
                 fmt::format("at most {} open blobs a session", limits::kOpensPerSessionMax)});
    return kj::READY_NOW;
  }
  const auto target = context.getParams().getTarget();
  const auto stat = home_of(target);
  if (stat) {
    const auto kind = target.isCopyId() ? BlobService::Kind::kCopy : BlobService::Kind::kHome;
    reply_opened(context, *stat,
                 kj::heap<BlobService>(kj::addRef(*state_), core_.live->get(stat->id), kind,
                                       context.getParams().getOrder()));
    return kj::READY_NOW;
  }
  // Another node asks for what is here: it never makes us fetch.
  const bool may_relay = target.isRef() && !state_->is_peer;
  if (may_relay && stat.error().code == ErrorCode::kNotFound) {
    if (const auto ref = rpc::read(target.getRef()))
      return open_relayed(context, *ref).attach(kj::mv(timing));
  }
  reply_error(context.getResults().initResult(), stat.error());
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::open_relayed(OpenContext context, const rpc::BlobRefData& ref) {
  context.allowCancellation();
  return core_.relays->open(ref, state_->name_space, state_->lease)
      .then([this, context](Result<kj::Own<RelayBlob>> relayed) mutable {
        if (!relayed) {
          reply_error(context.getResults().initResult(), relayed.error());
          return;
        }
        const auto stat = stat_in(core_, state_->name_space, (*relayed)->id());
        if (!stat) {
          reply_error(context.getResults().initResult(), stat.error());
          return;
        }
        const auto order = context.getParams().getOrder();
        reply_opened(context, *stat,
                     kj::heap<BlobService>(kj::addRef(*state_), kj::mv(*relayed), order));
      })
      .attach(core_.count_running());
}

void SessionService::reply_opened(OpenContext& context, const BlobStat& stat,
                                  rpc::Blob::Client blob) {
  auto opened = context.getResults().initResult().initOpened();
  write_info(core_, stat, opened.initInfo());
  opened.setBlob(kj::mv(blob));
  if (context.getParams().getOrder() != rpc::ReadOrder::RESIDENT_FIRST) return;
  const auto resident = core_.store->resident_chunks(stat.id);
  if (resident.empty()) return;
  auto bits = opened.initResident(*std::ranges::max_element(resident) / 8 + 1);
  for (const uint32_t chunk : resident) bits[chunk / 8] |= 1u << chunk % 8;
}

kj::Promise<void> SessionService::stat(StatContext context) {
  heard();
  const auto stat = find_home(rpc::to_std(context.getParams().getName()));
  reply_stat(core_, stat, context.getResults().initResult());
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::list(ListContext context) {
  heard();
  const auto params = context.getParams();
  const size_t limit = params.getLimit() == 0
                           ? limits::kListPageMax
                           : std::min<size_t>(params.getLimit(), limits::kListPageMax);
  auto blobs = core_.store->list(state_->name_space, rpc::to_std(params.getPrefix()),
                                 rpc::to_std(params.getAfter()), limit + 1);
  const bool more = blobs.size() > limit;
  if (more) blobs.resize(limit);
  auto results = context.getResults();
  results.setMore(more);
  auto out = results.initBlobs(static_cast<kj::uint>(blobs.size()));
  for (kj::uint i = 0; i < out.size(); i++) write_info(core_, blobs[i], out[i]);
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::remove(RemoveContext context) {
  heard();
  const auto stat = home_of(context.getParams().getTarget());
  if (!stat) {
    reply_void(context.getResults().initResult(), fail(stat.error().code, stat.error().message));
    return kj::READY_NOW;
  }
  core_.remove_blob(stat->id, {ErrorCode::kNotFound, fmt::format("'{}' was removed", stat->name)});
  return core_.removed(stat->id).then(
      [this, context, stat = *stat](const Result<void>& removed) mutable {
        state_->audit("remove", stat.name, stat.id, stat.size,
                      removed ? "ok" : removed.error().to_string());
        reply_void(context.getResults().initResult(), removed);
      });
}

kj::Promise<void> SessionService::pin(PinContext context) {
  heard();
  const auto stat = [&]() -> Result<BlobStat> {
    BIGCAST_ASSIGN(const BlobStat found, home_of(context.getParams().getTarget()));
    BIGCAST_TRY(state_->pin(found.id));
    return core_.store->stat(found.id);
  }();
  reply_stat(core_, stat, context.getResults().initResult());
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::unpin(UnpinContext context) {
  heard();
  const auto stat = home_of(context.getParams().getTarget());
  if (stat && !context.getParams().getEverybodys()) state_->unpin(stat->id);
  if (stat && context.getParams().getEverybodys()) {
    const auto pinners = core_.pinners;  // a copy: who pins nothing more leaves the set
    for (SessionState* pinner : pinners) {
      if (pinner->name_space == state_->name_space) pinner->revoke_pin(stat->id);
    }
  }
  reply_void(context.getResults().initResult(),
             stat ? Result<void>() : tl::unexpected<Error>(stat.error()));
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::dropCopies(DropCopiesContext context) {
  heard();
  const auto stat = home_of(rpc::read(context.getParams().getId()));
  Result<void> result;
  if (!stat) {
    result = fail(stat.error().code, stat.error().message);
  } else {
    core_.announcements->withdraw(stat->id);
    core_.store->release(stat->id);
    if (core_.trace) core_.trace->released(stat->id);
    if (LiveBlob* live = core_.live->find(stat->id)) live->drop_copies();
    if (!state_->is_peer) core_.replicas->drop_copies(stat->id);
  }
  reply_void(context.getResults().initResult(), result);
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::announcements(AnnouncementsContext context) {
  heard();
  context.allowCancellation();
  return core_.announcements->next(state_->name_space, state_->lease, context.getParams().getSeen())
      .then([this, context](const Announcements::News& news) mutable {
        auto results = context.getResults();
        results.setSeen(news.seen);
        auto out = results.initBlobs(static_cast<kj::uint>(news.blobs.size()));
        for (kj::uint i = 0; i < out.size(); i++) {
          const auto stat = stat_in(core_, state_->name_space, news.blobs[i]);
          if (stat) write_ref(core_, *stat, out[i]);
        }
      });
}

kj::Promise<void> SessionService::followHome(FollowHomeContext context) {
  heard();
  const auto followed = [&]() -> Result<void> {
    if (state_->lease.is_zero() || state_->is_peer) {
      return fail(ErrorCode::kInvalidArgument, "followHome: only for sessions with a lease");
    }
    BIGCAST_ASSIGN(const rpc::Address home, rpc::read(context.getParams().getHome()));
    return core_.relays->follow_home(home, state_->name_space, state_->lease);
  }();
  reply_void(context.getResults().initResult(), followed);
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::returnMapping(ReturnMappingContext context) {
  heard();
  core_.mappings->give_back(state_->name_space, rpc::read(context.getParams().getToken()));
  return kj::READY_NOW;
}

}  // namespace bigcast
