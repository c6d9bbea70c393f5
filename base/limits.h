#pragma once

#include <cstddef>
#include <cstdint>

// Every limit of the system: queues, windows, messages, sizes, deadlines. A bound that is not
// here does not exist. Sizes are in bytes; durations are in the unit their name ends in.
namespace bigcast::limits {

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;
constexpr uint64_t kGiB = 1024 * kMiB;

// Blobs and chunks.
constexpr uint64_t kBlobSizeMax = 256 * kGiB;
constexpr uint32_t kChunkSizeDefault = 4 * kMiB;
constexpr uint32_t kChunkSizeMin = 64 * kKiB;
constexpr uint32_t kChunkSizeMax = 16 * kMiB;
constexpr uint32_t kChunksPerBlobMax = 1u << 20;
constexpr uint64_t kInlineBlobSizeMax = 1 * kMiB;  // up to this a blob has no memfd of its own
constexpr size_t kNameSizeMax = 1024;
constexpr size_t kNamespaceSizeMax = 128;
constexpr uint64_t kReservationStep = 256 * kMiB;  // for uploads of unknown size
constexpr uint64_t kTtlMsMax = 366ull * 24 * 3600 * 1000;

// A node's memory beside its budget. Receive + serve is the fixed reserve of the design (32 MiB).
constexpr uint64_t kReceiveReserve = 16 * kMiB;  // bytes of chunks granted to writers or on pull
constexpr uint64_t kServeReserve = 16 * kMiB;    // bytes of chunks read and not yet sent

// Client windows, a transfer each.
constexpr uint32_t kUploadWindowChunks = 4;
constexpr uint32_t kDownloadWindowChunks = 4;
constexpr uint32_t kEncodersPerUploadMax = 2;  // chunks being compressed: two buffers each
constexpr size_t kSourcesMax = 16;             // servers that a client may be given
constexpr uint32_t kSourceTriesMax = 2;        // of an unreachable source, without any progress
constexpr uint32_t kSourceRetryDelayMs = 200;
// Progress on a connection is at least this much within the timeout (renewals alone are less) ...
constexpr uint64_t kProgressBytesMin = 16 * kKiB;
// ... and no longer counts once so much has gone past what is waited for.
constexpr uint64_t kOvertakenBytesMax = 256 * kMiB;

// Embedded nodes.
constexpr uint64_t kNodeMemoryDefaultMin = 64 * kMiB;
constexpr uint64_t kNodeMemoryDefaultMax = 1 * kGiB;
constexpr size_t kNodeWordsMax = 4 * kKiB;  // of a node that could not start, kept for the error
constexpr size_t kTraceBuffer = 64 * kKiB;  // lines of a recorded trace before they are written

// RPC.
constexpr uint32_t kProtocolVersion = 1;
constexpr size_t kPreLoginFrameMax = 4 * kKiB;
constexpr size_t kFrameMax = kChunkSizeMax + 1 * kMiB;
constexpr size_t kFrameSegmentsMax = 64;
constexpr uint32_t kConnectionsMax = 1024;
constexpr uint32_t kStrangersMax = 256;  // of those: not logged in yet; the oldest makes room
constexpr size_t kListPageMax = 1000;
constexpr size_t kIoThreadsMax = 16;
constexpr size_t kBulkBytesMin = 256 * kKiB;       // of a frame: so much is left to an I/O thread
constexpr uint32_t kCallsPerConnectionMax = 4096;  // calls a peer may have open at once
constexpr uint32_t kPreLoginCallsMax = 8;          // ... before it has logged in
constexpr size_t kInboundCallBytesMax = kReceiveReserve + kFrameMax;  // of calls being served
// Frame buffers kept for reuse, a loop: all chunks of the receive reserve, each with its header.
constexpr size_t kReceiveCacheMax = kReceiveReserve + 1 * kMiB;
constexpr size_t kFdsPerMessageMax = 4;     // descriptors taken with one message
constexpr size_t kHomesMax = 64;            // nodes named in a ref
constexpr uint32_t kStripesMax = 16;        // homes that a blob's chunks are spread over
constexpr uint32_t kReplicasMax = 4;        // homes that have the same chunks
constexpr size_t kRefSizeMax = 32 * kKiB;   // a ref as bytes
constexpr size_t kClientNameSizeMax = 256;  // as given at login
constexpr uint32_t kAcceptPauseMs = 100;    // after running out of descriptors
constexpr size_t kNonceSize = 32;
constexpr size_t kSecretSizeMin = 32;
constexpr size_t kSecretSizeMax = 4 * kKiB;
constexpr size_t kErrorMessageMax = 1 * kKiB;
constexpr size_t kLoggedTextMax = 256;  // of what a stranger sent, in a line of the log

// Deadlines. All are on progress, on a monotonic clock.
constexpr uint32_t kConnectTimeoutMs = 5'000;
constexpr uint32_t kLoginTimeoutMs = 10'000;
constexpr uint32_t kNextServerMs = 2'000;        // a client asks its next server after this ...
constexpr uint32_t kSilentServerMs = 30'000;     // ... and the silent one last for so long
constexpr uint32_t kProgressTimeoutMs = 30'000;  // less than kProgressBytesMin in this fails
constexpr uint32_t kProgressTimeoutMsMax = 24 * 3600 * 1000;  // that a client may ask for
constexpr uint32_t kReservationTimeoutMs = 5'000;   // a reservation step that is not granted fails
constexpr uint32_t kSessionRenewMs = 5'000;         // clients renew this often ...
constexpr uint32_t kSessionTimeoutMs = 30'000;      // ... and are gone after this silence
constexpr uint32_t kLeaseGraceDefaultMs = 120'000;  // then blobs live this much longer
constexpr uint32_t kNodeStartTimeoutMs = 5'000;
constexpr uint32_t kDrainTimeoutMs = 30'000;
constexpr uint32_t kMappedWarningDefaultMs = 60'000;

// A node.
constexpr uint64_t kDescriptorsMin = 48;  // without so many it does not start
constexpr uint32_t kUploadsPerSessionMax = 64;
constexpr uint32_t kOpensPerSessionMax = 4096;
constexpr size_t kPinsPerSessionMax = 1024;
constexpr uint32_t kCreditsPerUploadMax = 64;      // granted or waited for at once
constexpr uint64_t kServeBytesPerPeer = 8 * kMiB;  // on their way to a peer, at least one chunk ...
constexpr uint64_t kLoadBytesPerPeer = kServeBytesPerPeer / 2;  // ... and in the serve reserve
constexpr uint32_t kReservationRetryMs = 100;       // a full store is asked again this often
constexpr uint32_t kRereadsMax = 8;                 // a chunk that moves while it is read
constexpr uint32_t kCorruptFetchesMax = 3;          // of one chunk from its home, then CORRUPT
constexpr uint32_t kReconnectBackoffMinMs = 100;    // to a home, doubling ...
constexpr uint32_t kReconnectBackoffMaxMs = 2'000;  // ... up to this
constexpr uint32_t kDrainQuietMs = 250;             // no call for this long: drained
constexpr uint32_t kHttpConnectionsMax = 64;        // the oldest makes room
constexpr uint32_t kHttpTimeoutMs = 10'000;         // for a request and its answer
constexpr size_t kHttpRequestMax = 4 * kKiB;
constexpr size_t kPageBlobsMax = 100;  // of a listing, as the node's page asks for it
constexpr size_t kPageTransfersMax = 50;
constexpr size_t kPageNamespacesMax = 50;
constexpr size_t kPageNodesMax = 256;
constexpr size_t kPageHostsMax = 64;     // rows of a chunk map
constexpr uint64_t kPageCellsMax = 400;  // ... and columns

// Fan-out: relays that get a blob from its home and from each other.
constexpr uint32_t kFollowersPerBlobMax = 1024;
constexpr uint32_t kAssignmentsMax = 8;  // in one answer of the home
// Chunks of a blob that are asked at once of any holder but its home, and by a relay: 16 MiB of
// them, but so many. Of the home it is twice as many.
constexpr uint32_t kFetchesMin = 4;
constexpr uint32_t kFetchesMax = 8;
constexpr uint32_t kFreshAtOnce = 2;         // asked of the home by a relay as the first one
constexpr uint32_t kWindowChunks = 32;       // a relay fetches so far ahead of a reader
constexpr uint32_t kWindowStoreShare = 4;    // ... and at most this part of its store
constexpr uint32_t kWantedMax = 64;          // chunks that a relay asks for at once
constexpr uint32_t kHolderStrikesMax = 2;    // a holder that failed a relay so often is not asked
constexpr uint32_t kChunkFailuresMax = 2;    // of a chunk, then it comes from the home
constexpr uint32_t kFollowerBeatMs = 1'000;  // a relay with chunks on their way says so this often
constexpr uint32_t kFollowerSilentMs = 3'000;  // after that nobody waits for what it was given
// A chunk on its way for so many beats, and four times as many as is usual, is late; for the most,
// in any case. Others no longer wait for it, nor for whoever sends it.
constexpr uint32_t kFlightLateBeatsMin = 3;
constexpr uint32_t kFlightLateBeatsMax = 20;
constexpr uint32_t kLateTimesUsual = 4;
// Who waits for it leaves the peer a little later, or places for fetches stay taken.
constexpr uint32_t kFetchLateMsMin = 2 * kFlightLateBeatsMin * kFollowerBeatMs;
constexpr uint32_t kFetchLateMsMax = 2 * kFlightLateBeatsMax * kFollowerBeatMs;
constexpr size_t kAnnouncedMax = 1024;        // blobs that a home announces at once
constexpr size_t kHomesFollowedMax = 64;      // whose announcements a lease's sessions hear
constexpr uint32_t kPrefetchRetryMs = 1'000;  // memory that was full is looked at again this often
// More is asked of a peer than of the home, who may be the only one to have the chunk.
constexpr uint64_t kPeerBytesMin = 4 * kProgressBytesMin;  // a peer that brings less is left ...
constexpr uint32_t kPeerStallTimeoutMs = 4'000;            // ... after this
constexpr uint32_t kHomeStallTimeoutMs = 10'000;  // ... a home: its credit is freed, and then again
constexpr uint32_t kPeerLinkIdleMs = 60'000;      // an unused link to a peer is closed

// Homes of the same blob.
constexpr size_t kComparedMax = 4096;         // blobs in one comparison of two homes
constexpr size_t kRemovedKnownMax = 1 << 16;  // removed blobs that a home still tells others about
constexpr uint32_t kReplicaBeatMs = 500;      // a home looks at the others so often ...
constexpr uint32_t kCompareMs = 10'000;       // ... and compares all blobs so often at least
constexpr uint32_t kReplicaAwayMs = 2'000;    // a home out of reach counts as lost after this
constexpr uint32_t kCopiesAtOnceMax = 2;      // that a home has made to replace lost ones
constexpr size_t kMendedPerTurn = 64;         // damaged chunks that are looked at in one go
constexpr uint32_t kMendPauseMinMs = 1'000;   // what no other home could repair is asked for ...
constexpr uint32_t kMendPauseMaxMs = 60'000;  // ... again after this, doubling up to this

// Disk tier.
constexpr uint64_t kExtentSize = 256 * kMiB;
constexpr uint32_t kDiskAlignment = 4096;
constexpr uint32_t kDiskBuffers = 4;               // aligned, for demotion and unaligned reads ...
constexpr uint64_t kDiskBufferSize = 1 * kMiB;     // ... each
constexpr uint64_t kPagePipeSize = 1 * kMiB;       // of a chunk on its way to disk without a copy
constexpr uint64_t kIndexWriteBuffer = 2 * kMiB;   // RocksDB
constexpr uint64_t kIndexBlockCache = 512 * kKiB;  // RocksDB
constexpr int kIndexOpenFilesMax = 32;             // RocksDB
constexpr size_t kIndexReadahead = 1 * kMiB;       // while it is read through
constexpr size_t kIndexBatchRows = 4096;           // chunk rows in one batch

// Mapped reads.
constexpr uint32_t kMappedShare = 2;     // at most this part (a half) of a store's memory is held
constexpr size_t kMappingsMax = 4096;    // that a node has given out and not got back
constexpr uint32_t kMapAttemptsMax = 8;  // of a blob whose chunks leave while the rest is fetched

// A store.
constexpr size_t kBlobsMax = 1u << 20;
constexpr size_t kChunksMax = 1u << 22;  // of all blobs, in memory and on disk: some 220 bytes each
constexpr size_t kUnerasedMax = 64;      // removed blobs whose rows the full disk still has
constexpr size_t kQuotasMax = 64;        // namespaces with a quota of their own, or labels
constexpr uint64_t kPinnedShare = 2;     // pins hold at most this part of the memory budget
constexpr uint32_t kDemotionsPerTurn = 4;  // ahead of need, until other work has its turn
// Memory above the high mark is made free ahead of need, down to the low one; percent of the
// budget.
constexpr uint32_t kMemoryMarkMin = 50;
constexpr uint32_t kMemoryHighDefault = 95;
constexpr uint32_t kMemoryLowDefault = 90;
constexpr uint64_t kScrubRateDefault = 8 * kMiB;  // bytes/s that are verified where they rest
constexpr uint64_t kScrubRateMax = 16 * kGiB;
constexpr uint32_t kReadAttemptsMax = 64;  // of a chunk that moves while it is read
// Dead blobs' memory files, kept for their pages.
constexpr size_t kSpareFilesMax = 8;
constexpr uint32_t kSpareKeepMs = 20'000;

static_assert(kChunkSizeMax <= kServeReserve && kChunkSizeMax <= kReceiveReserve);
static_assert(kReceiveReserve + kServeReserve <= 32 * kMiB);
static_assert(uint64_t{kChunkSizeMax} <= kExtentSize);
static_assert(kDiskBufferSize % kDiskAlignment == 0 && kChunkSizeMin % kDiskAlignment == 0);
static_assert(kMemoryMarkMin <= kMemoryLowDefault && kMemoryLowDefault <= kMemoryHighDefault);
static_assert(kSessionRenewMs * 3 <= kSessionTimeoutMs);
// Three peers that take nothing leave room for the fourth's chunk of usual size.
static_assert(kChunkSizeDefault <= kLoadBytesPerPeer && 4 * kLoadBytesPerPeer <= kServeReserve);
static_assert(kFetchLateMsMin > kPeerStallTimeoutMs);  // a fetch that waits for credit is not late
static_assert(kFollowerBeatMs * 2 < kFollowerSilentMs && kHomeStallTimeoutMs < kProgressTimeoutMs);
static_assert(kWindowChunks <= kWantedMax);
static_assert(kStripesMax * kReplicasMax <= kHomesMax);
static_assert(kStrangersMax < kConnectionsMax);

}  // namespace bigcast::limits
