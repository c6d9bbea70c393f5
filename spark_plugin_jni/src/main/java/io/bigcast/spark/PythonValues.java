package io.bigcast.spark;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import org.apache.spark.broadcast.Broadcast;

/**
 * Broadcasts of the Python package (bigcast.broadcast), by their blobs' names, between executors whose
 * Python workers can't read one any more and the driver's Python program, which has the value and gives
 * it to sc.broadcast instead. The program asks what is lost, and waits for that in its own thread.
 * Thread-safe.
 */
final class PythonValues {
  static final byte[] LATER = {};

  /** Told to the program once the application ends. */
  static final String ENDED = "";

  /** A program that has not asked for so long, though it is told to ask again at once, has ended. */
  private static final long SILENT_NANOS_MAX = 60_000_000_000L;

  private static final class Value {
    boolean isLost;
    Broadcast<?> instead;
    byte[] handle;
    BigcastException failure;
  }

  private final Map<String, Value> values = new HashMap<>();
  private final Deque<String> lost = new ArrayDeque<>();
  private long askedAtNanos = System.nanoTime();

  /** What the program does between two questions, such as pickling, may take its time. */
  private boolean working;

  private boolean closed;

  synchronized void made(String name) {
    values.put(name, new Value());
  }

  /** It is destroyed, and with it what it was replaced by. */
  void forget(String name) {
    Value gone;
    synchronized (this) {
      gone = values.remove(name);
    }
    if (gone != null && gone.instead != null) {
      gone.instead.destroy(false);
    }
  }

  /**
   * What an executor reads instead of a blob: a handle's bytes, or LATER.
   *
   * @throws BigcastException if nothing replaces it
   */
  synchronized byte[] answer(String name) throws BigcastException {
    Value value = values.get(name);
    if (value == null) {
      throw new BigcastException(
          BigcastException.Code.NOT_FOUND,
          "the broadcast is destroyed, or the driver does not keep its value ("
              + BigcastConf.Key.KEEP_VALUE.key + ")");
    }
    if (value.failure != null) {
      throw value.failure;
    }
    if (value.handle != null) {
      return value.handle;
    }
    if (!working && System.nanoTime() - askedAtNanos > SILENT_NANOS_MAX) {
      throw new BigcastException(
          BigcastException.Code.UNAVAILABLE, "the driver's Python program does not answer");
    }
    if (!value.isLost) {
      value.isLost = true;
      lost.add(name);
      notifyAll();
    }
    return LATER;
  }

  /** Waits for something that is lost: its name, ENDED, or null if there is nothing by then. */
  synchronized String nextLost(long waitMs) throws InterruptedException {
    working = false;
    askedAtNanos = System.nanoTime();
    if (lost.isEmpty() && !closed) {
      wait(waitMs);
    }
    working = !lost.isEmpty();
    return closed ? ENDED : lost.poll();
  }

  void replaced(String name, Broadcast<?> instead) throws BigcastException {
    byte[] handle = Handles.toBytes(instead);
    boolean destroyed;
    synchronized (this) {
      Value value = values.get(name);
      destroyed = value == null;
      if (!destroyed) {
        value.instead = instead;
        value.handle = handle;
      }
    }
    if (destroyed) {
      instead.destroy(false);
      return;
    }
    BigcastStats.REPLACED_FOR_PYTHON.increment();
    Warnings.LOG.warn("a broadcast of Python's was lost and is given to sc.broadcast");
  }

  synchronized void notReplaced(String name, BigcastException why) {
    BigcastStats.REPLACEMENTS_REFUSED.increment();
    Warnings.LOG.warn("a broadcast of Python's is lost: {}", why.getMessage());
    Value value = values.get(name);
    if (value != null) {
      value.failure = why;
    }
  }

  synchronized void close() {
    closed = true;
    notifyAll();
  }
}
