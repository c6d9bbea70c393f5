#pragma once

#include <kj/async.h>

#include <memory>

#include "base/error.h"
#include "rpc/io_thread.h"

namespace bigcast {

// The calls of a transfer, which wait on the I/O thread for the network; another thread may end
// them. Nothing may wait any more when it is destroyed. Thread-safe.
class WaitingCalls {
 public:
  explicit WaitingCalls(rpc::IoThread& io) : io_(io) {}

  // Runs `work` on the I/O thread and waits for the kj::Promise<Result<T>> that it returns.
  template <typename T, typename Work>
  Result<T> wait_for(Work work) {
    return io_.blocking([&]() -> kj::Promise<Result<T>> {
      if (interrupted_) return Result<T>(interrupted());
      return canceler_->wrap(work()).catch_([this](kj::Exception&& e) -> Result<T> {
        if (!interrupted_) kj::throwFatalException(kj::mv(e));
        return interrupted();
      });
    });
  }

  // Ends with ABORTED what waits now and whatever will.
  void interrupt() {
    io_.run([this] {
      interrupted_ = true;
      canceler_->cancel("interrupted");
    });
  }

 private:
  static tl::unexpected<Error> interrupted() {
    return fail(ErrorCode::kAborted, "the transfer was ended by its own process");
  }

  rpc::IoThread& io_;
  bool interrupted_ = false;  // on the I/O thread, as is
  const std::unique_ptr<kj::Canceler> canceler_ = std::make_unique<kj::Canceler>();
};

}  // namespace bigcast
