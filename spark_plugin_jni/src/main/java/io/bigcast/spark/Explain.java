package io.bigcast.spark;

import io.bigcast.spark.BigcastStats.Reason;
import java.util.Locale;

/** The line that is logged for each broadcast: which way it took, and what that was like. */
final class Explain {
  private static final double NANOS = 1e9;
  private static final String[] UNITS = {"B", "KiB", "MiB", "GiB", "TiB"};

  private Explain() {}

  static String offloaded(long id, TransferStats stats, long nanos, BlobPlace place) {
    return text(
        "broadcast %d: %s to Bigcast in %d chunks, %s stored (%.2f), %.2f s%s",
        id,
        size(stats.rawBytes),
        stats.chunks,
        size(stats.storedBytes),
        ratio(stats.rawBytes, stats.storedBytes),
        nanos / NANOS,
        place.home.isEmpty() ? "" : ", home " + place.home);
  }

  /** @param size in bytes; negative if nobody knows */
  static String stayed(long id, long size, Reason reason) {
    String what = size < 0 ? "" : size(size) + " ";
    return text("broadcast %d: %sstays with Spark, %s", id, what, reason.why);
  }

  /** @param written how much of it was serialised by then, in bytes */
  static String failed(long id, long size, Reason reason, long written, long nanos) {
    return text(
        "%s: %s written, %.2f s lost", stayed(id, size, reason), size(written), nanos / NANOS);
  }

  static String read(long id, TransferStats stats, long nanos) {
    return text(
        "broadcast %d: read %s in %.2f s, %s, %d of %d chunks by descriptor%s",
        id,
        size(stats.rawBytes),
        nanos / NANOS,
        stats.throughLocalNode ? "through this host's node" : "from other hosts",
        stats.chunksLocated,
        stats.chunks,
        stats.chunksReread == 0 ? "" : ", " + stats.chunksReread + " asked for again");
  }

  /** @param size in bytes; negative if nobody knows */
  static String torrent(long id, long size, long nanos) {
    String what = size < 0 ? "" : size(size) + " ";
    return text(
        "broadcast %d: read %sthrough Spark's TorrentBroadcast in %.2f s", id, what, nanos / NANOS);
  }

  static String mapped(long id, long size, long nanos) {
    return text(
        "broadcast %d: mapped %s of this host's node in %.2f s", id, size(size), nanos / NANOS);
  }

  static String lent(long id, long nanos) {
    return text(
        "broadcast %d: in this host's node, for Python workers to open, in %.2f s", id, nanos / NANOS);
  }

  /** What compression has left of it. */
  static double ratio(long rawBytes, long storedBytes) {
    return rawBytes == 0 ? 1 : (double) storedBytes / rawBytes;
  }

  static String size(long bytes) {
    int unit = 0;
    double value = bytes;
    while (value >= 1024 && unit + 1 < UNITS.length) {
      value /= 1024;
      unit++;
    }
    return unit == 0 ? bytes + " B" : text("%.1f %s", value, UNITS[unit]);
  }

  private static String text(String format, Object... arguments) {
    return String.format(Locale.ROOT, format, arguments);
  }
}
