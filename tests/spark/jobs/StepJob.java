package io.bigcast.sparktest;

import java.io.IOException;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.SparkSession;

/**
 * A job in steps, so that whoever runs it can look, or strike, in between. Steps: `ready` (executors
 * run), `made` (the broadcast exists, no task has read it), `read` (every executor has),
 * `unpersisted`, `destroyed`. With spark.bigcasttest.gate, a folder, every executor stops in between
 * `made` and `read`, at the first object that it deserialises: see Values.Gated. With
 * spark.bigcasttest.halting there is a step `half` after `made`: half of another value is written. With
 * spark.bigcasttest.hold a file is published after the last step, and there is a step `published`; with
 * spark.bigcasttest.publish the cases of publishing follow.
 */
public final class StepJob {
  private StepJob() {}

  public static void main(String[] args) throws IOException, ReflectiveOperationException {
    SparkSession session = SparkSession.builder().getOrCreate();
    Cases cases = new Cases(session);
    JavaSparkContext context = cases.context;
    int megabytes = context.getConf().getInt("spark.bigcasttest.megabytes", 64);
    String gate = context.getConf().get("spark.bigcasttest.gate", "");
    Steps steps = new Steps();

    Probe.onExecutors(context, cases.executors);
    Probe.writePluginSettings(cases);
    steps.reach("ready");
    Values.Gated value = new Values.Gated(gate, Values.pieces(megabytes));
    printMarks(value.pieces);
    Broadcast<Values.Gated> broadcast = context.broadcast(value);
    steps.reach("made");
    if (context.getConf().getBoolean("spark.bigcasttest.halting", false)) {
      Values.Halting.atHalf = () -> steps.reach("half");
      context.broadcast(new Values.Halting(Values.pieces(7), Values.pieces(9)));
    }
    long expected = Values.digest(value.pieces);
    int tasks = cases.executors * 3;
    List<Boolean> good =
        context
            .parallelize(Probe.numbers(tasks), tasks)
            .map(
                i -> {
                  boolean equal = Values.digest(broadcast.value().pieces) == expected;
                  Thread.sleep(100); // so that every executor gets tasks
                  return equal;
                })
            .collect();
    boolean equal = good.equals(Collections.nCopies(tasks, true));
    System.out.println("CASE values_equal " + (equal ? "ok" : "FAIL " + good));
    for (Map<String, Long> each : Probe.onExecutors(context, cases.executors).values()) {
      each.forEach((name, count) -> System.out.println("COUNTER executors." + name + " " + count));
    }
    Probe.here().forEach((name, count) -> System.out.println("COUNTER " + name + " " + count));
    steps.reach("read");
    broadcast.unpersist(true);
    steps.reach("unpersisted");
    broadcast.destroy(true);
    steps.reach("destroyed");
    if (context.getConf().getBoolean("spark.bigcasttest.hold", false)) {
      Class.forName("io.bigcast.sparktest.PublishCases")
          .getDeclaredMethod("hold", JavaSparkContext.class, Steps.class)
          .invoke(null, context, steps);
    }
    if (context.getConf().getBoolean("spark.bigcasttest.publish", false)) {
      cases.addPublishing("addTo");
      cases.run(System.out);
    }
    session.stop();
    System.out.println("END of cases");
  }

  /** Some of the value's bytes as they are in its serialised form, four times in each 4 MiB. */
  private static void printMarks(List<byte[]> pieces) {
    for (int i = 0; i < pieces.size(); i += 16) {
      StringBuilder mark = new StringBuilder();
      for (int j = 0; j < 24; j++) {
        mark.append(String.format("%02x", pieces.get(i)[j]));
      }
      System.out.println("MARK " + mark);
    }
  }
}
