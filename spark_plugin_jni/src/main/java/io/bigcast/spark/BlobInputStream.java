package io.bigcast.spark;

import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.nio.ByteBuffer;

/** A blob's bytes as its chunks arrive. Use it from one thread; closing does not close the source. */
final class BlobInputStream extends InputStream {
  private final ChunkSource source;
  private ByteBuffer chunk;
  private boolean ended;
  private IOException failure;
  private long total;

  BlobInputStream(ChunkSource source) {
    this.source = source;
  }

  @Override
  public int read() throws IOException {
    return advance() ? chunk.get() & 0xff : -1;
  }

  @Override
  public int read(byte[] bytes, int offset, int length) throws IOException {
    if (length == 0) {
      return 0;
    }
    if (!advance()) {
      return -1;
    }
    int step = Math.min(length, chunk.remaining());
    chunk.get(bytes, offset, step);
    return step;
  }

  @Override
  public int available() {
    return chunk == null ? 0 : chunk.remaining();
  }

  /** Reads to the end, which only a blob that is verified as a whole reaches. */
  void drain() throws IOException {
    while (advance()) {
      chunk.position(chunk.limit());
    }
  }

  /** What made the source fail; null if nothing did, so that any error is the deserialiser's own. */
  IOException failure() {
    return failure;
  }

  /** Bytes in the chunks that arrived so far. */
  long total() {
    return total;
  }

  @Override
  public void close() {
    chunk = null;
    ended = true;
  }

  private boolean advance() throws IOException {
    if (failure != null) {
      throw failure;
    }
    while (!ended && (chunk == null || !chunk.hasRemaining())) {
      // Its memory may go with the next call, whether that succeeds or not.
      chunk = null;
      try {
        if (Thread.currentThread().isInterrupted()) {
          throw new InterruptedIOException("interrupted while reading a broadcast from Bigcast");
        }
        chunk = source.next();
      } catch (IOException e) {
        failure = e;
        throw e;
      } catch (RuntimeException e) {
        failure = BigcastException.of(e);
        throw failure;
      }
      ended = chunk == null;
      total += ended ? 0 : chunk.remaining();
    }
    return !ended;
  }
}
