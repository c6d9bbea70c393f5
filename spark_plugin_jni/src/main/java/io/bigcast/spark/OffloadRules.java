package io.bigcast.spark;

import io.bigcast.spark.BigcastStats.Reason;
import java.io.File;
import org.apache.spark.api.python.PythonBroadcast;
import org.apache.spark.util.KnownSizeEstimation;

/** Which broadcasts may go to Bigcast, as far as that can be told before serialising them. */
final class OffloadRules {
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
    // A task binary. The scheduler's loop may never wait for a network, whatever the size.
    if (threadName.equals("dag-scheduler-event-loop")) {
      return Reason.TASK_BINARY;
    }
    // Map statuses are read with a plain ObjectInputStream, and vanish while they are read.
    if (value instanceof byte[][] || threadName.startsWith("map-output-dispatcher")) {
      return Reason.MAP_STATUS;
    }
    return isSmall(knownSize(value)) ? Reason.SMALL : null;
  }

  /** @param size of the serialised form in bytes; negative if nobody knows */
  boolean isSmall(long size) {
    return size >= 0 && size < minSize;
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
