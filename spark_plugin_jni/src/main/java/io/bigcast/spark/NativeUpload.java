package io.bigcast.spark;

import java.nio.ByteBuffer;

/** A blob being written. Use it from one thread; any may close it. */
final class NativeUpload extends NativeHandle implements ChunkSink {
  NativeUpload(long pointer) {
    super(pointer);
  }

  @Override
  public ByteBuffer nextBuffer() throws BigcastException {
    return useForMemory(NativeUpload::nextBuffer);
  }

  @Override
  public void commit(int size) throws BigcastException {
    use(
        upload -> {
          commit(upload, size);
          return null;
        });
  }

  @Override
  public byte[] seal() throws BigcastException {
    return use(NativeUpload::seal);
  }

  /** Where it goes: the first home, if there are several. */
  NativeClient.Node home() throws BigcastException {
    return new NativeClient.Node(use(NativeUpload::home));
  }

  TransferStats stats() throws BigcastException {
    return new TransferStats(use(NativeUpload::stats));
  }

  @Override
  void interrupt(long pointer) {
    interruptCalls(pointer);
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

  private static native void interruptCalls(long upload);

  private static native void destroy(long upload);
}
