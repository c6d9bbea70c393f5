#include "rpc/connection.h"

#include <capnp/rpc-twoparty.h>
#include <capnp/rpc.capnp.h>
#include <fmt/format.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>

#include "base/limits.h"
#include "rpc/bulk_socket.h"
#include "rpc/frame.h"
#include "rpc/polled_fd.h"
#include "rpc/progress.h"
#include "rpc/socket.h"

namespace bigcast::rpc {
namespace {

namespace twoparty = capnp::rpc::twoparty;
using Network = capnp::TwoPartyVatNetworkBase;
using MaybeMessage = kj::Maybe<kj::Own<capnp::IncomingRpcMessage>>;

constexpr size_t kPiecesPerWrite = 64;

struct LinkOptions {
  bool is_unix = false;
  bool is_server = false;
  IoThreads* threads = nullptr;
};

// The one connection of our two-party network: frames over a socket. The RPC system drops it when
// the connection has failed or ended.
class Link final : public Network::Connection, public FrameSink, public kj::Refcounted {
 public:
  Link(UvLoop& loop, kj::Own<PolledFd> socket, LinkOptions options)
      : loop_(loop),
        socket_(kj::mv(socket)),
        is_unix_(options.is_unix),
        fds_max_(options.is_unix && !options.is_server ? limits::kFdsPerMessageMax : 0),
        threads_(options.threads),
        buffers_(FrameBuffers::of_this_thread()) {
    auto peer = peer_id_.initRoot<twoparty::VatId>();
    peer.setSide(options.is_server ? twoparty::Side::CLIENT : twoparty::Side::SERVER);
    write_task_ = write_loop().eagerlyEvaluate([this](kj::Exception&& e) { close(e); });
  }

  void allow_bulk() {
    frame_max_ = limits::kFrameMax;
    calls_max_ = limits::kCallsPerConnectionMax;
  }
  Result<int> open_peer_process() const {
    if (is_unix_ && socket_->fd() >= 0) return rpc::open_peer_process(socket_->fd());
    return fail(ErrorCode::kUnsupported, "the peer is not on this host, or gone");
  }
  uint64_t bytes_sent() const { return bytes_sent_; }
  uint64_t bytes_received() const { return bytes_received_; }

  // Not inside a read (see fail_read) or in a destructor of what the queue owns.
  void close(const kj::Exception& reason) {
    if (!mark_closed(reason)) return;
    read_canceler_.cancel(reason);
    bulk_ = nullptr;
  }

  // VatNetwork::Connection
  twoparty::VatId::Reader getPeerVatId() override {
    return peer_id_.getRoot<twoparty::VatId>().asReader();
  }
  kj::Own<capnp::OutgoingRpcMessage> newOutgoingMessage(kj::uint first_segment_words) override {
    return kj::refcounted<OutgoingFrame>(*this, first_segment_words);
  }
  kj::Promise<MaybeMessage> receiveIncomingMessage() override {
    KJ_IF_MAYBE (reason, closed_) return kj::cp(*reason);
    return read_canceler_.wrap(kj::evalLater([this]() {
      begin_frame();
      return read_frame();
    }));
  }
  kj::Promise<void> shutdown() override;

  // FrameSink
  void enqueue(kj::Own<OutgoingFrame> frame) override;

 private:
  enum class Stage { kFirstWord, kTable, kBody };

  bool mark_closed(const kj::Exception& reason);
  void begin_frame();
  kj::Promise<MaybeMessage> read_frame();
  kj::Promise<MaybeMessage> fail_read(const std::string& why);
  ssize_t receive();
  kj::Promise<MaybeMessage> read_body(BulkSocket& bulk);
  kj::Promise<MaybeMessage> finish_frame();
  kj::Maybe<BulkSocket&> bulk();
  bool take_descriptors(const msghdr& header);
  std::string advance_stage();
  std::string count_call(capnp::IncomingRpcMessage& message);

  kj::Promise<void> write_loop();
  kj::Promise<void> write_queued();
  bool is_bulk(const OutgoingFrame& frame);
  kj::Promise<void> write_bulk(BulkSocket& bulk, OutgoingFrame& frame);
  ssize_t write_some();
  void consume(size_t bytes);

  UvLoop& loop_;
  kj::Own<PolledFd> socket_;
  const bool is_unix_;
  const size_t fds_max_;
  size_t frame_max_ = limits::kPreLoginFrameMax;
  uint32_t calls_max_ = limits::kPreLoginCallsMax;
  uint32_t calls_open_ = 0;
  std::atomic<uint64_t> bytes_sent_{0};  // these two also by an I/O thread
  std::atomic<uint64_t> bytes_received_{0};
  capnp::MallocMessageBuilder peer_id_;
  kj::Maybe<kj::Exception> closed_;

  IoThreads* const threads_;  // null: none
  kj::Maybe<kj::Own<BulkSocket>> bulk_;

  kj::Own<FrameBuffers> buffers_;
  Stage stage_ = Stage::kFirstWord;
  FrameTable table_;
  std::vector<kj::AutoCloseFd> fds_;
  kj::Own<IncomingFrame> frame_;
  std::span<std::byte> target_;  // what the stage still has to fill
  kj::Canceler read_canceler_;

  std::deque<kj::Own<OutgoingFrame>> queue_;
  kj::Canceler bulk_write_canceler_;
  SendDeadline deadline_;
  kj::Own<kj::PromiseFulfiller<void>> more_;     // the writer waits for it
  kj::Own<kj::PromiseFulfiller<void>> drained_;  // shutdown() waits for it
  kj::Promise<void> write_task_ = nullptr;
};

bool Link::mark_closed(const kj::Exception& reason) {
  if (closed_ != nullptr) return false;
  closed_ = kj::cp(reason);
  bulk_write_canceler_.cancel(reason);  // it reads what the queue owns
  const auto dropped = std::exchange(queue_, {});
  socket_->close(reason);
  if (drained_.get() != nullptr) drained_->fulfill();
  return true;
}

// ---- Reading.

void Link::begin_frame() {
  stage_ = Stage::kFirstWord;
  fds_.clear();
  target_ = std::as_writable_bytes(std::span(table_.words).first(2));
}

// One recv: at most to the end of the stage, so that descriptors arrive with the first bytes of the
// frame that they belong to.
ssize_t Link::receive() {
  if (stage_ != Stage::kFirstWord || fds_max_ == 0) {
    return recv(socket_->fd(), target_.data(), target_.size(), 0);
  }
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(limits::kFdsPerMessageMax * sizeof(int))>
      control{};
  iovec piece{target_.data(), target_.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t size = recvmsg(socket_->fd(), &header, MSG_CMSG_CLOEXEC);
  if (size > 0 && !take_descriptors(header)) {
    errno = EPROTO;
    return -1;
  }
  return size;
}

bool Link::take_descriptors(const msghdr& header) {
  auto* const writable = const_cast<msghdr*>(&header);
  for (cmsghdr* c = CMSG_FIRSTHDR(writable); c != nullptr; c = CMSG_NXTHDR(writable, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      fds_.emplace_back(fd);
    }
  }
  return (header.msg_flags & MSG_CTRUNC) == 0 && fds_.size() <= fds_max_;
}

// Called when a stage's bytes are there. Says what is wrong with the frame, if anything.
std::string Link::advance_stage() {
  if (stage_ == Stage::kFirstWord) {
    if (!table_.has_valid_count()) return table_.problem(frame_max_);
    stage_ = Stage::kTable;
    target_ = std::as_writable_bytes(
        std::span(table_.words).subspan(2, table_.table_bytes() / sizeof(uint32_t) - 2));
    if (!target_.empty()) return {};
  }
  if (stage_ == Stage::kTable) {
    std::string problem = table_.problem(frame_max_);
    if (!problem.empty()) return problem;
    capnp::ReaderOptions options;
    options.traversalLimitInWords = 4 * frame_max_ / sizeof(capnp::word);
    frame_ =
        kj::heap<IncomingFrame>(kj::addRef(*buffers_), table_, std::exchange(fds_, {}), options);
    stage_ = Stage::kBody;
    target_ = frame_->body();
  }
  return {};
}

kj::Promise<MaybeMessage> Link::read_frame() {
  KJ_IF_MAYBE (reason, closed_) return kj::cp(*reason);
  for (;;) {
    const ssize_t size = receive();
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return socket_->readable().then([this]() { return read_frame(); });
    }
    if (size < 0) return fail_read(errno_message("receive", errno));
    if (size == 0) {
      const bool is_between_frames = stage_ == Stage::kFirstWord && target_.size() == 8;
      if (is_between_frames) return MaybeMessage(nullptr);
      return fail_read("the peer closed the connection within a frame");
    }
    bytes_received_ += static_cast<uint64_t>(size);
    target_ = target_.subspan(static_cast<size_t>(size));
    if (!target_.empty()) continue;
    if (stage_ == Stage::kBody) return finish_frame();
    const std::string problem = advance_stage();
    if (!problem.empty()) return fail_read("bad frame: " + problem);
    if (target_.size() < limits::kBulkBytesMin) continue;
    KJ_IF_MAYBE (socket, bulk()) return read_body(*socket);
  }
}

kj::Promise<MaybeMessage> Link::read_body(BulkSocket& bulk) {
  return bulk.receive(target_, bytes_received_)
      .then([this] { return finish_frame(); },
            [this](kj::Exception&& why) {
              return fail_read(std::string(why.getDescription().cStr()));
            });
}

kj::Promise<MaybeMessage> Link::finish_frame() {
  auto frame = kj::mv(frame_);
  const std::string problem = count_call(*frame);
  if (!problem.empty()) return fail_read(problem);
  return MaybeMessage(kj::Own<capnp::IncomingRpcMessage>(kj::mv(frame)));
}

// Null without I/O threads, or when this can't be had: then the loop moves everything itself.
kj::Maybe<BulkSocket&> Link::bulk() {
  if (threads_ == nullptr) return nullptr;
  if (bulk_ == nullptr) bulk_ = BulkSocket::open(loop_, *threads_, socket_->fd());
  KJ_IF_MAYBE (socket, bulk_) return **socket;
  return nullptr;
}

kj::Promise<MaybeMessage> Link::fail_read(const std::string& why) {
  kj::Exception reason = disconnected(why);
  mark_closed(reason);
  bulk_ = nullptr;
  frame_ = nullptr;
  return reason;
}

std::string Link::count_call(capnp::IncomingRpcMessage& message) {
  const auto which = message.getBody().getAs<capnp::rpc::Message>().which();
  if (which != capnp::rpc::Message::CALL && which != capnp::rpc::Message::BOOTSTRAP) return {};
  if (++calls_open_ <= calls_max_) return {};
  return fmt::format("more than {} calls open", calls_max_);
}

// ---- Writing.

void Link::enqueue(kj::Own<OutgoingFrame> frame) {
  if (closed_ != nullptr) return;
  const auto which = frame->getBody().getAs<capnp::rpc::Message>().which();
  if (which == capnp::rpc::Message::RETURN && calls_open_ > 0) --calls_open_;
  if (queue_.empty()) deadline_.start(loop_.timer().now());
  queue_.push_back(kj::mv(frame));
  if (more_.get() != nullptr) {
    more_->fulfill();
    more_ = nullptr;
  }
}

kj::Promise<void> Link::write_loop() {
  return write_queued().then([this]() -> kj::Promise<void> {
    if (closed_ != nullptr) return kj::READY_NOW;
    if (!queue_.empty()) return write_loop();  // something came between the two events
    if (drained_.get() != nullptr) drained_->fulfill();
    auto paf = kj::newPromiseAndFulfiller<void>();
    more_ = kj::mv(paf.fulfiller);
    return paf.promise.then([this]() { return write_loop(); });
  });
}

kj::Promise<void> Link::write_queued() {
  while (!queue_.empty()) {
    if (is_bulk(*queue_.front())) {
      KJ_IF_MAYBE (socket, bulk()) return write_bulk(*socket, *queue_.front());
    }
    const ssize_t size = write_some();
    if (size >= 0) {
      consume(static_cast<size_t>(size));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return socket_->writable().exclusiveJoin(deadline_.passed(loop_)).then([this]() {
        return write_queued();
      });
    } else if (errno != EINTR) {
      return disconnected(errno_message("send", errno));
    }
  }
  return kj::READY_NOW;
}

bool Link::is_bulk(const OutgoingFrame& frame) {
  if (threads_ == nullptr || !frame.unsent_fds().empty()) return false;
  size_t bytes = 0;
  for (const iovec& piece : frame.unsent()) bytes += piece.iov_len;
  return bytes >= limits::kBulkBytesMin;
}

// The first frame of the queue; it stays there until all of it is sent.
kj::Promise<void> Link::write_bulk(BulkSocket& bulk, OutgoingFrame& frame) {
  const auto unsent = frame.unsent();
  auto sent = bulk.send({unsent.begin(), unsent.end()}, bytes_sent_);
  return bulk_write_canceler_.wrap(kj::mv(sent)).then([this] {
    deadline_.start(loop_.timer().now());
    const auto written = kj::mv(queue_.front());  // its pins end when the queue is in order again
    queue_.pop_front();
    return write_queued();
  });
}

// One sendmsg with as many frames as fit. A frame with descriptors begins a call of its own: they
// arrive with its first byte.
ssize_t Link::write_some() {
  std::array<iovec, kPiecesPerWrite> pieces{};
  size_t count = 0;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(limits::kFdsPerMessageMax * sizeof(int))>
      control{};
  msghdr header{};
  for (const auto& frame : queue_) {
    if (count > 0 && is_bulk(*frame)) break;
    const auto fds = frame->unsent_fds();
    if (is_unix_ && !fds.empty()) {
      if (count > 0) break;
      const size_t fd_count = std::min(fds.size(), limits::kFdsPerMessageMax);
      header.msg_control = control.data();
      header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
      cmsghdr* const c = CMSG_FIRSTHDR(&header);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
      for (size_t i = 0; i < fd_count; ++i) {
        const int fd = fds[i].get();
        std::memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof fd);
      }
    }
    const auto unsent = frame->unsent();
    const size_t part = std::min(unsent.size(), pieces.size() - count);
    std::copy_n(unsent.begin(), part, pieces.begin() + static_cast<ptrdiff_t>(count));
    count += part;
    if (count == pieces.size() || header.msg_control != nullptr) break;
  }
  header.msg_iov = pieces.data();
  header.msg_iovlen = count;
  return sendmsg(socket_->fd(), &header, MSG_NOSIGNAL);
}

void Link::consume(size_t bytes) {
  bytes_sent_ += bytes;
  deadline_.sent(bytes, loop_.timer().now());
  while (bytes > 0) {
    bytes -= queue_.front()->consume(bytes);
    if (!queue_.front()->is_written()) continue;
    const auto written = kj::mv(queue_.front());  // its pins end when the queue is in order again
    queue_.pop_front();
  }
}

kj::Promise<void> Link::shutdown() {
  if (closed_ != nullptr) return kj::READY_NOW;
  kj::Promise<void> drained = kj::READY_NOW;
  if (!queue_.empty()) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    drained_ = kj::mv(paf.fulfiller);
    drained = kj::mv(paf.promise);
  }
  return drained.then([this]() {
    if (closed_ == nullptr) ::shutdown(socket_->fd(), SHUT_WR);
  });
}

// ---- The connection: the link, and the RPC system on it.

class ConnectionImpl final : public Connection, private Network {
 public:
  ConnectionImpl(UvLoop& loop, kj::Own<PolledFd> socket, LinkOptions options)
      : loop_(loop), options_(options), self_(std::make_shared<rpc::Connection*>(this)) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    disconnect_ = kj::mv(paf.fulfiller);
    on_disconnect_ = paf.promise.fork();
    if (!options_.is_unix) set_tcp_options(socket->fd());
    link_ = kj::refcounted<Link>(loop, kj::mv(socket), options);
  }

  ~ConnectionImpl() noexcept(false) override {
    *self_ = nullptr;
    login_deadline_ = nullptr;
    peer_ = nullptr;
    rpc_ = nullptr;
    link_->close(disconnected("the connection was closed here"));
  }

  void start(kj::Maybe<capnp::Capability::Client> bootstrap) {
    auto& rpc = rpc_.emplace(static_cast<Network&>(*this), kj::mv(bootstrap));
    rpc.setFlowLimit(limits::kInboundCallBytesMax / sizeof(capnp::word));
    if (options_.is_server) {
      if (is_bulk_allowed_) return;  // make_bootstrap knows the peer already
      login_deadline_ = loop_.timer()
                            .afterDelay(limits::kLoginTimeoutMs * kj::MILLISECONDS)
                            .then([this]() {
                              link_->close(disconnected(
                                  fmt::format("no login within {} ms", limits::kLoginTimeoutMs)));
                            })
                            .eagerlyEvaluate(nullptr);
    } else {
      peer_ = ask_bootstrap();  // only this makes the RPC system read
    }
  }

  capnp::Capability::Client bootstrap() override {
    KJ_IF_MAYBE (peer, peer_) return *peer;
    return ask_bootstrap();
  }
  void allow_bulk() override {
    is_bulk_allowed_ = true;
    login_deadline_ = nullptr;
    link_->allow_bulk();
  }
  bool is_unix() const override { return options_.is_unix; }
  Result<int> open_peer_process() override { return link_->open_peer_process(); }
  kj::Promise<void> on_disconnect() override { return on_disconnect_.addBranch(); }
  uint64_t bytes_sent() const override { return link_->bytes_sent(); }
  uint64_t bytes_received() const override { return link_->bytes_received(); }
  Handle handle() override { return self_; }

 private:
  capnp::Capability::Client ask_bootstrap() {
    capnp::word scratch[8] = {};
    capnp::MallocMessageBuilder message(kj::arrayPtr(scratch, 8));
    auto id = message.initRoot<twoparty::VatId>();
    id.setSide(options_.is_server ? twoparty::Side::CLIENT : twoparty::Side::SERVER);
    return KJ_ASSERT_NONNULL(rpc_).bootstrap(id);
  }

  // The RPC system's own reference to the link. When it has dropped the last one, no call will
  // ever use the socket again.
  kj::Own<Network::Connection> give_link() {
    ++links_given_;
    return kj::Own<Network::Connection>(kj::addRef(*link_)).attach(kj::defer([this]() {
      if (--links_given_ > 0) return;
      link_->close(disconnected("disconnected"));
      disconnect_->fulfill();
    }));
  }

  // VatNetwork
  kj::Maybe<kj::Own<Network::Connection>> connect(twoparty::VatId::Reader id) override {
    const bool is_ourselves = (id.getSide() == twoparty::Side::SERVER) == options_.is_server;
    if (is_ourselves) return nullptr;
    return give_link();
  }
  kj::Promise<kj::Own<Network::Connection>> accept() override {
    if (options_.is_server && !std::exchange(accepted_, true)) return give_link();
    return kj::Promise<kj::Own<Network::Connection>>(kj::NEVER_DONE);
  }

  UvLoop& loop_;
  LinkOptions options_;
  std::shared_ptr<rpc::Connection*> self_;
  kj::Own<Link> link_;
  kj::Own<kj::PromiseFulfiller<void>> disconnect_;
  kj::ForkedPromise<void> on_disconnect_ = nullptr;
  size_t links_given_ = 0;
  bool accepted_ = false;
  bool is_bulk_allowed_ = false;
  kj::Promise<void> login_deadline_ = nullptr;
  kj::Maybe<capnp::RpcSystem<twoparty::VatId>> rpc_;
  kj::Maybe<capnp::Capability::Client> peer_;
};

// ---- Connecting.

using ConnectResult = Result<kj::Own<Connection>>;

constexpr auto kBacklogRetry = 10 * kj::MILLISECONDS;

tl::unexpected<bigcast::Error> unreachable(const Address& address, std::string_view why) {
  return fail(ErrorCode::kUnavailable, fmt::format("{}: {}", address.to_string(), why));
}

ConnectResult finish_connect(UvLoop& loop, kj::Own<PolledFd> socket, const Address& address,
                             IoThreads* threads) {
  int status = 0;
  socklen_t size = sizeof status;
  if (getsockopt(socket->fd(), SOL_SOCKET, SO_ERROR, &status, &size) != 0) status = errno;
  if (status != 0) return unreachable(address, std::strerror(status));
  const LinkOptions options{address.kind == Address::Kind::kUnix, false, threads};
  auto connection = kj::heap<ConnectionImpl>(loop, kj::mv(socket), options);
  connection->start(nullptr);
  return kj::Own<Connection>(kj::mv(connection));
}

kj::Promise<ConnectResult> try_connect(UvLoop& loop, const Address& address,
                                       const SocketAddress& target, IoThreads* threads) {
  auto fd = open_socket(target);
  if (!fd) return ConnectResult(tl::unexpected(fd.error()));
  auto socket = kj::heap<PolledFd>(loop.uv(), *fd);
  const int status = ::connect(*fd, target.get(), target.size);
  const int error_number = status == 0 ? 0 : errno;
  if (error_number == 0) return finish_connect(loop, kj::mv(socket), address, threads);
  if (error_number == EAGAIN) {  // a Unix socket whose backlog is full
    socket = nullptr;
    return loop.timer().afterDelay(kBacklogRetry).then([&loop, address, target, threads]() {
      return try_connect(loop, address, target, threads);
    });
  }
  if (error_number != EINPROGRESS && error_number != EINTR) {
    return ConnectResult(unreachable(address, std::strerror(error_number)));
  }
  auto connected = socket->writable();
  return connected.then([&loop, address, threads, socket = kj::mv(socket)]() mutable {
    return finish_connect(loop, kj::mv(socket), address, threads);
  });
}

}  // namespace

kj::Promise<ConnectResult> Connection::connect(UvLoop& loop, const Address& address,
                                               IoThreads* threads) {
  const auto target = to_socket_address(address);
  if (!target) return ConnectResult(tl::unexpected(target.error()));
  auto timeout = loop.timer()
                     .afterDelay(limits::kConnectTimeoutMs * kj::MILLISECONDS)
                     .then([address]() -> ConnectResult {
                       return unreachable(address, fmt::format("no answer within {} ms",
                                                               limits::kConnectTimeoutMs));
                     });
  return try_connect(loop, address, *target, threads).exclusiveJoin(kj::mv(timeout));
}

kj::Own<Connection> Connection::serve(
    UvLoop& loop, int fd, bool is_unix,
    kj::Function<capnp::Capability::Client(Connection&)> make_bootstrap, IoThreads* threads) {
  auto connection = kj::heap<ConnectionImpl>(loop, kj::heap<PolledFd>(loop.uv(), fd),
                                             LinkOptions{is_unix, true, threads});
  connection->start(make_bootstrap(*connection));
  return connection;
}

}  // namespace bigcast::rpc
