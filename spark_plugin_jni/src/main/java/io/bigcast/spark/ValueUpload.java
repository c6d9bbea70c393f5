package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Collections;
import java.util.Iterator;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.python.PythonBroadcast;
import org.apache.spark.serializer.SerializationStream;

/** One value on its way into a blob. Use it from one thread. */
final class ValueUpload {
  private final Connection connection;
  private final BigcastConf conf;
  private final String name;
  private boolean mappable;
  private NativeClient client;
  private NativeClient.Node node;
  private NativeUpload upload;
  private BlobOutputStream out;
  private BlobPlace place;
  private TransferStats stats;

  /** @param name of the blob, which no other has */
  ValueUpload(Connection connection, BigcastConf conf, String name) {
    this.connection = connection;
    this.conf = conf;
    this.name = name;
  }

  /**
   * Serialises the value; false if that gives less than {@code least} bytes: then nothing was sent.
   *
   * @throws BigcastException if Bigcast failed. What the serialiser throws passes unchanged; the
   *     user shall see what TorrentBroadcast would have thrown.
   */
  boolean run(Object value, int least) throws BigcastException {
    out = new BlobOutputStream(least, this::open);
    try {
      mappable = isMappable(value);
      serialise(value, out);
      byte[] ref = out.finish();
      if (ref != null) {
        place = new BlobPlace(ref, conf.shared() ? "" : node.advertised, node.epoch);
        stats = upload.stats();
      }
      return ref != null;
    } catch (Throwable e) {
      if (out.failure() != null) {
        throw out.failure();
      }
      throw Sneaky.rethrow(e);
    } finally {
      out.abort();
    }
  }

  private boolean isMappable(Object value) {
    if (value instanceof Source) {
      return ((Source) value).isMappable();
    }
    return value instanceof PythonBroadcast && conf.maps(OffloadRules.knownSize(value));
  }

  /** Null until a node was reached. */
  NativeClient client() {
    return client;
  }

  BlobPlace place() {
    return place;
  }

  Fingerprint fingerprint() {
    return out.fingerprint();
  }

  /** Of its home, "host:port", or empty. */
  String address() {
    return node.advertised;
  }

  TransferStats stats() {
    return stats;
  }

  /** So far. */
  long rawBytes() {
    return out.total();
  }

  private ChunkSink open() throws BigcastException {
    upload = connection.callOrAnew("", this::openOn);
    return upload;
  }

  private NativeUpload openOn(NativeClient reached) throws BigcastException {
    client = reached;
    NativeUpload opened =
        reached.upload(
            name,
            (int) conf.number(Key.CHUNK_SIZE),
            conf.flag(Key.COMPRESS),
            mappable ? 1 : (int) conf.number(Key.HOMES),
            (int) conf.number(Key.REPLICAS),
            conf.prefetches() ? conf.number(Key.PREFETCH_MIN_SIZE) : 0,
            mappable,
            conf.durable());
    try {
      // At each upload: a node that was started again listens elsewhere, and servers come and go.
      node = opened.home();
      node.checkIsReachable(conf);
      return opened;
    } catch (BigcastException e) {
      opened.close();
      throw e;
    }
  }

  /** Writes what executors read; on an error {@code out} gets no more. */
  static void serialise(Object value, OutputStream out) throws IOException {
    if (value instanceof Source) {
      ((Source) value).writeTo(out);
    } else if (value instanceof PythonBroadcast) {
      try (InputStream in = Files.newInputStream(Paths.get(((PythonBroadcast) value).path()))) {
        OnceSource.copy(in, out);
      }
    } else {
      writeObjects(Collections.singleton(value).iterator(), out);
    }
  }

  /** Writes the objects by Spark's serializer; on an error {@code out} gets no more. */
  static void writeObjects(Iterator<?> objects, OutputStream out) {
    SerializationStream stream = SparkEnv.get().serializer().newInstance().serializeStream(out);
    boolean done = false;
    try {
      while (objects.hasNext()) {
        stream.writeObject(objects.next(), ValueReader.anyTag());
      }
      done = true;
    } finally {
      if (!done && out instanceof BlobOutputStream) {
        // Closing flushes, and what it flushes is not wanted any more.
        ((BlobOutputStream) out).abort();
      }
      close(stream, done);
    }
  }

  private static void close(SerializationStream stream, boolean done) {
    try {
      stream.close();
    } catch (Throwable e) {
      if (done) {
        throw Sneaky.rethrow(e);
      }
      // The first error is the one to tell.
    }
  }
}
