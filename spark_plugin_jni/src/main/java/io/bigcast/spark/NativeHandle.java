package io.bigcast.spark;

/**
 * Owns one native object. Every use holds the handle's monitor, so that no thread can free what
 * another is using. (A transfer's calls wait for the network under its monitor; but it is used by
 * one thread.)
 */
abstract class NativeHandle implements AutoCloseable {
  private long pointer;

  NativeHandle(long pointer) {
    this.pointer = pointer;
  }

  /** Call it with the monitor held. */
  final long pointer() throws BigcastException {
    if (pointer == 0) {
      throw new HandleClosedException();
    }
    return pointer;
  }

  abstract void free(long pointer);

  @Override
  public final void close() {
    long freed;
    synchronized (this) {
      freed = pointer;
      pointer = 0;
    }
    if (freed != 0) {
      free(freed);
    }
  }
}
