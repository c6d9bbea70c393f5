package io.bigcast.sparktest;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.SparkSession;

/**
 * Two broadcasts of 3 MiB and a tiny one, read by tasks and compared; then all counters, as lines
 * `COUNTER name value`, with `executors.` before those of executors. For contexts whose settings are
 * what is tested; spark.bigcasttest.contexts is how many of them, one after the other.
 */
public final class SmallJob {
  private SmallJob() {}

  public static void main(String[] args) {
    for (int left = contexts(); left > 0; left--) {
      SparkSession session = SparkSession.builder().getOrCreate();
      run(new Cases(session), left == 1);
      session.stop();
    }
    print("", Probe.here());
    System.out.println("END of cases");
  }

  private static int contexts() {
    return Integer.getInteger("spark.bigcasttest.contexts", 1);
  }

  private static void run(Cases cases, boolean last) {
    JavaSparkContext context = cases.context;
    cases.add(
        last ? "results" : "results_of_an_earlier_context",
        () -> {
          for (int seed = 0; seed < 2; seed++) {
            read(context, Values.randomBytes(3 << 20, seed));
          }
          read(context, new byte[] {1, 2, 3});
        });
    if (last) {
      cases.add("metrics_are_the_counters", () -> metricsAreTheCounters(cases));
    }
    cases.run(System.out);
    for (Map<String, Long> each : Probe.onExecutors(context, cases.executors).values()) {
      print("executors.", each);
    }
  }

  /** What Spark's metrics say of the plugin, here and in an executor, once nothing moves any more. */
  private static void metricsAreTheCounters(Cases cases) throws InterruptedException {
    if (!cases.plugin) {
      return;
    }
    String[] differ = {""};
    Cases.eventually(
        "metrics as the counters, and no native memory in use",
        () -> {
          List<String> executors =
              cases.context.parallelize(Probe.numbers(1), 1).map(i -> Metrics.difference()).collect();
          differ[0] = "driver: " + Metrics.difference() + ", executor: " + executors.get(0);
          return differ[0].equals("driver: , executor: ");
        },
        () -> differ[0]);
  }

  private static void read(JavaSparkContext context, byte[] value) {
    int expected = Arrays.hashCode(value);
    Broadcast<byte[]> broadcast = context.broadcast(value);
    List<Boolean> good =
        context
            .parallelize(Probe.numbers(4), 4)
            .map(i -> Arrays.hashCode(broadcast.value()) == expected)
            .collect();
    Cases.equal(Collections.nCopies(4, true), good, "values equal");
    broadcast.destroy(true);
  }

  private static void print(String prefix, Map<String, Long> counters) {
    counters.forEach((name, value) -> System.out.println("COUNTER " + prefix + name + " " + value));
  }
}
