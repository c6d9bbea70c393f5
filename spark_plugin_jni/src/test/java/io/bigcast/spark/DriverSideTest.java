package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.bigcast.spark.BigcastStats.Reason;
import java.nio.ByteBuffer;
import java.util.List;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.junit.jupiter.api.Test;

/** The driver's side on a real node, without a cluster. */
class DriverSideTest {
  private static SparkConf conf() {
    return new SparkConf(false)
        .setMaster("local[1]")
        .setAppName("driver side")
        .set("spark.ui.enabled", "false")
        .set("spark.driver.host", "127.0.0.1")
        .set("spark.bigcast.node.memory", "16m")
        .set("spark.bigcast.node.disk", "none");
  }

  /** Not only what Bigcast answers: here a setting is missing that Spark always has. */
  @Test
  void whateverEndsConnectingLeavesTheBroadcastToSpark() {
    SparkConf spark = conf();
    try (JavaSparkContext context = new JavaSparkContext(spark)) {
      BigcastConf conf = BigcastConf.from(spark);
      DriverSide driver = new DriverSide(new SparkConf(false), conf, AppIdentity.create(), null);
      long before = BigcastStats.delegated(Reason.UNAVAILABLE);
      for (int attempt = 0; attempt < 2; attempt++) { // the second finds that uploads rest
        assertNull(driver.offload(new byte[2 << 20], 7, false));
      }
      assertEquals(before + 2, BigcastStats.delegated(Reason.UNAVAILABLE));
      assertFalse(driver.knows(7));
      driver.close();
    }
  }

  @Test
  void theEndDoesNotWaitForANodeThatHangs() throws Exception {
    SparkConf spark =
        conf().set("spark.bigcast.progressTimeout", "1h").set("spark.bigcast.lease.grace", "2s");
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

  /** Their lease lives on, so that nobody else frees them before the application ends. */
  @Test
  void whatIsDestroyedWhileItsHomeIsAwayGoesWhenThatIsBack() throws Exception {
    SparkConf spark =
        conf().set("spark.bigcast.progressTimeout", "1s").set("spark.bigcast.lease.grace", "10m");
    AppIdentity app = AppIdentity.create();
    try (JavaSparkContext context = new JavaSparkContext(spark)) {
      DriverSide driver = new DriverSide(spark, BigcastConf.from(spark), app, null);
      for (long id = 1_000_001; id <= 1_000_003; id++) { // none that Spark itself makes here
        assertTrue(driver.offload(new byte[1 << 20], id, false) instanceof BigcastBroadcast);
      }
      BlobPlace kept = driver.find(1_000_001).place();
      BlobPlace destroyed = driver.find(1_000_003).place();
      try {
        NodeProcess.signal(app, "STOP");
        driver.unbroadcast(1_000_002, true, true); // asks the node
        driver.unbroadcast(1_000_003, false, true); // asks nobody any more, nor does what follows
        driver.unbroadcast(1_000_003, true, true);
        assertEquals(2, driver.lateFrees());
        NodeProcess.signal(app, "CONT");
        while (!driver.attach()) {
          Thread.sleep(100);
        }
        driver.freeLate(); // or its thread does
        try (Connection other = new Connection(spark, BigcastConf.from(spark), app, true)) {
          for (int i = 0; has(other, destroyed) || driver.lateFrees() > 0; i++) {
            assertTrue(i < 600, "still there");
            Thread.sleep(100);
          }
          assertTrue(has(other, kept));
        }
      } finally {
        NodeProcess.signal(app, "KILL");
        driver.close();
      }
    }
  }

  private static boolean has(Connection connection, BlobPlace place) throws BigcastException {
    try {
      connection.download(place).close();
      return true;
    } catch (BigcastException e) {
      assertEquals(BigcastException.Code.NOT_FOUND, e.code(), e.getMessage());
      return false;
    }
  }

  @Test
  void whatIsFreedLateIsBoundedAndOfEachBlobTheRemovalCounts() {
    LateFrees late = new LateFrees();
    for (int i = 0; i < LateFrees.MAX; i++) {
      assertTrue(late.add(late(i, false)));
    }
    assertFalse(late.add(late(LateFrees.MAX, true)), "no room");
    assertTrue(late.add(late(0, true)));
    assertTrue(late.add(late(0, false)));
    assertEquals(LateFrees.MAX, late.size());
    List<LateFrees.Late> taken = late.take();
    assertTrue(late.isEmpty());
    assertEquals(LateFrees.MAX, taken.size());
    assertTrue(taken.get(0).remove);
    assertFalse(taken.get(1).remove);
  }

  private static LateFrees.Late late(int id, boolean remove) {
    byte[] ref = ByteBuffer.allocate(4).putInt(id).array();
    return new LateFrees.Late(id, new BlobPlace(ref, "", "epoch"), remove);
  }
}
