package io.bigcast.spark;

import java.util.Map;

/**
 * What the Python package (python/src/bigcast/_spark.py) asks of the driver's JVM, through the
 * gateway that PySpark has to it. Not for applications.
 */
public final class PythonSupport {
  private PythonSupport() {}

  /**
   * How this application's Python processes reach Bigcast, starting the driver's node if need be.
   * Has the application's secret: it may go to the application's own processes and nowhere else.
   *
   * @return null if this application's broadcasts all stay with Spark
   * @throws BigcastException if Bigcast can't be reached
   */
  public static Map<String, String> connection() throws BigcastException {
    return DriverSide.forPython();
  }

  /** A warning in the driver's log, once. */
  public static void warn(String text) {
    Warnings.once(text);
  }
}
