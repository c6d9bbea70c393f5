package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;

/**
 * What Bigcast needs of the driver's host, looked at before it is used: that what is wrong shows at the
 * application's start, and not at its first large broadcast. Nothing is connected to or started.
 */
final class StartChecks {
  private StartChecks() {}

  /** Loads the native library, too. */
  static void run(BigcastConf conf) throws BigcastException {
    NativeLibrary.load(conf);
    if (conf.shared()) {
      checkSecret(conf);
      return;
    }
    if (!conf.usesNoDisk()) {
      for (String directory : conf.list(Key.NODE_DISK)) {
        checkDirectory(Key.NODE_DISK, directory);
      }
    }
  }

  private static void checkSecret(BigcastConf conf) throws BigcastException {
    String file = conf.text(Key.SECRET_FILE);
    try {
      NativeClient.checkSecret(file, conf.text(Key.NAMESPACE));
    } catch (BigcastException e) {
      throw new BigcastException(e, Key.SECRET_FILE.key + ": " + file);
    }
  }

  /** Whether a file can be made in it, or in what it would be made in. */
  private static void checkDirectory(Key key, String directory) throws BigcastException {
    try {
      Path existing = Paths.get(directory).toAbsolutePath();
      while (existing.getParent() != null && !Files.exists(existing)) {
        existing = existing.getParent();
      }
      Files.delete(Files.createTempFile(existing, "bigcast-", ".probe"));
    } catch (IOException | RuntimeException e) {
      throw new BigcastException(
          BigcastException.Code.INVALID_ARGUMENT,
          key.key + ": nothing can be written to '" + directory + "': " + e);
    }
  }
}
