package io.bigcast.spark;

import java.util.Map;
import org.apache.spark.broadcast.Broadcast;

/**
 * What the Python package (python/src/bigcast/_spark.py) asks of the driver's JVM, through the
 * gateway that PySpark has to it. Not for applications.
 */
public final class PythonSupport {
  private static final long WAIT_MS = 10_000;

  private PythonSupport() {}

  /**
   * How this application's Python processes reach Bigcast, starting the driver's node if need be.
   * Has the secret of the application's nodes: it stays in the driver's processes, and Python workers have
   * it from their executor ({@link PythonSecret}).
   *
   * @return null if this application's broadcasts all stay with Spark
   * @throws BigcastException if Bigcast can't be reached
   */
  public static Map<String, String> connection() throws BigcastException {
    return DriverSide.forPython();
  }

  /** There is a broadcast whose blob has this name. */
  public static void made(String name) throws BigcastException {
    values().made(name);
  }

  /** It was destroyed. */
  public static void destroyed(String name) throws BigcastException {
    values().forget(name);
  }

  /**
   * Waits for a broadcast that executors can't read any more; returns its name, null if there is none
   * yet, or "" if the application has ended. The driver's program must ask all the time.
   */
  public static String nextLost() throws InterruptedException {
    try {
      return values().nextLost(WAIT_MS);
    } catch (BigcastException e) {
      return PythonValues.ENDED;
    }
  }

  /** @param instead its bytes by sc.broadcast, as a file */
  public static void replaced(String name, Broadcast<?> instead) throws BigcastException {
    values().replaced(name, instead);
  }

  public static void notReplaced(String name, String why) throws BigcastException {
    values().notReplaced(name, new BigcastException(BigcastException.Code.NOT_FOUND, why));
  }

  /** A warning in the driver's log, once. */
  public static void warn(String text) {
    Warnings.once(text);
  }

  private static PythonValues values() throws BigcastException {
    return DriverSide.currentOrThrow().pythonValues();
  }
}
