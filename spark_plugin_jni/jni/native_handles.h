#pragma once

#include <cstddef>
#include <memory>

#include "client_native/client.h"

// What Java's handles point to. A transfer holds the client it needs, so that Java may close the
// two in any order.
namespace bigcast::jni {

struct SharedClient {
  std::shared_ptr<Client> client;
};

struct UploadHandle {
  std::shared_ptr<Client> client;
  std::unique_ptr<Upload> upload;  // after `client`, so that it goes first
  size_t chunk_size = 0;
};

struct DownloadHandle {
  std::shared_ptr<Client> client;
  std::unique_ptr<Download> download;  // after `client`, so that it goes first
};

}  // namespace bigcast::jni
