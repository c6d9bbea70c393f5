package io.bigcast.sparktest;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.SparkSession;

/**
 * Broadcasts and reads, round after round, until the file spark.bigcasttest.stop is there. In each
 * round executors read a new value, which is then destroyed, and once more one that is as old as the
 * job. Prints `STEP round-N`.
 */
public final class RollingJob {
  private static final int TASKS = 2;

  private RollingJob() {}

  public static void main(String[] args) throws IOException {
    SparkSession session = SparkSession.builder().getOrCreate();
    Cases cases = new Cases(session);
    Path stop = Paths.get(cases.context.getConf().get("spark.bigcasttest.stop"));
    byte[] oldest = Values.randomBytes(3 << 20, 0);
    Broadcast<byte[]> old = cases.context.broadcast(oldest);
    cases.add(
        "values_equal",
        () -> {
          for (int round = 1; !Files.exists(stop); round++) {
            byte[] value = Values.randomBytes(3 << 20, round);
            Broadcast<byte[]> fresh = cases.context.broadcast(value);
            read(cases.context, fresh, value);
            fresh.destroy(true);
            read(cases.context, old, oldest);
            old.unpersist(true);
            System.out.println("STEP round-" + round);
            System.out.flush();
          }
        });
    cases.run(System.out);
    Probe.here().forEach((name, value) -> System.out.println("COUNTER " + name + " " + value));
    session.stop();
    System.out.println("END of cases");
  }

  private static void read(JavaSparkContext context, Broadcast<byte[]> broadcast, byte[] value) {
    int expected = Arrays.hashCode(value);
    List<Boolean> good =
        context
            .parallelize(Probe.numbers(TASKS), TASKS)
            .map(
                i -> {
                  System.gc(); // what was unpersisted goes, and is read from Bigcast again
                  return Arrays.hashCode(broadcast.value()) == expected;
                })
            .collect();
    Cases.equal(Collections.nCopies(TASKS, true), good, "values equal");
  }
}
