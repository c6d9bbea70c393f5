package io.bigcast.spark;

import java.nio.ByteBuffer;

/** A blob in the memory of this host's node, mapped into this JVM until it is closed. */
final class NativeMapping extends NativeHandle {
  NativeMapping(long pointer) {
    super(pointer);
    BigcastStats.OPEN_MAPPINGS.increment();
  }

  long size() throws BigcastException {
    return use(NativeMapping::size);
  }

  /** May be read until this is closed, and never written. */
  ByteBuffer piece(long offset, int length) throws BigcastException {
    return useForMemory(mapping -> piece(mapping, offset, length));
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
