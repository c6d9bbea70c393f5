package io.bigcast.spark;

import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;

/**
 * What an executor's JVM has of Bigcast: one connection, opened by the first task that reads. It
 * needs no plugin call to have come before, because a broadcast may be read before plugins start.
 */
final class ExecutorSide {
  private static Connection connection;

  private ExecutorSide() {}

  static void close() {
    Connection closing;
    synchronized (ExecutorSide.class) {
      closing = connection;
      connection = null;
    }
    if (closing != null) {
      closing.close();
    }
  }

  static synchronized Connection connection() throws BigcastException {
    if (connection == null) {
      SparkConf spark = SparkEnv.get().conf();
      try {
        connection =
            new Connection(spark, BigcastConf.from(spark), AppIdentity.of(spark), false);
      } catch (IllegalArgumentException e) {
        throw new BigcastException(BigcastException.Code.INVALID_ARGUMENT, e.getMessage());
      }
    }
    return connection;
  }
}
