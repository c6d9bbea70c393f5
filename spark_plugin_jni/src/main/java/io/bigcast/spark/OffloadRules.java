package io.bigcast.spark;

import io.bigcast.spark.BigcastStats.Reason;
import java.io.File;
import org.apache.spark.api.python.PythonBroadcast;
import org.apache.spark.util.KnownSizeEstimation;

/** Which broadcasts may go to Bigcast, as far as that can be told before serialising them. */
final class OffloadRules {
  /**
   * Bytes of a value whose size only serialising tells, from which on it is not small, whatever
   * spark.bigcast.minSize is: to hold back more would burden the driver's heap, and to send it for
   * nothing and have Spark serialise it again would cost everybody.
   */
  static final int HELD_BACK_MAX = 64 << 20;

  private final long minSize;

  OffloadRules(long minSize) {
    this.minSize = minSize;
  }

  /**
   * Why this broadcast stays with Spark, or null.
   *
   * @param threadName of the thread that makes the broadcast
   */
  Reason delegateReason(Object value, boolean isLocal, String threadName) {
    if (isLocal) {
      return Reason.LOCAL;
    }
    Reason ofThread = reasonOfThread(threadName);
    if (ofThread != null) {
      return ofThread;
    }
    long size = knownSize(value);
    return size >= 0 && size < minSize ? Reason.SMALL : null;
  }

  /** Whether the application has made something large: its users would miss it if it stayed. */
  boolean isMissed(long size, String threadName) {
    return size >= Math.min(minSize, HELD_BACK_MAX) && reasonOfThread(threadName) == null;
  }

  /** What Spark broadcasts for itself, by the thread that does so; null: it is the application's. */
  private static Reason reasonOfThread(String threadName) {
    // A task binary. The scheduler's loop may never wait for a network, whatever the size.
    if (threadName.equals("dag-scheduler-event-loop")) {
      return Reason.TASK_BINARY;
    }
    // Map statuses are read with a plain ObjectInputStream, and vanish while they are read. Spark
    // broadcasts them, and merge statuses with them, from these threads only, and nothing else there.
    if (threadName.startsWith("map-output-dispatcher-")) {
      return Reason.MAP_STATUS;
    }
    return null;
  }

  /** Serialised to less than this, a value for which there is no reason above is small. */
  int leastWritten(Object value) {
    boolean isKnown =
        value instanceof Source || value instanceof byte[] || value instanceof PythonBroadcast;
    return isKnown ? 0 : (int) Math.min(minSize, HELD_BACK_MAX);
  }

  /** An estimate of the serialised size, in bytes; -1 where only serialising tells. */
  static long knownSize(Object value) {
    if (value == null) {
      return 0;
    }
    if (value instanceof byte[]) {
      return ((byte[]) value).length;
    }
    if (value instanceof PythonBroadcast) {
      return new File(((PythonBroadcast) value).path()).length();
    }
    if (value instanceof KnownSizeEstimation) {
      return ((KnownSizeEstimation) value).estimatedSize();
    }
    return -1;
  }
}
