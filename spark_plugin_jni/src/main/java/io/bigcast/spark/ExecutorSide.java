package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import java.io.Serializable;
import java.util.function.Predicate;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.plugin.PluginContext;

/**
 * What an executor's JVM has of Bigcast: one connection, opened by the first task that reads. It
 * needs no plugin call to have come before, because a broadcast may be read before plugins start.
 */
final class ExecutorSide {
  private static Connection connection;
  private static PythonHelp pythonHelp;
  private static WorkerFile pythonSecret;

  /** Null until the plugin starts. */
  private static volatile PluginContext plugin;

  private ExecutorSide() {}

  static void start(PluginContext context) {
    plugin = context;
    BigcastConf conf;
    try {
      conf = BigcastConf.from(SparkEnv.get().conf());
    } catch (IllegalArgumentException e) {
      return; // the driver has told
    }
    if (!conf.flag(Key.ENABLED)) {
      return;
    }
    if (conf.prefetches()) {
      Prefetch.start();
    }
    // Where bigcast.broadcast may be more than sc.broadcast.
    if (!SparkEnv.get().executorId().equals("driver") && !conf.encrypts()) {
      PythonHelp started = PythonHelp.start();
      WorkerFile written = writePythonSecret();
      synchronized (ExecutorSide.class) {
        pythonHelp = started;
        pythonSecret = written;
      }
    }
  }

  private static WorkerFile writePythonSecret() {
    try {
      return PythonSecret.write(AppIdentity.of(SparkEnv.get().conf()));
    } catch (BigcastException e) {
      return null; // the driver's plugin is off
    }
  }

  /**
   * Asks the driver, and waits for its answer at most spark.rpc.askTimeout.
   *
   * @throws BigcastException what the driver threw; UNAVAILABLE if it can't be asked
   */
  static <A extends Serializable> A ask(DriverRequest<A> request) throws BigcastException {
    PluginContext context = plugin;
    if (context == null) {
      throw new BigcastException(
          BigcastException.Code.UNAVAILABLE, "this executor's plugin has not started");
    }
    return DriverMessages.ask(context, request);
  }

  /** Asks again, after pauses that grow, as long as the answer is a "later". */
  static <A extends Serializable> A askUntil(
      DriverRequest<A> request, Predicate<A> isLater, long pauseMsMin, long pauseMsMax)
      throws BigcastException, InterruptedException {
    long pauseMs = pauseMsMin;
    A answer = ask(request);
    while (isLater.test(answer)) {
      Thread.sleep(pauseMs);
      pauseMs = Math.min(2 * pauseMs, pauseMsMax);
      answer = ask(request);
    }
    return answer;
  }

  /** False if this JVM could not load what every use of Bigcast needs. */
  static boolean canUseBigcast() {
    return !NativeLibrary.hasFailed();
  }

  static void close() {
    plugin = null;
    Connection closing;
    PythonHelp helping;
    WorkerFile written;
    synchronized (ExecutorSide.class) {
      closing = connection;
      connection = null;
      helping = pythonHelp;
      pythonHelp = null;
      written = pythonSecret;
      pythonSecret = null;
    }
    if (written != null) {
      written.close();
    }
    if (helping != null) {
      helping.close();
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
