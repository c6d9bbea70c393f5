package io.bigcast.sparktest;

import com.codahale.metrics.Gauge;
import com.codahale.metrics.MetricRegistry;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.spark.SparkEnv;

/** What the plugin shows in Spark's metrics system, against its counters (see Probe). */
final class Metrics {
  private static final String STATS = "io.bigcast.spark.BigcastStats";
  private static final String SOURCE = "plugin.io.bigcast.spark.BigcastPlugin";

  /** The gauges that are called otherwise than their counters. */
  private static final Map<String, String> NAMES =
      Map.of("broadcastsOffloaded", "offloaded", "blobsRemoved", "removed");

  private Metrics() {}

  /** How they differ in this JVM; empty if they don't, and no native memory is in use. */
  static String difference() {
    Map<String, Double> shown = shown();
    Map<String, Double> counted = counted();
    TreeSet<String> differ = new TreeSet<>();
    for (Map.Entry<String, Double> each : shown.entrySet()) {
      if (!each.getValue().equals(counted.get(each.getKey()))) {
        differ.add(each + " shown, " + counted.get(each.getKey()) + " counted");
      }
    }
    Set<String> missing = new TreeSet<>(counted.keySet());
    missing.removeAll(shown.keySet());
    boolean driver = SparkEnv.get().executorId().equals("driver");
    if (driver && !missing.isEmpty() || shown.size() < 18) {
      differ.add("only these are shown: " + shown.keySet());
    }
    if (!Double.valueOf(0).equals(shown.get("nativeBufferBytes"))) {
      differ.add("native buffers: " + shown.get("nativeBufferBytes"));
    }
    return String.join("; ", differ);
  }

  private static Map<String, Double> shown() {
    MetricRegistry registry =
        SparkEnv.get().metricsSystem().getSourcesByName(SOURCE).head().metricRegistry();
    Map<String, Double> shown = new TreeMap<>();
    for (Map.Entry<String, Gauge> each : registry.getGauges().entrySet()) {
      shown.put(counterOf(each.getKey()), ((Number) each.getValue().getValue()).doubleValue());
    }
    return shown;
  }

  /** "reads_total" counts "reads". */
  private static String counterOf(String gauge) {
    String plain = gauge.replaceAll("_total$", "");
    if (plain.startsWith("broadcasts_delegated_")) {
      return Probe.stayed(plain.substring("broadcasts_delegated_".length()).toUpperCase());
    }
    StringBuilder name = new StringBuilder();
    for (String word : plain.split("_")) {
      name.append(name.length() == 0 ? word : word.substring(0, 1).toUpperCase() + word.substring(1));
    }
    return NAMES.getOrDefault(name.toString(), name.toString());
  }

  private static Map<String, Double> counted() {
    Map<String, Double> counted = new TreeMap<>();
    Probe.here().forEach((name, count) -> counted.put(name, count.doubleValue()));
    try {
      for (Method method : Class.forName(STATS).getMethods()) {
        boolean plain = Modifier.isStatic(method.getModifiers()) && method.getParameterCount() == 0;
        if (plain && method.getReturnType() == double.class) {
          counted.put(method.getName(), (Double) method.invoke(null));
        }
      }
    } catch (ReflectiveOperationException broken) {
      throw new IllegalStateException(broken);
    }
    return counted;
  }
}
