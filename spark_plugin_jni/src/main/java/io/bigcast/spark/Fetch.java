package io.bigcast.spark;

import java.io.IOException;
import org.apache.spark.SparkEnv;
import org.apache.spark.serializer.DeserializationStream;

/**
 * Brings one value into this JVM: from its blob, or from what the driver gives instead of a blob that
 * can't be read. Use it from one thread, once.
 */
final class Fetch {
  private final SparkEnv env = SparkEnv.get();
  private final long id;
  private final Connection source;
  private final boolean driver;
  private boolean stored;

  Fetch(long id, Connection source, boolean driver) {
    this.id = id;
    this.source = source;
    this.driver = driver;
  }

  /** True if the value is in Spark's block manager already. */
  boolean isStored() {
    return stored;
  }

  /**
   * @throws IOException what makes it impossible; what the value's own deserialiser throws passes
   */
  Object run(BlobPlace first) throws IOException {
    Places places = new Places(id, first, driver);
    for (;;) {
      if (places.isWithSpark()) {
        Object value = places.torrent();
        stored = true;
        BigcastStats.READS_REPLACED.increment();
        return value;
      }
      try {
        Object value = fromBlob(places);
        places.countIfReplaced();
        return value;
      } catch (BigcastException e) {
        places.failed(e);
      }
    }
  }

  private Object fromBlob(Places places) throws IOException {
    long start = System.nanoTime();
    try (NativeDownload download = source.download(places.place())) {
      try (BlobInputStream in = new BlobInputStream(download)) {
        Object value = deserialise(in);
        source.finished(download, id, System.nanoTime() - start);
        return value;
      } catch (BigcastException e) {
        if (source.failed(download, e)) {
          places.distrust();
        }
        throw e;
      }
    }
  }

  private Object deserialise(BlobInputStream in) throws IOException {
    DeserializationStream stream = null;
    try {
      stream = env.serializer().newInstance().deserializeStream(in);
      Object value = stream.readObject(ValueReader.anyTag());
      in.drain();
      return value;
    } catch (Throwable e) {
      throw ValueReader.asIoException(in.failure() == null ? e : in.failure());
    } finally {
      if (stream != null) {
        stream.close();
      }
    }
  }
}
