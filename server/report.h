#pragma once

#include "rpc/bigcast.capnp.h"
#include "server/core.h"
#include "server/host_facts.h"

namespace bigcast {

// What a node says of itself to those who look after it. On the loop's thread.
void write_info(const NodeCore& core, const StoreUsage& usage, rpc::NodeInfo::Builder out);
void write_report(const NodeCore& core, const HostFacts& host, rpc::NodeReport::Builder out);

}  // namespace bigcast
