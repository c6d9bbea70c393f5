package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.stream.Stream;
import org.apache.spark.SparkConf;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class StartChecksTest {
  private static final String SECRET = "0123456789abcdef0123456789abcdef";
  private static final String KEY = "bigcast-key-1:spark:" + SECRET + SECRET;

  @TempDir Path folder;

  private Path secret(String name, String text, String mode) throws IOException {
    Path file = Files.write(folder.resolve(name), text.getBytes(StandardCharsets.UTF_8));
    return Files.setPosixFilePermissions(file, PosixFilePermissions.fromString(mode));
  }

  private static SparkConf shared(Path secret, String namespace) {
    return new SparkConf(false)
        .set("spark.bigcast.servers", "nobody.invalid:1")
        .set("spark.bigcast.secret.file", secret.toString())
        .set("spark.bigcast.namespace", namespace);
  }

  private static SparkConf withDisk(Path disk) {
    return new SparkConf(false).set("spark.bigcast.node.disk", disk.toString());
  }

  /** A warning, or with failOnError the application's end. */
  private static void refused(SparkConf spark, String... words) {
    assertFalse(BigcastDriverPlugin.isUsable(BigcastConf.from(spark)));
    BigcastConf strict = BigcastConf.from(spark.set("spark.bigcast.failOnError", "true"));
    IllegalArgumentException e =
        assertThrows(
            IllegalArgumentException.class, () -> BigcastDriverPlugin.isUsable(strict), words[0]);
    for (String word : words) {
      assertTrue(e.getMessage().contains(word), e.getMessage());
    }
    assertFalse(e.getMessage().contains(SECRET), "the message has the secret");
  }

  @Test
  void secretsAreLookedAtBeforeTheyAreUsed() throws IOException {
    String setting = "spark.bigcast.secret.file";
    Path good = secret("good", SECRET, "rw-------");
    Path key = secret("key", KEY, "rw-------");
    for (Path each : new Path[] {good, key}) {
      assertTrue(BigcastDriverPlugin.isUsable(BigcastConf.from(shared(each, "spark"))));
    }
    assertTrue(BigcastDriverPlugin.isUsable(BigcastConf.from(shared(good, "team"))));
    refused(shared(key, "team"), setting, "namespace spark");
    refused(shared(folder.resolve("none"), "spark"), setting, "none");
    refused(shared(secret("open", SECRET, "rw-r--r--"), "spark"), setting, "open", "0644");
    refused(shared(secret("short", "short", "rw-------"), "spark"), setting, "short");
    refused(shared(secret("bad", KEY + "0", "rw-------"), "spark"), setting, "bigcast-key-1");
    refused(shared(folder, "spark"), setting, folder.toString());
  }

  @Test
  void disksAreTriedBeforeTheyAreUsed() throws IOException {
    String setting = "spark.bigcast.node.disk";
    Path file = Files.createFile(folder.resolve("file"));
    refused(withDisk(file), setting, file.toString());
    refused(withDisk(file.resolve("below")), setting, "below");
    refused(new SparkConf(false).set(setting, folder + ",/proc/self/task"), setting, "/proc/self/task");
    for (Path good : new Path[] {folder, folder.resolve("not/there/yet")}) {
      assertTrue(BigcastDriverPlugin.isUsable(BigcastConf.from(withDisk(good))), good.toString());
    }
    assertTrue(
        BigcastDriverPlugin.isUsable(BigcastConf.from(new SparkConf(false).set(setting, "none"))));
    try (Stream<Path> left = Files.list(folder)) {
      assertEquals(1, left.count(), "only the file");
    }
  }
}
