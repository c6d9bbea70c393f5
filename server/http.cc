#include "server/http.h"

#include <fmt/format.h>
#include <kj/debug.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <string_view>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "rpc/convert.h"
#include "server/http_stream.h"

namespace bigcast {
namespace {

const char* reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Error";
  }
}

bool is_same_letters(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::ranges::equal(a, b, [](unsigned char x, unsigned char y) {
           return std::tolower(x) == std::tolower(y);
         });
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t') || text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

// The value of "Authorization: Basic VALUE" among the lines after the first.
std::string_view find_authorization(std::string_view head) {
  for (size_t at = head.find('\n'); at != std::string_view::npos; at = head.find('\n', at + 1)) {
    std::string_view line = head.substr(at + 1, head.find('\n', at + 1) - at - 1);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    if (!is_same_letters(line.substr(0, colon), "authorization")) continue;
    line = trimmed(line.substr(colon + 1));
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || !is_same_letters(line.substr(0, space), "basic"))
      return {};
    return trimmed(line.substr(space));
  }
  return {};
}

// "GET /metrics?x HTTP/1.1", and of the lines after that the authorization.
std::optional<HttpRequest> parse(std::string_view head) {
  const std::string_view line = head.substr(0, head.find_first_of("\r\n"));
  const size_t method_end = line.find(' ');
  const size_t target_end = line.rfind(' ');
  if (method_end == std::string_view::npos || target_end == method_end) return {};
  if (!line.substr(target_end + 1).starts_with("HTTP/1.")) return {};
  const std::string_view target = line.substr(method_end + 1, target_end - method_end - 1);
  const size_t mark = std::min(target.find('?'), target.size());
  return HttpRequest{line.substr(0, method_end), target.substr(0, mark),
                     target.substr(std::min(mark + 1, target.size())), find_authorization(head)};
}

// In a time that says nothing about how much of it was right.
bool is_authorized(std::string_view given, std::string_view password) {
  std::string expected(4 * ((password.size() + 2) / 3) + 1, '\0');
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(expected.data()),
                  reinterpret_cast<const unsigned char*>(password.data()),
                  static_cast<int>(password.size()));
  expected.pop_back();
  const bool same = given.size() == expected.size() &&
                    CRYPTO_memcmp(given.data(), expected.data(), given.size()) == 0;
  OPENSSL_cleanse(expected.data(), expected.size());
  return same;
}

HttpAnswer answer_to(const HttpRequest& request, const HttpServer::Handlers& handlers) {
  if (request.method != "GET" && request.method != "HEAD") return {405, "only GET\n"};
  if (auto page = handlers.open(request)) return std::move(*page);
  const std::string_view password = handlers.password();
  if (!password.empty() && !is_authorized(request.authorization, password)) {
    return {401, "a user and a password are needed (http_password_file)\n"};
  }
  if (auto page = handlers.guarded(request)) return std::move(*page);
  return {404, "no such page: /, /metrics, /livez, /readyz\n"};
}

std::string to_text(const HttpAnswer& answer, bool with_body) {
  return fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n"
      "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'self' "
      "'unsafe-inline'; img-src data:\r\n{}Connection: close\r\n\r\n{}",
      answer.status, reason_of(answer.status), answer.type, answer.body.size(),
      answer.status == 401 ? "WWW-Authenticate: Basic realm=\"bigcast\"\r\n" : "",
      with_body ? answer.body : "");
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// %41 and '+'; what is malformed stays as it is.
std::string decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    const bool is_escape = text[i] == '%' && text.size() - i > 2 && hex_digit(text[i + 1]) >= 0 &&
                           hex_digit(text[i + 2]) >= 0;
    if (is_escape) {
      out += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

}  // namespace

std::optional<std::string> HttpRequest::parameter(std::string_view name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    const size_t name_end = std::min(pair.find('='), pair.size());
    if (pair.substr(0, name_end) == name) {
      return decoded(pair.substr(std::min(name_end + 1, pair.size())));
    }
  }
  return std::nullopt;
}

// One connection: a request, its answer, the end. Destroying it closes the socket.
class HttpServer::Exchange {
 public:
  Exchange(rpc::UvLoop& loop, int fd, const Handlers& handlers)
      : handlers_(handlers), stream_(loop, fd, handlers.tls().get()) {}

  void run(rpc::UvLoop& loop, kj::Function<void()> on_end) {
    auto deadline = loop.timer().afterDelay(limits::kHttpTimeoutMs * kj::MILLISECONDS);
    task_ = read_request()
                .then([this] { return write_answer(); })
                .then([this] {
                  // Closing with bytes of theirs unread could take the answer back.
                  stream_.end();
                  return await_end();
                })
                .exclusiveJoin(kj::mv(deadline))
                .catch_([](kj::Exception&&) {})
                .then(kj::mv(on_end))
                .eagerlyEvaluate(nullptr);
  }

 private:
  kj::Promise<void> read_request() {
    for (;;) {
      std::array<char, limits::kHttpRequestMax> piece{};
      const auto size = stream_.receive({piece.data(), piece.size() - request_.size()});
      if (!size) return stream_.ready().then([this] { return read_request(); });
      if (*size == 0) return KJ_EXCEPTION(DISCONNECTED, "no request");
      request_.append(piece.data(), *size);
      if (request_.find("\r\n\r\n") != std::string::npos) break;
      if (request_.size() < piece.size()) continue;
      answer_ = to_text({431, "too long\n"}, true);
      return kj::READY_NOW;
    }
    const auto request = parse(request_);
    answer_ = request ? to_text(answer_to(*request, handlers_), request->method != "HEAD")
                      : to_text({400, "not HTTP/1\n"}, true);
    return kj::READY_NOW;
  }

  kj::Promise<void> write_answer() {
    while (sent_ < answer_.size()) {
      const auto size = stream_.send(std::string_view(answer_).substr(sent_));
      if (!size) return stream_.ready().then([this] { return write_answer(); });
      if (*size == 0) return KJ_EXCEPTION(DISCONNECTED, "the client is gone");
      sent_ += *size;
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> await_end() {
    std::array<char, limits::kHttpRequestMax> ignored{};
    const auto size = stream_.receive(ignored);
    if (size == size_t{0}) return kj::READY_NOW;
    return stream_.ready().then([this] { return await_end(); });
  }

  const Handlers& handlers_;
  HttpStream stream_;
  std::string request_;
  std::string answer_;
  size_t sent_ = 0;
  kj::Promise<void> task_ = nullptr;  // last: it uses the above
};

Result<std::unique_ptr<HttpServer>> HttpServer::start(rpc::UvLoop& loop,
                                                      const rpc::Address& address,
                                                      Handlers handlers) {
  auto listener = rpc::Listener::listen(loop, address);
  if (!listener) return tl::unexpected(listener.error());
  return std::unique_ptr<HttpServer>(new HttpServer(loop, kj::mv(*listener), std::move(handlers)));
}

HttpServer::HttpServer(rpc::UvLoop& loop, kj::Own<rpc::Listener> listener, Handlers handlers)
    : loop_(loop), handlers_(std::move(handlers)), listener_(kj::mv(listener)) {
  tasks_.add(listener_->accept_loop([this](int fd, bool) { accept(fd); }));
}

HttpServer::~HttpServer() = default;

const rpc::Address& HttpServer::address() const { return listener_->address(); }

void HttpServer::accept(int fd) {
  if (exchanges_.size() >= limits::kHttpConnectionsMax) exchanges_.erase(exchanges_.begin());
  const uint64_t id = next_exchange_++;
  auto& exchange = exchanges_[id];
  exchange = kj::heap<Exchange>(loop_, fd, handlers_);
  exchange->run(loop_, [this, id] { close_later(id); });
}

// Not now: it is what calls us.
void HttpServer::close_later(uint64_t id) {
  tasks_.add(kj::evalLater([this, id] { exchanges_.erase(id); }));
}

void HttpServer::taskFailed(kj::Exception&& exception) {
  log().error("http: {}", rpc::to_error(exception).to_string());
}

}  // namespace bigcast
