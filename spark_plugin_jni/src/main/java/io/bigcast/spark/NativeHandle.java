package io.bigcast.spark;

/**
 * Owns one native object. Every use and the close hold the handle's monitor, so that no thread can
 * free what another is using.
 */
abstract class NativeHandle implements AutoCloseable {
  private long pointer;

  NativeHandle(long pointer) {
    this.pointer = pointer;
  }

  /** Call it with the monitor held. */
  final long pointer() throws BigcastException {
    if (pointer == 0) {
      throw new BigcastException(BigcastException.Code.UNAVAILABLE, "the handle is closed");
    }
    return pointer;
  }

  abstract void free(long pointer);

  @Override
  public final synchronized void close() {
    if (pointer != 0) {
      long freed = pointer;
      pointer = 0;
      free(freed);
    }
  }
}
