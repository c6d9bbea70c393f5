import static org.apache.spark.sql.functions.broadcast;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/**
 * Broadcast hash joins with a generated table, of rows of a key and a text that an md5 makes.
 *
 * <p>Usage: JoinProbe ROWS SLOTS REPEATS RESULT. One task a slot reads a hundred thousand rows and
 * joins them. RESULT gets a JSON object: seconds of each query, after one that warms up, and the
 * result of the last.
 */
public final class JoinProbe {
  private static final int kFactsPerSlot = 100_000;

  private JoinProbe() {}

  public static void main(String[] args) throws IOException {
    long rows = Long.parseLong(args[0]);
    int slots = Integer.parseInt(args[1]);
    int repeats = Integer.parseInt(args[2]);
    SparkSession session = SparkSession.builder().getOrCreate();
    query(session, rows / 16, slots, 0);
    List<Double> seconds = new ArrayList<>();
    String last = "";
    for (int i = 1; i <= repeats; i++) {
      long started = System.nanoTime();
      last = query(session, rows, slots, i);
      seconds.add((System.nanoTime() - started) / 1e9);
    }
    session.stop();
    Files.writeString(
        Path.of(args[3]), "{\"seconds\": " + seconds + ", \"result\": \"" + last + "\"}\n");
  }

  private static String query(SparkSession session, long rows, int slots, int salt) {
    Dataset<Row> table =
        session.range(0, rows, 1, slots)
            .selectExpr("id AS k", "md5(cast(id + " + salt + " AS string)) AS payload");
    Dataset<Row> facts =
        session.range(0, (long) kFactsPerSlot * slots, 1, slots)
            .selectExpr("id", "id * 7919 % " + rows + " AS k");
    Row row =
        facts.join(broadcast(table), "k")
            .selectExpr("count(*)", "bit_xor(xxhash64(id, payload))")
            .head();
    return row.toString();
  }
}
