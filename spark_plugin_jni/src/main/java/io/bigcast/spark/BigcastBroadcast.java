package io.bigcast.spark;

import java.io.IOException;
import java.io.ObjectOutputStream;
import java.lang.ref.Reference;
import java.lang.ref.SoftReference;
import java.lang.ref.WeakReference;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.python.PythonBroadcast;
import org.apache.spark.broadcast.Broadcast;

/**
 * The handle of a broadcast whose bytes are in Bigcast. Serialised, it is an id and a few hundred
 * bytes that say where they are; every task deserialises its own.
 */
public final class BigcastBroadcast<T> extends Broadcast<T> {
  private static final long serialVersionUID = 1L;

  private volatile BlobPlace place;

  /** Of what was published, which is read bit by bit; null if it is a value. */
  private final Published published;

  /** Its value is not serialised but a file, which its bytes are. */
  private final boolean python;

  /** How the driver holds its value; null in handles that were deserialised. */
  private final transient Keep keep;

  /**
   * By which the driver reads its value back: of the thread that broadcast it. Other threads' loaders
   * may not know the user's classes, those of the common pool's never do. Null where keep is.
   */
  private final transient ClassLoader loader = Thread.currentThread().getContextClassLoader();

  /** The driver's own value, if it is to be held come what may. */
  private transient T held;

  private transient Reference<T> cached;

  /** How the driver holds a value that it may need again. */
  enum Keep {
    STRONGLY,
    /** Where Torrent's is weak: planning a join asks for the value again and again. */
    SOFTLY,
    WEAKLY
  }

  BigcastBroadcast(long id, BlobPlace place, T value, Keep keep) {
    super(id, ValueReader.anyTag());
    this.place = place;
    this.published = null;
    this.python = value instanceof PythonBroadcast;
    this.keep = keep;
    hold(value);
  }

  /** Of what was published. */
  @SuppressWarnings("unchecked")
  BigcastBroadcast(long id, BlobPlace place, Published published) {
    super(id, ValueReader.anyTag());
    this.place = place;
    this.published = published;
    this.python = false;
    this.keep = Keep.STRONGLY;
    hold((T) new PublishedBlob<>(id, place, published, true));
  }

  private void hold(T value) {
    held = keep == Keep.STRONGLY ? value : null;
    cached = keep == Keep.WEAKLY ? new WeakReference<>(value) : new SoftReference<>(value);
  }

  @Override
  public T getValue() {
    T value = heldValue();
    return value == null ? readAndHold() : value;
  }

  /** Null if this handle does not have the value, or not any more. */
  synchronized T heldValue() {
    return held != null ? held : cached == null ? null : cached.get();
  }

  private T readAndHold() {
    T value = read();
    synchronized (this) {
      hold(value);
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

  @SuppressWarnings("unchecked")
  private T read() {
    boolean driver = SparkEnv.get().executorId().equals("driver");
    if (published != null) {
      return (T) new PublishedBlob<>(id(), place, published, driver);
    }
    Thread reader = Thread.currentThread();
    ClassLoader readers = reader.getContextClassLoader();
    try {
      if (loader != null) {
        reader.setContextClassLoader(loader);
      }
      Connection source = driver ? DriverSide.currentConnection() : ExecutorSide.connection();
      BlobPlace latest = driver ? DriverSide.latestPlace(id(), place) : place;
      return python
          ? (T) ValueReader.readForPython(id(), latest, source, driver)
          : ValueReader.read(id(), latest, source, driver);
    } catch (IOException e) {
      // Broadcast.getValue declares nothing, being Scala; IOException is what Torrent throws.
      throw Sneaky.rethrow(e);
    } finally {
      reader.setContextClassLoader(readers);
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
    place = DriverSide.latestPlace(id(), place);
    out.defaultWriteObject();
  }
}
