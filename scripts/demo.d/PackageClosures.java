import java.io.BufferedReader;
import java.io.IOException;
import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.StringJoiner;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaRDD;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.storage.BlockId;
import org.apache.spark.storage.BlockManager;
import org.apache.spark.storage.BlockStatus;
import scala.Function1;
import scala.Option;
import scala.collection.Iterator;
import scala.collection.Iterator$;
import scala.reflect.ClassTag$;

/**
 * Which packages of a Debian archive break without each package?
 *
 * <p>Usage: PackageClosures INPUT SCALE RESULT. INPUT is what `apt-cache dumpavail` prints. The
 * driver computes each package's closure over Depends (Pre-Depends too) and Recommends, broadcasts the
 * map from package to closure, and tasks count for every package in how many closures it is. SCALE
 * copies of the archive, with numbers of their own, make the map larger. RESULT is where a JSON
 * object with the figures goes. At each phase the program prints "phase NAME" and waits for a line
 * on standard input, so that whoever started it can read the counters of the hosts.
 */
public final class PackageClosures {
  private static final int kTop = 5;
  private static final int kTasks = 64;
  private static final long kPauseNanos = 100_000_000;
  private static final Set<String> kDependencyFields =
      Set.of("Pre-Depends", "Depends", "Recommends");

  /** The archive: names by number, and what each package pulls in (all alternatives). */
  private static final class Archive {
    final List<String> names = new ArrayList<>();
    final List<int[]> dependencies = new ArrayList<>();
  }

  /** What one executor found when it read the value for the first time. */
  private static final class Reading implements Serializable {
    final String executor = SparkEnv.get().executorId();
    final String host = SparkEnv.get().blockManager().blockManagerId().host();
    final long serializedBytes;

    Reading(long serializedBytes) {
      this.serializedBytes = serializedBytes;
    }
  }

  private PackageClosures() {}

  public static void main(String[] args) throws IOException {
    Map<String, Object> figures = new HashMap<>();
    long started = System.nanoTime();
    try (JavaSparkContext context = new JavaSparkContext(new SparkConf())) {
      Archive archive = parse(Path.of(args[0]));
      run(context, archive, Integer.parseInt(args[1]), figures);
    }
    figures.put("job_seconds", secondsSince(started));
    Files.writeString(Path.of(args[2]), toJson(figures));
  }

  private static void run(
      JavaSparkContext context, Archive archive, int scale, Map<String, Object> figures)
      throws IOException {
    HashMap<Integer, int[]> closures = closures(archive, scale);
    int packages = closures.size();
    int slots = context.getConf().getInt("spark.cores.max", 1);
    onEverySlot(context, slots, () -> new Reading(0)); // starts the executors, loads the classes

    long heapBefore = usedHeap();
    phase("begin");
    long started = System.nanoTime();
    Broadcast<HashMap<Integer, int[]>> shared = context.broadcast(closures);
    figures.put("broadcast_seconds", secondsSince(started));
    long id = shared.id();
    List<Reading> readings =
        onEverySlot(context, slots, () -> read(shared, packages, id));
    figures.put("read_seconds", secondsSince(started));
    phase("read");
    figures.put("driver_heap_above_value_bytes", usedHeap() - heapBefore);
    figures.put("driver_serialized_bytes", torrentBytes(id));
    figures.put("executors", readings.size());
    Map<String, Long> byHost =
        readings.stream().collect(
            Collectors.groupingBy(r -> r.host, Collectors.summingLong(r -> r.serializedBytes)));
    figures.put("hosts", byHost.size());
    figures.put("host_serialized_bytes", byHost.values().stream().mapToLong(n -> n).sum());

    int[] broken = countBroken(context, shared, packages);
    figures.put("packages", packages);
    figures.put("closure_entries", closures.values().stream().mapToLong(c -> c.length).sum());
    figures.put("checksum", Arrays.hashCode(broken));
    figures.put("top", top(archive, broken));
    shared.destroy();
    phase("done");
  }

  /** For every package: the number of other packages in whose closure it is. */
  private static int[] countBroken(
      JavaSparkContext context, Broadcast<HashMap<Integer, int[]>> shared, int packages) {
    JavaRDD<int[]> counts =
        ranges(context, kTasks).map(
            task -> {
              int from = (int) ((long) packages * task / kTasks);
              int to = (int) ((long) packages * (task + 1) / kTasks);
              int[] count = new int[to - from];
              for (int[] closure : shared.value().values()) {
                int at = Arrays.binarySearch(closure, from);
                for (at = at < 0 ? -at - 1 : at; at < closure.length && closure[at] < to; at++) {
                  count[closure[at] - from]++;
                }
              }
              return count;
            });
    return counts.collect().stream().flatMapToInt(Arrays::stream).toArray();
  }

  private static JavaRDD<Integer> ranges(JavaSparkContext context, int tasks) {
    return context.parallelize(
        IntStream.range(0, tasks).boxed().collect(Collectors.toList()), tasks);
  }

  private interface Work extends Serializable {
    Reading run();
  }

  /** Runs the work once on every executor core at the same time; one result an executor. */
  private static List<Reading> onEverySlot(JavaSparkContext context, int slots, Work work) {
    List<Reading> all =
        ranges(context, slots).rdd().barrier().<Reading>mapPartitions(
                (Function1<Iterator<Integer>, Iterator<Reading>> & Serializable)
                    partition -> Iterator$.MODULE$.single(work.run()),
                false,
                ClassTag$.MODULE$.apply(Reading.class))
            .toJavaRDD()
            .collect();
    Map<String, Reading> byExecutor = new HashMap<>();
    all.forEach(reading -> byExecutor.merge(reading.executor, reading, (a, b) -> a));
    return new ArrayList<>(byExecutor.values());
  }

  private static Reading read(
      Broadcast<HashMap<Integer, int[]>> shared, int packages, long id) {
    if (shared.value().size() != packages) {
      throw new IllegalStateException("partition " + TaskContext.getPartitionId()
          + " read " + shared.value().size() + " packages, not " + packages);
    }
    return new Reading(torrentBytes(id));
  }

  /** The serialised bytes of the broadcast that this process's block manager holds. */
  private static long torrentBytes(long id) {
    BlockManager blocks = SparkEnv.get().blockManager();
    String pieces = "broadcast_" + id + "_piece";
    long bytes = 0;
    Iterator<BlockId> found =
        blocks.getMatchingBlockIds(block -> block.name().startsWith(pieces)).iterator();
    while (found.hasNext()) {
      Option<BlockStatus> status = blocks.getStatus(found.next());
      bytes += status.isEmpty() ? 0 : status.get().memSize() + status.get().diskSize();
    }
    return bytes;
  }

  private static void phase(String name) throws IOException {
    System.out.println("phase " + name);
    System.out.flush();
    while (System.in.read() > '\n') {
      // the line that lets us go on
    }
  }

  /**
   * Bytes of heap in use by live objects: the least after several collections. Spark frees some of
   * its own objects by reference queues, and G1 skips a collection while a thread is in native code
   * that holds an array; both pass in the pauses.
   */
  private static long usedHeap() {
    long least = Long.MAX_VALUE;
    for (int i = 0; i < 3; i++) {
      System.gc();
      least = Math.min(
          least, Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory());
      LockSupport.parkNanos(kPauseNanos);
    }
    return least;
  }

  private static double secondsSince(long nanos) {
    return (System.nanoTime() - nanos) / 1e9;
  }

  // The closures.

  private static HashMap<Integer, int[]> closures(Archive archive, int scale) {
    int size = archive.names.size();
    HashMap<Integer, int[]> closures = new HashMap<>(size * scale * 2);
    BitSet seen = new BitSet(size);
    int[] queue = new int[size];
    for (int start = 0; start < size; start++) {
      seen.clear();
      int end = 0;
      queue[end++] = start;
      for (int next = 0; next < end; next++) {
        for (int dependency : archive.dependencies.get(queue[next])) {
          if (dependency != start && !seen.get(dependency)) {
            seen.set(dependency);
            queue[end++] = dependency;
          }
        }
      }
      int[] closure = seen.stream().toArray();
      for (int copy = 0; copy < scale; copy++) {
        int shift = copy * size;
        closures.put(start + shift, Arrays.stream(closure).map(p -> p + shift).toArray());
      }
    }
    return closures;
  }

  private static Archive parse(Path input) throws IOException {
    Archive archive = new Archive();
    Map<String, Integer> numbers = new HashMap<>();
    Map<String, List<Integer>> providers = new HashMap<>();
    List<List<String>> wanted = new ArrayList<>();
    try (BufferedReader reader = Files.newBufferedReader(input, StandardCharsets.UTF_8)) {
      boolean repeated = false; // of a package in several versions the first counts
      for (String line = reader.readLine(); line != null; line = reader.readLine()) {
        int colon = line.indexOf(": ");
        String field = colon < 0 ? "" : line.substring(0, colon);
        String text = line.substring(colon + 1);
        if (field.equals("Package")) {
          repeated = numbers.putIfAbsent(text.trim(), archive.names.size()) != null;
          if (!repeated) {
            archive.names.add(text.trim());
            wanted.add(new ArrayList<>());
          }
        } else if (!repeated && field.equals("Provides")) {
          for (String name : namesIn(text)) {
            providers.computeIfAbsent(name, n -> new ArrayList<>()).add(archive.names.size() - 1);
          }
        } else if (!repeated && kDependencyFields.contains(field)) {
          wanted.get(wanted.size() - 1).addAll(namesIn(text));
        }
      }
    }
    for (List<String> names : wanted) {
      archive.dependencies.add(
          names.stream()
              .flatMap(name -> candidates(name, numbers, providers).stream())
              .distinct()
              .mapToInt(p -> p)
              .toArray());
    }
    return archive;
  }

  private static List<Integer> candidates(
      String name, Map<String, Integer> numbers, Map<String, List<Integer>> providers) {
    Integer number = numbers.get(name);
    return number != null ? List.of(number) : providers.getOrDefault(name, List.of());
  }

  /** The package names in a dependency field, without versions and architectures. */
  private static List<String> namesIn(String field) {
    List<String> names = new ArrayList<>();
    for (String part : field.split("[,|]")) {
      names.add(part.trim().split("[ (:]", 2)[0]);
    }
    return names;
  }

  /** The packages that most others need: "name count" of the first copy. */
  private static List<String> top(Archive archive, int[] broken) {
    return IntStream.range(0, archive.names.size())
        .boxed()
        .sorted((a, b) -> broken[b] - broken[a])
        .limit(kTop)
        .map(p -> archive.names.get(p) + " " + broken[p])
        .collect(Collectors.toList());
  }

  private static String toJson(Map<String, Object> figures) {
    StringJoiner json = new StringJoiner(",", "{", "}\n");
    figures.forEach((name, value) -> json.add('"' + name + "\":" + toJson(value)));
    return json.toString();
  }

  private static String toJson(Object value) {
    if (value instanceof List<?> list) {
      return list.stream().map(PackageClosures::toJson).collect(Collectors.joining(",", "[", "]"));
    }
    if (value instanceof Double number) {
      return String.format(Locale.ROOT, "%.3f", number);
    }
    return value instanceof Number ? value.toString() : '"' + value.toString() + '"';
  }
}
