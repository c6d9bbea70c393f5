import com.sun.management.GarbageCollectionNotificationInfo;
import com.sun.management.GcInfo;
import io.bigcast.spark.Bigcast;
import io.bigcast.spark.BlobReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryType;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicLong;
import javax.management.NotificationEmitter;
import javax.management.openmbean.CompositeData;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * Broadcasts a stream that does not fit into the driver's heap.
 *
 * <p>Usage: PublishProbe MODE MEBIBYTES SLOTS RESULT. The stream is of blocks of 1 MiB that don't
 * compress, each of which begins with its number; every executor compares every byte. MODE "bigcast"
 * publishes the stream; "torrent" collects it into arrays and broadcasts those, which is what plain
 * Spark offers. RESULT gets a JSON object: seconds, and peaks of the heap in bytes.
 */
public final class PublishProbe {
  private static final int kBlockBytes = 1 << 20;

  private PublishProbe() {}

  public static void main(String[] args) throws IOException {
    int blocks = Integer.parseInt(args[1]);
    int slots = Integer.parseInt(args[2]);
    try (JavaSparkContext context = new JavaSparkContext(new SparkConf())) {
      EverySlot.run(context, slots, () -> 0L);
      System.gc();
      long idle = used();
      Heap heap = new Heap();
      long started = System.nanoTime();
      List<Long> good;
      double made;
      if (args[0].equals("bigcast")) {
        Broadcast<BlobReader<ByteBuffer>> shared =
            Bigcast.publish(context.sc(), new Blocks(blocks));
        made = seconds(started);
        good = EverySlot.run(context, slots, () -> check(shared.value()));
      } else {
        Broadcast<ArrayList<byte[]>> shared = context.broadcast(collect(new Blocks(blocks)));
        made = seconds(started);
        good = EverySlot.run(context, slots, () -> check(shared.value()));
      }
      double total = seconds(started);
      if (!good.stream().allMatch(count -> count == blocks)) {
        throw new IllegalStateException("executors read " + good + " good blocks of " + blocks);
      }
      Files.writeString(
          Path.of(args[3]),
          String.format(
              Locale.ROOT,
              "{\"made_seconds\": %.3f, \"total_seconds\": %.3f, \"heap_idle_bytes\": %d,"
                  + " \"heap_peak_bytes\": %d, \"heap_live_peak_bytes\": %d}%n",
              made, total, idle, heap.peak(), heap.livePeak()));
    }
  }

  private static double seconds(long startedNanos) {
    return (System.nanoTime() - startedNanos) / 1e9;
  }

  private static byte[] pattern() {
    byte[] block = new byte[kBlockBytes];
    new SplittableRandom(1).nextBytes(block);
    return block;
  }

  private static void number(byte[] block, int number) {
    ByteBuffer.wrap(block).putInt(number);
  }

  private static final class Blocks extends InputStream {
    private final byte[] block = pattern();
    private final int count;
    private int at = kBlockBytes;
    private int next;

    Blocks(int count) {
      this.count = count;
    }

    @Override
    public int read() {
      throw new UnsupportedOperationException();
    }

    @Override
    public int read(byte[] bytes, int offset, int length) {
      if (at == kBlockBytes) {
        if (next == count) {
          return -1;
        }
        number(block, next++);
        at = 0;
      }
      int step = Math.min(length, kBlockBytes - at);
      System.arraycopy(block, at, bytes, offset, step);
      at += step;
      return step;
    }
  }

  private static ArrayList<byte[]> collect(InputStream stream) throws IOException {
    ArrayList<byte[]> all = new ArrayList<>();
    for (byte[] block = stream.readNBytes(kBlockBytes); block.length > 0; ) {
      all.add(block);
      if (all.size() % 64 == 0) {
        System.out.println("collected " + all.size() + " MiB");
      }
      block = stream.readNBytes(kBlockBytes);
    }
    return all;
  }

  /** How many blocks, one after the other, are as they were. */
  private static long check(BlobReader<ByteBuffer> published) {
    byte[] expected = pattern();
    byte[] read = new byte[kBlockBytes];
    int good = 0;
    try (InputStream in = published.stream()) {
      for (; in.readNBytes(read, 0, kBlockBytes) == kBlockBytes; good++) {
        number(expected, good);
        if (!Arrays.equals(expected, read)) {
          break;
        }
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return good;
  }

  private static long check(List<byte[]> blocks) {
    byte[] expected = pattern();
    int good = 0;
    for (byte[] block : blocks) {
      number(expected, good);
      good += Arrays.equals(expected, block) ? 1 : 0;
    }
    return good;
  }

  private static long used() {
    return ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed();
  }

  /** Peaks of what the heap holds: garbage included, every 10 ms; and just after collections. */
  private static final class Heap {
    private final AtomicLong peak = new AtomicLong();
    private final AtomicLong livePeak = new AtomicLong();

    Heap() {
      Thread sampler = new Thread(this::sample, "heap");
      sampler.setDaemon(true);
      sampler.start();
      for (GarbageCollectorMXBean collector : ManagementFactory.getGarbageCollectorMXBeans()) {
        ((NotificationEmitter) collector)
            .addNotificationListener(
                (notification, unused) -> {
                  GcInfo collection =
                      GarbageCollectionNotificationInfo.from(
                              (CompositeData) notification.getUserData())
                          .getGcInfo();
                  livePeak.accumulateAndGet(heapAfter(collection), Math::max);
                },
                null,
                null);
      }
    }

    private static long heapAfter(GcInfo collection) {
      return ManagementFactory.getMemoryPoolMXBeans().stream()
          .filter(pool -> pool.getType() == MemoryType.HEAP)
          .mapToLong(pool -> collection.getMemoryUsageAfterGc().get(pool.getName()).getUsed())
          .sum();
    }

    private void sample() {
      try {
        for (;;) {
          peak.accumulateAndGet(used(), Math::max);
          Thread.sleep(10);
        }
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    long peak() {
      return peak.get();
    }

    /** The peak with garbage, if nothing was collected. */
    long livePeak() {
      return livePeak.get() == 0 ? peak() : livePeak.get();
    }
  }
}
