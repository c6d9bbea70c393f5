package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import io.bigcast.spark.BigcastStats.Reason;
import java.io.IOException;
import java.lang.reflect.Field;
import java.util.Collections;
import java.util.Map;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkContext;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.plugin.DriverPlugin;
import org.apache.spark.api.plugin.PluginContext;
import org.apache.spark.broadcast.BroadcastFactory;
import org.apache.spark.broadcast.BroadcastManager;

/**
 * Puts our factory before Spark's when the driver starts. It connects to nothing:
 * whatever is wrong is told in one warning, and Spark goes on without Bigcast; but wrong settings
 * and a native library that does not load end the application if spark.bigcast.failOnError says so.
 */
final class BigcastDriverPlugin implements DriverPlugin {
  /** Random hexadecimal digits of 128 bits. */
  private static final int SECRET_LENGTH_GOOD = 32;

  private static final String STAY = "broadcasts stay with Spark";

  /** Null while Bigcast is off. */
  private volatile DriverSide side;

  @Override
  public Map<String, String> init(SparkContext context, PluginContext pluginContext) {
    try {
      return start(context);
    } catch (IllegalArgumentException e) {
      if (BigcastConf.failsOnError(SparkEnv.get().conf())) {
        throw e;
      }
      Warnings.LOG.warn("Bigcast is off, broadcasts stay with Spark: {}", e.getMessage());
    } catch (ReflectiveOperationException | RuntimeException | LinkageError e) {
      Warnings.LOG.warn(
          "Bigcast is off, broadcasts stay with Spark: this Spark's broadcast manager is not the one"
              + " it knows: {}",
          e.toString());
    }
    tellStart("off", STAY);
    return Collections.emptyMap();
  }

  @Override
  public void registerMetrics(String appId, PluginContext context) {
    Metrics.registerDriver(context.metricRegistry());
    DriverSide started = side;
    if (started != null) {
      started.startHome();
    }
  }

  @Override
  public Object receive(Object message) throws IOException {
    return DriverMessages.receive(message, side);
  }

  @Override
  public void shutdown() {
    // Spark stops the factory later, when no task can read any more; that is where we end.
  }

  private Map<String, String> start(SparkContext context)
      throws ReflectiveOperationException {
    SparkConf spark = SparkEnv.get().conf();
    BigcastConf conf = BigcastConf.from(spark);
    for (String key : BigcastConf.unknownKeys(spark)) {
      if (conf.flag(Key.FAIL_ON_ERROR)) {
        throw new IllegalArgumentException(SettingsHelp.unknown(key));
      }
      Warnings.LOG.warn("a setting is not used: {}", SettingsHelp.unknown(key));
    }
    if (!conf.flag(Key.ENABLED)) {
      tellStart("off", STAY);
      return Collections.emptyMap();
    }
    Reason always = alwaysDelegate(context, conf);
    String sparkSecret = AppIdentity.sparkSecret();
    AppIdentity app = AppIdentity.create(sparkSecret);
    DriverSide made = wrapFactory(spark, conf, app, always);
    String mode = context.isLocal() ? "local" : conf.shared() ? "shared" : "embedded";
    String leave = "broadcasts of " + conf.number(Key.MIN_SIZE) + " bytes and more leave the driver";
    tellStart(
        mode + " mode" + (always == Reason.DRY_RUN ? ", dry run" : ""),
        always == null ? leave + (conf.encrypts() ? ", encrypted" : "") : STAY);
    if (always == null) {
      side = made;
      made.carry();
      warnOfSecret(app.shownIn(spark), sparkSecret);
    }
    return app.toMap();
  }

  private static void warnOfSecret(String shownIn, String sparkSecret) {
    if (shownIn != null) {
      Warnings.LOG.warn(
          "spark.redaction.regex does not match {}, so that Spark's UI and event log show the"
              + " application's secret: have it match the word secret, as its default does, or set"
              + " spark.authenticate=true",
          shownIn);
    }
    if (sparkSecret != null && sparkSecret.length() < SECRET_LENGTH_GOOD) {
      Warnings.LOG.warn(
          "Spark's secret (spark.authenticate) has fewer than {} characters: whoever sees a login"
              + " may find it out by trying",
          SECRET_LENGTH_GOOD);
    }
  }

  /** The one line at the start, whatever became of it. */
  private static void tellStart(String mode, String what) {
    Warnings.LOG.info(
        "Bigcast {} (native {}), {}: {}",
        NativeLibrary.jarVersion(), NativeLibrary.loadedVersion(), mode, what);
  }

  /** Why this application can't use Bigcast at all; null if it can. */
  private static Reason alwaysDelegate(SparkContext context, BigcastConf conf) {
    if (context.isLocal()) {
      return Reason.LOCAL;
    }
    if (!isUsable(conf)) {
      return Reason.UNAVAILABLE;
    }
    warnOfClassLoader();
    return conf.flag(Key.DRY_RUN) ? Reason.DRY_RUN : null;
  }

  /**
   * False if this host has not what Bigcast needs, which is told.
   *
   * @throws IllegalArgumentException instead, if spark.bigcast.failOnError says so
   */
  static boolean isUsable(BigcastConf conf) {
    try {
      StartChecks.run(conf);
      return true;
    } catch (BigcastException e) {
      if (conf.flag(Key.FAIL_ON_ERROR)) {
        throw new IllegalArgumentException(e.getMessage(), e);
      }
      Warnings.LOG.warn("broadcasts stay with Spark: {}", e.getMessage());
      return false;
    }
  }

  /** Spark has no setting for its factory, and creates it before plugins start. */
  private static DriverSide wrapFactory(
      SparkConf spark, BigcastConf conf, AppIdentity app, Reason always)
      throws ReflectiveOperationException {
    BroadcastManager manager = SparkEnv.get().broadcastManager();
    Field field = BroadcastManager.class.getDeclaredField("broadcastFactory");
    field.setAccessible(true);
    BroadcastFactory sparks = (BroadcastFactory) field.get(manager);
    if (sparks == null) {
      throw new NoSuchFieldException("broadcastFactory is not set yet");
    }
    DriverSide side = new DriverSide(spark, conf, app, sparks);
    field.set(manager, new BigcastBroadcastFactory(sparks, side.rules(), side, always));
    side.start();
    return side;
  }

  /**
   * With --jars our classes are in a loader that parts of Spark don't ask, which fails late and
   * badly; so say it early.
   */
  private static void warnOfClassLoader() {
    if (BigcastPlugin.class.getClassLoader() != SparkEnv.class.getClassLoader()) {
      Warnings.LOG.warn(
          "its jar is not on Spark's own class path (--jars is too late for some readers);"
              + " put it into spark.driver.extraClassPath and spark.executor.extraClassPath, or"
              + " into Spark's jars folder");
    }
  }
}
