package io.bigcast.spark;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * What this executor has borrowed of its node for its Python workers. Each is held as long as a link
 * to it is there, which Spark deletes when the broadcast is unpersisted, and so long after that nobody
 * who has looked up the link still is on the way: it names a descriptor by its number, which may be
 * another file's once it is closed. Thread-safe; the thread that looks lives as long as anything is
 * lent.
 */
final class LentFiles {
  private static final long LOOK_MS = 2_000;
  private static final long TRY_SECONDS_MAX = 10;

  /** Each is a descriptor of an executor, which may have but a thousand. */
  private static final int LENT_MAX = 256;

  private static final List<Lent> LENT = new ArrayList<>();

  /** Null until it is known. */
  private static volatile Boolean workersCanOpen;

  private LentFiles() {}

  private static final class Lent {
    final NativeFile file;
    final Path target;
    final Path link;
    boolean wasGone;

    Lent(NativeFile file, Path target, Path link) {
      this.file = file;
      this.target = target;
      this.link = link;
    }

    /** Whether it was gone before, too. */
    boolean hasGone() {
      boolean before = wasGone;
      try {
        wasGone = !Files.readSymbolicLink(link).equals(target);
      } catch (IOException | RuntimeException e) {
        wasGone = true;
      }
      return before && wasGone;
    }
  }

  /** Then Python workers get files. */
  static synchronized boolean isFull() {
    return LENT.size() >= LENT_MAX;
  }

  /** The file belongs to this class from now on; the link is there. */
  static synchronized void hold(NativeFile file, Path target, Path link) {
    if (LENT.isEmpty()) {
      DriverSide.daemon(LentFiles::run, "bigcast-lent-files").start(); // waits for us, if it starts
    }
    LENT.add(new Lent(file, target, link));
  }

  /**
   * Whether processes that this one starts can open its descriptors; tried until there is an answer.
   * They can't where the JVM's program has capabilities, say, and they can't be helped then but by
   * files.
   */
  static boolean canWorkersOpen(Path target) {
    if (workersCanOpen == null) {
      Boolean tried = tryToOpen(target);
      if (!Boolean.TRUE.equals(tried)) {
        Warnings.LOG.info("Python workers can't open {}: they get files", target);
      }
      if (tried == null) {
        return false;
      }
      workersCanOpen = tried;
    }
    return workersCanOpen;
  }

  /** Null if that can't be said now. */
  private static Boolean tryToOpen(Path target) {
    try {
      Process child = new ProcessBuilder("/bin/sh", "-c", ": < " + target).start();
      try {
        return child.waitFor(TRY_SECONDS_MAX, TimeUnit.SECONDS) ? child.exitValue() == 0 : null;
      } finally {
        child.destroyForcibly();
      }
    } catch (IOException e) {
      return null;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return null;
    }
  }

  private static void run() {
    boolean more = true;
    while (more) {
      try {
        TimeUnit.MILLISECONDS.sleep(LOOK_MS);
      } catch (InterruptedException e) {
        Warnings.LOG.debug("nobody interrupts this thread", e);
      }
      List<Lent> ended = new ArrayList<>();
      more = take(ended);
      ended.forEach(LentFiles::giveBack);
    }
  }

  /** Tells the node, so it may take a while. */
  private static void giveBack(Lent lent) {
    try {
      lent.file.close();
    } catch (RuntimeException | LinkageError e) {
      Warnings.LOG.warn("a file lent to Python workers is not given back", e);
    }
  }

  /** False if none is left: then another thread starts with the next. */
  private static synchronized boolean take(List<Lent> ended) {
    for (Iterator<Lent> all = LENT.iterator(); all.hasNext(); ) {
      Lent lent = all.next();
      if (lent.hasGone()) {
        all.remove();
        ended.add(lent);
      }
    }
    return !LENT.isEmpty();
  }
}
