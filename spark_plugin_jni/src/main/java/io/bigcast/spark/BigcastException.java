package io.bigcast.spark;

import java.io.IOException;

/**
 * What went wrong in Bigcast, as the native library told it. An {@link IOException}, because that is
 * what Spark's own recovery paths catch.
 */
public class BigcastException extends IOException {
  private static final long serialVersionUID = 1L;

  /** The outcomes of base/error.h; the position is the number that native code sends. */
  public enum Code {
    OK,
    INVALID_ARGUMENT,
    NOT_FOUND,
    ALREADY_EXISTS,
    PERMISSION_DENIED,
    UNAUTHENTICATED,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    DEADLINE_EXCEEDED,
    CORRUPT,
    ABORTED,
    UNSUPPORTED,
    IO,
    INTERNAL,
    NOT_MAPPABLE;

    private static final Code[] ALL = values();

    static Code of(int number) {
      return number > 0 && number < ALL.length ? ALL[number] : INTERNAL;
    }
  }

  private final Code code;

  /** Called from native code: keep the signature. */
  BigcastException(int code, String message) {
    this(Code.of(code), message);
  }

  BigcastException(Code code, String message) {
    super(code + ": " + message);
    this.code = code;
  }

  BigcastException(BigcastException cause, String more) {
    super(cause.getMessage() + "; " + more, cause);
    this.code = cause.code;
  }

  /** What ended something of ours, as what callers handle: an Error of the JVM's, say. */
  static BigcastException of(Throwable e) {
    if (e instanceof BigcastException) {
      return (BigcastException) e;
    }
    BigcastException internal = new BigcastException(Code.INTERNAL, e.toString());
    internal.initCause(e);
    return internal;
  }

  public Code code() {
    return code;
  }

  /** True if no node answered, which says nothing about the blob: another attempt may succeed. */
  boolean nobodyAnswered() {
    return code == Code.UNAVAILABLE || code == Code.DEADLINE_EXCEEDED;
  }
}
