package io.bigcast.sparktest;

import java.io.IOException;
import org.apache.spark.sql.SparkSession;

/** Runs all cases in the one context that spark-submit's arguments describe. */
public final class Main {
  private Main() {}

  public static void main(String[] args) throws IOException, ReflectiveOperationException {
    SparkSession session = SparkSession.builder().getOrCreate();
    Cases cases = new Cases(session);
    RddCases.addTo(cases);
    cases.addBy("ScalaCases", "addTo");
    SqlCases.addTo(cases);
    StreamingCases.addTo(cases);
    cases.addLibraries();
    cases.addPublishing("addTo");
    LifecycleCases.addTo(cases);
    if (!cases.local) { // where it would be the driver
      RddCases.addKillTo(cases);
    }
    cases.run(System.out);
    Probe.writePluginSettings(cases);
    Probe.here().forEach((name, count) -> System.out.println("COUNTER " + name + " " + count));
    session.stop();
    System.out.println("END of cases");
  }
}
