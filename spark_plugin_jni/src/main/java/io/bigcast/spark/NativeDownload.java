package io.bigcast.spark;

import java.nio.ByteBuffer;

/** A blob being read. */
final class NativeDownload extends NativeHandle implements ChunkSource {
  private final NativeClient client;

  NativeDownload(NativeClient client, long pointer) {
    super(pointer);
    this.client = client;
    BigcastStats.OPEN_DOWNLOADS.increment();
  }

  /** What it was started on. */
  NativeClient client() {
    return client;
  }

  @Override
  public synchronized ByteBuffer next() throws BigcastException {
    return next(pointer());
  }

  synchronized TransferStats stats() throws BigcastException {
    return new TransferStats(stats(pointer()));
  }

  @Override
  void free(long pointer) {
    destroy(pointer);
    BigcastStats.OPEN_DOWNLOADS.decrement();
  }

  private static native ByteBuffer next(long download) throws BigcastException;

  private static native long[] stats(long download) throws BigcastException;

  private static native void destroy(long download);
}
