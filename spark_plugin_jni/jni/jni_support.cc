#include "jni_support.h"

#include <exception>
#include <new>

namespace bigcast::jni {

namespace {

// Written by JNI_OnLoad only, before any other function of ours can run.
jclass exception_class = nullptr;
jmethodID exception_constructor = nullptr;

template <typename T>
T check(JNIEnv* env, T value) {
  if (env->ExceptionCheck()) throw PendingJavaException();
  return value;
}

}  // namespace

bool initialize(JNIEnv* env) {
  jclass local = env->FindClass("io/bigcast/spark/BigcastException");
  if (local == nullptr) return false;
  exception_class = static_cast<jclass>(env->NewGlobalRef(local));
  env->DeleteLocalRef(local);
  if (exception_class == nullptr) return false;
  exception_constructor = env->GetMethodID(exception_class, "<init>", "(ILjava/lang/String;)V");
  return exception_constructor != nullptr;
}

void uninitialize(JNIEnv* env) {
  if (exception_class != nullptr) env->DeleteGlobalRef(exception_class);
  exception_class = nullptr;
}

void throw_error(JNIEnv* env, const Error& error) {
  if (env->ExceptionCheck()) return;
  jstring message = env->NewStringUTF(error.message.c_str());
  if (message == nullptr) return;  // an OutOfMemoryError is pending
  jobject exception = env->NewObject(exception_class, exception_constructor,
                                     static_cast<jint>(error.code), message);
  env->DeleteLocalRef(message);
  if (exception == nullptr) return;
  env->Throw(static_cast<jthrowable>(exception));
  env->DeleteLocalRef(exception);
}

void throw_current_exception(JNIEnv* env) {
  try {
    throw;
  } catch (const PendingJavaException&) {
    return;
  } catch (const ErrorException& e) {
    throw_error(env, e.error);
  } catch (const std::bad_alloc&) {
    throw_error(env, Error{ErrorCode::kResourceExhausted, "out of native memory"});
  } catch (const std::exception& e) {
    throw_error(env, Error{ErrorCode::kInternal, e.what()});
  } catch (...) {
    throw_error(env, Error{ErrorCode::kInternal, "unknown native exception"});
  }
}

std::string to_string(JNIEnv* env, jstring text) {
  if (text == nullptr) return {};
  const char* chars = check(env, env->GetStringUTFChars(text, nullptr));
  if (chars == nullptr) throw std::bad_alloc();
  std::string result(chars);
  env->ReleaseStringUTFChars(text, chars);
  return result;
}

Secret to_application_secret(JNIEnv* env, jstring text) {
  return value_or_throw(Secret::from_text(to_string(env, text), "the application's secret", 1));
}

std::vector<std::string> to_strings(JNIEnv* env, jobjectArray texts) {
  std::vector<std::string> result;
  const jsize count = texts == nullptr ? 0 : env->GetArrayLength(texts);
  for (jsize i = 0; i < count; ++i) {
    auto text = static_cast<jstring>(check(env, env->GetObjectArrayElement(texts, i)));
    result.push_back(to_string(env, text));
    env->DeleteLocalRef(text);
  }
  return result;
}

std::string to_bytes(JNIEnv* env, jbyteArray bytes) {
  if (bytes == nullptr) return {};
  std::string result(static_cast<size_t>(env->GetArrayLength(bytes)), '\0');
  env->GetByteArrayRegion(bytes, 0, static_cast<jsize>(result.size()),
                          reinterpret_cast<jbyte*>(result.data()));
  check(env, 0);
  return result;
}

jstring to_java(JNIEnv* env, const std::string& text) {
  return check(env, env->NewStringUTF(text.c_str()));
}

jbyteArray to_java_bytes(JNIEnv* env, std::string_view bytes) {
  const auto size = static_cast<jsize>(bytes.size());
  jbyteArray result = check(env, env->NewByteArray(size));
  env->SetByteArrayRegion(result, 0, size, reinterpret_cast<const jbyte*>(bytes.data()));
  return check(env, result);
}

jlongArray to_java_longs(JNIEnv* env, const std::vector<jlong>& values) {
  const auto size = static_cast<jsize>(values.size());
  jlongArray result = check(env, env->NewLongArray(size));
  env->SetLongArrayRegion(result, 0, size, values.data());
  return check(env, result);
}

jobjectArray to_java_strings(JNIEnv* env, const std::vector<std::string>& texts) {
  jclass type = check(env, env->FindClass("java/lang/String"));
  const auto size = static_cast<jsize>(texts.size());
  jobjectArray result = check(env, env->NewObjectArray(size, type, nullptr));
  for (jsize i = 0; i < size; ++i) {
    env->SetObjectArrayElement(result, i, to_java(env, texts[static_cast<size_t>(i)]));
    check(env, nullptr);
  }
  return result;
}

jobject to_java_buffer(JNIEnv* env, void* data, size_t size) {
  return check(env, env->NewDirectByteBuffer(data, static_cast<jlong>(size)));
}

}  // namespace bigcast::jni
