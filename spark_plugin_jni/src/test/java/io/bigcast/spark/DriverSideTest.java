package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.stream.Stream;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.junit.jupiter.api.Test;

/** The driver's side on a real node, without a cluster. */
class DriverSideTest {
  @Test
  void theEndDoesNotWaitForANodeThatHangs() throws Exception {
    SparkConf spark =
        new SparkConf(false)
            .setMaster("local[1]")
            .setAppName("driver side")
            .set("spark.ui.enabled", "false")
            .set("spark.driver.host", "127.0.0.1")
            .set("spark.bigcast.progressTimeout", "1h")
            .set("spark.bigcast.lease.grace", "2s")
            .set("spark.bigcast.node.memory", "16m")
            .set("spark.bigcast.node.disk", "none");
    AppIdentity app = AppIdentity.create();
    try (JavaSparkContext context = new JavaSparkContext(spark)) {
      DriverSide driver = new DriverSide(spark, BigcastConf.from(spark), app);
      Broadcast<byte[]> broadcast = driver.offload(new byte[2 << 20], 7, false);
      assertTrue(broadcast instanceof BigcastBroadcast);
      assertTrue(driver.knows(7));
      String node = nodeOf(app);
      signal("STOP", node);
      try {
        Thread end = new Thread(driver::close);
        end.start();
        end.join(60_000); // of the 10 s that it may take
        assertFalse(end.isAlive(), "still waiting for the node");
      } finally {
        signal("KILL", node);
      }
    }
  }

  /** The process id of this application's node: its socket is named after the application. */
  private static String nodeOf(AppIdentity app) throws Exception {
    try (Stream<Path> processes = Files.list(Paths.get("/proc"))) {
      return processes
          .filter(each -> each.getFileName().toString().matches("\\d+"))
          .filter(each -> commandLine(each).contains("bigcast-" + app.id))
          .findFirst()
          .get()
          .getFileName()
          .toString();
    }
  }

  private static String commandLine(Path process) {
    try {
      return new String(Files.readAllBytes(process.resolve("cmdline")));
    } catch (java.io.IOException gone) {
      return "";
    }
  }

  private static void signal(String name, String pid) throws Exception {
    assertEquals(0, new ProcessBuilder("kill", "-" + name, pid).start().waitFor());
  }
}
