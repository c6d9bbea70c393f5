package io.bigcast.spark;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * Serialised bytes on their way into chunks. Up to {@code minSize} bytes (or a chunk, if that is
 * less) are held back, so that what turns out small never reaches a node; from then on only the
 * chunk that is being filled is held.
 *
 * <p>Closing does not end the blob, because serialisers close in error paths too: {@link #finish}
 * does. Use it from one thread.
 */
final class BlobOutputStream extends OutputStream {
  interface Opener {
    ChunkSink open() throws IOException;
  }

  private static final int SPOOL_START = 32 << 10;

  private final long minSize;
  private final int holdBack;
  private final Opener opener;
  private final Fingerprint fingerprint = new Fingerprint();
  private byte[] spool;
  private long total;
  private ChunkSink sink;
  private ByteBuffer chunk;
  private IOException failure;
  private boolean discarding;

  BlobOutputStream(long minSize, int chunkSize, Opener opener) {
    this.minSize = minSize;
    this.holdBack = (int) Math.min(minSize, chunkSize);
    this.opener = opener;
    this.spool = new byte[Math.min(SPOOL_START, holdBack)];
  }

  @Override
  public void write(int b) throws IOException {
    if (chunk != null && chunk.hasRemaining()) {
      chunk.put((byte) b);
      total++;
    } else {
      write(new byte[] {(byte) b}, 0, 1);
    }
  }

  @Override
  public void write(byte[] bytes, int offset, int length) throws IOException {
    if (discarding || length == 0) {
      return;
    }
    if (failure != null) {
      throw failure;
    }
    if (sink == null && total + length <= holdBack) {
      hold(bytes, offset, length);
    } else {
      try {
        openSink();
        pour(bytes, offset, length);
      } catch (IOException e) {
        fail(e);
        throw e;
      }
    }
    total += length;
  }

  /**
   * Ends the blob.
   *
   * @return what readers need to find it, or null if it is below {@code minSize}: then nothing is
   *     left of it anywhere
   */
  byte[] finish() throws IOException {
    if (failure != null) {
      throw failure;
    }
    if (total < minSize) {
      abort();
      return null;
    }
    try {
      openSink();
      if (chunk != null && chunk.position() > 0) {
        commit();
      }
      chunk = null;
      return sink.seal();
    } catch (IOException e) {
      fail(e);
      throw e;
    }
  }

  /** Frees everything; what is still written is thrown away. */
  void abort() {
    discarding = true;
    chunk = null;
    spool = null;
    if (sink != null) {
      sink.close();
      sink = null;
    }
  }

  /** What made the upload fail; null if nothing did, so that any error is the serialiser's own. */
  IOException failure() {
    return failure;
  }

  long total() {
    return total;
  }

  /** Of all that is in the blob, once it is finished. */
  Fingerprint fingerprint() {
    return fingerprint;
  }

  private void hold(byte[] bytes, int offset, int length) {
    int held = (int) total;
    if (held + length > spool.length) {
      int doubled = (int) Math.min(holdBack, spool.length * 2L);
      spool = Arrays.copyOf(spool, Math.max(held + length, doubled));
    }
    System.arraycopy(bytes, offset, spool, held, length);
  }

  private void openSink() throws IOException {
    if (sink == null) {
      sink = opener.open();
      pour(spool, 0, (int) total);
      spool = null;
    }
  }

  private void pour(byte[] bytes, int offset, int length) throws IOException {
    while (length > 0) {
      if (chunk == null) {
        chunk = sink.nextBuffer();
      }
      int step = Math.min(length, chunk.remaining());
      chunk.put(bytes, offset, step);
      offset += step;
      length -= step;
      if (!chunk.hasRemaining()) {
        commit();
      }
    }
  }

  private void commit() throws IOException {
    int size = chunk.position();
    fingerprint.add(chunk);
    chunk = null;
    sink.commit(size);
  }

  private void fail(IOException e) {
    failure = e;
    chunk = null;
  }
}
