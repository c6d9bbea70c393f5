package io.bigcast.spark;

import java.nio.ByteBuffer;

/** A blob being written. */
final class NativeUpload extends NativeHandle implements ChunkSink {
  NativeUpload(long pointer) {
    super(pointer);
  }

  @Override
  public synchronized ByteBuffer nextBuffer() throws BigcastException {
    return nextBuffer(pointer());
  }

  @Override
  public synchronized void commit(int size) throws BigcastException {
    commit(pointer(), size);
  }

  @Override
  public synchronized byte[] seal() throws BigcastException {
    return seal(pointer());
  }

  /** Where it goes: the first home, if there are several. */
  synchronized NativeClient.Node home() throws BigcastException {
    return new NativeClient.Node(home(pointer()));
  }

  synchronized TransferStats stats() throws BigcastException {
    return new TransferStats(stats(pointer()));
  }

  @Override
  void free(long pointer) {
    destroy(pointer);
  }

  private static native ByteBuffer nextBuffer(long upload) throws BigcastException;

  private static native void commit(long upload, int size) throws BigcastException;

  private static native byte[] seal(long upload) throws BigcastException;

  private static native String[] home(long upload) throws BigcastException;

  private static native long[] stats(long upload) throws BigcastException;

  private static native void destroy(long upload);
}
