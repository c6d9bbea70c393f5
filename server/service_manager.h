#pragma once

#include <kj/async.h>

#include <string>

#include "rpc/uv_loop.h"

namespace bigcast {

// Tells systemd (or whoever set NOTIFY_SOCKET) how this process is: the protocol of sd_notify(3).
// Does nothing where nobody listens.
class ServiceManager {
 public:
  ServiceManager();  // reads NOTIFY_SOCKET and WATCHDOG_USEC and takes them out of the environment

  void ready(const std::string& status) const;
  void reloading() const;  // then ready again
  void stopping() const;
  // Says that all is well as often as the watchdog wants it twice; never resolves. On the loop: if
  // it hangs, the watchdog ends the process.
  kj::Promise<void> feed_watchdog(rpc::UvLoop& loop) const;

 private:
  void tell(const std::string& message) const;
  kj::Promise<void> feed_forever(rpc::UvLoop& loop) const;
  std::string socket_;
  uint64_t watchdog_us_ = 0;
};

}  // namespace bigcast
