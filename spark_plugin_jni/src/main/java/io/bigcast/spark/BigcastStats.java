package io.bigcast.spark;

import java.util.EnumMap;
import java.util.Map;
import java.util.concurrent.atomic.LongAdder;

/**
 * What Bigcast did in this JVM since it started, whatever Spark contexts came and went. Thread-safe;
 * all but {@link #openDownloads}, {@link #openMappings}, {@link #nativeBufferBytes}, {@link #uploadRatio}
 * and {@link #driverHeapSavedBytes} only grow.
 * Readable from driver code and from tasks; the same numbers are in Spark's metrics.
 */
public final class BigcastStats {
  /** Why a broadcast stayed with Spark's own mechanism. */
  public enum Reason {
    /** Spark runs in local mode, or asked for a local broadcast. */
    LOCAL("in local mode there is nothing to send"),
    /** Made on the scheduler's event loop, which must never wait. */
    TASK_BINARY("a task binary is made on the scheduler's loop"),
    /** Map output statuses, which are replaced while they are read. */
    MAP_STATUS("map output statuses always do"),
    /** Below spark.bigcast.minSize. */
    SMALL("it is smaller than spark.bigcast.minSize"),
    /** Bigcast could not be reached, or its native library could not be loaded. */
    UNAVAILABLE("Bigcast can't be used now"),
    /** Bigcast was reached, but the upload failed. */
    UPLOAD_FAILED("sending it to Bigcast failed"),
    /** It would have gone to Bigcast. */
    DRY_RUN("but for spark.bigcast.dryRun it would go to Bigcast");

    /** For the log. */
    final String why;

    Reason(String why) {
      this.why = why;
    }
  }

  static final LongAdder OFFLOADED = new LongAdder();
  static final LongAdder UPLOADED_RAW_BYTES = new LongAdder();
  static final LongAdder UPLOADED_STORED_BYTES = new LongAdder();
  static final LongAdder CHUNKS_UPLOADED = new LongAdder();
  static final LongAdder UPLOAD_NANOS = new LongAdder();
  static final LongAdder READS = new LongAdder();
  static final LongAdder READ_FAILURES = new LongAdder();
  static final LongAdder READ_RAW_BYTES = new LongAdder();
  static final LongAdder READ_NANOS = new LongAdder();
  static final LongAdder CHUNKS = new LongAdder();
  static final LongAdder CHUNKS_LOCATED = new LongAdder();
  static final LongAdder CHUNKS_REREAD = new LongAdder();
  static final LongAdder CHUNKS_FORGED = new LongAdder();
  static final LongAdder LOCAL_NODE_READS = new LongAdder();
  static final LongAdder DRIVER_REREADS = new LongAdder();
  static final LongAdder REMOVED = new LongAdder();
  static final LongAdder NODES_STARTED = new LongAdder();
  static final LongAdder OPEN_DOWNLOADS = new LongAdder();
  static final LongAdder MAPPED_READS = new LongAdder();
  static final LongAdder OPEN_MAPPINGS = new LongAdder();
  static final LongAdder PYTHON_FILES_SHARED = new LongAdder();
  static final LongAdder PYTHON_FILES_WRITTEN = new LongAdder();
  static final LongAdder READS_REPEATED = new LongAdder();
  static final LongAdder READS_REPLACED = new LongAdder();
  static final LongAdder REPLACED_BY_UPLOAD = new LongAdder();
  static final LongAdder REPLACED_BY_TORRENT = new LongAdder();
  static final LongAdder REPLACED_FOR_PYTHON = new LongAdder();
  static final LongAdder REPLACEMENTS_REFUSED = new LongAdder();
  private static final Map<Reason, LongAdder> DELEGATED = new EnumMap<>(Reason.class);

  static {
    for (Reason reason : Reason.values()) {
      DELEGATED.put(reason, new LongAdder());
    }
  }

  private BigcastStats() {}

  static void countDelegated(Reason reason) {
    DELEGATED.get(reason).increment();
  }

  static void countRead(TransferStats stats, long nanos) {
    READS.increment();
    READ_RAW_BYTES.add(stats.rawBytes);
    READ_NANOS.add(nanos);
    CHUNKS.add(stats.chunks);
    CHUNKS_LOCATED.add(stats.chunksLocated);
    CHUNKS_REREAD.add(stats.chunksReread);
    LOCAL_NODE_READS.add(stats.throughLocalNode ? 1 : 0);
  }

  /** Broadcasts made through Bigcast (driver). */
  public static long offloaded() {
    return OFFLOADED.sum();
  }

  /** Broadcasts that stayed with Spark's own mechanism for this reason (driver). */
  public static long delegated(Reason reason) {
    return DELEGATED.get(reason).sum();
  }

  /** As above, for callers that have only the name, for example from Python. */
  public static long delegated(String reason) {
    return delegated(Reason.valueOf(reason));
  }

  /** Serialised bytes handed to Bigcast (driver). */
  public static long uploadedRawBytes() {
    return UPLOADED_RAW_BYTES.sum();
  }

  /** Bytes as they travelled, after compression (driver). */
  public static long uploadedStoredBytes() {
    return UPLOADED_STORED_BYTES.sum();
  }

  /** Chunks sent to Bigcast (driver). */
  public static long chunksUploaded() {
    return CHUNKS_UPLOADED.sum();
  }

  /** {@link #uploadedStoredBytes} by {@link #uploadedRawBytes}; 1 before there are any (driver). */
  public static double uploadRatio() {
    return Explain.ratio(UPLOADED_RAW_BYTES.sum(), UPLOADED_STORED_BYTES.sum());
  }

  /**
   * Serialised bytes that TorrentBroadcast would have in the driver's heap now: of the broadcasts that
   * live, and are in Bigcast (driver).
   */
  public static long driverHeapSavedBytes() {
    return DriverSide.heapSavedBytes();
  }

  /** Time spent in successful uploads, serialising included (driver). */
  public static double uploadSeconds() {
    return UPLOAD_NANOS.sum() / 1e9;
  }

  /**
   * Broadcasts read from Bigcast and deserialised: one a broadcast and JVM, whatever its tasks; what
   * was published counts each time that it is read to its end.
   */
  public static long reads() {
    return READS.sum();
  }

  public static long readFailures() {
    return READ_FAILURES.sum();
  }

  /** Serialised bytes read from Bigcast. */
  public static long readRawBytes() {
    return READ_RAW_BYTES.sum();
  }

  /** Time spent in successful reads, deserialising included. */
  public static double readSeconds() {
    return READ_NANOS.sum() / 1e9;
  }

  public static long chunksRead() {
    return CHUNKS.sum();
  }

  /** Of {@link #chunksRead}, those copied out of the local node's memory through a descriptor. */
  public static long chunksLocated() {
    return CHUNKS_LOCATED.sum();
  }

  /** Chunks that failed verification or whose source died, and that were read again. */
  public static long chunksReread() {
    return CHUNKS_REREAD.sum();
  }

  /**
   * Encrypted chunks that a node gave with a right checksum and that this application did not write:
   * somebody tampers with them. Nothing of them was deserialised.
   */
  public static long chunksForged() {
    return CHUNKS_FORGED.sum();
  }

  /** Of {@link #reads}, those that went through the node of this host. */
  public static long localNodeReads() {
    return LOCAL_NODE_READS.sum();
  }

  /** Of {@link #reads}, those the driver made because its own value had been collected. */
  public static long driverRereads() {
    return DRIVER_REREADS.sum();
  }

  /** Blobs removed: destroyed, collected, or at the application's end (driver). */
  public static long removed() {
    return REMOVED.sum();
  }

  /** Nodes that this JVM started, rather than attached to. */
  public static long nodesStarted() {
    return NODES_STARTED.sum();
  }

  /** Reads that run now, each of which holds native buffers. */
  public static long openDownloads() {
    return OPEN_DOWNLOADS.sum();
  }

  /**
   * Native memory that uploads and reads hold now: of each at most some ten chunks, however long it is,
   * and none when it has ended.
   */
  public static long nativeBufferBytes() {
    return NativeLibrary.buffersInUse();
  }

  /** What was published and is read in the memory of this host's node: one a broadcast and JVM. */
  public static long mappedReads() {
    return MAPPED_READS.sum();
  }

  /** Blobs that are mapped or lent to Python workers now, each of which holds memory of this host's node. */
  public static long openMappings() {
    return OPEN_MAPPINGS.sum();
  }

  /**
   * Broadcasts of PySpark's that Python workers read in the memory of this host's node: one a
   * broadcast and JVM.
   */
  public static long pythonFilesShared() {
    return PYTHON_FILES_SHARED.sum();
  }

  /** Broadcasts of PySpark's that were written into a file for this JVM's Python workers. */
  public static long pythonFilesWritten() {
    return PYTHON_FILES_WRITTEN.sum();
  }

  /** Reads that failed and were tried again, whatever came of that. */
  public static long readsRepeated() {
    return READS_REPEATED.sum();
  }

  /** Values that were read from what the driver gave instead of the first blob. */
  public static long readsReplaced() {
    return READS_REPLACED.sum();
  }

  /** Broadcasts that executors could not read and that were uploaded again (driver). */
  public static long replacedByUpload() {
    return REPLACED_BY_UPLOAD.sum();
  }

  /** Broadcasts that executors could not read and that Spark's own took over (driver). */
  public static long replacedByTorrent() {
    return REPLACED_BY_TORRENT.sum();
  }

  /** Broadcasts of the Python package that workers could not read, given to sc.broadcast (driver). */
  public static long replacedForPython() {
    return REPLACED_FOR_PYTHON.sum();
  }

  /** Broadcasts that executors could not read and that nothing could replace (driver). */
  public static long replacementsRefused() {
    return REPLACEMENTS_REFUSED.sum();
  }
}
