import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * Jobs that share executors, each with broadcasts of its own and one that is all of theirs, so that
 * the hosts' nodes have much to keep and readers that come late.
 *
 * <p>Usage: TraceProbe SLOTS JOBS BYTES SEED RESULT. Three jobs run at a time. Each makes one or two
 * broadcasts of up to BYTES, reads them and mostly the common one in two tasks an executor, of which
 * there are SLOTS, and destroys its own. RESULT gets the number of chunks that executors have read.
 */
public final class TraceProbe {
  private static final int kJobsAtATime = 3;
  private static final int kBytesMin = 1 << 20;
  private static final double kReadsOwn = 0.8;
  private static final double kReadsCommon = 0.3;
  private static final double kPauseMs = 200;

  private final JavaSparkContext context;
  private final int slots;
  private final int bytesMax;

  private TraceProbe(JavaSparkContext context, int slots, int bytesMax) {
    this.context = context;
    this.slots = slots;
    this.bytesMax = bytesMax;
  }

  public static void main(String[] args) throws Exception {
    int slots = Integer.parseInt(args[0]);
    int jobs = Integer.parseInt(args[1]);
    try (JavaSparkContext context = new JavaSparkContext(new SparkConf())) {
      EverySlot.run(context, slots, () -> 0L);
      TraceProbe probe = new TraceProbe(context, slots, Integer.parseInt(args[2]));
      SplittableRandom random = new SplittableRandom(Long.parseLong(args[3]));
      Shared common = probe.share(random);
      ExecutorService drivers = Executors.newFixedThreadPool(kJobsAtATime);
      List<Future<?>> running = new ArrayList<>();
      for (int i = 0; i < jobs; i++) {
        SplittableRandom own = random.split();
        running.add(drivers.submit(() -> probe.run(own, common)));
      }
      for (Future<?> each : running) {
        each.get();
      }
      drivers.shutdown();
      common.broadcast.destroy();
      List<Long> chunksRead =
          EverySlot.run(context, slots, () -> PluginStats.get("chunksRead"));
      long chunks = chunksRead.stream().mapToLong(n -> n).sum();
      Files.writeString(Path.of(args[4]), Long.toString(chunks));
    }
  }

  /** A value that does not compress, and its sum. */
  private static final class Shared implements java.io.Serializable {
    final Broadcast<byte[]> broadcast;
    final int sum;

    Shared(Broadcast<byte[]> broadcast, int sum) {
      this.broadcast = broadcast;
      this.sum = sum;
    }

    void read() {
      if (Arrays.hashCode(broadcast.value()) != sum) {
        throw new IllegalStateException("another value was read");
      }
    }
  }

  /** Of a size from 1 MiB up, small ones as often as large ones. */
  private Shared share(SplittableRandom random) {
    double share = Math.pow((double) bytesMax / kBytesMin, random.nextDouble());
    byte[] value = new byte[(int) (kBytesMin * share)];
    random.nextBytes(value);
    return new Shared(context.broadcast(value), Arrays.hashCode(value));
  }

  private void run(SplittableRandom random, Shared common) {
    List<Shared> own = new ArrayList<>();
    own.add(share(random));
    if (random.nextBoolean()) {
      own.add(share(random));
    }
    int tasks = 2 * slots;
    List<Long> seeds =
        IntStream.range(0, tasks).mapToObj(i -> random.nextLong()).collect(Collectors.toList());
    context.parallelize(seeds, tasks).foreach(seed -> task(new SplittableRandom(seed), own, common));
    own.forEach(each -> each.broadcast.destroy());
  }

  private static void task(SplittableRandom random, List<Shared> own, Shared common)
      throws InterruptedException {
    for (Shared each : own) {
      Thread.sleep((long) (-Math.log(random.nextDouble()) * kPauseMs));
      if (random.nextDouble() < kReadsOwn) {
        each.read();
      }
    }
    if (random.nextDouble() < kReadsCommon) {
      common.read();
    }
  }
}
