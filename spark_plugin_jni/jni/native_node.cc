#include "base/log.h"
#include "client_native/application_secret.h"
#include "client_native/embedded_node.h"
#include "jni_support.h"

using bigcast::jni::guarded;
using bigcast::jni::value_or_throw;

extern "C" {

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM* vm, void*) {
  void* env = nullptr;
  if (vm->GetEnv(&env, JNI_VERSION_1_8) != JNI_OK) return JNI_ERR;
  if (!bigcast::jni::initialize(static_cast<JNIEnv*>(env))) return JNI_ERR;
  // The JVM's standard error is Spark's log: only what somebody must see.
  static_cast<void>(bigcast::set_log_level("warn"));
  return JNI_VERSION_1_8;
}

JNIEXPORT void JNICALL JNI_OnUnload(JavaVM* vm, void*) {
  void* env = nullptr;
  if (vm->GetEnv(&env, JNI_VERSION_1_8) != JNI_OK) return;
  bigcast::jni::uninitialize(static_cast<JNIEnv*>(env));
}

JNIEXPORT jstring JNICALL Java_io_bigcast_spark_NativeLibrary_version(JNIEnv* env, jclass) {
  return guarded(env, [&]() -> jstring { return bigcast::jni::to_java(env, BIGCAST_VERSION); });
}

JNIEXPORT jstring JNICALL Java_io_bigcast_spark_NativeNode_address(JNIEnv* env, jclass,
                                                                   jstring application_id) {
  return guarded(env, [&]() -> jstring {
    return bigcast::jni::to_java(
        env, bigcast::embedded_node_address(bigcast::jni::to_string(env, application_id)));
  });
}

JNIEXPORT jstring JNICALL Java_io_bigcast_spark_NativeNode_secret(JNIEnv* env, jclass,
                                                                  jstring application_id,
                                                                  jstring secret) {
  return guarded(env, [&]() -> jstring {
    const auto root = bigcast::jni::to_application_secret(env, secret);
    const auto derived = bigcast::node_secret(root, bigcast::jni::to_string(env, application_id));
    return bigcast::jni::to_java(env, std::string(derived.bytes()));
  });
}

JNIEXPORT jboolean JNICALL Java_io_bigcast_spark_NativeNode_answers(JNIEnv* env, jclass,
                                                                    jstring application_id,
                                                                    jstring secret) {
  return guarded(env, [&]() -> jboolean {
    const auto id = bigcast::jni::to_string(env, application_id);
    const auto root = bigcast::jni::to_application_secret(env, secret);
    return value_or_throw(bigcast::embedded_node_answers(id, bigcast::node_secret(root, id)))
               ? JNI_TRUE
               : JNI_FALSE;
  });
}

JNIEXPORT jboolean JNICALL Java_io_bigcast_spark_NativeNode_ensure(
    JNIEnv* env, jclass, jstring program, jstring application_id, jstring secret,
    jstring listen_host, jint listen_port, jstring advertise_host, jlong memory_bytes,
    jobjectArray disk_paths, jlong disk_bytes, jint grace_ms, jstring log_file,
    jstring trace_directory) {
  return guarded(env, [&]() -> jboolean {
    namespace jni = bigcast::jni;
    bigcast::EmbeddedNodeOptions options;
    options.program = jni::to_string(env, program);
    options.application_id = jni::to_string(env, application_id);
    options.secret =
        bigcast::node_secret(jni::to_application_secret(env, secret), options.application_id);
    options.listen_host = jni::to_string(env, listen_host);
    options.listen_port = static_cast<uint16_t>(listen_port);
    options.advertise_host = jni::to_string(env, advertise_host);
    options.memory_bytes = static_cast<uint64_t>(memory_bytes);
    options.disk_paths = jni::to_strings(env, disk_paths);
    options.disk_bytes = static_cast<uint64_t>(disk_bytes);
    options.grace_ms = static_cast<uint32_t>(grace_ms);
    options.log_file = jni::to_string(env, log_file);
    options.trace_directory = jni::to_string(env, trace_directory);
    return value_or_throw(bigcast::ensure_embedded_node(options)) ? JNI_TRUE : JNI_FALSE;
  });
}

}  // extern "C"
