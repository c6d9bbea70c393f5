package io.bigcast.spark;

import java.io.IOException;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContext;
import org.apache.spark.api.python.PythonBroadcast;
import org.apache.spark.storage.BlockManager;
import org.apache.spark.storage.BlockResult;
import org.apache.spark.storage.BroadcastBlockId;
import org.apache.spark.storage.StorageLevel;
import org.apache.spark.util.TaskCompletionListener;
import scala.Option;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;

/**
 * Turns a handle into its value, once a JVM: cached as TorrentBroadcast caches, in Spark's block
 * manager (which drops it when memory is short, and by {@code unpersist}) with a weak map before it.
 * Who comes while another reads the same broadcast gets what that one reads, and can be interrupted;
 * readers of different ones never wait.
 */
final class ValueReader {
  /** User classes must not be named here: it is serialised where they can't be loaded. */
  @SuppressWarnings("unchecked")
  static <T> ClassTag<T> anyTag() {
    return (ClassTag<T>) ClassTag$.MODULE$.Any();
  }

  private static final SingleFlight<Long, Object> FLIGHTS = new SingleFlight<>();

  private ValueReader() {}

  /**
   * @throws IOException whatever goes wrong, as TorrentBroadcast does: it is what Spark recovers from
   */
  @SuppressWarnings("unchecked")
  static <T> T read(long id, BlobPlace place, Connection source, boolean driver)
      throws IOException {
    try {
      return (T) FLIGHTS.run(id, () -> cachedOrFetched(id, place, source, driver));
    } catch (Throwable e) {
      throw asIoException(e);
    }
  }

  /** A broadcast of PySpark's: a file for its workers. Errors as above. */
  static PythonBroadcast readForPython(long id, BlobPlace place, Connection source, boolean driver)
      throws IOException {
    try {
      return (PythonBroadcast)
          FLIGHTS.run(
              id,
              () -> {
                if (!driver) {
                  return new PythonFile(id, source, false).get(place);
                }
                Object known =
                    SparkEnv.get()
                        .broadcastManager()
                        .cachedValues()
                        .get(new BroadcastBlockId(id, ""));
                if (known instanceof PythonBroadcast) {
                  return known;
                }
                BigcastStats.DRIVER_REREADS.increment();
                return new PythonFile(id, source, true).get(place);
              });
    } catch (Throwable e) {
      throw asIoException(e);
    }
  }

  /** Lets handles that are deserialised on the driver share the value it already has. */
  static void remember(long id, Object value) {
    if (value != null) {
      SparkEnv.get().broadcastManager().cachedValues().put(new BroadcastBlockId(id, ""), value);
    }
  }

  /**
   * All bytes of what was published: once a JVM, held until it is unpersisted.
   *
   * @param read what makes them
   */
  static BlobBytes published(long id, boolean driver, SingleFlight.Body<BlobBytes> read)
      throws IOException {
    return (BlobBytes) FLIGHTS.run(id, () -> cachedOrMade(id, driver, read));
  }

  private static BlobBytes cachedOrMade(
      long id, boolean driver, SingleFlight.Body<BlobBytes> read) throws IOException {
    SparkEnv env = SparkEnv.get();
    BroadcastBlockId block = new BroadcastBlockId(id, "bytes");
    Object bytes = env.broadcastManager().cachedValues().get(block);
    if (bytes == null && !driver) {
      bytes = fromBlockManager(env.blockManager(), block);
    }
    if (bytes == null) {
      bytes = read.run();
      if (!driver) {
        store(env.blockManager(), block, bytes);
      }
    }
    env.broadcastManager().cachedValues().put(block, bytes);
    return (BlobBytes) bytes;
  }

  private static Object cachedOrFetched(
      long id, BlobPlace place, Connection source, boolean driver) throws IOException {
    SparkEnv env = SparkEnv.get();
    BroadcastBlockId block = new BroadcastBlockId(id, "");
    Object value = env.broadcastManager().cachedValues().get(block);
    if (value == null) {
      value = fromBlockManager(env.blockManager(), block);
    }
    if (value == null) {
      Fetch fetch = new Fetch(id, source, driver);
      try {
        value = fetch.run(place);
      } catch (Throwable e) {
        BigcastStats.READ_FAILURES.increment();
        throw e;
      }
      // The driver's handle holds the value itself, as softly as it should be held; null is cheap
      // to read, and no cache can tell it from absence.
      if (driver) {
        BigcastStats.DRIVER_REREADS.increment();
      } else if (value != null && !fetch.isStored()) {
        store(env.blockManager(), block, value);
      }
    }
    remember(id, value);
    return value;
  }

  private static Object fromBlockManager(BlockManager manager, BroadcastBlockId block) {
    Option<BlockResult> local = manager.getLocalValues(block);
    if (local.isEmpty()) {
      return null;
    }
    // Not read to its end: that would release the lock, which is ours to release.
    Object value = local.get().data().next();
    TaskContext task = TaskContext.get();
    if (task == null) {
      manager.releaseLock(block, Option.empty());
    } else {
      TaskCompletionListener release = context -> manager.releaseLock(block, Option.empty());
      task.addTaskCompletionListener(release);
    }
    return value;
  }

  /** In memory alone: what Spark drops there is still on this host, in its node. */
  private static void store(BlockManager manager, BroadcastBlockId block, Object value) {
    if (!manager.putSingle(block, value, StorageLevel.MEMORY_ONLY(), false, anyTag())) {
      Warnings.LOG.info("{} does not fit into Spark's memory; tasks may read it again", block);
    }
  }

  /** Spark's Utils.tryOrIOException: fatal errors pass, everything else becomes an IOException. */
  static IOException asIoException(Throwable e) {
    if (e instanceof VirtualMachineError || e instanceof LinkageError) {
      throw (Error) e;
    }
    return e instanceof IOException ? (IOException) e : new IOException(e);
  }
}
