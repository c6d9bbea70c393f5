# The Bigcast protocol, version 1. docs/PROTOCOL.md explains the flows.
@0xf78e5a9b7a8a4690;
using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("bigcast::rpc");

# Outcomes that callers handle are unions with an `error`; an RPC exception is a fault of the
# connection or of a programme. Dropping a capability is the clean-up of what it stands for.

struct Error {
  code @0 :UInt16;     # base/error.h, ErrorCode
  message @1 :Text;
}

struct Id128 {
  hi @0 :UInt64;
  lo @1 :UInt64;
}

struct Endpoint {
  host @0 :Text;       # an IP address; names are resolved by whoever makes the ref
  port @1 :UInt16;
}

struct ChunkMeta {
  index @0 :UInt32;
  rawSize @1 :UInt32;      # bytes before compression
  storedSize @2 :UInt32;   # bytes as they travel and rest
  codec @3 :UInt8;         # codec/codec.h, Codec
  digestHi @4 :UInt64;     # XXH3-128 of the stored bytes
  digestLo @5 :UInt64;
}

struct BlobRef {
  # All that a reader needs; a Spark broadcast handle carries it as bytes.
  id @0 :Id128;
  size @1 :Int64;          # raw bytes, -1 while unknown
  chunkSize @2 :UInt32;
  homes @3 :List(Endpoint);  # each has all of it (of its stripe); readers go from one to the next
  rootDigestHi @4 :UInt64; # XXH3-128 over the chunks' digests (hi, lo as little-endian pairs) in
  rootDigestLo @5 :UInt64; # order; both 0 while unsealed
  nameSpace @6 :Text;
  name @7 :Text;
  stripes @8 :UInt8 = 1;
  # n > 1: chunk i is in stripe i % n. A stripe is a blob of its own, with the chunks' indexes, the
  # size and the root digest of the whole: its id is the whole's with lo ^ its number, its homes are
  # homes[its number] and every n-th after that.
  stripe @9 :Int8 = -1;    # only this stripe, with its own id and homes; -1: all of the blob
  keyId @10 :Id128;
  # Of an encrypted blob: what its writer made the chunks' key from, beside a secret that no node
  # has (codec/chunk_seal.h). In refs that writers give to readers, not in those of nodes. Zero: none.
  copies @11 :UInt8 = 1;
  spares @12 :List(Endpoint);
  # How many homes are to have each chunk, and where else a copy may be made when one is lost. Among
  # writers and homes only.
}

struct BlobInfo {
  ref @0 :BlobRef;
  sealed @1 :Bool;
  chunkCount @2 :UInt32;        # so far, if not sealed
  storedSize @3 :UInt64;        # so far
  memoryBytes @4 :UInt64;       # resident on this node
  diskBytes @5 :UInt64;         # on this node's disk
  relay @6 :Bool;               # this node is not the blob's home
  ageMs @7 :UInt64;             # since it was created, or since the node found it at its start
  durability @8 :Durability;
  ttlMs @9 :UInt64;             # as it was created with; 0: none
  expiresInMs @10 :UInt64;      # of a sealed blob with a ttl: removed after that
  pins @11 :UInt32;             # how many sessions pin it
  mappable @12 :Bool;            # see CreateOptions
}

# ---- Login: the bootstrap capability can do nothing else. ----

interface Bootstrap {
  hello @0 (protocolVersion :UInt32, nameSpace :Text, clientNonce :Data) -> (result :HelloResult);
  # The server proves first that it knows the namespace's key (rpc/auth.h).
}

struct HelloResult {
  union {
    error @0 :Error;
    challenge :group {
      serverNonce @1 :Data;
      serverProof @2 :Data;
      login @3 :Login;
    }
  }
}

interface Login {
  prove @0 (clientProof :Data, lease :Id128, clientName :Text, peer :Bool) -> (result :LoginResult);
  # lease: which lease this session attaches to; all zero: none. One attempt a connection.
  # peer: a node that reads chunks for its own readers; such a session keeps nothing alive here.
}

struct LoginResult {
  union {
    error @0 :Error;
    session @1 :Session;
  }
}

# ---- A session: scoped to the namespace that was proven. ----

struct NodeInfo {
  version @0 :Text;
  epoch @1 :Id128;              # new at every start
  memoryBudget @2 :UInt64;
  memoryUsed @3 :UInt64;
  diskBudget @4 :UInt64;
  diskUsed @5 :UInt64;
  uptimeMs @6 :UInt64;
  advertised @7 :Endpoint;
  draining @8 :Bool;
  pid @9 :UInt32;
}

interface Session {
  renew @0 () -> ();
  # Keeps the session (and its lease) alive; call every limits::kSessionRenewMs. A session that
  # is silent for kSessionTimeoutMs ends, whatever its connection does.

  info @1 () -> (info :NodeInfo);

  create @2 (options :CreateOptions) -> (result :CreateResult);
  open @3 (target :OpenTarget, order :ReadOrder) -> (result :OpenResult);
  stat @4 (name :Text) -> (result :StatResult);
  list @5 (prefix :Text, after :Text, limit :UInt32) -> (blobs :List(BlobInfo), more :Bool);
  # In order of name, beginning after `after`; at most limits::kListPageMax.
  remove @6 (target :OpenTarget) -> (result :VoidResult);
  # Frees the blob here and, by their watches, on all relays. NOT_FOUND if there is none.
  dropCopies @7 (id :Id128) -> (result :VoidResult);
  # Asks all relays to free their copies; the home keeps its own.

  announcements @8 (seen :UInt64) -> (blobs :List(BlobRef), seen :UInt64);
  # For relays: the blobs that were announced for the session's lease after `seen`, 0 at first; waits
  # while there is none. Whoever hears of one may fetch it before it is asked for.
  followHome @9 (home :Endpoint) -> (result :VoidResult);
  # For readers, at their host's node: it fetches what that home announces, into free memory only,
  # until the last session of the lease has left.

  pin @10 (target :OpenTarget) -> (result :StatResult);
  # Keeps the chunks of a sealed blob, or of its stripe here, where they are at its home: those in
  # memory stay there, until this session unpins it or ends. A pin does not keep a blob from being
  # removed. RESOURCE_EXHAUSTED when pins would hold more than half of the node's memory.
  unpin @11 (target :OpenTarget, everybodys :Bool) -> (result :VoidResult);
  # Ok if it is not pinned, too. everybodys: for all sessions of this namespace; those that pinned
  # it are told so (ABORTED) when they pin it again, once.

  returnMapping @12 (token :Id128) -> ();
  # The reader has unmapped what `Blob.map` gave it under this token, over this connection or an
  # earlier one. Unknown tokens are ignored.

  report @13 () -> (report :NodeReport);
  # What info says and more, for those who look after nodes.

  # ---- Between the homes of a blob, over sessions of nodes (`peer`).

  copy @14 (options :CreateOptions, lease :Id128) -> (result :CopyResult);
  # Becomes a home of `options.placed`: follows the first of its homes as a relay does, while that is
  # written, and keeps what it gets. The lease is as old as the copy, until somebody attaches to it.
  compareBlobs @15 (at :Endpoint, blobs :List(Id128), removed :List(Id128))
      -> (states :List(BlobState), epoch :Id128);
  # The home `at` has `blobs`, and `removed` were removed there: so they are here. The states are of
  # `blobs` here. At most limits::kComparedMax of either.
}

enum BlobState {
  unknown @0;  # never here, or lost
  home @1;     # here, or about to be
  removed @2;  # here, and then removed for all
}

struct CopyResult {
  union {
    error @0 :Error;
    copying :group {
      copy @1 :Copy;
      at @2 :Endpoint;  # by what name others know this node
    }
  }
}

interface Copy {
  # A home in the making. Dropping it before `seal` frees all that came.

  seal @0 (size :UInt64, chunkCount :UInt32, rootDigestHi :UInt64, rootDigestLo :UInt64)
      -> (result :VoidResult);
  # Answers once all chunks are here, and what the blob's durability promises holds here, too. From
  # then on this node is a home as any other.
  discard @1 () -> (result :VoidResult);
  # Frees the copy though it is sealed: its writer is told that the put failed. Answers when it is
  # gone; it is remembered as removed.
}

struct NodeReport {
  # Nothing of it is about a namespace or a blob: any session may ask.
  info @0 :NodeInfo;
  name @1 :Text;
  notReady @2 :Text;             # why, as at /readyz; empty: it is
  clockMs @3 :Int64;             # the node's wall clock, since 1970
  descriptorLimit @4 :UInt64;
  descriptorsOpen @5 :UInt64;
  memoryLimit @6 :UInt64;        # of its control group; 0: none
  memoryOfMachine @7 :UInt64;
  diskFree @8 :UInt64;           # of the file system under the disk tier; 0 without one
  blobs @9 :UInt64;
  reservedBytes @10 :UInt64;     # promised to uploads
  pinnedBytes @11 :UInt64;       # an upper bound
  mappedBytes @12 :UInt64;
  sessions @13 :UInt32;
  connections @14 :UInt32;
  leases @15 :UInt32;
  relayedBlobs @16 :UInt32;
  uploads @17 :UInt32;           # not sealed yet
  runningCalls @18 :UInt32;
  receivedBytes @19 :UInt64;     # this and the numbers below: counted since the start
  servedBytes @20 :UInt64;
  fetchedHomeBytes @21 :UInt64;
  fetchedPeerBytes @22 :UInt64;
  chunksDemoted @23 :UInt64;
  chunksDropped @24 :UInt64;
  chunksQuarantined @25 :UInt64;  # ... but for this: those of now
  checksumFailures @26 :UInt64;
  loginFailures @27 :UInt64;
  peerFetchFailures @28 :UInt64;
  unreachable @29 :List(UnreachablePeer);
  # At most limits::kPageNodesMax of the nodes that its readers need now.
  largePagesUnasked @30 :Bool;   # its kernel gives it large pages that it can't count
}

struct UnreachablePeer {
  address @0 :Text;
  error @1 :Error;
}

struct VoidResult {
  union {
    error @0 :Error;
    ok @1 :Void;
  }
}

struct StatResult {
  union {
    error @0 :Error;
    info @1 :BlobInfo;
  }
}

struct CreateOptions {
  name @0 :Text;
  size @1 :Int64 = -1;          # raw bytes if known: reserved whole; -1: reserved in steps
  chunkSize @2 :UInt32;
  untilRemoved @3 :Bool;        # true: lives until removed; false: as long as the session's lease
  replace @4 :Bool;             # false: an existing name is ALREADY_EXISTS; true: it is replaced
                                # when this blob is sealed
  announceFrom @5 :UInt64;      # announced once it is known to have so many raw bytes; 0: never
  placed @6 :BlobRef;           # not null: the writer chooses the id and the homes. This node is the
                                # first of them, and has the others copy from it (see Session.copy)
  stripe @7 :UInt8;             # of `placed`, if that has several: the one to create here. Stripe 0,
                                # which has the name, comes first. The others end with it
  durability @8 :Durability;
  ttlMs @9 :UInt64;             # removed so long after it was sealed, or after a node that kept it
                                # started; at most limits::kTtlMsMax. 0: no such end
  mappable @10 :Bool;            # readers may map it (Blob.map): its chunks are raw; not of a stripe
}

enum Durability {
  memory @0;  # sealed: lives as long as its lease and the node
  disk @1;    # sealed: survives the end of the node and of its machine, too
}

struct CreateResult {
  union {
    error @0 :Error;
    created :group {
      upload @1 :Upload;
      ref @2 :BlobRef;
    }
  }
}

interface Upload {
  # Dropping it before `seal` frees everything; readers get ABORTED.

  credit @0 (bytes :UInt32) -> (result :VoidResult);
  # Waits for room to receive `bytes` stored bytes (one chunk) and, for uploads of unknown size,
  # for the reservation. Call it when the chunk is ready to go: credit that is not used within
  # limits::kProgressTimeoutMs ends the upload. RESOURCE_EXHAUSTED when a step can't be reserved.

  put @1 (meta :ChunkMeta, data :Data) -> (result :VoidResult);
  # Uses up the credit of one chunk. Answers when the chunk is verified and stored. Chunks may
  # arrive in any order; each has chunkSize raw bytes but the last. The same chunk again is ok.

  seal @2 (size :UInt64, chunkCount :UInt32, rootDigestHi :UInt64, rootDigestLo :UInt64)
      -> (result :SealResult);
  # All zero: no root digest. The home checks it, or believes it if it has only a stripe, which
  # needs one. Of a striped blob stripe 0 is sealed last: it is what makes the name visible.
}

struct SealResult {
  union {
    error @0 :Error;
    ref @1 :BlobRef;
  }
}

struct OpenTarget {
  union {
    name @0 :Text;     # the blob's current id under this name, on this node
    ref @1 :BlobRef;   # this node relays it from its homes if it is not one of them
    homeId @2 :Id128;  # only if this node is its home (what a relay asks, hence no loops)
    copyId @3 :Id128;  # only what this node has of it: a read answers the bytes or `absent` at once
  }
}

enum ReadOrder {
  unknown @0;        # the node expects nothing
  ascending @1;      # chunk by chunk: the node keeps what is ahead if it can
  residentFirst @2;  # any chunk may come at any time, each once
}

struct OpenResult {
  union {
    error @0 :Error;
    opened :group {
      blob @1 :Blob;
      info @2 :BlobInfo;
      resident @3 :Data;
      # For residentFirst: the chunks in memory here, chunk i is bit i % 8 of byte i / 8. They are
      # best read first: others may push them out.
    }
  }
}

interface Blob {
  read @0 (index :UInt32, mode :ReadMode) -> (result :ReadResult);
  # Waits while the chunk is still to be written or fetched (cut-through). A chunk that the home
  # will never have is answered `end`.

  memory @1 () -> (file :MemoryFile, generation :UInt32);
  # The descriptor behind `located` answers, read-only, over a Unix socket only.

  watch @2 () -> (event :BlobEvent);
  # For relays: answers when their copies are to be freed. Ask again after `dropCopies`.

  follow @3 (at :Endpoint, held :Data) -> (result :FollowResult);
  # For relays, at the blob's home: takes part in spreading it. `at` is where other relays can read
  # copies from this one; port 0: nowhere. `held`: the chunks it has, chunk i is bit i % 8 of byte
  # i / 8.

  map @4 () -> (result :MapResult);
  # Over a Unix socket, of a mappable blob: waits until it is sealed and all of it is in this node's
  # memory, where it then stays until the reader returns it (Session.returnMapping) or its process
  # ends. Check the digests: nobody has, since the chunks came.
}

struct MapResult {
  union {
    error @0 :Error;          # NOT_MAPPABLE: read its chunks instead
    mapped :group {
      file @1 :MemoryFile;    # its first `size` bytes are the blob's, and change no more
      size @2 :UInt64;
      token @3 :Id128;        # for Session.returnMapping
    }
  }
}

struct FollowResult {
  union {
    error @0 :Error;
    follower @1 :Follower;
  }
}

interface Follower {
  # A relay's part in the spreading of a blob; dropping it ends that. docs/PROTOCOL.md, Fan-out.

  update @0 (wanted :List(UInt32), gained :List(UInt32), failed :List(FailedChunk)) -> ();
  # What changed at the relay. `wanted` (at most limits::kWantedMax) replaces what was wanted; each
  # chunk that was assigned is reported once, as gained or failed. A relay that was given chunks
  # calls this every limits::kFollowerBeatMs.

  next @1 (room :UInt32) -> (result :NextResult);
  # Waits for something to fetch: up to `room` of the wanted chunks, each with who has it. Also
  # answers, once, when the blob is sealed. One call at a time.
}

struct FailedChunk {
  index @0 :UInt32;
  why @1 :FetchFailure;
}

enum FetchFailure {
  failed @0;    # no progress, no connection or a wrong checksum
  absent @1;    # the holder did not have it
  declined @2;  # the relay could not take it, or not keep it
}

struct Assignment {
  index @0 :UInt32;
  union {
    home @1 :Void;
    peer :group {
      at @2 :Endpoint;
      meta @3 :ChunkMeta;  # what the home knows of the chunk: a peer's answer must match it
    }
  }
}

struct NextResult {
  union {
    error @0 :Error;
    ok :group {
      assignments @1 :List(Assignment);
      sealed @2 :BlobInfo;  # null, but in one answer after the blob was sealed
    }
  }
}

enum ReadMode {
  bytes @0;        # the chunk's bytes in the answer
  preferLocated @1; # `located` if it is resident in memory (same host), else bytes
  checked @2;       # as bytes, of which the node checks the digest first: for who got bytes that
                    # failed it. Else the node sends what it has, and whoever consumes it checks
}

enum BlobEvent {
  removed @0;
  dropCopies @1;
}

interface MemoryFile {
  # Its getFd() is a read-only memfd: chunk i's stored bytes are at i * chunkSize. A chunk may be
  # punched out at any time: copy, then verify; on a mismatch read it again with mode `bytes`.
}

struct ReadResult {
  union {
    error @0 :Error;
    end :group {            # the blob is sealed and has no chunk of that index
      chunkCount @1 :UInt32;
      size @2 :UInt64;
    }
    located :group {
      meta @3 :ChunkMeta;
      generation @4 :UInt32; # of the memory file; ask `memory` again when it differs
    }
    chunk :group {
      meta @5 :ChunkMeta;
      data @6 :Data;         # stored bytes, zero-padded to a multiple of 8
    }
    absent @7 :Void;         # of a blob opened by copyId: not here (any more)
  }
}
