package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import io.bigcast.spark.BigcastStats.Reason;
import java.io.IOException;
import java.util.Iterator;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.serializer.SerializationStream;

/**
 * What the driver has of Bigcast: the connection, and which blobs its broadcasts are. It never holds
 * a {@link Broadcast}, which Spark's cleaner must be able to see go. Thread-safe.
 */
final class DriverSide {
  private static final long CLOSE_MS_MAX = 10_000;
  private static final int REMOVALS_QUEUED_MAX = 1024;

  private static volatile DriverSide current;

  private final BigcastConf conf;
  private final AppIdentity app;
  private final Connection connection;
  private final Map<Long, byte[]> refs = new ConcurrentHashMap<>();
  private final ThreadPoolExecutor removals;
  private final CompletableFuture<String> followable = new CompletableFuture<>();

  DriverSide(SparkConf spark, BigcastConf conf, AppIdentity app) {
    this.conf = conf;
    this.app = app;
    this.connection = new Connection(spark, conf, app, true);
    this.removals =
        new ThreadPoolExecutor(
            1,
            1,
            5,
            TimeUnit.SECONDS,
            new LinkedBlockingQueue<>(REMOVALS_QUEUED_MAX),
            DriverSide::removalThread,
            new ThreadPoolExecutor.CallerRunsPolicy());
    removals.allowCoreThreadTimeOut(true);
  }

  private static Thread removalThread(Runnable task) {
    Thread thread = new Thread(task, "bigcast-removals");
    thread.setDaemon(true);
    return thread;
  }

  /** From now on this is the one that values are read back by. */
  void start() {
    current = this;
  }

  /**
   * Starts the home, in the background, so that executors' hosts can follow it before there is
   * anything to fetch. Not before Spark knows the application's id.
   */
  void startHome() {
    if (!conf.prefetches()) {
      return;
    }
    Thread thread =
        new Thread(
            () -> {
              try {
                followable.complete(
                    connection.call("", client -> conf.shared() ? client.advertised() : homeOf(client)));
              } catch (BigcastException e) {
                followable.completeExceptionally(e);
              }
            },
            "bigcast-start");
    thread.setDaemon(true);
    thread.start();
  }

  /**
   * The home that executors' hosts may follow, "host:port", as far as it is known: empty while it is
   * being started.
   *
   * @throws BigcastException if there is none
   */
  String homeToFollow() throws BigcastException {
    try {
      return followable.getNow("");
    } catch (CompletionException e) {
      throw Sneaky.<BigcastException>rethrow(e.getCause());
    }
  }

  /** For values that the driver has to read back. */
  static Connection currentConnection() throws BigcastException {
    DriverSide side = current;
    if (side == null) {
      throw new BigcastException(BigcastException.Code.UNAVAILABLE, "the application has ended");
    }
    return side.connection;
  }

  /**
   * Serialises the value into Bigcast.
   *
   * @return null if it must go Spark's own way, which is then counted and, if it is a failure, told
   *     once; nothing is left behind
   */
  <T> Broadcast<T> offload(T value, long id, boolean serializedOnly) {
    try {
      // Before serialising, which may take long and would be for nothing.
      connection.checkNotResting();
    } catch (BigcastException e) {
      return unavailable(e);
    }
    long start = System.nanoTime();
    Attempt attempt = new Attempt(id);
    byte[] ref;
    try {
      ref = attempt.run(value);
    } catch (BigcastException e) {
      return attempt.client == null ? unavailable(e) : uploadFailed(attempt.client, e);
    }
    if (ref == null) {
      BigcastStats.countDelegated(Reason.SMALL);
      return null;
    }
    refs.put(id, ref);
    BigcastStats.OFFLOADED.increment();
    BigcastStats.UPLOADED_RAW_BYTES.add(attempt.rawBytes);
    BigcastStats.UPLOADED_STORED_BYTES.add(attempt.storedBytes);
    long nanos = System.nanoTime() - start;
    BigcastStats.UPLOAD_NANOS.add(nanos);
    Warnings.LOG.info(
        "broadcast {}, {} bytes ({} stored), in {} ms",
        id,
        attempt.rawBytes,
        attempt.storedBytes,
        nanos / 1_000_000);
    BlobReader.remember(id, value);
    return new BigcastBroadcast<>(id, ref, attempt.home, value, serializedOnly);
  }

  boolean knows(long id) {
    return refs.containsKey(id);
  }

  /** Frees the executors' copies and, if so asked, the blob itself. */
  void unbroadcast(long id, boolean removeFromDriver, boolean blocking) {
    byte[] ref = removeFromDriver ? refs.remove(id) : refs.get(id);
    Runnable free = () -> free(id, ref, removeFromDriver);
    if (!blocking) {
      removals.execute(free);
    }
    try {
      SparkEnv.get().blockManager().master().removeBroadcast(id, removeFromDriver, blocking);
    } finally {
      if (blocking) {
        free.run();
      }
    }
  }

  /** The application ends: removes what is left, within CLOSE_MS_MAX in all, and disconnects. */
  void close() {
    removals.shutdown();
    Thread last = removalThread(this::removeAll);
    last.start();
    try {
      last.join(CLOSE_MS_MAX);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    if (!refs.isEmpty()) {
      Warnings.LOG.info("{} blobs are left to the lease's end", refs.size());
    }
    connection.close();
    if (current == this) {
      current = null;
    }
  }

  private void removeAll() {
    try {
      removals.awaitTermination(CLOSE_MS_MAX, TimeUnit.MILLISECONDS);
    } catch (InterruptedException e) {
      return;
    }
    Iterator<Map.Entry<Long, byte[]>> left = refs.entrySet().iterator();
    while (left.hasNext() && connection.isOpen()) {
      Map.Entry<Long, byte[]> entry = left.next();
      free(entry.getKey(), entry.getValue(), true);
      left.remove();
    }
  }

  private void free(long id, byte[] ref, boolean remove) {
    if (ref == null) {
      return;
    }
    try {
      connection.checkNotResting();
      connection.call(
          "",
          client -> {
            if (remove) {
              client.remove(ref);
            } else {
              client.dropCopies(ref);
            }
            return null;
          });
      if (remove) {
        BigcastStats.REMOVED.increment();
      }
    } catch (BigcastException e) {
      if (e.code() != BigcastException.Code.NOT_FOUND) {
        Warnings.LOG.info("broadcast {} is left to the lease's end: {}", id, e.getMessage());
      }
      restIfNobodyAnswered(e);
    }
  }

  private <T> Broadcast<T> unavailable(BigcastException e) {
    BigcastStats.countDelegated(Reason.UNAVAILABLE);
    Warnings.once("broadcasts go through Spark's TorrentBroadcast: " + e.getMessage());
    return null;
  }

  private <T> Broadcast<T> uploadFailed(NativeClient client, BigcastException e) {
    BigcastStats.countDelegated(Reason.UPLOAD_FAILED);
    Warnings.once("a broadcast goes through Spark's TorrentBroadcast: " + e.getMessage());
    if (e.nobodyAnswered()) {
      connection.lost(client);
    }
    restIfNobodyAnswered(e);
    return null;
  }

  private void restIfNobodyAnswered(BigcastException e) {
    if (e.nobodyAnswered()) {
      connection.rest(e);
    }
  }

  /** One value on its way into a blob. */
  private final class Attempt {
    private final long id;
    /** Null until a node was reached. */
    NativeClient client;

    String home;
    private NativeUpload upload;
    long rawBytes;
    long storedBytes;

    Attempt(long id) {
      this.id = id;
    }

    /**
     * @throws BigcastException if Bigcast failed. What the serialiser throws passes unchanged; the
     *     user shall see what TorrentBroadcast would have thrown.
     */
    byte[] run(Object value) throws BigcastException {
      BlobOutputStream out =
          new BlobOutputStream(
              conf.number(Key.MIN_SIZE), (int) conf.number(Key.CHUNK_SIZE), this::open);
      try {
        serialise(value, out);
        byte[] ref = out.finish();
        rawBytes = out.total();
        storedBytes = ref == null ? 0 : upload.stats().storedBytes;
        return ref;
      } catch (Throwable e) {
        if (out.failure() instanceof BigcastException) {
          throw (BigcastException) out.failure();
        }
        throw Sneaky.rethrow(e);
      } finally {
        out.abort();
      }
    }

    private ChunkSink open() throws BigcastException {
      upload =
          connection.call(
              "",
              reached -> {
                client = reached;
                home = homeOf(reached);
                return reached.upload(
                    app.id + "/broadcast-" + id,
                    (int) conf.number(Key.CHUNK_SIZE),
                    conf.flag(Key.COMPRESS),
                    conf.prefetches() ? conf.number(Key.PREFETCH_MIN_SIZE) : 0);
              });
      return upload;
    }
  }

  /** Asked for at each upload: a node that was started again listens elsewhere. */
  private String homeOf(NativeClient client) throws BigcastException {
    String home = conf.shared() ? "" : client.advertised();
    if (!conf.shared() && home.isEmpty()) {
      // The driver's node died, and an executor of this host started the next one.
      throw new BigcastException(
          BigcastException.Code.UNAVAILABLE, "the node on the driver's host serves this host only");
    }
    return home;
  }

  private static void serialise(Object value, BlobOutputStream out) {
    SerializationStream stream = SparkEnv.get().serializer().newInstance().serializeStream(out);
    boolean done = false;
    try {
      stream.writeObject(value, BlobReader.anyTag());
      done = true;
    } finally {
      if (!done) {
        // Closing flushes, and what it flushes is not wanted any more.
        out.abort();
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
