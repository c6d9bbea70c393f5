import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * A driver that holds a value and may broadcast it; run under ever smaller heaps.
 *
 * <p>Usage: MemoryProbe MODE MEBIBYTES BALLAST RESULT. The value is a list of byte arrays of 64 KiB
 * that don't compress; BALLAST mebibytes more of them stand for what else a driver holds. MODE is
 * "hold", "torrent" or "bigcast"; the latter two broadcast the value and have an executor read and
 * check it, and "bigcast" insists that it went that way. RESULT gets "ok".
 */
public final class MemoryProbe {
  private static final int kArrayBytes = 64 * 1024 - 16; // with its header: 64 KiB

  private MemoryProbe() {}

  public static void main(String[] args) throws IOException {
    int mebibytes = Integer.parseInt(args[1]);
    try (JavaSparkContext context = new JavaSparkContext(new SparkConf())) {
      ArrayList<byte[]> ballast = arrays(Integer.parseInt(args[2]), 1);
      ArrayList<byte[]> value = arrays(mebibytes, 2);
      long expected = checksum(value);
      long got =
          args[0].equals("hold")
              ? context.parallelize(List.of(expected), 1).map(n -> n).first()
              : readByExecutor(context, context.broadcast(value));
      if (got != expected || checksum(value) != expected || ballast.isEmpty()) {
        throw new IllegalStateException("the executor read another value");
      }
      if (args[0].equals("bigcast") && PluginStats.get("offloaded") != 1) {
        throw new IllegalStateException("the broadcast did not go through Bigcast");
      }
    }
    Files.writeString(Path.of(args[3]), "ok\n");
  }

  private static long readByExecutor(
      JavaSparkContext context, Broadcast<ArrayList<byte[]>> shared) {
    return context.parallelize(List.of(0), 1).map(n -> checksum(shared.value())).first();
  }

  private static ArrayList<byte[]> arrays(int mebibytes, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    int count = mebibytes * 16;
    ArrayList<byte[]> arrays = new ArrayList<>(count);
    for (int i = 0; i < count; i++) {
      byte[] array = new byte[kArrayBytes];
      random.nextBytes(array);
      arrays.add(array);
    }
    return arrays;
  }

  private static long checksum(List<byte[]> arrays) {
    long sum = arrays.size();
    for (byte[] array : arrays) {
      for (int i = 0; i < array.length; i += 61) {
        sum = sum * 31 + array[i];
      }
    }
    return sum;
  }
}
