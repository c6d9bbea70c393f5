package io.bigcast.sparktest;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.SparkSession;

/**
 * A job in steps, so that whoever runs it can look, or strike, in between: it prints `STEP name` and
 * waits for a line on standard input. Steps: `ready` (executors run), `made` (the broadcast exists,
 * no task has read it), `read` (every executor has), `destroyed`.
 */
public final class StepJob {
  private StepJob() {}

  public static void main(String[] args) throws IOException {
    SparkSession session = SparkSession.builder().getOrCreate();
    Cases cases = new Cases(session);
    JavaSparkContext context = cases.context;
    int megabytes = context.getConf().getInt("spark.bigcasttest.megabytes", 64);
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in));

    Probe.onExecutors(context, cases.executors);
    step("ready", input);
    ArrayList<byte[]> value = Values.pieces(megabytes);
    Broadcast<ArrayList<byte[]>> broadcast = context.broadcast(value);
    step("made", input);
    long expected = Values.digest(value);
    int tasks = cases.executors * 3;
    List<Boolean> good =
        context
            .parallelize(Probe.numbers(tasks), tasks)
            .map(
                i -> {
                  boolean equal = Values.digest(broadcast.value()) == expected;
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
    step("read", input);
    broadcast.destroy(true);
    step("destroyed", input);
    session.stop();
    System.out.println("END of cases");
  }

  private static void step(String name, BufferedReader input) throws IOException {
    System.out.println("STEP " + name);
    System.out.flush();
    if (input.readLine() == null) {
      throw new IOException("standard input ended at step " + name);
    }
  }
}
