package io.bigcast.spark;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * Serialised bytes on their way into chunks. Up to {@code least} bytes are held back, so that what
 * turns out small never reaches a node; from then on only the chunk that is being filled is held.
 *
 * <p>Closing does not end the blob, because serialisers close in error paths too: {@link #finish}
 * does. Use it from one thread.
 */
final class BlobOutputStream extends OutputStream {
  interface Opener {
    ChunkSink open() throws IOException;
  }

  private static final int SPOOL_START = 32 << 10;

  private final int least;
  private final Opener opener;
  private final Fingerprint fingerprint = new Fingerprint();
  private byte[] spool;
  private long total;
  private ChunkSink sink;
  private ByteBuffer chunk;
  private BigcastException failure;
  private boolean discarding;

  BlobOutputStream(int least, Opener opener) {
    this.least = least;
    this.opener = opener;
    this.spool = new byte[Math.min(SPOOL_START, least)];
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
    try {
      if (sink == null && total + length <= least) {
        hold(bytes, offset, length);
      } else {
        openSink();
        pour(bytes, offset, length);
      }
    } catch (Throwable e) {
      throw failed(e);
    }
    total += length;
  }

  /**
   * Ends the blob.
   *
   * @return what readers need to find it, or null if it is below {@code least}: then nothing is
   *     left of it anywhere
   */
  byte[] finish() throws BigcastException {
    if (failure != null) {
      throw failure;
    }
    if (total < least) {
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
    } catch (Throwable e) {
      throw failed(e);
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
  BigcastException failure() {
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
      int doubled = (int) Math.min(least, spool.length * 2L);
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

  /**
   * Errors, too: nothing in here is the serialiser's. If it is its value that leaves no memory or no
   * stack, it will meet that again where Spark's own broadcast serialises it.
   */
  private BigcastException failed(Throwable e) {
    failure = BigcastException.of(e);
    chunk = null;
    return failure;
  }
}
