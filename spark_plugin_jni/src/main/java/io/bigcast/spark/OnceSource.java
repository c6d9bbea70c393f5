package io.bigcast.spark;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.Iterator;

/** A stream or an iterator, which is consumed by what reads it. Thread-safe. */
final class OnceSource implements Source {
  private static final int STEP_BYTES = 64 << 10;

  private interface Writer {
    void writeTo(OutputStream out) throws IOException;
  }

  private final Content content;
  private final boolean mappable;

  /** Null once it has begun, so that nothing holds what it has read from. */
  private Writer writer;

  private OnceSource(Content content, boolean mappable, Writer writer) {
    this.content = content;
    this.mappable = mappable;
    this.writer = writer;
  }

  static OnceSource of(InputStream bytes, boolean mappable) {
    return new OnceSource(Content.BYTES, mappable, out -> copy(bytes, out));
  }

  static OnceSource of(Iterator<?> objects) {
    return new OnceSource(Content.OBJECTS, false, out -> ValueUpload.writeObjects(objects, out));
  }

  @Override
  public Content content() {
    return content;
  }

  @Override
  public boolean isMappable() {
    return mappable;
  }

  @Override
  public void writeTo(OutputStream out) throws IOException {
    Writer once;
    synchronized (this) {
      once = writer;
      writer = null;
    }
    if (once == null) {
      checkReadableAgain();
    }
    once.writeTo(out);
  }

  @Override
  public void checkReadableAgain() throws BigcastException {
    throw new BigcastException(
        BigcastException.Code.NOT_FOUND,
        "it was published from a stream or an iterator, which can't be read again");
  }

  @Override
  public synchronized void checkSparkCanCarry(BigcastException why) throws BigcastException {
    throw new BigcastException(
        why,
        writer == null
            ? "what was published can't be read again, so Spark can't broadcast it instead"
            : "nothing was read of what was to be published");
  }

  static void copy(InputStream from, OutputStream to) throws IOException {
    byte[] step = new byte[STEP_BYTES];
    for (int size = from.read(step); size >= 0; size = from.read(step)) {
      to.write(step, 0, size);
    }
  }
}
