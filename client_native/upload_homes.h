#pragma once

#include <kj/async.h>

#include <vector>

#include "client_native/client_core.h"

namespace bigcast {

// Where an upload, or one stripe of it, goes.
struct UploadHome {
  kj::Own<NodeSession> session;
  rpc::Upload::Client upload;
  BlobId id;  // of the blob, or the stripe
  HomeNode node;
};

// Creates the blob on the first entry point that takes it or, if `options.homes` is above 1, a
// stripe of it on each of the first so many, in order: chunk i goes to the i % homes-th. The next
// ones are to be their replicas, if there are to be any, and those that are left the spares. If one
// of them fails nothing is left on the others. Both arguments must outlive the promise.
kj::Promise<Result<std::vector<UploadHome>>> create_at_homes(Nodes& nodes,
                                                             const UploadOptions& options);

}  // namespace bigcast
