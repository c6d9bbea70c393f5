package io.bigcast.sparktest;

import io.bigcast.spark.Bigcast;
import io.bigcast.spark.BigcastException;
import io.bigcast.spark.BlobReader;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Serializable;
import java.lang.ref.WeakReference;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.functions;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;

/**
 * Does as it is told on standard input, a command a line, so that whoever tells it can strike in
 * between; answers each with `STEP` and the command when it is done:
 *
 * <pre>
 * make NAME MEGABYTES [GATE]  broadcasts a value; GATE is a folder, see Values.Gated
 * publish NAME MEGABYTES      publishes a file, mappable
 * relation NAME MEGABYTES     broadcasts a value as SQL does its relations
 * join NAME                   prepares a join, which broadcasts a table
 * half NAME                   begins to broadcast a value, and stops in the middle
 * change NAME                 changes it on the driver
 * forget NAME gone|kept       lets go of the value, after which the driver has it no more, or still
 * first NAME                  reads the blob that it was sent as, wherever readers are sent now:
 *                             `RESULT NAME read`, or the code that it is refused with
 * value NAME                  reads it on the driver: `RESULT NAME equal`, or `different`
 * read NAME                   starts a job in which every executor reads it; of what was published
 *                             all bytes, as a stream and mapped; of a join all rows
 * cancel NAME                 cancels that job, interrupting its tasks
 * result NAME                 waits for the job: `RESULT NAME equal`, with ` repeated` after it if a
 *                             task had to be repeated, or `RESULT NAME` and why it failed
 * unpersist NAME              does not wait until it is
 * destroy NAME
 * kill                        has Spark end all executors, and ask for no new ones
 * executors N                 asks for N, and waits until they are there
 * counters                    prints all counters; with spark.bigcasttest.executors=0, for where
 *                             they come and go, the driver's alone
 * </pre>
 */
public final class FaultsJob {
  private final SparkSession session;
  private final JavaSparkContext context;
  private final Map<String, Values.Gated> values = new HashMap<>();
  private final Map<String, Long> digests = new HashMap<>(); // as they were broadcast
  private final Map<String, Broadcast<Values.Gated>> broadcasts = new HashMap<>();
  private final Map<String, Broadcast<BlobReader<ByteBuffer>>> published = new HashMap<>();
  private final Map<String, Path> files = new HashMap<>();
  private final Map<String, Dataset<Row>> joins = new HashMap<>();
  private final Map<String, Future<String>> jobs = new HashMap<>();
  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final int executors;

  private FaultsJob(Cases cases) {
    session = cases.session;
    context = cases.context;
    executors = cases.executors;
  }

  public static void main(String[] args) throws Exception {
    SparkSession session = SparkSession.builder().getOrCreate();
    FaultsJob job = new FaultsJob(new Cases(session));
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      job.obey(line.split(" "));
      System.out.println("STEP " + line);
    }
    job.threads.shutdownNow();
    session.stop();
    System.out.println("END of cases");
  }

  private void obey(String[] words) throws Exception {
    String name = words.length > 1 ? words[1] : "";
    switch (words[0]) {
      case "make":
        make(name, Integer.parseInt(words[2]), words.length > 3 ? words[3] : "", false);
        break;
      case "relation":
        make(name, Integer.parseInt(words[2]), "", true);
        break;
      case "join":
        join(name);
        break;
      case "half":
        half();
        break;
      case "publish":
        publish(name, Integer.parseInt(words[2]));
        break;
      case "change":
        values.get(name).pieces.get(1)[0]++;
        break;
      case "forget":
        forget(name, words[2].equals("gone"));
        break;
      case "first":
        System.out.println("RESULT " + name + " " + readFirstBlob(broadcasts.get(name)));
        break;
      case "value":
        boolean equal = Values.digest(broadcasts.get(name).value().pieces) == digests.get(name);
        System.out.println("RESULT " + name + (equal ? " equal" : " different"));
        break;
      case "read":
        jobs.put(name, threads.submit(reader(name)));
        break;
      case "cancel":
        context.cancelJobGroup(name);
        break;
      case "result":
        System.out.println("RESULT " + name + " " + jobs.remove(name).get());
        break;
      case "unpersist":
        broadcasts.get(name).unpersist(false);
        break;
      case "destroy":
        destroy(name);
        break;
      case "kill":
        kill();
        break;
      case "executors":
        await(Integer.parseInt(name));
        break;
      case "counters":
        counters();
        break;
      default:
        throw new IOException("unknown command " + String.join(" ", words));
    }
  }

  private void make(String name, int megabytes, String gate, boolean relation) {
    ArrayList<byte[]> pieces = Values.pieces(megabytes);
    pieces.add(0, name.getBytes());
    Values.Gated value = new Values.Gated(gate, pieces);
    values.put(name, value);
    digests.put(name, Values.digest(pieces));
    ClassTag<Values.Gated> tag = ClassTag$.MODULE$.apply(Values.Gated.class);
    broadcasts.put(
        name,
        relation ? context.sc().broadcastInternal(value, true, tag) : context.broadcast(value));
  }

  /** For `gone` soft references must go with each collection: SoftRefLRUPolicyMSPerMB=0. */
  private void forget(String name, boolean gone) throws InterruptedException {
    WeakReference<Object> value = new WeakReference<>(values.remove(name));
    for (int i = 0; i < 5; i++) {
      System.gc();
      Thread.sleep(50);
    }
    if (gone) {
      Cases.eventually(
          name + " is collected",
          () -> {
            System.gc();
            return value.get() == null;
          });
    } else {
      Cases.check(value.get() != null, name + " was collected");
    }
  }

  /** Of a broadcast that Torrent took over, and that no other blob replaced. */
  private static String readFirstBlob(Broadcast<?> broadcast) throws Exception {
    Object connection = call(null, "DriverSide", "currentConnection");
    Field place = broadcast.getClass().getDeclaredField("place");
    place.setAccessible(true);
    try (AutoCloseable download =
        (AutoCloseable) call(connection, "Connection", "download", place.get(broadcast))) {
      while (call(download, "NativeDownload", "next") != null) {}
      return "read";
    } catch (InvocationTargetException e) {
      return ((BigcastException) e.getCause()).code().toString();
    }
  }

  /** Calls what only the plugin may. */
  private static Object call(Object on, String type, String name, Object... arguments)
      throws ReflectiveOperationException {
    for (Method each : Class.forName("io.bigcast.spark." + type).getDeclaredMethods()) {
      if (each.getName().equals(name) && each.getParameterCount() == arguments.length) {
        each.setAccessible(true);
        return each.invoke(on, arguments);
      }
    }
    throw new NoSuchMethodException(type + "." + name);
  }

  private void half() throws InterruptedException {
    CountDownLatch reached = new CountDownLatch(1);
    Values.Halting.atHalf =
        () -> {
          reached.countDown();
          Thread.sleep(Long.MAX_VALUE);
        };
    threads.submit(
        () -> context.broadcast(new Values.Halting(Values.pieces(16), Values.pieces(16))));
    reached.await();
  }

  /** Runs what the join needs, its broadcast too, but not the join. */
  private void join(String name) {
    session.conf().set("spark.sql.autoBroadcastJoinThreshold", "-1");
    Dataset<Row> facts = session.range(0, 60_000, 1, tasks()).toDF();
    Dataset<Row> table =
        session.range(0, 90_000).selectExpr("id", "repeat(md5(cast(id AS string)), 3) AS payload");
    digests.put(name, digest(facts.join(table, "id")));
    joins.put(name, facts.join(functions.broadcast(table), "id"));
    joins.get(name).queryExecution().toRdd();
  }

  private static long digest(Dataset<Row> rows) {
    return rows.collectAsList().stream()
        .mapToLong(row -> 31 * row.getLong(0) + row.getString(1).hashCode()).sum();
  }

  private void publish(String name, int megabytes) throws IOException {
    Path file = Files.createTempFile("published-", "");
    Files.write(file, Values.randomBytes(megabytes << 20, megabytes));
    files.put(name, file);
    published.put(name, Bigcast.publishMappable(context.sc(), file));
  }

  private void destroy(String name) throws IOException {
    values.remove(name);
    if (joins.remove(name) != null) {
      return; // it is for the garbage collector
    }
    if (broadcasts.containsKey(name)) {
      broadcasts.remove(name).destroy(true);
    } else {
      published.remove(name).destroy(true);
      Files.delete(files.remove(name));
    }
  }

  private Callable<String> reader(String name) {
    if (joins.containsKey(name)) {
      return () -> readJoin(name);
    }
    return () -> published.containsKey(name) ? readPublished(name) : read(name);
  }

  private String readJoin(String name) {
    context.setJobGroup(name, name, true);
    try {
      return digest(joins.get(name)) == digests.get(name) ? "equal" : "different";
    } catch (Exception e) {
      return Cases.oneLine(e.toString());
    }
  }

  private String readPublished(String name) throws IOException {
    Broadcast<BlobReader<ByteBuffer>> broadcast = published.get(name);
    List<Long> expected = PublishCases.digest(Files.readAllBytes(files.get(name)));
    return run(
        name,
        () ->
            PublishCases.digest(broadcast.value()).equals(expected)
                && PublishCases.digest(broadcast.value().bytes()).equals(expected));
  }

  private String read(String name) throws IOException {
    Broadcast<Values.Gated> broadcast = broadcasts.get(name);
    long expected = digests.get(name);
    return run(name, () -> Values.digest(broadcast.value().pieces) == expected);
  }

  private interface Check extends Serializable {
    boolean isEqual() throws IOException;
  }

  private String run(String name, Check check) {
    context.setJobGroup(name, name, true);
    int tasks = tasks();
    try {
      List<String> results =
          context
              .parallelize(Probe.numbers(tasks), tasks)
              .map(
                  i -> {
                    boolean equal = check.isEqual();
                    Thread.sleep(100); // so that every executor gets tasks
                    return !equal ? "wrong" : TaskContext.get().attemptNumber() > 0 ? "again" : "";
                  })
              .collect();
      if (results.contains("wrong")) {
        return "different";
      }
      return results.contains("again") ? "equal repeated" : "equal";
    } catch (Exception e) {
      return Cases.oneLine(e.toString());
    }
  }

  private int tasks() {
    return Math.max(executors, 1) * 3;
  }

  private void kill() throws InterruptedException {
    want(0);
    executorIds().forEach(context.sc()::killExecutor);
    Cases.eventually("executors end", () -> executorIds().isEmpty());
  }

  private void await(int count) throws InterruptedException {
    want(count);
    Cases.eventually(count + " executors", () -> executorIds().size() == count);
  }

  private void want(int count) {
    context.sc().requestTotalExecutors(count, 0, new scala.collection.immutable.HashMap<>());
  }

  private List<String> executorIds() {
    List<String> ids = new ArrayList<>();
    scala.collection.Iterator<String> all = context.sc().getExecutorIds().iterator();
    while (all.hasNext()) {
      ids.add(all.next());
    }
    return ids;
  }

  private void counters() {
    Probe.onExecutors(context, executors)
        .forEach((id, each) -> each.forEach((name, count) -> print("executors." + name, count)));
    Probe.here().forEach(FaultsJob::print);
  }

  private static void print(String name, long count) {
    System.out.println("COUNTER " + name + " " + count);
  }
}
