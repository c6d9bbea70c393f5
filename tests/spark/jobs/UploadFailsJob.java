package io.bigcast.sparktest;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.SparkSession;

/**
 * Uploads that fail under way: the first value does not fit into the node, whose memory is 16 MiB
 * and which has no disk; the node is to be killed in the middle of the second. Steps, as StepJob's:
 * `refused` (tasks have read the first), `half` (half of the second is written).
 */
public final class UploadFailsJob {
  private UploadFailsJob() {}

  public static void main(String[] args) throws IOException, ReflectiveOperationException {
    SparkSession session = SparkSession.builder().getOrCreate();
    Cases cases = new Cases(session);
    Steps steps = new Steps();
    cases.add(
        "does_not_fit",
        () -> {
          read(cases.context, Values.pieces(40));
          steps.reach("refused");
        });
    cases.addPublishing("addWithoutRoomTo");
    Values.Halting.atHalf = () -> steps.reach("half");
    cases.add("node_dies", () -> readHalting(cases.context));
    cases.addPublishing("addWithoutNodeTo");
    cases.run(System.out);
    for (Map.Entry<String, Long> each : Probe.here().entrySet()) {
      System.out.println("COUNTER " + each.getKey() + " " + each.getValue());
    }
    session.stop();
    System.out.println("END of cases");
  }

  private static void read(JavaSparkContext context, ArrayList<byte[]> value) {
    long expected = Values.digest(value);
    Broadcast<ArrayList<byte[]>> broadcast = context.broadcast(value);
    List<Boolean> good =
        context
            .parallelize(Probe.numbers(2), 2)
            .map(i -> Values.digest(broadcast.value()) == expected)
            .collect();
    Cases.equal(Collections.nCopies(2, true), good, "values equal");
    broadcast.destroy(true);
  }

  private static void readHalting(JavaSparkContext context) {
    Values.Halting value = new Values.Halting(Values.pieces(7), Values.pieces(9));
    long expected = value.digest();
    Broadcast<Values.Halting> broadcast = context.broadcast(value);
    List<Boolean> good =
        context
            .parallelize(Probe.numbers(2), 2)
            .map(i -> broadcast.value().digest() == expected)
            .collect();
    Cases.equal(Collections.nCopies(2, true), good, "values equal");
  }
}
