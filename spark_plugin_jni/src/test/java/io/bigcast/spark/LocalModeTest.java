package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.bigcast.spark.BigcastStats.Reason;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Arrays;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The plugin inside a real Spark, as far as it goes without a cluster. */
class LocalModeTest {
  private static SparkConf conf() {
    return new SparkConf(false)
        .setMaster("local[1]")
        .setAppName("local mode")
        .set("spark.ui.enabled", "false")
        .set("spark.driver.host", "127.0.0.1")
        .set("spark.plugins", BigcastPlugin.class.getName());
  }

  private static int sumThroughABroadcast(SparkConf conf) {
    try (JavaSparkContext context = new JavaSparkContext(conf)) {
      Broadcast<byte[]> value = context.broadcast(new byte[2 << 20]);
      assertFalse(value instanceof BigcastBroadcast);
      int sum =
          context.parallelize(Arrays.asList(1, 2, 3)).map(x -> x + value.value().length).reduce(Integer::sum);
      value.destroy();
      return sum;
    }
  }

  @Test
  void localModeStaysWithSparkAndIsCounted() {
    long before = BigcastStats.delegated(Reason.LOCAL);
    assertEquals(6 + 3 * (2 << 20), sumThroughABroadcast(conf()));
    assertTrue(BigcastStats.delegated("LOCAL") > before);
  }

  @Test
  void aWrongSettingLeavesSparkAlone() {
    long before = BigcastStats.delegated(Reason.LOCAL);
    assertEquals(
        6 + 3 * (2 << 20), sumThroughABroadcast(conf().set("spark.bigcast.minSize", "huge")));
    assertEquals(before, BigcastStats.delegated(Reason.LOCAL), "the factory was not wrapped");
  }

  @Test
  void wrongSettingsEndTheApplicationIfSoAskedFor() {
    for (String[] wrong :
        new String[][] {
          {"spark.bigcast.minSize", "huge"},
          {"spark.bigcast.minimum", "1m"},
          {"spark.bigcast.servers", "portless"},
          {"spark.bigcast.namespace", "../up"},
        }) {
      SparkConf conf = conf().set("spark.bigcast.failOnError", "true").set(wrong[0], wrong[1]);
      IllegalArgumentException e =
          assertThrows(IllegalArgumentException.class, () -> sumThroughABroadcast(conf));
      assertTrue(e.getMessage().startsWith(wrong[0]), e.getMessage());
    }
    assertEquals(
        6 + 3 * (2 << 20), sumThroughABroadcast(conf().set("spark.bigcast.failOnError", "true")));
  }

  @Test
  void publishingNeedsThePlugin(@TempDir Path folder) throws IOException {
    Path file = Files.write(folder.resolve("published"), new byte[10]);
    for (SparkConf off :
        new SparkConf[] {
          conf().remove("spark.plugins"), conf().set("spark.bigcast.enabled", "false")
        }) {
      try (JavaSparkContext context = new JavaSparkContext(off)) {
        BigcastException e =
            assertThrows(BigcastException.class, () -> Bigcast.publish(context.sc(), file));
        assertEquals(BigcastException.Code.UNSUPPORTED, e.code());
        assertTrue(e.getMessage().contains("spark.plugins"), e.getMessage());
      }
    }
  }

  @Test
  void inLocalModeSparkPublishesFilesAndNothingElse(@TempDir Path folder) throws IOException {
    byte[] content = "published\n".getBytes(StandardCharsets.UTF_8);
    Path file = Files.write(folder.resolve("published"), content);
    try (JavaSparkContext context = new JavaSparkContext(conf())) {
      Broadcast<BlobReader<ByteBuffer>> published = Bigcast.publish(context.sc(), file);
      int length =
          context
              .parallelize(Arrays.asList(1, 2))
              .map(
                  i -> {
                    try (InputStream in = published.value().stream()) {
                      return in.read(new byte[100]);
                    }
                  })
              .reduce(Integer::sum);
      assertEquals(2 * content.length, length);
      published.destroy();
      InputStream stream = new ByteArrayInputStream(content);
      BigcastException e =
          assertThrows(BigcastException.class, () -> Bigcast.publish(context.sc(), stream));
      assertEquals(BigcastException.Code.UNSUPPORTED, e.code());
      assertTrue(e.getMessage().contains("nothing was read"), e.getMessage());
      assertEquals(content.length, stream.available());
      assertThrows(
          NoSuchFileException.class,
          () -> Bigcast.publish(context.sc(), folder.resolve("none")));
      assertThrows(BigcastException.class, () -> Bigcast.publish(context.sc(), folder));
    }
  }

  @Test
  void theSecretReachesExecutorsAndIsRedacted() throws BigcastException {
    try (JavaSparkContext context = new JavaSparkContext(conf())) {
      SparkConf seen = SparkEnv.get().conf();
      AppIdentity app = AppIdentity.of(seen);
      assertTrue(app.id.matches("[0-9a-f]{32}"));
      assertTrue(app.secret.matches("[0-9a-f]{64}"));
      assertFalse(context.getConf().toDebugString().contains(app.secret), "not redacted");
    }
    assertThrows(BigcastException.class, () -> AppIdentity.of(new SparkConf(false)));
  }

  @Test
  void unpackingNeedsAFolderAndSaysWhich(@TempDir Path folder) {
    BigcastConf conf =
        BigcastConf.from(
            new SparkConf(false).set("spark.bigcast.native.dir", folder.resolve("none").toString()));
    BigcastException e =
        assertThrows(
            BigcastException.class, () -> NativeLibrary.withNodeProgram(conf, path -> path));
    assertEquals(BigcastException.Code.IO, e.code());
    assertTrue(e.getMessage().contains("spark.bigcast.native.dir"), e.getMessage());
  }
}
