package io.bigcast.sparktest;

import io.bigcast.spark.Bigcast;
import io.bigcast.spark.BlobReader;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Serializable;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.SparkSession;

/**
 * Does as it is told on standard input, a command a line, so that whoever tells it can strike in
 * between; answers each with `STEP` and the command when it is done:
 *
 * <pre>
 * make NAME MEGABYTES [GATE]  broadcasts a value; GATE is a folder, see Values.Gated
 * publish NAME MEGABYTES      publishes a file, mappable
 * change NAME                 changes it on the driver
 * read NAME                   starts a job in which every executor reads it; of what was published
 *                             all bytes, as a stream and mapped
 * cancel NAME                 cancels that job, interrupting its tasks
 * result NAME                 waits for the job: `RESULT NAME equal`, with ` repeated` after it if a
 *                             task had to be repeated, or `RESULT NAME` and why it failed
 * unpersist NAME              does not wait until it is
 * destroy NAME
 * kill                        has Spark end all executors, and ask for no new ones
 * executors N                 asks for N, and waits until they are there
 * counters                    prints all counters
 * </pre>
 */
public final class FaultsJob {
  private final JavaSparkContext context;
  private final Map<String, Values.Gated> values = new HashMap<>();
  private final Map<String, Broadcast<Values.Gated>> broadcasts = new HashMap<>();
  private final Map<String, Broadcast<BlobReader<ByteBuffer>>> published = new HashMap<>();
  private final Map<String, Path> files = new HashMap<>();
  private final Map<String, Future<String>> jobs = new HashMap<>();
  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final int executors;

  private FaultsJob(Cases cases) {
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
        make(name, Integer.parseInt(words[2]), words.length > 3 ? words[3] : "");
        break;
      case "publish":
        publish(name, Integer.parseInt(words[2]));
        break;
      case "change":
        values.get(name).pieces.get(1)[0]++;
        break;
      case "read":
        jobs.put(
            name,
            threads.submit(() -> published.containsKey(name) ? readPublished(name) : read(name)));
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

  private void make(String name, int megabytes, String gate) {
    ArrayList<byte[]> pieces = Values.pieces(megabytes);
    pieces.add(0, name.getBytes());
    values.put(name, new Values.Gated(gate, pieces));
    broadcasts.put(name, context.broadcast(values.get(name)));
  }

  private void publish(String name, int megabytes) throws IOException {
    Path file = Files.createTempFile("published-", "");
    Files.write(file, Values.randomBytes(megabytes << 20, megabytes));
    files.put(name, file);
    published.put(name, Bigcast.publishMappable(context.sc(), file));
  }

  private void destroy(String name) throws IOException {
    if (values.remove(name) != null) {
      broadcasts.remove(name).destroy(true);
    } else {
      published.remove(name).destroy(true);
      Files.delete(files.remove(name));
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
    long expected = Values.digest(values.get(name).pieces);
    return run(name, () -> Values.digest(broadcast.value().pieces) == expected);
  }

  private interface Check extends Serializable {
    boolean isEqual() throws IOException;
  }

  private String run(String name, Check check) {
    context.setJobGroup(name, name, true);
    int tasks = executors * 3;
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
