package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
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

  /** In place of a file's name. {@link #refused} looks that it is not told. */
  @Test
  void aPastedSecretIsNotToldToLogs() {
    String setting = "spark.bigcast.secret.file";
    for (String pasted : new String[] {SECRET, KEY, "bigcast-key-1:a/b:" + SECRET}) {
      SparkConf spark = shared(folder, "spark").set(setting, pasted);
      refused(spark, setting, "names no file");
    }
  }

  @Test
  void disksAreTriedBeforeTheyAreUsed() throws IOException {
    String setting = "spark.bigcast.node.disk";
    Path file = Files.createFile(folder.resolve("file"));
    refused(withDisk(file), setting, file.toString());
    refused(withDisk(file.resolve("below")), setting, "below");
    refused(withDisk(folder.resolve("missing")), setting, "missing");
    refused(new SparkConf(false).set(setting, file + ",/proc/self/task"), setting, "/proc/self/task");
    for (String good : new String[] {folder.toString(), file + "," + folder, "none"}) {
      SparkConf conf = new SparkConf(false).set(setting, good);
      assertTrue(BigcastDriverPlugin.isUsable(BigcastConf.from(conf)), good);
    }
    try (Stream<Path> left = Files.list(folder)) {
      assertEquals(1, left.count(), "only the file");
    }
  }

  /** A node makes it, with all above it. */
  @Test
  void tracesMayGoWhereNoDirectoryIsYet() {
    String setting = "spark.bigcast.node.recordTrace";
    refused(new SparkConf(false).set(setting, "/proc/self/task"), setting, "/proc/self/task");
    for (Path good : new Path[] {folder, folder.resolve("not/there/yet")}) {
      SparkConf conf = new SparkConf(false).set(setting, good.toString());
      assertTrue(BigcastDriverPlugin.isUsable(BigcastConf.from(conf)), good.toString());
    }
    assertFalse(Files.exists(folder.resolve("not")));
  }

  /** What one says of a disk the other says, too. */
  @Test
  void theNodeUsesWhatWasFoundGood() throws Exception {
    Path file = Files.createFile(folder.resolve("file"));
    Path missing = folder.resolve("missing");
    for (String disk : new String[] {folder + "," + missing, missing + "," + folder, file + "," + missing}) {
      SparkConf spark =
          new SparkConf(false)
              .set("spark.driver.host", "127.0.0.1")
              .set("spark.bigcast.node.memory", "16m")
              .set("spark.bigcast.node.diskSize", "16m")
              .set("spark.bigcast.node.disk", disk);
      BigcastConf conf = BigcastConf.from(spark);
      AppIdentity app = AppIdentity.create();
      boolean starts;
      try {
        Embedded.ensureNode(spark, conf, app, true);
        starts = true;
        NodeProcess.signal(app, "KILL");
      } catch (BigcastException e) {
        starts = false;
      }
      assertEquals(starts, BigcastDriverPlugin.isUsable(conf), disk);
      assertEquals(!disk.startsWith(file.toString()), starts, disk);
    }
  }

  @Test
  void theLogIsOpenedBeforeItIsUsed() throws IOException {
    String setting = "spark.bigcast.node.log";
    Path file = Files.write(folder.resolve("file"), new byte[] {1});
    for (Path wrong : new Path[] {folder, folder.resolve("missing/log"), file.resolve("below")}) {
      refused(new SparkConf(false).set(setting, wrong.toString()), setting, wrong.toString());
    }
    for (Object good : new Object[] {file, folder.resolve("new"), "/dev/null"}) {
      SparkConf conf = new SparkConf(false).set(setting, good.toString());
      assertTrue(BigcastDriverPlugin.isUsable(BigcastConf.from(conf)), good.toString());
    }
    assertArrayEquals(new byte[] {1}, Files.readAllBytes(file));
    assertFalse(Files.exists(folder.resolve("new")));
  }
}
