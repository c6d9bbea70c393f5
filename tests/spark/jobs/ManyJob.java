package io.bigcast.sparktest;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.spark.SparkEnv;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.SparkSession;

/**
 * spark.bigcasttest.count broadcasts, each made, read by tasks and destroyed; one in sixteen is larger
 * than a small blob is. Steps, as StepJob's: `before`, with a tenth of them done, so that all is
 * loaded and started, and `after`. The heaps of all JVMs, collected, are printed at both.
 */
public final class ManyJob {
  private static final int AT_ONCE = 50;

  private ManyJob() {}

  public static void main(String[] args) throws IOException {
    SparkSession session = SparkSession.builder().getOrCreate();
    Cases cases = new Cases(session);
    int count = cases.context.getConf().getInt("spark.bigcasttest.count", 1000);
    Steps steps = new Steps();
    cases.add("the_first", () -> many(cases, count / 10));
    cases.add("heaps_before", () -> printHeaps(cases, "before"));
    cases.add("step_before", () -> steps.reach("before"));
    cases.add("all", () -> many(cases, count));
    cases.add("heaps_after", () -> printHeaps(cases, "after"));
    cases.add("step_after", () -> steps.reach("after"));
    cases.run(System.out);
    Probe.here().forEach((name, value) -> System.out.println("COUNTER " + name + " " + value));
    session.stop();
    System.out.println("END of cases");
  }

  private static void many(Cases cases, int count) {
    for (int done = 0; done < count; done += AT_ONCE) {
      List<Broadcast<byte[]>> some = new ArrayList<>();
      int expected = 0;
      for (int i = 0; i < AT_ONCE; i++) {
        byte[] value = Values.randomBytes(i % 16 == 7 ? 1_200_000 : 100 + i, done + i);
        expected = 31 * expected + Arrays.hashCode(value);
        some.add(cases.context.broadcast(value));
      }
      List<Integer> found =
          cases
              .context
              .parallelize(Probe.numbers(2), 2)
              .map(
                  task -> {
                    int digest = 0;
                    for (Broadcast<byte[]> each : some) {
                      digest = 31 * digest + Arrays.hashCode(each.value());
                    }
                    return digest;
                  })
              .collect();
      Cases.equal(Collections.nCopies(2, expected), found, "digests");
      some.forEach(each -> each.destroy(true));
    }
  }

  private static void printHeaps(Cases cases, String when) {
    Map<String, Long> heaps = new HashMap<>();
    heaps.put("driver", heap());
    cases
        .context
        .parallelize(Probe.numbers(cases.executors * 4), cases.executors * 4)
        .map(i -> Collections.singletonMap(SparkEnv.get().executorId(), heap()))
        .collect()
        .forEach(heaps::putAll);
    heaps.forEach(
        (who, bytes) -> System.out.println("COUNTER heap." + when + "." + who + " " + bytes));
  }

  private static long heap() {
    for (int i = 0; i < 3; i++) {
      System.gc();
    }
    return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
  }
}
