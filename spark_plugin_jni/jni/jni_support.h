#pragma once

#include <jni.h>

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/secret.h"

// What all JNI functions share: Java's strings and arrays as ours, and the one place where an error
// of ours becomes a Java exception. No C++ exception may pass into the JVM.
namespace bigcast::jni {

// Looks up what is needed later; false with a Java exception pending if the jar does not fit.
bool initialize(JNIEnv* env);
void uninitialize(JNIEnv* env);

// Thrown in C++ when the JVM has an exception pending; `guarded` then only returns.
struct PendingJavaException {};

// Makes a BigcastException pending, unless something is already.
void throw_error(JNIEnv* env, const Error& error);

// To be called in a catch block: whatever was thrown becomes a pending Java exception.
void throw_current_exception(JNIEnv* env);

// Runs `body`; if it throws, returns a zero value with a Java exception pending.
template <typename Body>
auto guarded(JNIEnv* env, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (...) {
    throw_current_exception(env);
    return decltype(body())();
  }
}

// The value, or a pending Java exception.
struct ErrorException {
  Error error;
};
template <typename T>
T value_or_throw(Result<T> result) {
  if (!result) throw ErrorException{std::move(result).error()};
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::string to_string(JNIEnv* env, jstring text);  // null is empty
// The application's root secret: Spark's own may be of any length.
Secret to_application_secret(JNIEnv* env, jstring text);
std::vector<std::string> to_strings(JNIEnv* env, jobjectArray texts);
std::string to_bytes(JNIEnv* env, jbyteArray bytes);
jstring to_java(JNIEnv* env, const std::string& text);
jbyteArray to_java_bytes(JNIEnv* env, std::string_view bytes);
jobjectArray to_java_strings(JNIEnv* env, const std::vector<std::string>& texts);
jlongArray to_java_longs(JNIEnv* env, const std::vector<jlong>& values);
// A direct buffer over memory that the caller keeps alive for as long as Java may touch it.
jobject to_java_buffer(JNIEnv* env, void* data, size_t size);

// Handles: Java holds the address of a T that is ours.
template <typename T>
jlong to_handle(T* object) {
  return reinterpret_cast<jlong>(object);
}
template <typename T>
T* from_handle(jlong handle) {
  return reinterpret_cast<T*>(handle);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace bigcast::jni
