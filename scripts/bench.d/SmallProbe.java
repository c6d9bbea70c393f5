import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * Makes, reads and destroys small broadcasts. For each line "BYTES COUNT" on standard input it makes
 * so many broadcasts, has one executor read them in one task, destroys them, and prints
 * "cost MADE READ DESTROYED": milliseconds for one, job and scheduling left out.
 */
public final class SmallProbe {
  private SmallProbe() {}

  public static void main(String[] args) throws IOException {
    try (JavaSparkContext context = new JavaSparkContext(new SparkConf())) {
      context.parallelize(List.of(1), 1).count();
      System.out.println("ready");
      java.io.BufferedReader input =
          new java.io.BufferedReader(new java.io.InputStreamReader(System.in));
      for (String line = input.readLine(); line != null; line = input.readLine()) {
        String[] words = line.split(" ");
        measure(context, Integer.parseInt(words[0]), Integer.parseInt(words[1]));
      }
    }
  }

  private static void measure(JavaSparkContext context, int bytes, int count) {
    byte[] value = new byte[bytes];
    new SplittableRandom(bytes).nextBytes(value);
    List<Broadcast<byte[]>> all = new ArrayList<>();
    long started = System.nanoTime();
    for (int i = 0; i < count; i++) {
      all.add(context.broadcast(value.clone()));
    }
    long made = System.nanoTime() - started;
    int expected = Arrays.hashCode(value);
    long read =
        context
            .parallelize(List.of(1), 1)
            .map(
                i -> {
                  long before = System.nanoTime();
                  for (Broadcast<byte[]> each : all) {
                    if (Arrays.hashCode(each.value()) != expected) {
                      throw new IllegalStateException("another value was read");
                    }
                  }
                  return System.nanoTime() - before;
                })
            .first();
    started = System.nanoTime();
    all.forEach(each -> each.destroy(true));
    long destroyed = System.nanoTime() - started;
    System.out.printf(
        Locale.ROOT, "cost %.4f %.4f %.4f%n",
        made / 1e6 / count, read / 1e6 / count, destroyed / 1e6 / count);
  }
}
