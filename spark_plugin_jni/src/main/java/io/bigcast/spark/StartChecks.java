package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;

/**
 * What Bigcast needs of the driver's host, looked at before it is used: that what is wrong shows at the
 * application's start, and not at its first large broadcast. Nothing is connected to or started.
 */
final class StartChecks {
  /** What a namespace's key begins with (rpc/auth.cc). */
  private static final String KEY_MARK = "bigcast-key-";

  private StartChecks() {}

  /** Loads the native library, too. */
  static void run(BigcastConf conf) throws BigcastException {
    NativeLibrary.load(conf);
    if (conf.shared()) {
      checkSecret(conf);
      return;
    }
    if (!conf.text(Key.NODE_RECORD_TRACE).isEmpty()) {
      checkDirectory(Key.NODE_RECORD_TRACE, conf.text(Key.NODE_RECORD_TRACE));
    }
    if (!conf.usesNoDisk()) {
      checkDisks(conf);
    }
    if (!conf.text(Key.NODE_LOG).isEmpty()) {
      checkLog(conf.text(Key.NODE_LOG));
    }
  }

  private static void checkSecret(BigcastConf conf) throws BigcastException {
    String file = conf.text(Key.SECRET_FILE);
    if (isMaybeTheSecret(file)) {
      throw new BigcastException(
          BigcastException.Code.INVALID_ARGUMENT,
          Key.SECRET_FILE.key + " names no file here (what it is set to is not told, as it may be a"
              + " secret or a key itself): set it to the path of the file that has it");
    }
    try {
      NativeClient.checkSecret(file, conf.text(Key.NAMESPACE));
    } catch (BigcastException e) {
      throw new BigcastException(e, Key.SECRET_FILE.key + ": " + file);
    }
  }

  /** Pasted where its file's name belongs; logs must not have it. */
  private static boolean isMaybeTheSecret(String file) {
    return (file.startsWith(KEY_MARK) || !file.contains("/")) && !new File(file).exists();
  }

  /** As the node does: one of them must be there, and a directory can be made in it. */
  private static void checkDisks(BigcastConf conf) throws BigcastException {
    Exception problem = null;
    for (String directory : conf.list(Key.NODE_DISK)) {
      try {
        Files.delete(Files.createTempDirectory(Paths.get(directory), "bigcast-"));
        return;
      } catch (IOException | RuntimeException e) {
        problem = e;
      }
    }
    if (problem != null) {
      throw unusable(Key.NODE_DISK, "nothing can be written to", conf.text(Key.NODE_DISK), problem);
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
      throw unusable(key, "nothing can be written to", directory, e);
    }
  }

  /** As the node does: it is appended to, and made if need be. */
  private static void checkLog(String file) throws BigcastException {
    try {
      Path path = Paths.get(file);
      boolean isNew = !Files.exists(path);
      if (!isNew && !Files.isRegularFile(path) && !Files.isDirectory(path)) {
        return; // opening a pipe could wait
      }
      Files.newOutputStream(path, StandardOpenOption.CREATE, StandardOpenOption.APPEND).close();
      if (isNew) {
        Files.delete(path);
      }
    } catch (IOException | RuntimeException e) {
      throw unusable(Key.NODE_LOG, "can't append to", file, e);
    }
  }

  private static BigcastException unusable(Key key, String what, String where, Exception why) {
    return new BigcastException(
        BigcastException.Code.INVALID_ARGUMENT, key.key + ": " + what + " '" + where + "': " + why);
  }
}
