package io.bigcast.spark;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.broadcast.BroadcastFactory;

/**
 * Gives executors that can't read a broadcast something else to read. What failed once and whose
 * home still answers is worth a second attempt; otherwise the value is uploaded again, for all
 * executors once; and if that can't be done or did not help, Spark's own broadcast takes it over
 * under the same id. Thread-safe; {@link #answer} never waits.
 */
final class Replacements {
  private static final int THREADS_MAX = 2;

  /** What was replaced so often of late and still can't be read has its problem elsewhere. */
  private static final int UPLOADS_MAX = 2;

  /** Each of them is freed with the broadcast, not before. */
  private static final int UPLOADS_IN_ALL_MAX = 8;

  /** After that an upload was of use: what has failed since is something new. */
  private static final long UPLOAD_FORGOTTEN_NANOS = 600_000_000_000L;

  /** So long after its home has answered nobody doubts it. */
  private static final long SEEN_ALIVE_NANOS = 5_000_000_000L;

  private final DriverSide driver;
  private final BroadcastFactory sparks;

  /** By broadcast id, from the first complaint on. */
  private final Map<Long, Case> cases = new HashMap<>();

  /** Its queue is no longer than there are broadcasts. */
  private final ThreadPoolExecutor workers =
      new ThreadPoolExecutor(
          THREADS_MAX, THREADS_MAX, 5, TimeUnit.SECONDS, new LinkedBlockingQueue<>(),
          task -> DriverSide.daemon(task, "bigcast-replacements"));

  /** What is known about a broadcast that somebody could not read. Guarded by {@code this}. */
  private static final class Case {
    boolean isWorkedOn;
    boolean seenAlive;
    long seenAliveAtNanos;
    BigcastException failure;

    // Of who works on it alone.
    private int uploads;
    private long uploadedAtNanos;

    boolean isWorthUploading() {
      if (System.nanoTime() - uploadedAtNanos > UPLOAD_FORGOTTEN_NANOS) {
        uploads = 0;
      }
      return uploads < UPLOADS_MAX;
    }

    void uploaded() {
      uploads++;
      uploadedAtNanos = System.nanoTime();
    }
  }

  Replacements(DriverSide driver, BroadcastFactory sparks) {
    this.driver = driver;
    this.sparks = sparks;
    workers.allowCoreThreadTimeOut(true);
  }

  synchronized Replacement answer(ReplacementRequest request) throws BigcastException {
    Offloaded broadcast = driver.find(request.id);
    if (broadcast == null) {
      throw new BigcastException(
          BigcastException.Code.NOT_FOUND, "broadcast " + request.id + " is destroyed");
    }
    if (broadcast.torrent() != null) {
      return Replacement.torrent(broadcast.torrent());
    }
    Case known = cases.computeIfAbsent(request.id, id -> new Case());
    if (known.isWorkedOn) {
      return Replacement.LATER;
    }
    if (request.canUseBigcast && !broadcast.place().isSameBlob(request.ref)) {
      return Replacement.blob(broadcast.place());
    }
    if (request.canUseBigcast && request.failures == 1 && known.seenAlive
        && System.nanoTime() - known.seenAliveAtNanos < SEEN_ALIVE_NANOS) {
      return Replacement.SAME;
    }
    if (known.failure != null) {
      throw known.failure;
    }
    known.isWorkedOn = true;
    workers.execute(() -> work(broadcast, known, request));
    return Replacement.LATER;
  }

  synchronized void forget(long id) {
    cases.remove(id);
  }

  void close() {
    workers.shutdownNow();
  }

  private void work(Offloaded broadcast, Case known, ReplacementRequest request) {
    boolean alive = false;
    BigcastException failure = null;
    try {
      alive = request.canUseBigcast && request.failures == 1 && driver.homeLives(broadcast);
      if (!alive) {
        replace(broadcast, known, request);
        driver.freeIfDestroyed(broadcast);
      }
    } catch (BigcastException e) {
      failure = e;
    } catch (Throwable e) {
      failure =
          new BigcastException(
              BigcastException.Code.INTERNAL,
              "broadcast " + broadcast.id + " can't be serialised again: " + e);
    }
    if (failure != null) {
      BigcastStats.REPLACEMENTS_REFUSED.increment();
      Warnings.LOG.warn("broadcast {} is lost: {}", broadcast.id, failure.getMessage());
    }
    synchronized (this) {
      known.isWorkedOn = false;
      known.failure = failure;
      known.seenAlive = alive;
      known.seenAliveAtNanos = System.nanoTime();
    }
  }

  private void replace(Offloaded broadcast, Case known, ReplacementRequest request)
      throws BigcastException {
    Object value = broadcast.value();
    if (value instanceof Source) {
      ((Source) value).checkReadableAgain();
    }
    if (request.canUseBigcast && known.isWorthUploading()
        && broadcast.replacements() < UPLOADS_IN_ALL_MAX) {
      try {
        driver.uploadAgain(broadcast, value);
        known.uploaded();
        BigcastStats.REPLACED_BY_UPLOAD.increment();
        Warnings.LOG.warn("broadcast {} was lost and is uploaded again", broadcast.id);
        return;
      } catch (Changed e) {
        throw e;
      } catch (BigcastException e) {
        Warnings.once("a broadcast could not be uploaded again: " + e.getMessage());
      }
    }
    handToSpark(broadcast, value);
    BigcastStats.REPLACED_BY_TORRENT.increment();
    Warnings.LOG.warn("broadcast {} is handed to Spark's TorrentBroadcast", broadcast.id);
  }

  /** Spark's factory holds the serialised form alone; the value stays with our handle. */
  private void handToSpark(Offloaded broadcast, Object value) throws BigcastException {
    DriverSide.checkSparkCanCarry(
        value,
        new BigcastException(BigcastException.Code.UNAVAILABLE, "no node of Bigcast can carry it"));
    if (broadcast.fingerprint != null) {
      Fingerprint now = new Fingerprint();
      try {
        ValueUpload.serialise(value, now.asStream());
      } catch (IOException e) {
        throw new BigcastException(BigcastException.Code.IO, e.toString());
      }
      checkUnchanged(broadcast, now);
    }
    Broadcast<Object> torrent =
        sparks.newBroadcast(value, false, broadcast.id, true, ValueReader.<Object>anyTag());
    broadcast.moveToTorrent(Handles.toBytes(torrent));
  }

  /** Executors that read the first blob have the value as it was then, and so must all others. */
  static void checkUnchanged(Offloaded broadcast, Fingerprint now) throws Changed {
    if (broadcast.fingerprint != null && !broadcast.fingerprint.isLike(now)) {
      throw new Changed(broadcast.id);
    }
  }

  /** Nothing can replace a value that has been changed. */
  static final class Changed extends BigcastException {
    private static final long serialVersionUID = 1L;

    Changed(long id) {
      super(Code.CORRUPT, "the driver has changed the value of broadcast " + id + " since");
    }
  }
}
