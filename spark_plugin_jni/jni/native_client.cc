#include <memory>

#include "client_native/application_secret.h"
#include "client_native/client.h"
#include "jni_support.h"
#include "native_handles.h"

using bigcast::jni::from_handle;
using bigcast::jni::guarded;
using bigcast::jni::SharedClient;
using bigcast::jni::to_handle;
using bigcast::jni::value_or_throw;

namespace {

// The reference that NativeClient.share made for one call.
std::shared_ptr<bigcast::Client> take(jlong handle) {
  std::unique_ptr<SharedClient> shared(from_handle<SharedClient>(handle));
  return std::move(shared->client);
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_io_bigcast_spark_NativeClient_connect(
    JNIEnv* env, jclass, jobjectArray servers, jstring local_node, jstring application_id,
    jstring secret, jstring secret_file, jstring name_space, jstring name, jboolean encrypts,
    jboolean local_reads, jint progress_timeout_ms) {
  return guarded(env, [&]() -> jlong {
    namespace jni = bigcast::jni;
    bigcast::ClientOptions options;
    options.servers = jni::to_strings(env, servers);
    options.local_node = jni::to_string(env, local_node);
    const std::string application = jni::to_string(env, application_id);
    const std::string file = jni::to_string(env, secret_file);
    const auto root = jni::to_application_secret(env, secret);
    options.secret = file.empty() ? bigcast::node_secret(root, application)
                                  : value_or_throw(bigcast::Secret::from_file(file));
    if (encrypts == JNI_TRUE) options.chunk_secret = bigcast::chunk_secret(root, application);
    options.lease = value_or_throw(bigcast::LeaseId::parse(application));
    options.name_space = jni::to_string(env, name_space);
    options.client_name = jni::to_string(env, name);
    options.local_reads = local_reads == JNI_TRUE;
    options.progress_timeout_ms = static_cast<uint32_t>(progress_timeout_ms);
    auto shared = std::make_unique<SharedClient>();
    shared->client = value_or_throw(bigcast::Client::connect(std::move(options)));
    return to_handle(shared.release());
  });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeClient_checkSecret(JNIEnv* env, jclass,
                                                                      jstring secret_file,
                                                                      jstring name_space) {
  guarded(env, [&] {
    const auto secret =
        value_or_throw(bigcast::Secret::from_file(bigcast::jni::to_string(env, secret_file)));
    value_or_throw(bigcast::check_secret(secret, bigcast::jni::to_string(env, name_space)));
  });
}

JNIEXPORT jlong JNICALL Java_io_bigcast_spark_NativeClient_share(JNIEnv* env, jclass,
                                                                 jlong client) {
  return guarded(env, [&]() -> jlong {
    return to_handle(new SharedClient{from_handle<SharedClient>(client)->client});
  });
}

JNIEXPORT jlong JNICALL Java_io_bigcast_spark_NativeClient_upload(
    JNIEnv* env, jclass, jlong client, jstring name, jint chunk_size, jboolean compress, jint homes,
    jint replicas, jlong announce_from, jboolean mappable, jboolean durable) {
  return guarded(env, [&]() -> jlong {
    auto owner = take(client);
    bigcast::UploadOptions options;
    options.name = bigcast::jni::to_string(env, name);
    options.chunk_size = static_cast<uint32_t>(chunk_size);
    options.compression =
        compress == JNI_TRUE ? bigcast::Compression::kAuto : bigcast::Compression::kNever;
    options.homes = static_cast<uint32_t>(homes);
    options.replicas = static_cast<uint32_t>(replicas);
    options.announce_from = static_cast<uint64_t>(announce_from);
    options.mappable = mappable == JNI_TRUE;
    options.durable = durable == JNI_TRUE;
    auto handle = std::make_unique<bigcast::jni::UploadHandle>();
    handle->upload = value_or_throw(owner->upload(std::move(options)));
    handle->client = std::move(owner);
    handle->chunk_size = static_cast<size_t>(chunk_size);
    return to_handle(handle.release());
  });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeClient_followHome(JNIEnv* env, jclass,
                                                                     jlong client, jstring home) {
  guarded(env, [&] {
    auto owner = take(client);
    value_or_throw(owner->follow_home(bigcast::jni::to_string(env, home)));
  });
}

JNIEXPORT jlong JNICALL Java_io_bigcast_spark_NativeClient_download(JNIEnv* env, jclass,
                                                                    jlong client, jbyteArray ref) {
  return guarded(env, [&]() -> jlong {
    auto owner = take(client);
    auto handle = std::make_unique<bigcast::jni::DownloadHandle>();
    handle->download = value_or_throw(owner->download_ref(bigcast::jni::to_bytes(env, ref)));
    handle->client = std::move(owner);
    return to_handle(handle.release());
  });
}

JNIEXPORT jlong JNICALL Java_io_bigcast_spark_NativeClient_map(JNIEnv* env, jclass, jlong client,
                                                               jbyteArray ref) {
  return guarded(env, [&]() -> jlong {
    auto owner = take(client);
    return to_handle(value_or_throw(owner->map_ref(bigcast::jni::to_bytes(env, ref))).release());
  });
}

JNIEXPORT jlong JNICALL Java_io_bigcast_spark_NativeClient_lend(JNIEnv* env, jclass, jlong client,
                                                                jbyteArray ref) {
  return guarded(env, [&]() -> jlong {
    auto owner = take(client);
    return to_handle(value_or_throw(owner->lend_ref(bigcast::jni::to_bytes(env, ref))).release());
  });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeClient_remove(JNIEnv* env, jclass, jlong client,
                                                                 jbyteArray ref) {
  guarded(env, [&] {
    auto owner = take(client);
    value_or_throw(owner->remove_ref(bigcast::jni::to_bytes(env, ref)));
  });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeClient_dropCopies(JNIEnv* env, jclass,
                                                                     jlong client, jbyteArray ref) {
  guarded(env, [&] {
    auto owner = take(client);
    value_or_throw(owner->drop_copies_ref(bigcast::jni::to_bytes(env, ref)));
  });
}

JNIEXPORT jobjectArray JNICALL Java_io_bigcast_spark_NativeClient_node(JNIEnv* env, jclass,
                                                                       jlong client) {
  return guarded(env, [&]() -> jobjectArray {
    auto owner = take(client);
    const auto node = value_or_throw(owner->ping());
    return bigcast::jni::to_java_strings(env, {node.epoch, node.advertised});
  });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeClient_destroy(JNIEnv* env, jclass,
                                                                  jlong client) {
  guarded(env, [&] { take(client); });
}

}  // extern "C"
