package io.bigcast.spark;

import java.nio.ByteBuffer;

/** A blob in the memory of this host's node, mapped into this JVM until it is closed. */
final class NativeMapping extends NativeHandle {
  NativeMapping(long pointer) {
    super(pointer);
    BigcastStats.OPEN_MAPPINGS.increment();
  }

  synchronized long size() throws BigcastException {
    return size(pointer());
  }

  /** May be read until this is closed, and never written. */
  synchronized ByteBuffer piece(long offset, int length) throws BigcastException {
    return piece(pointer(), offset, length);
  }

  @Override
  void free(long pointer) {
    destroy(pointer);
    BigcastStats.OPEN_MAPPINGS.decrement();
  }

  private static native long size(long mapping) throws BigcastException;

  private static native ByteBuffer piece(long mapping, long offset, int length)
      throws BigcastException;

  private static native void destroy(long mapping);
}
