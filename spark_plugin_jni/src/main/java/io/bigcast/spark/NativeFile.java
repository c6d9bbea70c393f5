package io.bigcast.spark;

import java.io.File;
import java.io.IOException;
import java.nio.file.Path;
import java.nio.file.Paths;

/** A blob in the memory of this host's node, which others may open as a file until this is closed. */
final class NativeFile extends NativeHandle {
  NativeFile(long pointer) {
    super(pointer);
    BigcastStats.OPEN_MAPPINGS.increment();
  }

  /** By which processes of this user open it; once this is closed it may be any other file's. */
  Path path() throws IOException {
    String process = new File("/proc/self").getCanonicalFile().getName();
    return Paths.get("/proc", process, "fd", Integer.toString(use(NativeFile::descriptor)));
  }

  @Override
  void free(long pointer) {
    destroy(pointer);
    BigcastStats.OPEN_MAPPINGS.decrement();
  }

  private static native int descriptor(long file) throws BigcastException;

  private static native void destroy(long file);
}
