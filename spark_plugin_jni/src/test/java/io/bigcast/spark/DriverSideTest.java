package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

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
      DriverSide driver = new DriverSide(spark, BigcastConf.from(spark), app, null);
      Broadcast<byte[]> broadcast = driver.offload(new byte[2 << 20], 7, false);
      assertTrue(broadcast instanceof BigcastBroadcast);
      assertTrue(driver.knows(7));
      NodeProcess.signal(app, "STOP");
      try {
        Thread end = new Thread(driver::close);
        end.start();
        end.join(60_000); // of the 10 s that it may take
        assertFalse(end.isAlive(), "still waiting for the node");
      } finally {
        NodeProcess.signal(app, "KILL");
      }
    }
  }
}
