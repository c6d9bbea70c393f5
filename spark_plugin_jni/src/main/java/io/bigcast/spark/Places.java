package io.bigcast.spark;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Where one read of a broadcast finds it: in its blob, or in what the driver gives instead of a blob
 * that can't be read. Use it from one thread.
 */
final class Places {
  /** After so many a read asks for Spark's own broadcast: so it gets there, whatever others do. */
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

  private final long id;
  private final boolean driver;
  private final BlobPlace first;
  private BlobPlace place;
  private byte[] torrent;
  private int failures;
  private boolean trusted = true;

  /** @param driver true: in the driver, which makes replacements for others only */
  Places(long id, BlobPlace first, boolean driver) {
    this.id = id;
    this.driver = driver;
    this.first = first;
    this.place = first;
    Replacement replaced = driver ? null : REPLACED.get(id);
    if (replaced != null) {
      use(replaced);
    }
  }

  /** True: not in a blob, but by {@link #torrent}. */
  boolean isWithSpark() {
    return torrent != null;
  }

  BlobPlace place() {
    return place;
  }

  /** To be called when the value was read. */
  void countIfReplaced() {
    if (place != first || isWithSpark()) {
      BigcastStats.READS_REPLACED.increment();
    }
  }

  /** What was read so far was worth trying: failures are counted from here on. */
  void madeProgress() {
    failures = 0;
  }

  /** Nodes lied: another blob on them would be no better. */
  void distrust() {
    trusted = false;
  }

  /**
   * Tells that the place could not be read, and finds what to read next: maybe the same again.
   *
   * @throws IOException if there is nothing more to try
   */
  void failed(BigcastException why) throws IOException {
    failures++;
    if (failures > FAILURES_MAX || Thread.currentThread().isInterrupted()) {
      throw why;
    }
    Warnings.LOG.info("broadcast {} can't be read: {}", id, why.getMessage());
    use(driver ? onDriver(why) : askDriver(why));
    BigcastStats.READS_REPEATED.increment();
  }

  /** The value of Spark's own broadcast, which took this one over. */
  Object torrent() throws IOException {
    long start = System.nanoTime();
    Object value = Handles.of(torrent).value();
    long size = OffloadRules.knownSize(value);
    Warnings.LOG.info("{}", Explain.torrent(id, size, System.nanoTime() - start));
    return value;
  }

  private void use(Replacement replacement) {
    torrent = replacement.torrent;
    place = replacement.place == null ? place : replacement.place;
  }

  /** The driver tries its blob twice, and again when a home that keeps it is back. */
  private Replacement onDriver(BigcastException why) throws IOException {
    BlobPlace latest = DriverSide.latestPlace(id, place);
    byte[] torrentOf = DriverSide.torrentOf(id);
    if (torrentOf != null) {
      return Replacement.torrent(torrentOf);
    }
    if (!latest.isSameBlob(place.ref)) {
      return Replacement.blob(latest);
    }
    if (why.nobodyAnswered() && (failures == 1 || homeIsBack())) {
      return Replacement.SAME;
    }
    throw why;
  }

  private boolean homeIsBack() throws InterruptedIOException {
    try {
      return DriverSide.awaitHome(id);
    } catch (InterruptedException e) {
      throw interrupted("its home is awaited");
    }
  }

  private InterruptedIOException interrupted(String what) {
    Thread.currentThread().interrupt();
    return new InterruptedIOException("interrupted while broadcast " + id + " is read: " + what);
  }

  private Replacement askDriver(BigcastException why) throws IOException {
    boolean canUseBigcast =
        trusted && failures < FAILURES_MAX && ExecutorSide.canUseBigcast();
    ReplacementRequest request = new ReplacementRequest(id, place.ref, failures, canUseBigcast);
    try {
      Replacement answer =
          ExecutorSide.askUntil(
              request,
              given -> given.kind == Replacement.Kind.LATER,
              ASK_AGAIN_MS_MIN,
              ASK_AGAIN_MS_MAX);
      if (answer.kind != Replacement.Kind.SAME) {
        REPLACED.put(id, answer);
      }
      return answer;
    } catch (BigcastException e) {
      if (e.nobodyAnswered() && why.nobodyAnswered() && failures == 1) {
        return Replacement.SAME;
      }
      throw new BigcastException(why, "and nothing replaces it: " + e.getMessage());
    } catch (InterruptedException e) {
      throw interrupted("the driver replaces it");
    }
  }
}
