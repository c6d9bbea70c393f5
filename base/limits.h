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

// A node's memory beside its budget. Receive + serve is the fixed reserve of the design (32 MiB).
constexpr uint64_t kReceiveReserve = 16 * kMiB;  // bytes of chunks granted to writers or on pull
constexpr uint64_t kServeReserve = 16 * kMiB;    // bytes of chunks read and not yet sent

// Client windows, a transfer each.
constexpr uint32_t kUploadWindowChunks = 4;
constexpr uint32_t kDownloadWindowChunks = 4;

// RPC.
constexpr uint32_t kProtocolVersion = 1;
constexpr size_t kPreLoginFrameMax = 4 * kKiB;
constexpr size_t kFrameMax = kChunkSizeMax + 1 * kMiB;
constexpr size_t kFrameSegmentsMax = 64;
constexpr uint32_t kConnectionsMax = 1024;
constexpr size_t kListPageMax = 1000;
constexpr uint32_t kCallsPerConnectionMax = 4096;  // calls a peer may have open at once
constexpr size_t kNonceSize = 32;
constexpr size_t kSecretSizeMin = 32;
constexpr size_t kSecretSizeMax = 4 * kKiB;
constexpr size_t kErrorMessageMax = 1 * kKiB;

// Deadlines. All are on progress, on a monotonic clock.
constexpr uint32_t kConnectTimeoutMs = 5'000;
constexpr uint32_t kLoginTimeoutMs = 10'000;
constexpr uint32_t kProgressTimeoutMs = 30'000;     // a transfer that moves no byte for this fails
constexpr uint32_t kReservationTimeoutMs = 5'000;   // a reservation step that is not granted fails
constexpr uint32_t kSessionRenewMs = 5'000;         // clients renew this often ...
constexpr uint32_t kSessionTimeoutMs = 30'000;      // ... and are gone after this silence
constexpr uint32_t kLeaseGraceDefaultMs = 120'000;  // then blobs live this much longer
constexpr uint32_t kNodeStartTimeoutMs = 5'000;
constexpr uint32_t kDrainTimeoutMs = 30'000;

// Disk tier.
constexpr uint64_t kExtentSize = 256 * kMiB;
constexpr uint32_t kDiskAlignment = 4096;

static_assert(kChunkSizeMax <= kServeReserve && kChunkSizeMax <= kReceiveReserve);
static_assert(kReceiveReserve + kServeReserve <= 32 * kMiB);
static_assert(uint64_t{kChunkSizeMax} <= kExtentSize);
static_assert(kSessionRenewMs * 3 <= kSessionTimeoutMs);

}  // namespace bigcast::limits
