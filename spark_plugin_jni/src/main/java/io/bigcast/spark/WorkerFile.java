package io.bigcast.spark;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import org.apache.spark.SparkEnv;

/**
 * What this JVM's Python workers may know and nobody else (python/src/bigcast/_spark.py reads it): a file
 * of mode 0600 in the JVM's own local directory, which goes with this.
 */
final class WorkerFile implements AutoCloseable {
  private final Path file;

  private WorkerFile(Path file) {
    this.file = file;
  }

  /** In one step, and never readable by others. */
  static WorkerFile write(String name, String line) throws IOException {
    File[] directories = SparkEnv.get().blockManager().diskBlockManager().localDirs();
    if (directories.length == 0) {
      throw new IOException("there is no local directory");
    }
    Path directory = directories[0].toPath();
    Path made =
        Files.createTempFile(
            directory, name, "",
            PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
    Files.write(made, line.getBytes(StandardCharsets.US_ASCII));
    Path file = directory.resolve(name);
    Files.move(made, file, StandardCopyOption.ATOMIC_MOVE);
    return new WorkerFile(file);
  }

  @Override
  public void close() {
    try {
      Files.deleteIfExists(file);
    } catch (IOException e) {
      Warnings.LOG.debug("it goes with its directory", e);
    }
  }
}
