package io.bigcast.spark;

import io.bigcast.spark.DriverSide.Home;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.broadcast.BroadcastFactory;

/**
 * Gives executors that can't read a broadcast something else to read. What failed once and whose
 * home still answers is worth a second attempt; otherwise the value is uploaded again, for all
 * executors once; and if that can't be done or did not help, Spark's own broadcast takes it over
 * under the same id. Where that fails, too, a home that may come back with it is waited for; then those
 * who asked are told, and who asks later has it tried again. Thread-safe; {@link #answer} never waits.
 */
final class Replacements {
  private static final int THREADS_MAX = 2;

  /** What was replaced so often of late beside a home that lives has its problem elsewhere. */
  private static final int UPLOADS_IN_VAIN_MAX = 2;

  /** Each of them is freed with the broadcast, not before. */
  private static final int UPLOADS_IN_ALL_MAX = 8;

  /** After that an upload was of use: what has failed since is something new. */
  private static final long UPLOAD_FORGOTTEN_NANOS = 600_000_000_000L;

  /**
   * So long after its home has answered nobody doubts it, and so long what failed is not tried again:
   * those who waited for it ask more often.
   */
  private static final long REMEMBERED_NANOS = 3_000_000_000L;

  private final DriverSide driver;
  private final BroadcastFactory sparks;

  /** By broadcast id, from the first complaint on. */
  private final Map<Long, Case> cases = new HashMap<>();

  /** Its queue is no longer than there are broadcasts. */
  private final ScheduledThreadPoolExecutor workers =
      new ScheduledThreadPoolExecutor(
          THREADS_MAX, task -> DriverSide.daemon(task, "bigcast-replacements"));

  /** What is known about a broadcast that somebody could not read. Guarded by {@code this}. */
  private static final class Case {
    boolean isWorkedOn;
    private boolean seenAlive;
    private BigcastException failure;

    /** False: only those who can't use Bigcast were found to have nothing to read. */
    private boolean failedForAll;

    private long foundOutAtNanos;

    // Of who works on it alone.
    private Changed changed;
    private int uploadsInVain;
    private long uploadedInVainAtNanos;

    void found(boolean alive, BigcastException problem, ReplacementRequest by) {
      isWorkedOn = false;
      seenAlive = alive;
      failure = problem;
      failedForAll = by.canUseBigcast;
      foundOutAtNanos = System.nanoTime();
    }

    private boolean isFresh() {
      return System.nanoTime() - foundOutAtNanos < REMEMBERED_NANOS;
    }

    /** If nothing replaces it, what its home has is all there is. */
    boolean isWorthReadingAgain(ReplacementRequest request) {
      boolean isNext = request.failures == 1 || failure != null;
      return request.canUseBigcast && isNext && seenAlive && isFresh();
    }

    void checkNotFailed(ReplacementRequest request) throws BigcastException {
      if (failure != null && isFresh() && (failedForAll || !request.canUseBigcast)) {
        throw failure;
      }
    }

    boolean isWorthUploading() {
      if (System.nanoTime() - uploadedInVainAtNanos > UPLOAD_FORGOTTEN_NANOS) {
        uploadsInVain = 0;
      }
      return uploadsInVain < UPLOADS_IN_VAIN_MAX;
    }

    /** What was lost with its home is no sign of another problem, however often that happens. */
    void uploaded(ReplacementRequest request) {
      if (request.failures > 1) {
        uploadsInVain++;
        uploadedInVainAtNanos = System.nanoTime();
      }
    }
  }

  Replacements(DriverSide driver, BroadcastFactory sparks) {
    this.driver = driver;
    this.sparks = sparks;
    workers.setKeepAliveTime(5, TimeUnit.SECONDS);
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
    if (known.isWorthReadingAgain(request)) {
      return Replacement.SAME;
    }
    known.checkNotFailed(request);
    known.isWorkedOn = true;
    workers.execute(new Work(broadcast, known, request));
    return Replacement.LATER;
  }

  synchronized void forget(long id) {
    cases.remove(id);
  }

  void close() {
    workers.shutdownNow();
  }

  private synchronized void found(
      Offloaded broadcast, Case known, boolean alive, BigcastException failure,
      ReplacementRequest request) {
    if (failure != null && !alive) {
      BigcastStats.REPLACEMENTS_REFUSED.increment();
      Warnings.LOG.warn("broadcast {} is lost: {}", broadcast.id, failure.getMessage());
    }
    known.found(alive, failure, request);
  }

  /** Finds out what to answer to a request. While a home is awaited others have the thread. */
  private final class Work implements Runnable {
    private final Offloaded broadcast;
    private final Case known;
    private final ReplacementRequest request;

    /** Why nothing replaces it, so that what its home has is all there is. */
    private BigcastException failure;

    private long awaitedUntilNanos;

    Work(Offloaded broadcast, Case known, ReplacementRequest request) {
      this.broadcast = broadcast;
      this.known = known;
      this.request = request;
    }

    @Override
    public void run() {
      Home home = Home.IS_AWAY;
      try {
        if (request.canUseBigcast && (request.failures == 1 || failure != null)) {
          home = driver.home(broadcast);
        }
        if (home != Home.HAS_IT && failure == null) {
          replace(broadcast, known, request);
          driver.freeIfDestroyed(broadcast);
        }
      } catch (Changed e) {
        known.changed = e;
        failed(e);
      } catch (BigcastException e) {
        failed(e);
      } catch (Throwable e) {
        failed(
            new BigcastException(
                BigcastException.Code.INTERNAL,
                "broadcast " + broadcast.id + " can't be serialised again: " + e));
      }
      if (failure != null && home == Home.IS_AWAY && isAwaited()) {
        workers.schedule(this, DriverSide.LOOK_AGAIN_MS, TimeUnit.MILLISECONDS);
      } else {
        found(broadcast, known, home == Home.HAS_IT, failure, request);
      }
    }

    private void failed(BigcastException why) {
      if (failure == null) {
        failure = why;
        if (driver.homeAwaitedMs() > 0) {
          Warnings.LOG.info(
              "broadcast {} is on its home's disk alone: {}", broadcast.id, why.getMessage());
        }
        awaitedUntilNanos =
            System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(driver.homeAwaitedMs());
      }
    }

    private boolean isAwaited() {
      return request.canUseBigcast && System.nanoTime() - awaitedUntilNanos < 0
          && driver.find(broadcast.id) == broadcast;
    }
  }

  private void replace(Offloaded broadcast, Case known, ReplacementRequest request)
      throws BigcastException {
    if (known.changed != null) {
      throw known.changed; // finding that out sends the whole of it
    }
    Object value = broadcast.value();
    if (value instanceof Source) {
      ((Source) value).checkReadableAgain();
    }
    if (request.canUseBigcast && known.isWorthUploading()
        && broadcast.replacements() < UPLOADS_IN_ALL_MAX) {
      try {
        driver.uploadAgain(broadcast, value);
        known.uploaded(request);
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
