package io.bigcast.spark;

import java.io.IOException;
import java.nio.ByteBuffer;

/** Where a blob's chunks go, one after the other. Closing it before {@link #seal} frees everything. */
interface ChunkSink extends AutoCloseable {
  /** The empty buffer of the next chunk, valid until {@link #commit}; waits while a window is full. */
  ByteBuffer nextBuffer() throws IOException;

  /** Hands over the first {@code size} bytes of that buffer; only the last chunk may be short. */
  void commit(int size) throws IOException;

  /** Ends the blob and returns what readers need to find it. */
  byte[] seal() throws IOException;

  @Override
  void close();
}
