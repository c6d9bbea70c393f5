package io.bigcast.spark;

import java.io.IOException;
import java.io.ObjectOutputStream;
import java.lang.ref.Reference;
import java.lang.ref.SoftReference;
import org.apache.spark.SparkEnv;
import org.apache.spark.broadcast.Broadcast;

/**
 * The handle of a broadcast whose bytes are in Bigcast. Serialised, it is an id and a few hundred
 * bytes that say where they are; every task deserialises its own.
 */
public final class BigcastBroadcast<T> extends Broadcast<T> {
  private static final long serialVersionUID = 1L;

  private final byte[] ref;

  /** "host:port" of the blob's home in embedded mode, else empty. */
  private final String home;

  /** The driver's own value, unless Spark asked to keep the serialised form only. */
  private transient T held;

  private transient Reference<T> cached;

  BigcastBroadcast(long id, byte[] ref, String home, T value, boolean serializedOnly) {
    super(id, BlobReader.anyTag());
    this.ref = ref;
    this.home = home;
    if (serializedOnly) {
      // Soft where Torrent's is weak: planning a join asks for the value again and again, and each
      // time it is gone the driver would have to read and rebuild it.
      cached = new SoftReference<>(value);
    } else {
      held = value;
    }
  }

  @Override
  public synchronized T getValue() {
    T value = held != null ? held : cached == null ? null : cached.get();
    if (value == null) {
      value = read();
      cached = new SoftReference<>(value);
    }
    return value;
  }

  @Override
  public void doUnpersist(boolean blocking) {
    SparkEnv.get().broadcastManager().unbroadcast(id(), false, blocking);
  }

  @Override
  public void doDestroy(boolean blocking) {
    synchronized (this) {
      held = null;
      cached = null;
    }
    SparkEnv.get().broadcastManager().unbroadcast(id(), true, blocking);
  }

  private T read() {
    try {
      if (SparkEnv.get().executorId().equals("driver")) {
        return BlobReader.read(id(), ref, "", DriverSide.currentConnection(), true);
      }
      return BlobReader.read(id(), ref, home, ExecutorSide.connection(), false);
    } catch (IOException e) {
      // Broadcast.getValue declares nothing, being Scala; IOException is what Torrent throws.
      throw Sneaky.rethrow(e);
    }
  }

  private void writeObject(ObjectOutputStream out) throws IOException {
    try {
      assertValid();
    } catch (RuntimeException e) {
      throw e;
    } catch (Exception e) {
      throw new IOException(e);
    }
    out.defaultWriteObject();
  }
}
