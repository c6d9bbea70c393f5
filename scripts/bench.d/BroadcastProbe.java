import java.io.IOException;
import java.io.Serializable;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.serializer.DeserializationStream;
import org.apache.spark.serializer.SerializationStream;
import org.apache.spark.serializer.SerializerInstance;
import org.apache.spark.util.io.ChunkedByteBuffer;
import org.apache.spark.util.io.ChunkedByteBufferOutputStream;
import scala.Function1;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;

/**
 * Broadcasts a value several times and has every executor read it, all at the same time; and times
 * the serialiser alone.
 *
 * <p>Usage: BroadcastProbe SYSTEM KIND BYTES SLOTS REPEATS RESULT. KIND is "bytes" (one array that
 * does not compress), "longs" (one array, likewise) or "map" (a HashMap of Long to String, an entry
 * for each 64 bytes). SLOTS is the number of executors, of one core each. SYSTEM "bigcast" insists
 * that the broadcasts went that way; "floor" makes none, and times the serialiser as often. Around
 * each broadcast the program prints "phase begin" and "phase end" and waits for a line on standard
 * input. RESULT gets a JSON object with lists of seconds.
 */
public final class BroadcastProbe {
  private static final int kEntryBytes = 64;
  private static final int kChunkBytes = 4 << 20;
  private static final int kWarmUpShare = 16;
  private static final ClassTag<Object> kAny = ClassTag$.MODULE$.apply(Object.class);

  private final Map<String, List<Double>> figures = new HashMap<>();
  private final JavaSparkContext context;
  private final int slots;

  private BroadcastProbe(JavaSparkContext context, int slots) {
    this.context = context;
    this.slots = slots;
  }

  public static void main(String[] args) throws IOException {
    long bytes = Long.parseLong(args[2]);
    int repeats = Integer.parseInt(args[4]);
    try (JavaSparkContext context = new JavaSparkContext(new SparkConf())) {
      BroadcastProbe probe = new BroadcastProbe(context, Integer.parseInt(args[3]));
      if (args[0].equals("floor")) {
        Object value = make(args[1], bytes);
        for (int i = 0; i < repeats; i++) {
          probe.timeSerializer(value);
        }
        Files.writeString(Path.of(args[5]), probe.toJson());
        return;
      }
      probe.warmUp(make(args[1], bytes / kWarmUpShare));
      Object value = make(args[1], bytes);
      for (int i = 0; i < repeats; i++) {
        probe.timeSerializer(value); // so that the driver is warm, as it is where the floor is timed
        probe.timeBroadcast(value);
      }
      if (args[0].equals("bigcast") && PluginStats.get("offloaded") != repeats + 1) {
        throw new IllegalStateException(
            "only " + PluginStats.get("offloaded") + " broadcasts went through Bigcast");
      }
      Files.writeString(Path.of(args[5]), probe.toJson());
    }
  }

  /** Starts the executors, and loads and compiles what the timed part runs. */
  private void warmUp(Object value) {
    EverySlot.run(context, slots, () -> 0L);
    new BroadcastProbe(context, slots).timeSerializer(value);
    Broadcast<Object> shared = context.broadcast(value);
    check(EverySlot.run(context, slots, () -> checksum(shared.value())), value);
    shared.destroy();
  }

  private void timeBroadcast(Object value) throws IOException {
    phase("begin");
    long started = System.nanoTime();
    Broadcast<Object> shared = context.broadcast(value);
    add("broadcast_seconds", started);
    EverySlot.run(context, slots, () -> shared.value() == null ? 0L : 1L);
    add("total_seconds", started);
    phase("end");
    check(EverySlot.run(context, slots, () -> checksum(shared.value())), value);
    shared.destroy();
  }

  /** What no system can do without: serialising and deserialising, in memory. */
  private void timeSerializer(Object value) {
    SerializerInstance serializer = SparkEnv.get().serializer().newInstance();
    long started = System.nanoTime();
    ChunkedByteBufferOutputStream out =
        new ChunkedByteBufferOutputStream(
            kChunkBytes,
            (Function1<Object, ByteBuffer> & Serializable) n -> ByteBuffer.allocate((Integer) n));
    SerializationStream to = serializer.serializeStream(out);
    to.writeObject(value, kAny);
    to.close();
    add("serialize_seconds", started);
    ChunkedByteBuffer bytes = out.toChunkedByteBuffer();
    figures.computeIfAbsent("serialized_bytes", n -> new ArrayList<>()).add((double) bytes.size());
    started = System.nanoTime();
    DeserializationStream from = serializer.deserializeStream(bytes.toInputStream(true));
    Object copy = from.readObject(kAny);
    from.close();
    add("deserialize_seconds", started);
    check(List.of(checksum(copy)), value);
  }

  private void add(String name, long started) {
    double seconds = (double) (System.nanoTime() - started) / TimeUnit.SECONDS.toNanos(1);
    figures.computeIfAbsent(name, n -> new ArrayList<>()).add(seconds);
  }

  private static void check(List<Long> found, Object value) {
    long expected = checksum(value);
    if (!found.stream().allMatch(sum -> sum == expected)) {
      throw new IllegalStateException("another value was read");
    }
  }

  private static Object make(String kind, long bytes) {
    SplittableRandom random = new SplittableRandom(bytes);
    switch (kind) {
      case "bytes":
        byte[] array = new byte[Math.toIntExact(bytes)];
        random.nextBytes(array);
        return array;
      case "longs":
        return random.longs(bytes / Long.BYTES).toArray();
      case "map":
        HashMap<Long, String> map = new HashMap<>();
        for (long i = 0; i < bytes / kEntryBytes; i++) {
          map.put(i, "value " + random.nextLong());
        }
        return map;
      default:
        throw new IllegalArgumentException("KIND: " + kind);
    }
  }

  private static long checksum(Object value) {
    long sum = 0;
    if (value instanceof byte[]) {
      for (byte b : (byte[]) value) {
        sum = sum * 31 + b;
      }
    } else if (value instanceof long[]) {
      for (long n : (long[]) value) {
        sum = sum * 31 + n;
      }
    } else {
      for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
        sum += entry.getKey().hashCode() * 31L ^ entry.getValue().hashCode();
      }
    }
    return sum;
  }

  private static void phase(String name) throws IOException {
    System.out.println("phase " + name);
    System.out.flush();
    while (System.in.read() > '\n') {
      // the rest of the line
    }
  }

  private String toJson() {
    return figures.entrySet().stream()
        .map(entry -> "\"" + entry.getKey() + "\": " + entry.getValue())
        .collect(Collectors.joining(", ", "{", "}\n"));
  }
}
