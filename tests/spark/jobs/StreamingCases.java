package io.bigcast.sparktest;

import static org.apache.spark.sql.functions.broadcast;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.streaming.StreamingQuery;
import org.apache.spark.sql.streaming.Trigger;

/** Broadcasts of Structured Streaming, which is a part of Spark SQL. */
final class StreamingCases {
  private final Cases cases;

  private StreamingCases(Cases cases) {
    this.cases = cases;
  }

  static void addTo(Cases cases) {
    cases.add("streaming_micro_batches", new StreamingCases(cases)::microBatches);
  }

  /** Three batches, each of which broadcasts the table it is joined with. */
  private void microBatches() throws Exception {
    Path folder = Files.createTempDirectory("bigcast-stream-");
    try {
      String input = folder.resolve("input").toString();
      cases.session.range(0, 9_000, 1, 3).write().parquet(input);
      Dataset<Row> table =
          cases.session.range(0, 40_000).selectExpr("id", "md5(cast(id AS string)) AS payload");
      Dataset<Row> stream =
          cases.session.readStream().schema("id LONG").option("maxFilesPerTrigger", 1).parquet(input);
      Map<String, Long> before = Probe.here();
      StreamingQuery query =
          stream.join(broadcast(table), "id").writeStream().format("parquet")
              .option("path", folder.resolve("output").toString())
              .option("checkpointLocation", folder.resolve("checkpoint").toString())
              .trigger(Trigger.AvailableNow()).start();
      query.awaitTermination();
      String[] sums = SqlCases.digests("xxhash64(id, payload)");
      Dataset<Row> found = cases.session.read().parquet(folder.resolve("output").toString());
      Cases.equal(
          table.where("id < 9000").selectExpr(sums).head(), found.selectExpr(sums).head(),
          "rows and hash");
      cases.expectOffloaded(before, 3, 2 << 20);
    } finally {
      SqlCases.deleteTree(folder);
    }
  }
}
