package io.bigcast.sparktest;

import io.bigcast.sparktest.Cases.Path;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.NotSerializableException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.lang.ref.WeakReference;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.apache.spark.SparkException;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import scala.Tuple2;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;

/** What frees broadcasts, what users see when something is wrong with them. */
final class LifecycleCases {
  private final Cases cases;
  private final JavaSparkContext context;

  private LifecycleCases(Cases cases) {
    this.cases = cases;
    this.context = cases.context;
  }

  static void addTo(Cases cases) {
    LifecycleCases life = new LifecycleCases(cases);
    cases.add("life_unpersist_then_read", life::unpersistThenRead);
    cases.add("life_destroy_then_use", life::destroyThenUse);
    cases.add("life_read_when_used", life::readWhenUsed);
    cases.add("life_garbage_collected", life::garbageCollected);
    cases.add("life_driver_rereads", life::driverRereads);
    cases.add("life_handle_read_on_the_driver", life::handleReadOnTheDriver);
    cases.add("life_serialised_once", life::serialisedOnce);
    cases.add("life_user_exception_writing", () -> life.exceptionWriting(false));
    cases.add("life_not_serializable", () -> life.exceptionWriting(true));
    cases.add("life_user_exception_reading", life::exceptionReading);
    cases.add("life_map_statuses", life::mapStatuses);
    cases.add("life_nothing_left_in_between", life::nothingLeft);
  }

  private Broadcast<byte[]> broadcast(int size, long seed) throws Exception {
    return cases.via(
        cases.expected(size), 1, () -> context.broadcast(Values.randomBytes(size, seed)));
  }

  private void checkReads(Broadcast<byte[]> broadcast, int size, long seed) {
    int expected = Arrays.hashCode(Values.randomBytes(size, seed));
    List<Boolean> good =
        context
            .parallelize(Probe.numbers(4), 4)
            .map(i -> Arrays.hashCode(broadcast.value()) == expected)
            .collect();
    Cases.equal(Collections.nCopies(4, true), good, "values equal");
  }

  private void unpersistThenRead() throws Exception {
    int size = 7 << 20;
    for (boolean waits : new boolean[] {true, false}) {
      Broadcast<byte[]> broadcast = broadcast(size, 21);
      checkReads(broadcast, size, 21);
      checkUnpersists(broadcast, waits);
      checkReads(broadcast, size, 21);
      broadcast.unpersist(waits);
      Cases.equal(
          Arrays.hashCode(Values.randomBytes(size, 21)), Arrays.hashCode(broadcast.value()),
          "value on the driver after unpersist");
      broadcast.destroy(true);
    }
  }

  /** Once only: who reads again may find the value on the heap and put no block of it back. */
  private void checkUnpersists(Broadcast<?> broadcast, boolean waits) throws InterruptedException {
    if (cases.local) {
      broadcast.unpersist(waits);
      return; // the driver, where all is, keeps it
    }
    long id = broadcast.id();
    Cases.check(!onExecutors(id).isEmpty(), "executors have no block of what they read");
    broadcast.unpersist(waits);
    if (waits) {
      Cases.equal("", onExecutors(id), "blocks that executors still have");
    } else {
      Cases.eventually(
          "executors' blocks are gone", () -> onExecutors(id).isEmpty(), () -> onExecutors(id));
    }
  }

  /** What executors' block managers have of a broadcast. */
  private String onExecutors(long id) {
    return String.join(
        " ",
        Probe.onExecutors(context, cases.executors, () -> RddCases.blocksOf(id)).values())
        .trim();
  }

  private void destroyThenUse() throws Exception {
    Map<String, Long> before = Probe.here();
    Broadcast<byte[]> broadcast = broadcast(6 << 20, 22);
    checkReads(broadcast, 6 << 20, 22);
    if (cases.expected(6 << 20) == Path.BIGCAST) {
      Cases.check(heapSaved() >= 6 << 20, "bytes saved in the driver's heap: " + heapSaved());
    }
    Cases.check(broadcast.isValid(), "valid as long as it is not destroyed");
    broadcast.destroy(true);
    Cases.check(!broadcast.isValid(), "still valid");
    for (boolean destroy : new boolean[] {true, false}) {
      Throwable again =
          thrownBy(
              () -> {
                if (destroy) {
                  broadcast.destroy(true);
                } else {
                  broadcast.unpersist(true);
                }
                return null;
              });
      Cases.check(again instanceof SparkException, "after destroy: " + again);
    }
    Throwable onDriver = thrownBy(() -> broadcast.value());
    Cases.equal(SparkException.class, onDriver.getClass(), "exception on the driver");
    Cases.check(onDriver.getMessage().contains("was destroyed"), onDriver.getMessage());
    Throwable inJob =
        thrownBy(
            () -> context.parallelize(Probe.numbers(2), 2)
                .map(i -> broadcast.value().length).collect());
    Cases.check(inJob instanceof SparkException, "exception of the job: " + inJob);
    expectLive(before);
  }

  /** Tasks that have a handle read nothing before they ask for the value, which is as it was then. */
  private void readWhenUsed() throws Exception {
    ArrayList<byte[]> value = Values.pieces(3);
    long asItWas = Values.digest(value);
    Broadcast<ArrayList<byte[]>> broadcast =
        cases.via(cases.expected(3 << 20), 1, () -> context.broadcast(value));
    value.get(0)[0]++;
    Map<String, Map<String, Long>> before = Probe.onExecutors(context, cases.executors);
    context.parallelize(Probe.numbers(4), 4).map(i -> broadcast.id()).collect();
    Map<String, Map<String, Long>> after = Probe.onExecutors(context, cases.executors);
    Cases.equal(Probe.sum(before, Probe.READS), Probe.sum(after, Probe.READS), "executors' reads");
    List<Long> seen =
        context
            .parallelize(Probe.numbers(4), 4)
            .map(i -> Values.digest(broadcast.value()))
            .collect();
    Cases.equal(Collections.nCopies(4, asItWas), seen, "in tasks");
    Cases.check(broadcast.value() == value, "the driver has its own, changed");
    broadcast.destroy(true);
  }

  private void garbageCollected() throws Exception {
    Map<String, Long> before = Probe.here();
    makeAndForget();
    Cases.eventually(
        "blobs of collected broadcasts freed",
        () -> {
          System.gc();
          return Probe.live() <= Probe.live(before);
        });
  }

  private void makeAndForget() throws Exception {
    for (int seed = 0; seed < 3; seed++) {
      checkReads(broadcast(2 << 20, seed), 2 << 20, seed);
    }
  }

  /** As SQL makes its relations: the driver keeps a soft reference, and reads back what is gone. */
  private void driverRereads() throws Exception {
    Map<String, Long> before = Probe.here();
    Broadcast<ArrayList<byte[]>> broadcast = broadcastSerializedOnly(5);
    WeakReference<Object> made = new WeakReference<>(broadcast.value());
    Cases.eventually(
        "the driver's value collected (needs SoftRefLRUPolicyMSPerMB=0)",
        () -> {
          System.gc();
          return made.get() == null;
        });
    long expected = Values.digest(Values.pieces(5));
    ArrayList<byte[]> again = broadcast.value();
    Cases.equal(expected, Values.digest(again), "value on the driver, read back");
    Cases.check(again == broadcast.value(), "read back once, then kept");
    if (cases.plugin) {
      Cases.equal(1L, Probe.delta(before, Probe.here(), "driverRereads"), "driver's rereads");
    }
    broadcast.destroy(true);
  }

  private Broadcast<ArrayList<byte[]>> broadcastSerializedOnly(int megabytes) throws Exception {
    ClassTag<ArrayList<byte[]>> tag = ClassTag$.MODULE$.apply(ArrayList.class);
    return cases.via(
        cases.expected(megabytes << 20),
        1,
        () -> context.sc().broadcastInternal(Values.pieces(megabytes), true, tag));
  }

  /**
   * A handle that comes back to the driver, in a result or a closure, finds the value there; one that
   * goes to executors as data does, too.
   */
  private void handleReadOnTheDriver() throws Exception {
    Map<String, Long> before = Probe.here();
    Broadcast<byte[]> broadcast = broadcast(3 << 20, 41);
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
      out.writeObject(broadcast);
    }
    Cases.check(bytes.size() < 4096, "a handle of " + bytes.size() + " bytes");
    try (ObjectInputStream in =
        new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
      Broadcast<?> copy = (Broadcast<?>) in.readObject();
      Cases.check(copy.value() == broadcast.value(), "not the driver's own value");
    }
    Cases.equal(0L, Probe.delta(before, Probe.here(), "driverRereads"), "driver's rereads");
    // The data of tasks go by Spark's serializer, which may be Kryo; their closure never does.
    List<Integer> hashes =
        context
            .parallelize(Arrays.asList(broadcast, broadcast), 2)
            .map(each -> Arrays.hashCode(each.value()))
            .collect();
    int expected = Arrays.hashCode(Values.randomBytes(3 << 20, 41));
    Cases.equal(Collections.nCopies(2, expected), hashes, "read by handles in a task's data");
    broadcast.destroy(true);
  }

  /** To learn its size costs a value that goes to Bigcast no second run of its serialiser. */
  private void serialisedOnce() throws Exception {
    for (int size : new int[] {10_000, 900_000, 5 << 20}) {
      Path path = cases.expected(size);
      int before = Values.Written.WRITES.get();
      Broadcast<Values.Written> broadcast =
          cases.via(path, 1, () -> context.broadcast(new Values.Written(size)));
      int writes = Values.Written.WRITES.get() - before;
      int most = path == Path.TORRENT ? 2 : 1;
      Cases.check(writes >= 1 && writes <= most, size + " bytes were serialised " + writes + " x");
      broadcast.destroy(true);
    }
  }

  /** The user's exception arrives unchanged, and the half-written blob is gone. */
  private void exceptionWriting(boolean notSerializable) throws Exception {
    if (notSerializable && cases.kryo) {
      return; // Kryo writes any object
    }
    Map<String, Long> before = Probe.here();
    Values.FailsToWrite value = new Values.FailsToWrite(10 << 20, notSerializable);
    Throwable seen = thrownBy(() -> context.broadcast(value));
    Class<?> expected = notSerializable ? NotSerializableException.class : Values.Boom.class;
    Cases.equal(expected, seen.getClass(), "exception that the user sees");
    Cases.equal(0L, Probe.delta(before, Probe.here(), Probe.OFFLOADED), "offloaded");
    expectLive(before);
  }

  private void exceptionReading() throws Exception {
    Broadcast<Values.FailsToRead> broadcast =
        cases.via(
            cases.expected(3 << 20), 1, () -> context.broadcast(new Values.FailsToRead(3 << 20)));
    Throwable seen =
        thrownBy(
            () -> context.parallelize(Probe.numbers(2), 2)
                .map(i -> broadcast.value().payload.length).collect());
    Cases.check(seen instanceof SparkException, "exception of the job: " + seen);
    Cases.check(seen.getMessage().contains("Boom"), "does not name the user's: " + seen);
    broadcast.destroy(true);
  }

  /**
   * spark.shuffle.mapOutput.minSizeForBroadcast=0 makes Spark broadcast the map statuses of every
   * shuffle; executors deserialise them without the user's class loader, so they stay with Torrent.
   */
  private void mapStatuses() throws Exception {
    Map<String, Long> before = Probe.here();
    List<Tuple2<Integer, Integer>> found =
        cases.via(
            Path.TORRENT, 0,
            () ->
                context
                    .parallelize(Probe.numbers(1_000), 5)
                    .mapToPair(i -> new Tuple2<>(i % 3, 1))
                    .reduceByKey((a, b) -> a + b, 7)
                    .sortByKey()
                    .collect());
    Cases.equal(
        Arrays.asList(new Tuple2<>(0, 334), new Tuple2<>(1, 333), new Tuple2<>(2, 333)), found,
        "counts");
    long minimum =
        context.getConf().getSizeAsBytes("spark.shuffle.mapOutput.minSizeForBroadcast", "512k");
    if (cases.plugin && minimum == 0) {
      long stayed = Probe.delta(before, Probe.here(), Probe.stayed("MAP_STATUS"));
      Cases.check(stayed > 0, "no map status counted as staying with Torrent");
    }
  }

  /** After all broadcasts of the cases so far were collected, the driver's node holds none. */
  private void nothingLeft() throws Exception {
    Cases.eventually(
        "no blob left",
        () -> {
          System.gc();
          return Probe.live() == 0 && heapSaved() == 0;
        });
  }

  private static long heapSaved() {
    return Probe.here().getOrDefault("driverHeapSavedBytes", 0L);
  }

  private static void expectLive(Map<String, Long> before) throws InterruptedException {
    Cases.eventually("blob freed", () -> Probe.live() <= Probe.live(before));
  }

  static Throwable thrownBy(Callable<?> body) {
    try {
      body.call();
    } catch (Throwable thrown) {
      return thrown;
    }
    throw new AssertionError("nothing was thrown");
  }
}
