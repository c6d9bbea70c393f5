package io.bigcast.spark;

import java.io.IOException;
import java.nio.ByteBuffer;

/** A blob's chunks in order. */
interface ChunkSource extends AutoCloseable {
  /** The next chunk, valid until the next call; null at the end, once the whole blob is verified. */
  ByteBuffer next() throws IOException;

  @Override
  void close();
}
