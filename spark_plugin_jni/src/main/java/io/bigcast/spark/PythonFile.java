package io.bigcast.spark;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.python.PythonBroadcast;
import org.apache.spark.storage.BlockManager;
import org.apache.spark.storage.BroadcastBlockId;
import org.apache.spark.storage.StorageLevel;

/**
 * The file that this executor's Python workers read a broadcast of PySpark's from. Its name is what
 * Spark's own would be, and Spark's block manager deletes it when the broadcast is unpersisted. It is
 * a link to the memory of this host's node, one copy for all executors there, or where that can't be a
 * file with the bytes. Use it from one thread, and one of a broadcast at a time.
 */
final class PythonFile {
  private final long id;
  private final Connection source;
  private final boolean driver;
  private final BroadcastBlockId block;
  private final BlockManager manager = SparkEnv.get().blockManager();
  private final Path file;

  /** Where it is made. */
  private final Path made;

  PythonFile(long id, Connection source, boolean driver) {
    this.id = id;
    this.source = source;
    this.driver = driver;
    this.block = new BroadcastBlockId(id, "python");
    this.file = manager.diskBlockManager().getFile(block).toPath();
    this.made = file.resolveSibling(file.getFileName() + ".made");
  }

  /** @throws IOException what makes it impossible */
  PythonBroadcast get(BlobPlace first) throws IOException {
    if (Files.exists(file)) {
      return new PythonBroadcast(file.toString());
    }
    Places places = new Places(id, first, driver);
    while (!places.isWithSpark()) {
      try {
        if (!lend(places.place())) {
          copy(places);
        }
        places.countIfReplaced();
        return new PythonBroadcast(file.toString());
      } catch (BigcastException e) {
        fail(places, e);
      } finally {
        Files.deleteIfExists(made);
      }
    }
    Object written = places.torrent(); // by Spark, which gives it the same name
    places.countIfReplaced();
    return (PythonBroadcast) written;
  }

  private static void fail(Places places, BigcastException e) throws IOException {
    try {
      places.failed(e);
    } catch (IOException nothingLeft) {
      BigcastStats.READ_FAILURES.increment();
      throw nothingLeft;
    }
  }

  /** False if it has to be a file. The driver has no workers. */
  private boolean lend(BlobPlace place) throws IOException {
    if (driver || LentFiles.isFull()) {
      return false;
    }
    NativeFile lent;
    try {
      lent = source.lend(id, place);
    } catch (BigcastException e) {
      if (e.code() == BigcastException.Code.NOT_MAPPABLE) {
        Warnings.LOG.info("broadcast {} is copied: {}", id, e.getMessage());
        return false;
      }
      throw e;
    }
    boolean held = false;
    boolean named = false;
    try {
      Path target = lent.path();
      if (LentFiles.canWorkersOpen(target) && link(target)) {
        putInPlace();
        named = true;
        LentFiles.hold(lent, target, file);
        held = true;
        BigcastStats.PYTHON_FILES_SHARED.increment();
      }
    } finally {
      try {
        if (named && !held) {
          Files.deleteIfExists(file);
        }
      } finally {
        if (!held) {
          lent.close();
        }
      }
    }
    return held;
  }

  private boolean link(Path target) {
    try {
      Files.createSymbolicLink(made, target);
      return true;
    } catch (IOException | UnsupportedOperationException e) {
      Warnings.LOG.info("Python workers get a file: {}", e.toString());
      return false;
    }
  }

  private void copy(Places places) throws IOException {
    long start = System.nanoTime();
    try (NativeDownload download = source.download(places.place())) {
      try {
        write(download);
      } catch (BigcastException e) {
        if (source.failed(download, e)) {
          places.distrust();
        }
        throw e;
      }
      source.finished(download, id, System.nanoTime() - start);
    }
    putInPlace();
    BigcastStats.PYTHON_FILES_WRITTEN.increment();
  }

  private void write(NativeDownload download) throws IOException {
    try (FileChannel out =
        FileChannel.open(made, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
      for (ByteBuffer chunk = download.next(); chunk != null; chunk = download.next()) {
        while (chunk.hasRemaining()) {
          out.write(chunk);
        }
      }
    }
  }

  /** The block manager knows no file that it has not written, but deletes what has its name. */
  private void putInPlace() throws IOException {
    if (!manager.putSingle(block, "", StorageLevel.DISK_ONLY(), false, ValueReader.anyTag())) {
      throw new IOException("Spark's block manager could not store " + block);
    }
    Files.move(made, file, StandardCopyOption.ATOMIC_MOVE);
  }
}
