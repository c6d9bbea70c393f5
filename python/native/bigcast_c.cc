#include "python/native/bigcast_c.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "client_native/client.h"

using bigcast::ErrorCode;
using bigcast::Result;

struct bigcast_client {
  std::unique_ptr<bigcast::Client> client;
};
struct bigcast_upload {
  std::unique_ptr<bigcast::Upload> upload;
  std::span<std::byte> buffer;  // being filled
  size_t used = 0;
};
struct bigcast_download {
  std::unique_ptr<bigcast::Download> download;
};
struct bigcast_mapping {
  std::unique_ptr<bigcast::Mapping> mapping;
};

namespace {

thread_local std::string last_error;

int report(const bigcast::Error& error) {
  last_error = error.message;
  return static_cast<int>(error.code);
}

// Runs what may throw: nothing may leave this library but a number.
template <typename Work>
int guarded(const Work& work) {
  try {
    const Result<void> done = work();
    return done ? 0 : report(done.error());
  } catch (const std::exception& exception) {
    return report({ErrorCode::kInternal, exception.what()});
  } catch (...) {
    return report({ErrorCode::kInternal, "unknown native exception"});
  }
}

std::string text(const char* value) { return value == nullptr ? std::string() : value; }

std::string_view bytes_of(const void* bytes, size_t size) {
  return {static_cast<const char*>(bytes), size};
}

std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    if (end > begin) parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

Result<bigcast::ClientOptions> to_options(const bigcast_options& in) {
  bigcast::ClientOptions options;
  options.servers = parts_of(text(in.servers));
  options.local_node = text(in.local_node);
  if (!text(in.secret_file).empty()) {
    BIGCAST_ASSIGN(options.secret, bigcast::Secret::from_file(in.secret_file));
  } else if (!text(in.secret).empty()) {
    BIGCAST_ASSIGN(options.secret, bigcast::Secret::from_text(in.secret, "secret"));
  }
  if (!text(in.name_space).empty()) options.name_space = in.name_space;
  if (!text(in.lease).empty()) {
    BIGCAST_ASSIGN(options.lease, bigcast::LeaseId::parse(in.lease));
  }
  if (!text(in.client_name).empty()) options.client_name = in.client_name;
  return options;
}

Result<void> copy_ref(const std::string& from, void* ref, size_t* size) {
  const size_t room = std::exchange(*size, from.size());
  if (from.size() > room) {
    return bigcast::fail(ErrorCode::kInvalidArgument, "ref: there is no room for it");
  }
  std::memcpy(ref, from.data(), from.size());
  return {};
}

Result<void> write(bigcast_upload& upload, std::string_view bytes) {
  while (!bytes.empty()) {
    if (upload.buffer.empty()) {
      BIGCAST_ASSIGN(upload.buffer, upload.upload->next_buffer());
      upload.used = 0;
    }
    const size_t size = std::min(bytes.size(), upload.buffer.size() - upload.used);
    std::memcpy(upload.buffer.data() + upload.used, bytes.data(), size);
    upload.used += size;
    bytes.remove_prefix(size);
    if (upload.used < upload.buffer.size()) continue;
    upload.buffer = {};
    BIGCAST_TRY(upload.upload->commit(upload.used));
  }
  return {};
}

}  // namespace

extern "C" {

#define BIGCAST_API __attribute__((visibility("default")))

BIGCAST_API const char* bigcast_error(void) { return last_error.c_str(); }

BIGCAST_API const char* bigcast_error_name(int code) {
  return bigcast::to_string(static_cast<ErrorCode>(code)).data();
}

BIGCAST_API const char* bigcast_version(void) { return BIGCAST_VERSION; }

BIGCAST_API int bigcast_connect(const bigcast_options* options, bigcast_client** client) {
  return guarded([&]() -> Result<void> {
    BIGCAST_ASSIGN(auto checked, to_options(*options));
    BIGCAST_ASSIGN(auto connected, bigcast::Client::connect(std::move(checked)));
    *client = new bigcast_client{std::move(connected)};
    return {};
  });
}

BIGCAST_API void bigcast_close(bigcast_client* client) { delete client; }

BIGCAST_API int bigcast_upload_start(bigcast_client* client, const bigcast_put_options* in,
                                     bigcast_upload** upload) {
  return guarded([&]() -> Result<void> {
    bigcast::UploadOptions options;
    options.name = text(in->name);
    options.size = in->size;
    if (in->chunk_size != 0) options.chunk_size = in->chunk_size;
    options.announce_from = in->announce_from;
    options.mappable = in->mappable != 0;
    options.compression =
        in->compress != 0 ? bigcast::Compression::kAuto : bigcast::Compression::kNever;
    options.until_removed = in->until_removed != 0;
    options.replace = in->replace != 0;
    BIGCAST_ASSIGN(auto started, client->client->upload(std::move(options)));
    *upload = new bigcast_upload{std::move(started), {}, 0};
    return {};
  });
}

BIGCAST_API int bigcast_upload_write(bigcast_upload* upload, const void* bytes, size_t size) {
  return guarded([&] { return write(*upload, bytes_of(bytes, size)); });
}

BIGCAST_API int bigcast_upload_seal(bigcast_upload* upload, void* ref, size_t* size) {
  return guarded([&]() -> Result<void> {
    if (!upload->buffer.empty() && upload->used > 0) {
      upload->buffer = {};
      BIGCAST_TRY(upload->upload->commit(upload->used));
    }
    BIGCAST_ASSIGN(const std::string sealed, upload->upload->seal());
    return copy_ref(sealed, ref, size);
  });
}

BIGCAST_API void bigcast_upload_end(bigcast_upload* upload) { delete upload; }

BIGCAST_API int bigcast_find(bigcast_client* client, const char* name, void* ref, size_t* size) {
  return guarded([&]() -> Result<void> {
    BIGCAST_ASSIGN(const auto summary, client->client->stat(text(name)));
    return copy_ref(summary.ref, ref, size);
  });
}

BIGCAST_API int bigcast_remove(bigcast_client* client, const void* ref, size_t size) {
  return guarded([&] { return client->client->remove_ref(bytes_of(ref, size)); });
}

BIGCAST_API int bigcast_drop_copies(bigcast_client* client, const void* ref, size_t size) {
  return guarded([&] { return client->client->drop_copies_ref(bytes_of(ref, size)); });
}

BIGCAST_API int bigcast_download_start(bigcast_client* client, const void* ref, size_t size,
                                       bigcast_download** download) {
  return guarded([&]() -> Result<void> {
    BIGCAST_ASSIGN(auto started, client->client->download_ref(bytes_of(ref, size)));
    *download = new bigcast_download{std::move(started)};
    return {};
  });
}

BIGCAST_API uint64_t bigcast_download_size(const bigcast_download* download) {
  return download->download->size().value_or(UINT64_MAX);
}

BIGCAST_API int bigcast_download_next(bigcast_download* download, const void** bytes,
                                      size_t* size) {
  return guarded([&]() -> Result<void> {
    BIGCAST_ASSIGN(const auto chunk, download->download->next());
    *bytes = chunk.data();
    *size = chunk.size();
    return {};
  });
}

BIGCAST_API void bigcast_download_end(bigcast_download* download) { delete download; }

BIGCAST_API int bigcast_map(bigcast_client* client, const void* ref, size_t ref_size,
                            bigcast_mapping** mapping, const void** bytes, uint64_t* size) {
  return guarded([&]() -> Result<void> {
    BIGCAST_ASSIGN(auto mapped, client->client->map_ref(bytes_of(ref, ref_size)));
    *bytes = mapped->bytes().data();
    *size = mapped->bytes().size();
    *mapping = new bigcast_mapping{std::move(mapped)};
    return {};
  });
}

BIGCAST_API void bigcast_unmap(bigcast_mapping* mapping) { delete mapping; }

BIGCAST_API int bigcast_verify(const void* ref, size_t ref_size, const void* bytes, uint64_t size) {
  return guarded([&] {
    return bigcast::verify_content(bytes_of(ref, ref_size),
                                   {static_cast<const std::byte*>(bytes), size});
  });
}

}  // extern "C"
