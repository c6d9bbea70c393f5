#pragma once

// The C interface that the Python package loads (src/bigcast/_native.py mirrors it). Functions
// return 0 or a number of base/error.h; bigcast_error() then has the message. What is made is given
// to exactly one of the functions that end it. Handles are thread-safe but for uploads and
// downloads, which are for one thread at a time, and belong to the process that made them.

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bigcast_client bigcast_client;
typedef struct bigcast_upload bigcast_upload;
typedef struct bigcast_download bigcast_download;
typedef struct bigcast_mapping bigcast_mapping;

// Null and empty strings mean: not set.
typedef struct bigcast_options {
  const char* servers;      // separated by commas
  const char* local_node;   // "unix:@name" or "unix:/path"
  const char* secret;       // itself, or
  const char* secret_file;  // where it is
  const char* name_space;
  const char* lease;  // 32 hexadecimal digits
  const char* client_name;
} bigcast_options;

typedef struct bigcast_put_options {
  const char* name;
  uint64_t size;
  uint64_t announce_from;  // client_native/client.h; 0: never
  uint32_t chunk_size;     // 0: the default
  uint8_t mappable, compress, until_removed, replace;
} bigcast_put_options;

// Of this thread's last failed call, valid until its next call.
const char* bigcast_error(void);
const char* bigcast_error_name(int code);  // "NOT_FOUND"
const char* bigcast_version(void);

int bigcast_connect(const bigcast_options* options, bigcast_client** client);
void bigcast_close(bigcast_client* client);

int bigcast_upload_start(bigcast_client* client, const bigcast_put_options* options,
                         bigcast_upload** upload);
int bigcast_upload_write(bigcast_upload* upload, const void* bytes, size_t size);
// `ref` has room for *size bytes, and *size is set to how many it takes.
int bigcast_upload_seal(bigcast_upload* upload, void* ref, size_t* size);
void bigcast_upload_end(bigcast_upload* upload);  // without a seal before: gives it up

// The ref of the blob with this name.
int bigcast_find(bigcast_client* client, const char* name, void* ref, size_t* size);
int bigcast_remove(bigcast_client* client, const void* ref, size_t size);
int bigcast_drop_copies(bigcast_client* client, const void* ref, size_t size);

int bigcast_download_start(bigcast_client* client, const void* ref, size_t size,
                           bigcast_download** download);
// The blob's size, or UINT64_MAX while it is not known.
uint64_t bigcast_download_size(const bigcast_download* download);
// The next chunk, valid until the next call; *size is 0 at the end.
int bigcast_download_next(bigcast_download* download, const void** bytes, size_t* size);
void bigcast_download_end(bigcast_download* download);

int bigcast_map(bigcast_client* client, const void* ref, size_t ref_size, bigcast_mapping** mapping,
                const void** bytes, uint64_t* size);
void bigcast_unmap(bigcast_mapping* mapping);

// CORRUPT unless these are the bytes of the mappable blob with this ref.
int bigcast_verify(const void* ref, size_t ref_size, const void* bytes, uint64_t size);

#ifdef __cplusplus
}
#endif
