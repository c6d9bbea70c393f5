package io.bigcast.spark;

import java.nio.ByteBuffer;

/** A blob being read. Use it from one thread; any may close it. */
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
  public ByteBuffer next() throws BigcastException {
    return useForMemory(NativeDownload::next);
  }

  TransferStats stats() throws BigcastException {
    return new TransferStats(use(NativeDownload::stats));
  }

  @Override
  void interrupt(long pointer) {
    interruptCalls(pointer);
  }

  @Override
  void free(long pointer) {
    destroy(pointer);
    BigcastStats.OPEN_DOWNLOADS.decrement();
  }

  private static native ByteBuffer next(long download) throws BigcastException;

  private static native long[] stats(long download) throws BigcastException;

  private static native void interruptCalls(long download);

  private static native void destroy(long download);
}
