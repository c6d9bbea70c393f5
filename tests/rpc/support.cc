#include "tests/rpc/support.h"

#include "rpc/socket.h"

namespace bigcast::rpc::testing {

RawSocket::RawSocket(const Address& address) {
  const auto target = value_of(to_socket_address(address));
  fd_ = socket(target.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(fd_, target.get(), target.size) != 0) {
    throw std::runtime_error(errno_message("connect", errno));
  }
}

}  // namespace bigcast::rpc::testing
