package io.bigcast.sparktest;

import io.bigcast.sparktest.Cases.Path;
import io.bigcast.sparktest.ext.Payload;
import java.io.File;
import java.io.Serializable;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.java.JavaRDD;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.api.java.function.Function;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.storage.BlockId;
import org.apache.spark.storage.BlockManager;
import org.apache.spark.storage.BlockStatus;
import org.apache.spark.storage.BroadcastBlockId;
import org.apache.spark.storage.StorageLevel;
import scala.Tuple2;

/** Broadcasts by `sc.broadcast` of many shapes and sizes, and the ways tasks use them. */
final class RddCases {
  private static final int PIECE = 16 << 20;
  private final Cases cases;
  private final JavaSparkContext context;

  private RddCases(Cases cases) {
    this.cases = cases;
    this.context = cases.context;
  }

  static void addTo(Cases cases) {
    RddCases rdd = new RddCases(cases);
    cases.add("rdd_map_of_int_arrays", rdd::mapOfIntArrays);
    // A Java stream puts 27 bytes before a byte array's content, Kryo a few; the serialised
    // lengths around one chunk are what matters, hence several sizes.
    int chunk = Values.CHUNK;
    for (int size : new int[] {0, 1, chunk - 28, chunk - 27, chunk - 26, chunk - 1, chunk,
        chunk + 1, 2 * chunk, 20 << 20}) {
      cases.add("rdd_bytes_" + size, () -> rdd.bytes(size));
    }
    cases.add("rdd_rows_of_bytes", rdd::rowsOfBytes);
    cases.add("rdd_strings", rdd::strings);
    cases.add("rdd_null", rdd::nothing);
    cases.add("rdd_nested_objects", rdd::nestedObjects);
    cases.add("rdd_several_stages", rdd::severalStages);
    cases.add("rdd_two_in_one_task", rdd::twoInOneTask);
    cases.add("rdd_from_many_threads", rdd::fromManyThreads);
    cases.add("rdd_large_closure", rdd::largeClosure);
    cases.add("rdd_class_from_jars", rdd::classFromJars);
    cases.add("rdd_one_instance_an_executor", rdd::oneInstanceAnExecutor);
    cases.add("rdd_one_read_an_executor", rdd::oneReadAnExecutor);
    if (cases.cores > 1 && !cases.local) {
      cases.add("rdd_killed_while_it_waits", rdd::killedWhileItWaits);
    }
    if (!cases.kryo) { // it takes seconds
      cases.add("rdd_dropped_when_memory_is_short", rdd::droppedWhenMemoryIsShort);
    }
    cases.add("rdd_bigger_than_the_node", rdd::biggerThanTheNode);
    cases.add("rdd_many_small", rdd::manySmall);
  }

  /** Makes the broadcast on the expected path, reads it in tasks and compares, then destroys it. */
  private <T> void check(String what, long size, T value, Function<T, Long> digest)
      throws Exception {
    Broadcast<T> broadcast =
        cases.via(cases.expected(size), 1, () -> context.broadcast(value));
    Set<Long> seen =
        new HashSet<>(
            context
                .parallelize(Probe.numbers(4), 4)
                .map(i -> digest.call(broadcast.value()))
                .collect());
    Cases.equal(Collections.singleton(digest.call(value)), seen, what + " in tasks");
    Cases.equal(digest.call(value), digest.call(broadcast.value()), what + " on the driver");
    broadcast.destroy(true);
  }

  private void mapOfIntArrays() throws Exception {
    check("map", 5 << 20, Values.intArrays(13_000), value -> Values.digest(value));
  }

  private void bytes(int size) throws Exception {
    // The boundary of minSize is approached from one side only: a 1 MiB value is not in the list.
    check(
        "bytes", size, Values.randomBytes(size, size),
        value -> value.length * 4_294_967_296L + Arrays.hashCode(value));
  }

  /** As Spark's own map statuses are, which stay with it. */
  private void rowsOfBytes() throws Exception {
    byte[][] rows = Values.pieces(2).toArray(new byte[0][]);
    check("rows", 2 << 20, rows, value -> (long) Arrays.deepHashCode(value));
  }

  private void strings() throws Exception {
    check("strings", 6 << 20, Values.strings(200_000), value -> (long) value.hashCode());
  }

  private void nothing() throws Exception {
    check("null", 0, (byte[]) null, value -> value == null ? 1L : 0L);
  }

  private void nestedObjects() throws Exception {
    int width = 30_000; // deep recursion would overflow any Java serialiser; wide does not
    Values.Node tree = Values.Node.tree(width);
    Broadcast<Values.Node> broadcast =
        cases.via(cases.expected(2 << 20), 1, () -> context.broadcast(tree));
    List<Boolean> good =
        context
            .parallelize(Probe.numbers(2), 2)
            .map(i -> broadcast.value().isTree(width))
            .collect();
    Cases.equal(Arrays.asList(true, true), good, "trees intact");
  }

  private void severalStages() throws Exception {
    HashMap<Integer, int[]> map = Values.intArrays(8_000);
    Broadcast<HashMap<Integer, int[]>> broadcast =
        cases.via(cases.expected(3 << 20), 1, () -> context.broadcast(map));
    Map<Integer, Long> found =
        context
            .parallelize(Probe.numbers(8_000), 6)
            .mapToPair(i -> new Tuple2<>(i % 10, (long) broadcast.value().get(i)[0]))
            .reduceByKey((a, b) -> a + b, 4)
            .mapToPair(t -> new Tuple2<>(t._1, t._2 + broadcast.value().get(t._1).length))
            .groupByKey(3)
            .mapValues(v -> v.iterator().next() + broadcast.value().size())
            .collectAsMap();
    Map<Integer, Long> expected = new HashMap<>();
    for (int i = 0; i < 8_000; i++) {
      expected.merge(i % 10, (long) map.get(i)[0], Long::sum);
    }
    expected.replaceAll((key, sum) -> sum + map.get(key).length + map.size());
    Cases.equal(expected, new HashMap<>(found), "sums");
  }

  private void twoInOneTask() throws Exception {
    byte[] one = Values.randomBytes(3 << 20, 1);
    byte[] two = Values.randomBytes(6 << 20, 2);
    Broadcast<byte[]> first = cases.via(cases.expected(3 << 20), 1, () -> context.broadcast(one));
    Broadcast<byte[]> second = cases.via(cases.expected(6 << 20), 1, () -> context.broadcast(two));
    List<Long> found =
        context
            .parallelize(Probe.numbers(4), 4)
            .map(i -> 31L * Arrays.hashCode(first.value()) + Arrays.hashCode(second.value()))
            .collect();
    long expected = 31L * Arrays.hashCode(one) + Arrays.hashCode(two);
    Cases.equal(Collections.nCopies(4, expected), found, "digests");
  }

  private void fromManyThreads() throws Exception {
    ExecutorService threads = Executors.newFixedThreadPool(4);
    try {
      List<Future<Boolean>> results = new ArrayList<>();
      Map<String, Long> before = Probe.here();
      for (int i = 0; i < 8; i++) {
        int seed = i;
        Callable<Boolean> job = () -> readsBack(seed);
        results.add(threads.submit(job));
      }
      for (Future<Boolean> result : results) {
        Cases.equal(true, result.get(), "value read back");
      }
      if (cases.plugin) {
        Cases.equal(8L, Probe.delta(before, Probe.here(), Probe.OFFLOADED), "offloaded");
      }
    } finally {
      threads.shutdownNow();
    }
  }

  private boolean readsBack(int seed) {
    byte[] value = Values.randomBytes((2 << 20) + seed, seed);
    Broadcast<byte[]> broadcast = context.broadcast(value);
    int expected = Arrays.hashCode(value);
    return context
        .parallelize(Probe.numbers(2), 2)
        .map(i -> Arrays.hashCode(broadcast.value()) == expected)
        .reduce((a, b) -> a && b);
  }

  /** The closure is in the task binary, a broadcast of Spark's own that stays with Torrent. */
  private void largeClosure() throws Exception {
    int[] captured = new java.util.Random(5).ints(800_000).toArray();
    long expected = Arrays.hashCode(captured);
    Map<String, Long> before = Probe.here();
    List<Long> found =
        cases.via(
            Path.TORRENT, 0,
            () ->
                context
                    .parallelize(Probe.numbers(4), 4)
                    .map(i -> (long) Arrays.hashCode(captured))
                    .collect());
    Cases.equal(Collections.nCopies(4, expected), found, "digests");
    if (cases.plugin) {
      long stayed = Probe.delta(before, Probe.here(), Probe.stayed("TASK_BINARY"));
      Cases.check(stayed > 0, "no task binary counted");
    }
  }

  private void classFromJars() throws Exception {
    ClassLoader plugin = SparkEnv.class.getClassLoader();
    Cases.check(Payload.class.getClassLoader() != plugin, "Payload is on the system class path");
    ArrayList<Payload> list = new ArrayList<>();
    for (int i = 0; i < 40_000; i++) {
      list.add(new Payload("payload-" + i, Values.randomBytes(64, i)));
    }
    check(
        "payloads", 3 << 20, list,
        value -> value.stream().mapToLong(Payload::digest).sum());
  }

  /** Tasks of one executor get the same object, as with Torrent; also those that come together. */
  private void oneInstanceAnExecutor() throws Exception {
    Broadcast<ArrayList<byte[]>> broadcast = context.broadcast(Values.pieces(3));
    int cores = cases.local ? 1 : cases.cores;
    for (int round = 0; round < 2; round++) {
      List<Boolean> same =
          context
              .parallelize(Probe.numbers(8), 8)
              .map(
                  i -> {
                    Cases.check(Seen.meet(broadcast.id(), cores), "no tasks at the same time");
                    return Seen.isFirstOrSame(broadcast.id(), broadcast.value());
                  })
              .collect();
      Cases.equal(Collections.nCopies(8, true), same, "same instance in round " + round);
    }
  }

  /** Holds what each broadcast's first task in this JVM got. */
  static final class Seen implements Serializable {
    private static final long serialVersionUID = 1;
    private static final Map<Long, Object> FIRST = new HashMap<>();
    private static final Map<Long, CountDownLatch> MEETING = new ConcurrentHashMap<>();

    /** Waits until so many tasks are here; false if they don't come. */
    static boolean meet(long id, int tasks) throws InterruptedException {
      CountDownLatch meeting = MEETING.computeIfAbsent(id, each -> new CountDownLatch(tasks));
      meeting.countDown();
      return meeting.await(60, TimeUnit.SECONDS);
    }

    static synchronized boolean isFirstOrSame(long id, Object value) {
      Object first = FIRST.putIfAbsent(id, value);
      return first == null || first == value;
    }
  }

  /**
   * One task reads a broadcast and does not get on. Another one of its executor that waits for it can
   * be killed; other broadcasts and `unpersist` do not wait.
   */
  private void killedWhileItWaits() throws Exception {
    File folder = Files.createTempDirectory("gate-").toFile();
    Values.Gated value = new Values.Gated(folder.getPath(), Values.pieces(3));
    long expected = Values.digest(value.pieces);
    Broadcast<Values.Gated> broadcast = context.broadcast(value);
    ExecutorService threads = Executors.newFixedThreadPool(2);
    try {
      Future<List<Long>> reading = threads.submit(() -> readAll(broadcast, folder, "reader", 1));
      Cases.eventually("a task reads", () -> count(folder, "reading-") == 1);
      int others = cases.executors * cases.cores - 1; // all other slots
      Future<List<Long>> waiting = threads.submit(() -> readAll(broadcast, folder, "waits", others));
      Cases.eventually("the others run", () -> count(folder, "waits-came-") == others);
      context.cancelJobGroup("waits");
      Cases.eventually("a killed one leaves", () -> count(folder, "waits-left-") > 0);
      Throwable cancelled = LifecycleCases.thrownBy(waiting::get);
      Cases.check(cancelled.toString().contains("cancel"), "the job's end: " + cancelled);
      Cases.equal(true, readsBack(17), "another broadcast");
      broadcast.unpersist(true);
      Cases.equal(0, count(folder, "reader-left-"), "tasks that went on");
      new File(folder, "go").createNewFile();
      Cases.equal(Collections.singletonList(expected), reading.get(), "digest");
    } finally {
      threads.shutdownNow();
    }
    broadcast.destroy(true);
  }

  /** By so many tasks, which leave files when they come and when they have it or fail to. */
  private List<Long> readAll(
      Broadcast<Values.Gated> broadcast, File folder, String name, int tasks) {
    context.setJobGroup(name, name, true);
    return context
        .parallelize(Probe.numbers(tasks), tasks)
        .map(
            i -> {
              new File(folder, name + "-came-" + i).createNewFile();
              try {
                return Values.digest(broadcast.value().pieces);
              } finally {
                new File(folder, name + "-left-" + i).createNewFile();
              }
            })
        .collect();
  }

  private static int count(File folder, String prefix) {
    return folder.list((in, name) -> name.startsWith(prefix)).length;
  }

  private void oneReadAnExecutor() throws Exception {
    Map<String, Map<String, Long>> before =
        cases.plugin ? Probe.onExecutors(context, cases.executors) : null;
    Broadcast<Values.Counted> broadcast =
        cases.via(
            cases.expected(9 << 20), 1, () -> context.broadcast(new Values.Counted(9 << 20)));
    List<Tuple2<String, Integer>> reads =
        context
            .parallelize(Probe.numbers(12), 12)
            .map(
                i -> {
                  Thread.sleep(30 + broadcast.value().payload.length % 2);
                  return new Tuple2<>(
                      SparkEnv.get().executorId(), Values.Counted.READS.get());
                })
            .collect();
    Set<String> executors = new HashSet<>();
    for (Tuple2<String, Integer> each : reads) {
      executors.add(each._1);
      Cases.equal(1, each._2, "deserialisations in executor " + each._1);
    }
    Cases.equal(cases.executors, executors.size(), "executors that ran tasks");
    if (cases.plugin) {
      checkBytesRead(before, 9 << 20);
    }
  }

  /** Executors that are short of memory drop a value, write it nowhere, and read it again. */
  private void droppedWhenMemoryIsShort() throws Exception {
    byte[] value = Values.randomBytes(PIECE + (4 << 20), 6); // Spark drops it only for less
    int expected = Arrays.hashCode(value);
    Broadcast<byte[]> broadcast =
        cases.via(cases.expected(value.length), 1, () -> context.broadcast(value));
    Set<String> read = readOnExecutors(broadcast, expected);
    Cases.equal(cases.plugin ? cases.executors : 0, read.size(), "executors that read it");
    Set<String> again = new HashSet<>();
    for (int i = 0; i < 5 && again.size() < read.size(); i++) {
      fillMemory(); // of one of them maybe not all, if the other got most tasks
      again.addAll(readOnExecutors(broadcast, expected));
    }
    Cases.equal(read, again, "executors that read it again");
    broadcast.destroy(true);
  }

  /**
   * Which executors brought the value from Bigcast for that, by their host's node. Their block
   * managers have the value and no serialised form beside it, and nothing on disk.
   */
  private Set<String> readOnExecutors(Broadcast<byte[]> broadcast, int expected) {
    Map<String, Map<String, Long>> before = Probe.onExecutors(context, cases.executors);
    List<String> blocks =
        context
            .parallelize(Probe.numbers(12), 12)
            .map(
                i -> {
                  Cases.equal(expected, Arrays.hashCode(broadcast.value()), "the value's hash");
                  Thread.sleep(30); // so that one executor does not take all tasks
                  return blocksOf(broadcast.id());
                })
            .collect();
    if (cases.plugin) {
      String only = new BroadcastBlockId(broadcast.id(), "") + " deserialised in memory";
      Cases.equal(Collections.nCopies(12, only), blocks, "executors' blocks of the broadcast");
    }
    Map<String, Map<String, Long>> after = Probe.onExecutors(context, cases.executors);
    Set<String> read = new HashSet<>();
    for (Map.Entry<String, Map<String, Long>> each : after.entrySet()) {
      Map<String, Long> was = before.get(each.getKey());
      long reads = Probe.delta(was, each.getValue(), Probe.READS);
      if (reads > 0) {
        read.add(each.getKey());
        Cases.equal(
            reads, Probe.delta(was, each.getValue(), "localNodeReads"), "by the host's node");
      }
    }
    return read;
  }

  /** What this JVM's block manager has of a broadcast, and how. */
  static String blocksOf(long id) {
    BlockManager manager = SparkEnv.get().blockManager();
    List<String> found = new ArrayList<>();
    scala.collection.Iterator<BlockId> ids =
        manager
            .getMatchingBlockIds(
                each -> each.isBroadcast() && ((BroadcastBlockId) each).broadcastId() == id)
            .iterator();
    while (ids.hasNext()) {
      BlockId each = ids.next();
      scala.Option<BlockStatus> status = manager.getStatus(each);
      if (status.isDefined()) { // or it was removed just now
        StorageLevel level = status.get().storageLevel();
        found.add(
            each + (level.deserialized() ? " deserialised" : " serialised")
                + (level.useMemory() ? " in memory" : "") + (level.useDisk() ? " on disk" : ""));
      }
    }
    Collections.sort(found);
    return String.join(", ", found);
  }

  /** Takes all memory that executors store blocks in, gives it back, and collects garbage. */
  private void fillMemory() {
    int pieces = cases.executors * 40; // more than there is room for
    JavaRDD<byte[]> filling =
        context
            .parallelize(Probe.numbers(pieces), pieces)
            .map(i -> new byte[PIECE])
            .persist(StorageLevel.MEMORY_ONLY());
    filling.count();
    filling.unpersist(true);
    int tasks = cases.executors * 4;
    context
        .parallelize(Probe.numbers(tasks), tasks)
        .foreach(
            i -> {
              System.gc();
              Thread.sleep(30);
            });
  }

  /** Every executor read the value once, and through descriptors of its host's node. */
  private void checkBytesRead(Map<String, Map<String, Long>> before, long size) {
    Map<String, Map<String, Long>> after = Probe.onExecutors(context, cases.executors);
    for (String id : after.keySet()) {
      Map<String, Long> was = before.getOrDefault(id, Collections.emptyMap());
      Map<String, Long> is = after.get(id);
      long bytes = Probe.delta(was, is, Probe.BYTES_READ);
      Cases.check(bytes >= size && bytes < size + 4096, "executor " + id + " read " + bytes);
      long located = Probe.delta(was, is, Probe.CHUNKS_LOCATED);
      Cases.check(located >= 3, "executor " + id + " read by descriptor " + located + " chunks");
    }
  }

  /** The driver's node has 64 MiB in this context; the rest goes to its disk and back. */
  private void biggerThanTheNode() throws Exception {
    check("pieces", 160 << 20, Values.pieces(160), value -> Values.digest(value));
  }

  /** Below the default minimum; with minSize=0 they are as many tiny blobs. */
  private void manySmall() throws Exception {
    List<Broadcast<String>> all = new ArrayList<>();
    cases.via(
        cases.expected(10), 60,
        () -> {
          for (int i = 0; i < 60; i++) {
            all.add(context.broadcast("value " + i));
          }
          return null;
        });
    if (cases.plugin && cases.minSize > 0) {
      Cases.check(Probe.here().get(Probe.stayed("SMALL")) >= 60, "small ones are not counted");
    }
    List<String> found =
        context
            .parallelize(Probe.numbers(60), 4)
            .map(i -> all.get(i).value())
            .collect();
    for (int i = 0; i < 60; i++) {
      Cases.equal("value " + i, found.get(i), "small value");
    }
  }

  /** Ends an executor in the middle; another one reads the broadcast and the job goes on. */
  static void addKillTo(Cases cases) {
    JavaSparkContext context = cases.context;
    cases.add(
        "rdd_executor_dies",
        () -> {
          byte[] value = Values.randomBytes(12 << 20, 99);
          int expected = Arrays.hashCode(value);
          Broadcast<byte[]> broadcast =
              cases.via(cases.expected(12 << 20), 1, () -> context.broadcast(value));
          List<Boolean> good =
              context
                  .parallelize(Probe.numbers(8), 8)
                  .map(
                      i -> {
                        boolean equal = Arrays.hashCode(broadcast.value()) == expected;
                        if (i == 1 && TaskContext.get().attemptNumber() == 0) {
                          Runtime.getRuntime().halt(9);
                        }
                        return equal;
                      })
                  .collect();
          Cases.equal(Collections.nCopies(8, true), good, "values equal");
        });
  }
}
