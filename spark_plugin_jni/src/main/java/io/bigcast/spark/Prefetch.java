package io.bigcast.spark;

/**
 * Has this executor's host follow the driver's home, so that large broadcasts are fetched while they
 * are written. Only ever a hint: whatever fails here, a broadcast is fetched when it is read.
 */
final class Prefetch implements Runnable {
  private static final long ASK_MS_MIN = 100;
  private static final long ASK_MS_MAX = 2_000;

  private Prefetch() {}

  /** Does its work in the background. */
  static void start() {
    Thread thread = new Thread(new Prefetch(), "bigcast-prefetch");
    thread.setDaemon(true);
    thread.start();
  }

  /** Asks the driver for its home until it has one; ends when the executor's plugin does. */
  @Override
  public void run() {
    try {
      String home =
          ExecutorSide.askUntil(new HomeRequest(), String::isEmpty, ASK_MS_MIN, ASK_MS_MAX);
      ExecutorSide.connection().follow(home);
    } catch (BigcastException | RuntimeException | LinkageError e) {
      Warnings.LOG.debug("broadcasts are fetched when they are read", e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
