#include "client_native/chunk_buffers.h"
#include "jni_support.h"
#include "native_handles.h"

using bigcast::LentFile;
using bigcast::Mapping;
using bigcast::jni::DownloadHandle;
using bigcast::jni::from_handle;
using bigcast::jni::guarded;
using bigcast::jni::UploadHandle;
using bigcast::jni::value_or_throw;

namespace {

// In the order of TransferStats.java.
jlongArray to_java(JNIEnv* env, const bigcast::TransferStats& stats) {
  return bigcast::jni::to_java_longs(
      env, {static_cast<jlong>(stats.raw_bytes), static_cast<jlong>(stats.stored_bytes),
            static_cast<jlong>(stats.chunks), static_cast<jlong>(stats.chunks_located),
            static_cast<jlong>(stats.chunks_reread), static_cast<jlong>(stats.chunks_forged),
            stats.through_local_node ? 1 : 0});
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_io_bigcast_spark_NativeLibrary_bufferBytes(JNIEnv*, jclass) {
  return static_cast<jlong>(bigcast::ChunkBuffer::bytes_of_all());
}

JNIEXPORT jobject JNICALL Java_io_bigcast_spark_NativeUpload_nextBuffer(JNIEnv* env, jclass,
                                                                        jlong upload) {
  return guarded(env, [&]() -> jobject {
    auto buffer = value_or_throw(from_handle<UploadHandle>(upload)->upload->next_buffer());
    return bigcast::jni::to_java_buffer(env, buffer.data(), buffer.size());
  });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeUpload_commit(JNIEnv* env, jclass, jlong upload,
                                                                 jint size) {
  guarded(env, [&] {
    auto* handle = from_handle<UploadHandle>(upload);
    if (size < 1 || static_cast<size_t>(size) > handle->chunk_size) {
      throw bigcast::jni::ErrorException{
          {bigcast::ErrorCode::kInvalidArgument, "commit: size is not within the chunk"}};
    }
    value_or_throw(handle->upload->commit(static_cast<size_t>(size)));
  });
}

JNIEXPORT jbyteArray JNICALL Java_io_bigcast_spark_NativeUpload_seal(JNIEnv* env, jclass,
                                                                     jlong upload) {
  return guarded(env, [&]() -> jbyteArray {
    const auto ref = value_or_throw(from_handle<UploadHandle>(upload)->upload->seal());
    return bigcast::jni::to_java_bytes(env, ref);
  });
}

JNIEXPORT jobjectArray JNICALL Java_io_bigcast_spark_NativeUpload_home(JNIEnv* env, jclass,
                                                                       jlong upload) {
  return guarded(env, [&]() -> jobjectArray {
    const auto home = from_handle<UploadHandle>(upload)->upload->home();
    return bigcast::jni::to_java_strings(env, {home.epoch, home.advertised});
  });
}

JNIEXPORT jlongArray JNICALL Java_io_bigcast_spark_NativeUpload_stats(JNIEnv* env, jclass,
                                                                      jlong upload) {
  return guarded(env, [&]() -> jlongArray {
    return to_java(env, from_handle<UploadHandle>(upload)->upload->stats());
  });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeUpload_interruptCalls(JNIEnv* env, jclass,
                                                                         jlong upload) {
  guarded(env, [&] { from_handle<UploadHandle>(upload)->upload->interrupt(); });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeUpload_destroy(JNIEnv* env, jclass,
                                                                  jlong upload) {
  guarded(env, [&] { delete from_handle<UploadHandle>(upload); });
}

JNIEXPORT jobject JNICALL Java_io_bigcast_spark_NativeDownload_next(JNIEnv* env, jclass,
                                                                    jlong download) {
  return guarded(env, [&]() -> jobject {
    auto chunk = value_or_throw(from_handle<DownloadHandle>(download)->download->next());
    if (chunk.empty()) return nullptr;
    // BlobInputStream, the only one that sees the buffer, reads.
    return bigcast::jni::to_java_buffer(env, const_cast<std::byte*>(chunk.data()), chunk.size());
  });
}

JNIEXPORT jlong JNICALL Java_io_bigcast_spark_NativeMapping_size(JNIEnv* env, jclass,
                                                                 jlong mapping) {
  return guarded(env, [&]() -> jlong {
    return static_cast<jlong>(from_handle<Mapping>(mapping)->bytes().size());
  });
}

JNIEXPORT jobject JNICALL Java_io_bigcast_spark_NativeMapping_piece(JNIEnv* env, jclass,
                                                                    jlong mapping, jlong offset,
                                                                    jint length) {
  return guarded(env, [&]() -> jobject {
    const auto bytes = from_handle<Mapping>(mapping)->bytes();
    const auto size = static_cast<jlong>(bytes.size());
    if (offset < 0 || length < 1 || offset > size - length) {
      throw bigcast::jni::ErrorException{
          {bigcast::ErrorCode::kInvalidArgument, "piece: it is not within the mapping"}};
    }
    const auto piece = bytes.subspan(static_cast<size_t>(offset), static_cast<size_t>(length));
    // The pages can't be written, and BlobBytes, the only one that has the buffer, gives read-only
    // views of it.
    return bigcast::jni::to_java_buffer(env, const_cast<std::byte*>(piece.data()), piece.size());
  });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeMapping_destroy(JNIEnv* env, jclass,
                                                                   jlong mapping) {
  guarded(env, [&] { delete from_handle<Mapping>(mapping); });
}

JNIEXPORT jint JNICALL Java_io_bigcast_spark_NativeFile_descriptor(JNIEnv* env, jclass,
                                                                   jlong file) {
  return guarded(env, [&]() -> jint { return from_handle<LentFile>(file)->descriptor(); });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeFile_destroy(JNIEnv* env, jclass, jlong file) {
  guarded(env, [&] { delete from_handle<LentFile>(file); });
}

JNIEXPORT jlongArray JNICALL Java_io_bigcast_spark_NativeDownload_stats(JNIEnv* env, jclass,
                                                                        jlong download) {
  return guarded(env, [&]() -> jlongArray {
    return to_java(env, from_handle<DownloadHandle>(download)->download->stats());
  });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeDownload_interruptCalls(JNIEnv* env, jclass,
                                                                           jlong download) {
  guarded(env, [&] { from_handle<DownloadHandle>(download)->download->interrupt(); });
}

JNIEXPORT void JNICALL Java_io_bigcast_spark_NativeDownload_destroy(JNIEnv* env, jclass,
                                                                    jlong download) {
  guarded(env, [&] { delete from_handle<DownloadHandle>(download); });
}

}  // extern "C"
