package io.bigcast.spark;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InterruptedIOException;
import java.io.ObjectInputStream;
import java.io.ObjectStreamClass;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.spark.SparkEnv;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.serializer.DeserializationStream;

/**
 * Brings one value into this JVM: from its blob, or from what the driver gives instead of a blob that
 * can't be read. Use it from one thread, once.
 */
final class Fetch {
  private static final int FAILURES_MAX = 4;
  private static final long ASK_AGAIN_MS_MIN = 20;
  private static final long ASK_AGAIN_MS_MAX = 1_000;
  private static final int REPLACED_MAX = 1_000;

  /** What the driver gave, by broadcast id: whoever reads again begins there. */
  private static final Map<Long, Replacement> REPLACED =
      Collections.synchronizedMap(
          new LinkedHashMap<Long, Replacement>() {
            private static final long serialVersionUID = 1L;

            @Override
            protected boolean removeEldestEntry(Map.Entry<Long, Replacement> eldest) {
              return size() > REPLACED_MAX;
            }
          });

  private final SparkEnv env = SparkEnv.get();
  private final long id;
  private final Connection source;
  private final boolean driver;
  private boolean stored;
  private boolean forged;

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
    Replacement replaced = driver ? null : REPLACED.get(id);
    BlobPlace place = first;
    for (int failures = 0; ; ) {
      if (replaced != null && replaced.kind == Replacement.Kind.TORRENT) {
        return throughTorrent(replaced.torrent);
      }
      place = replaced == null || replaced.place == null ? place : replaced.place;
      try {
        Object value = fromBlob(place);
        BigcastStats.READS_REPLACED.add(place == first ? 0 : 1);
        return value;
      } catch (BigcastException e) {
        failures++;
        if (failures == FAILURES_MAX || Thread.currentThread().isInterrupted()) {
          throw e;
        }
        Warnings.LOG.info("broadcast {} can't be read: {}", id, e.getMessage());
        replaced = driver ? onDriver(place, failures, e) : askDriver(place, failures, e);
        BigcastStats.READS_REPEATED.increment();
      }
    }
  }

  /** The driver makes replacements for others only; itself it tries twice. */
  private Replacement onDriver(BlobPlace place, int failures, BigcastException why)
      throws BigcastException {
    BlobPlace latest = DriverSide.latestPlace(id, place);
    byte[] torrent = DriverSide.torrentOf(id);
    if (torrent != null) {
      return Replacement.torrent(torrent);
    }
    if (!latest.isSameBlob(place.ref)) {
      return Replacement.blob(latest);
    }
    if (failures == 1 && why.nobodyAnswered()) {
      return Replacement.SAME;
    }
    throw why;
  }

  private Replacement askDriver(BlobPlace place, int failures, BigcastException why)
      throws IOException {
    ReplacementRequest request =
        new ReplacementRequest(
            id, place.ref, failures, ExecutorSide.canUseBigcast() && !forged);
    long pauseMs = ASK_AGAIN_MS_MIN;
    try {
      for (;;) {
        Replacement answer = ExecutorSide.ask(request);
        if (answer.kind != Replacement.Kind.LATER) {
          if (answer.kind != Replacement.Kind.SAME) {
            REPLACED.put(id, answer);
          }
          return answer;
        }
        Thread.sleep(pauseMs);
        pauseMs = Math.min(2 * pauseMs, ASK_AGAIN_MS_MAX);
      }
    } catch (BigcastException e) {
      if (e.nobodyAnswered() && why.nobodyAnswered() && failures == 1) {
        return Replacement.SAME;
      }
      throw new BigcastException(why, "and nothing replaces it: " + e.getMessage());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new InterruptedIOException("interrupted while the driver replaces broadcast " + id);
    }
  }

  private Object throughTorrent(byte[] serialisedHandle) throws IOException {
    Broadcast<?> torrent;
    try (ObjectInputStream in = new SparksClasses(serialisedHandle)) {
      torrent = (Broadcast<?>) in.readObject();
    } catch (ClassNotFoundException e) {
      throw new IOException(e);
    }
    Warnings.LOG.info("broadcast {} is read through Spark's TorrentBroadcast", id);
    Object value = torrent.value();
    stored = true;
    BigcastStats.READS_REPLACED.increment();
    return value;
  }

  private Object fromBlob(BlobPlace place) throws IOException {
    long start = System.nanoTime();
    try (NativeDownload download = source.call(driver ? "" : place.home, client -> client.download(place.ref))) {
      try (BlobInputStream in = new BlobInputStream(download)) {
        Object value = deserialise(in);
        long nanos = System.nanoTime() - start;
        count(download.stats(), in.total(), nanos);
        Warnings.LOG.info("{}", Explain.read(id, download.stats(), nanos));
        if (!download.stats().throughLocalNode) {
          source.bypassedNode(download.client());
        }
        return value;
      } catch (BigcastException e) {
        if (e.nobodyAnswered()) {
          source.lost(download.client());
        }
        throw e;
      } finally {
        countForged(download.stats().chunksForged);
      }
    }
  }

  private Object deserialise(BlobInputStream in) throws IOException {
    DeserializationStream stream = null;
    try {
      stream = env.serializer().newInstance().deserializeStream(in);
      Object value = stream.readObject(BlobReader.anyTag());
      in.drain();
      return value;
    } catch (Throwable e) {
      throw BlobReader.asIoException(in.failure() == null ? e : in.failure());
    } finally {
      if (stream != null) {
        stream.close();
      }
    }
  }

  private void countForged(long chunks) {
    if (chunks > 0) {
      forged = true;
      BigcastStats.CHUNKS_FORGED.add(chunks);
      Warnings.once(
          "a node gave chunks of broadcast " + id + " that this application did not write; they were"
              + " not used");
    }
  }

  private static void count(TransferStats stats, long rawBytes, long nanos) {
    BigcastStats.READS.increment();
    BigcastStats.READ_RAW_BYTES.add(rawBytes);
    BigcastStats.READ_NANOS.add(nanos);
    BigcastStats.CHUNKS.add(stats.chunks);
    BigcastStats.CHUNKS_LOCATED.add(stats.chunksLocated);
    BigcastStats.CHUNKS_REREAD.add(stats.chunksReread);
    BigcastStats.LOCAL_NODE_READS.add(stats.throughLocalNode ? 1 : 0);
  }

  private static final class SparksClasses extends ObjectInputStream {
    SparksClasses(byte[] bytes) throws IOException {
      super(new ByteArrayInputStream(bytes));
    }

    @Override
    protected Class<?> resolveClass(ObjectStreamClass described)
        throws IOException, ClassNotFoundException {
      return Class.forName(described.getName(), false, SparkEnv.class.getClassLoader());
    }
  }
}
