package io.bigcast.sparktest;

import java.io.PrintStream;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.sql.SparkSession;

/**
 * The cases of one Spark context. Each prints one line, `CASE name ok` or `CASE name FAIL why`, on
 * standard output, which the Python side reads; nothing else there starts with CASE.
 */
final class Cases {
  /** A case; any Throwable it lets out is its failure. */
  interface Body {
    void run() throws Throwable;
  }

  /** What must have carried a broadcast. */
  enum Path {
    BIGCAST,
    TORRENT,
    ANY
  }

  private final Map<String, Body> bodies = new LinkedHashMap<>();
  private final Pattern filter;
  final SparkSession session;
  final JavaSparkContext context;
  /**
   * False on plain Spark, and in local mode, which stays with Torrent: then nothing can be proved
   * about Bigcast and only results are checked.
   */
  final boolean plugin;

  final boolean local;
  final long minSize;
  final boolean kryo;
  final int executors;
  /** Then chunks are encrypted, and nothing can be mapped. */
  final boolean sparkEncrypts;
  final int cores; // of an executor

  Cases(SparkSession session) {
    this.session = session;
    this.context = new JavaSparkContext(session.sparkContext());
    SparkConf conf = context.getConf();
    filter = Pattern.compile(conf.get("spark.bigcasttest.filter", ""));
    local = context.isLocal();
    plugin = conf.get("spark.plugins", "").contains("BigcastPlugin") && !local;
    minSize = conf.getSizeAsBytes("spark.bigcast.minSize", "1m");
    kryo = conf.get("spark.serializer", "").contains("Kryo");
    executors = conf.getInt("spark.bigcasttest.executors", 2);
    sparkEncrypts = conf.getBoolean("spark.io.encryption.enabled", false);
    cores = conf.getInt("spark.bigcasttest.cores", 1);
  }

  void add(String name, Body body) {
    bodies.put(name, body);
  }

  /** Has PublishCases, which only exists beside the plugin, add its cases. */
  void addPublishing(String method) throws ReflectiveOperationException {
    if (plugin) {
      addBy("PublishCases", method);
    }
  }

  /** Has LibraryCases, which only exists beside MLlib, add its cases. */
  void addLibraries() throws ReflectiveOperationException {
    try {
      addBy("LibraryCases", "addTo");
    } catch (ClassNotFoundException e) {
      System.err.println("no MLlib and no GraphX: their cases are left out");
    }
  }

  /** Has a class add its cases that is not compiled with this one. */
  void addBy(String name, String method) throws ReflectiveOperationException {
    Class.forName("io.bigcast.sparktest." + name).getMethod(method, Cases.class).invoke(null, this);
  }

  /** Runs the cases that match the filter, all of them whatever fails. */
  void run(PrintStream out) {
    for (Map.Entry<String, Body> each : bodies.entrySet()) {
      if (!filter.matcher(each.getKey()).find()) {
        continue;
      }
      long start = System.nanoTime();
      System.err.println("=== case " + each.getKey());
      String outcome;
      try {
        each.getValue().run();
        outcome = "ok";
      } catch (Throwable failure) {
        failure.printStackTrace();
        outcome = "FAIL " + oneLine(failure.toString());
      }
      long millis = (System.nanoTime() - start) / 1_000_000;
      out.println("CASE " + each.getKey() + " " + outcome + " (" + millis + " ms)");
    }
  }

  /** Where a value of this serialised size must go, given the configured minimum. */
  Path expected(long size) {
    if (!plugin) {
      return Path.ANY;
    }
    return size >= minSize ? Path.BIGCAST : Path.TORRENT;
  }

  /** Runs `body`, in which `count` broadcasts are made, and checks which way they went. */
  <T> T via(Path path, int count, java.util.concurrent.Callable<T> body) throws Exception {
    Map<String, Long> before = Probe.here();
    T result = body.call();
    if (plugin && path != Path.ANY) {
      long offloaded = Probe.delta(before, Probe.here(), Probe.OFFLOADED);
      equal(path == Path.BIGCAST ? (long) count : 0L, offloaded, "broadcasts offloaded");
    }
    return result;
  }

  /** Checks that values of `size` bytes, `least` of them, were offloaded since, if they should be. */
  void expectOffloaded(Map<String, Long> before, long least, long size) {
    if (expected(size) == Path.BIGCAST) {
      long offloaded = Probe.delta(before, Probe.here(), Probe.OFFLOADED);
      check(offloaded >= least, offloaded + " broadcasts offloaded, not " + least);
    }
  }

  static void equal(Object expected, Object actual, String what) {
    if (!Objects.equals(expected, actual)) {
      throw new AssertionError(what + ": expected " + expected + ", got " + actual);
    }
  }

  static void check(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
  }

  /** Waits until the condition holds, at most 60 s; fails naming what did not happen. */
  static void eventually(String what, BooleanSupplier condition) throws InterruptedException {
    eventually(what, condition, () -> "");
  }

  /** As above; {@code how} tells what it was like instead. */
  static void eventually(String what, BooleanSupplier condition, Supplier<String> how)
      throws InterruptedException {
    for (int i = 0; i < 600; i++) {
      if (condition.getAsBoolean()) {
        return;
      }
      Thread.sleep(100);
    }
    throw new AssertionError("did not happen within 60 s: " + what + " " + how.get());
  }

  static Throwable rootCause(Throwable failure) {
    while (failure.getCause() != null && failure.getCause() != failure) {
      failure = failure.getCause();
    }
    return failure;
  }

  static String oneLine(String text) {
    String flat = text.replaceAll("\\s+", " ");
    return flat.length() > 600 ? flat.substring(0, 600) + "..." : flat;
  }
}
