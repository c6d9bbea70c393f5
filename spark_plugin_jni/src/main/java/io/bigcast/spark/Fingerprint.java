package io.bigcast.spark;

import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.util.zip.CRC32;

/**
 * Length and checksum of a serialised form: tells whether a value that is serialised again is still
 * the one that was broadcast. Use it from one thread.
 */
final class Fingerprint {
  private final CRC32 crc = new CRC32();
  private long size;

  /** Takes what is from 0 to the buffer's position, and leaves the buffer as it is. */
  void add(ByteBuffer filled) {
    ByteBuffer bytes = filled.duplicate();
    bytes.flip();
    size += bytes.remaining();
    crc.update(bytes);
  }

  /** Whatever is written there is taken, and goes nowhere else. */
  OutputStream asStream() {
    return new OutputStream() {
      @Override
      public void write(int b) {
        crc.update(b);
        size++;
      }

      @Override
      public void write(byte[] bytes, int offset, int length) {
        crc.update(bytes, offset, length);
        size += length;
      }
    };
  }

  long size() {
    return size;
  }

  boolean isLike(Fingerprint other) {
    return size == other.size && crc.getValue() == other.crc.getValue();
  }
}
