package io.bigcast.sparktest;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.spark.SparkEnv;
import org.apache.spark.sql.SparkSession;

/** Runs all cases in the one context that spark-submit's arguments describe. */
public final class Main {
  private Main() {}

  public static void main(String[] args) throws IOException, ReflectiveOperationException {
    SparkSession session = SparkSession.builder().getOrCreate();
    Cases cases = new Cases(session);
    RddCases.addTo(cases);
    SqlCases.addTo(cases);
    cases.addLibraries();
    cases.addPublishing("addTo");
    LifecycleCases.addTo(cases);
    RddCases.addKillTo(cases);
    cases.run(System.out);
    writePluginSettings(cases);
    session.stop();
    System.out.println("END of cases");
  }

  /** What the driver's plugin tells executors, the secret too, for a search of the logs for it. */
  private static void writePluginSettings(Cases cases) throws IOException {
    String file = cases.context.getConf().get("spark.bigcasttest.settings", "");
    if (!file.isEmpty()) {
      List<String> lines =
          cases
              .context
              .parallelize(Probe.numbers(1), 1)
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
}
