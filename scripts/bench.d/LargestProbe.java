import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.SplittableRandom;
import java.util.zip.CRC32;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * Broadcasts a list of arrays that do not compress, and has every executor checksum all bytes.
 *
 * <p>Usage: LargestProbe MEBIBYTES SLOTS RESULT. RESULT gets a JSON object with seconds.
 */
public final class LargestProbe {
  private static final int PIECE = 16 << 20;

  private LargestProbe() {}

  public static void main(String[] args) throws Exception {
    int slots = Integer.parseInt(args[1]);
    try (JavaSparkContext context = new JavaSparkContext(new SparkConf())) {
      Broadcast<ArrayList<byte[]>> first = context.broadcast(make(PIECE));
      EverySlot.run(context, slots, () -> checksum(first.value()));
      first.destroy();
      ArrayList<byte[]> value = make(Long.parseLong(args[0]) << 20);
      long expected = checksum(value);
      long started = System.nanoTime();
      Broadcast<ArrayList<byte[]>> shared = context.broadcast(value);
      double made = (System.nanoTime() - started) / 1e9;
      for (long sum : EverySlot.run(context, slots, () -> checksum(shared.value()))) {
        if (sum != expected) {
          throw new IllegalStateException("another value was read");
        }
      }
      double total = (System.nanoTime() - started) / 1e9;
      Files.writeString(
          Path.of(args[2]), "{\"made_seconds\": " + made + ", \"total_seconds\": " + total + "}\n");
    }
  }

  private static ArrayList<byte[]> make(long size) {
    SplittableRandom random = new SplittableRandom(size);
    ArrayList<byte[]> pieces = new ArrayList<>();
    for (long left = size; left > 0; left -= PIECE) {
      byte[] piece = new byte[(int) Math.min(PIECE, left)];
      random.nextBytes(piece);
      pieces.add(piece);
    }
    return pieces;
  }

  private static long checksum(ArrayList<byte[]> pieces) {
    CRC32 sum = new CRC32();
    pieces.forEach(sum::update);
    return sum.getValue();
  }
}
