// What a stranger sends before it has logged in: the frame's table, then the call in it.

#include "rpc/frame.h"

#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <algorithm>
#include <cstring>

#include "base/limits.h"
#include "rpc/bigcast.capnp.h"
#include "tests/fuzz/target.h"

namespace bigcast::rpc {
namespace {

std::string frame_of(capnp::MallocMessageBuilder& message) {
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()};
}

// Goes through all that a node looks at.
void walk(capnp::rpc::Message::Reader message) {
  if (!message.isCall()) {
    message.totalSize();
    return;
  }
  const auto content = message.getCall().getParams().getContent();
  const auto hello = content.getAs<Bootstrap::HelloParams>();
  hello.getNameSpace().size();
  hello.getClientNonce().size();
  content.getAs<Session::CreateParams>().getOptions().totalSize();
  content.getAs<Session::OpenParams>().getTarget().totalSize();
}

}  // namespace
}  // namespace bigcast::rpc

std::vector<std::string> fuzz_seeds() {
  using namespace bigcast::rpc;
  capnp::MallocMessageBuilder bootstrap;
  bootstrap.initRoot<capnp::rpc::Message>().initBootstrap().setQuestionId(0);
  capnp::MallocMessageBuilder hello;
  auto call = hello.initRoot<capnp::rpc::Message>().initCall();
  call.setInterfaceId(capnp::typeId<Bootstrap>());
  auto params = call.initParams().initContent().initAs<Bootstrap::HelloParams>();
  params.setNameSpace("app");
  params.setClientNonce(kj::StringPtr("0123456789abcdef0123456789abcdef").asBytes());
  return {frame_of(bootstrap), frame_of(hello)};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bigcast;
  rpc::FrameTable table;
  if (size < 8) return 0;
  std::memcpy(table.words.data(), data, 8);
  if (!table.has_valid_count() || table.table_bytes() > size) return 0;
  std::memcpy(table.words.data(), data, table.table_bytes());
  if (!table.problem(limits::kPreLoginFrameMax).empty()) return 0;
  if (table.body_bytes() > size - table.table_bytes()) return 0;  // it would wait for the rest
  rpc::IncomingFrame frame(rpc::FrameBuffers::of_this_thread(), table, {}, {});
  std::memcpy(frame.body().data(), data + table.table_bytes(), frame.body().size());
  // A damaged message is an exception, and nothing else.
  kj::runCatchingExceptions([&] { rpc::walk(frame.getBody().getAs<capnp::rpc::Message>()); });
  return 0;
}
