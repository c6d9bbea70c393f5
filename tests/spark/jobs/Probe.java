package io.bigcast.sparktest;

import java.io.IOException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.api.java.function.Function0;

/**
 * Reads the plugin's counters (io.bigcast.spark.BigcastStats), in this JVM and in every executor.
 * By reflection, so that the same jobs run on plain Spark, where there are none and all read as 0.
 */
public final class Probe {
  static final String OFFLOADED = "offloaded";
  static final String READS = "reads";
  static final String BYTES_READ = "readRawBytes";
  static final String CHUNKS_LOCATED = "chunksLocated";
  private static final String STATS = "io.bigcast.spark.BigcastStats";

  private Probe() {}

  /** The counter of broadcasts that stayed with Torrent for this reason. */
  static String stayed(String reason) {
    return "delegated." + reason;
  }

  /** Every counter of this JVM by the name of its method. */
  public static Map<String, Long> here() {
    Map<String, Long> counters = new TreeMap<>();
    try {
      for (Method method : Class.forName(STATS).getMethods()) {
        boolean plain = Modifier.isStatic(method.getModifiers()) && method.getParameterCount() == 0;
        if (plain && method.getReturnType() == long.class) {
          counters.put(method.getName(), (Long) method.invoke(null));
        }
      }
      Class<?> reasons = Class.forName(STATS + "$Reason");
      Method delegated = Class.forName(STATS).getMethod("delegated", reasons);
      for (Object reason : reasons.getEnumConstants()) {
        counters.put(stayed(reason.toString()), (Long) delegated.invoke(null, reason));
      }
    } catch (ClassNotFoundException plainSpark) {
      return counters;
    } catch (ReflectiveOperationException broken) {
      throw new IllegalStateException(STATS + " is not as these tests expect", broken);
    }
    return counters;
  }

  /** Blobs that this driver made and did not free yet. */
  static long live() {
    return live(here());
  }

  static long live(Map<String, Long> counters) {
    return counters.getOrDefault(OFFLOADED, 0L) - counters.getOrDefault("removed", 0L);
  }

  static long delta(Map<String, Long> before, Map<String, Long> after, String counter) {
    return after.getOrDefault(counter, 0L) - before.getOrDefault(counter, 0L);
  }

  /** Counters of every executor by its id. */
  public static Map<String, Map<String, Long>> onExecutors(JavaSparkContext context, int executors) {
    return onExecutors(context, executors, Probe::here);
  }

  /** What every executor answers, by its id. */
  static <T> Map<String, T> onExecutors(
      JavaSparkContext context, int executors, Function0<T> question) {
    Map<String, T> found = new TreeMap<>();
    for (int attempt = 0; attempt < 20 && found.size() < executors; attempt++) {
      for (HashMap<String, T> each :
          context
              .parallelize(numbers(executors * 4), executors * 4)
              .map(i -> one(question))
              .collect()) {
        found.putAll(each);
      }
    }
    Cases.equal(executors, found.size(), "executors that answered");
    return found;
  }

  private static <T> HashMap<String, T> one(Function0<T> question) throws Exception {
    Thread.sleep(20); // so that one executor does not take all tasks
    HashMap<String, T> answer = new HashMap<>();
    answer.put(SparkEnv.get().executorId(), question.call());
    return answer;
  }

  /**
   * What the driver's plugin tells executors, the secret too, into the file
   * spark.bigcasttest.settings, for searches that must not find it anywhere.
   */
  static void writePluginSettings(Cases cases) throws IOException {
    String file = cases.context.getConf().get("spark.bigcasttest.settings", "");
    if (!file.isEmpty()) {
      List<String> lines =
          cases
              .context
              .parallelize(numbers(1), 1)
              .map(i -> settings())
              .first();
      Files.write(Path.of(file), lines);
    }
  }

  private static List<String> settings() {
    return Arrays.stream(SparkEnv.get().conf().getAll())
        .filter(each -> each._1.startsWith("spark.plugins.internal.conf."))
        .map(each -> each._1 + "=" + each._2)
        .collect(Collectors.toList());
  }

  static long sum(Map<String, Map<String, Long>> executors, String counter) {
    return executors.values().stream().mapToLong(each -> each.getOrDefault(counter, 0L)).sum();
  }

  static List<Integer> numbers(int count) {
    List<Integer> list = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      list.add(i);
    }
    return list;
  }
}
