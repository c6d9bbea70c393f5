package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.bigcast.spark.BigcastConf.Key;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.Collections;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.apache.spark.SparkConf;
import org.junit.jupiter.api.Test;

class BigcastConfTest {
  private static BigcastConf with(String... keysAndValues) {
    return BigcastConf.from(spark(keysAndValues));
  }

  private static SparkConf spark(String... keysAndValues) {
    SparkConf conf = new SparkConf(false);
    for (int i = 0; i < keysAndValues.length; i += 2) {
      conf.set(keysAndValues[i], keysAndValues[i + 1]);
    }
    return conf;
  }

  @Test
  void defaultsAreValid() {
    BigcastConf conf = with();
    assertTrue(conf.flag(Key.ENABLED));
    assertEquals(1 << 20, conf.number(Key.MIN_SIZE));
    assertEquals(2 << 20, conf.number(Key.CHUNK_SIZE));
    assertEquals(30_000, conf.number(Key.PROGRESS_TIMEOUT));
    assertEquals(0, conf.number(Key.NODE_MEMORY), "0 leaves it to the node");
    assertFalse(conf.shared());
  }

  @Test
  void graceIsAtLeastSparksNetworkTimeout() {
    assertEquals(120_000, with().number(Key.LEASE_GRACE));
    assertEquals(120_000, with("spark.network.timeout", "10s").number(Key.LEASE_GRACE));
    assertEquals(800_000, with("spark.network.timeout", "800s").number(Key.LEASE_GRACE));
    assertEquals(
        2_000,
        with("spark.network.timeout", "800s", "spark.bigcast.lease.grace", "2s")
            .number(Key.LEASE_GRACE));
  }

  @Test
  void wrongValuesNameTheSetting() {
    for (String[] wrong :
        new String[][] {
          {"spark.bigcast.enabled", "yes"},
          {"spark.bigcast.minSize", "big"},
          {"spark.bigcast.minSize", "-1"},
          {"spark.bigcast.chunkSize", "1k"},
          {"spark.bigcast.chunkSize", "17m"},
          {"spark.bigcast.port", "65536"},
          {"spark.bigcast.port", "http"},
          {"spark.bigcast.lease.grace", "soon"},
          {"spark.bigcast.progressTimeout", "1ms"},
          {"spark.bigcast.node.memory", "1m"},
          {"spark.bigcast.driver.keepValue", "sometimes"},
          {"spark.bigcast.homes", "0"},
          {"spark.bigcast.homes", "2"}, // embedded: there is one
          {"spark.bigcast.replicas", "5"},
          {"spark.bigcast.replicas", "2"},
          {"spark.bigcast.durability", "tape"},
          {"spark.bigcast.durability", "disk"},
          {"spark.bigcast.servers", "portless"},
          {"spark.bigcast.servers", "a:1, b:"},
          {"spark.bigcast.servers", ":7420"},
          {"spark.bigcast.servers", "a:0"},
          {"spark.bigcast.servers", "a:65536"},
          {"spark.bigcast.servers", "::1:7420"},
          {"spark.bigcast.servers", "a b:1"},
          {"spark.bigcast.servers", ","},
          {"spark.bigcast.servers", "http://a:1"},
          {"spark.bigcast.servers", "a/b:1"},
          {"spark.bigcast.servers", "10.0.0.256:7420"},
          {"spark.bigcast.servers", "[::g]:7420"},
          {"spark.bigcast.servers", "[10.0.0.1]:7420"},
          {"spark.bigcast.bindAddress", "10.0.0"},
          {"spark.bigcast.bindAddress", "-host"},
          {"spark.bigcast.bindAddress", "a..b"},
          {"spark.bigcast.bindAddress", "*"},
          {"spark.bigcast.bindAddress", "host:7420"},
          {"spark.bigcast.bindAddress", "1::2::3"},
          {"spark.bigcast.advertise", "two hosts"},
          {"spark.bigcast.advertise", "0.0.0.0"},
          {"spark.bigcast.advertise", "[::]"},
          {"spark.bigcast.socket", "@"},
          {"spark.bigcast.socket", "unix:"},
          {"spark.bigcast.socket", "bigcast"},
          {"spark.bigcast.socket", "/" + String.join("", Collections.nCopies(107, "s"))},
          {"spark.bigcast.namespace", ".hidden"},
          {"spark.bigcast.namespace", "../up"},
          {"spark.bigcast.namespace", "a/b"},
        }) {
      IllegalArgumentException e =
          assertThrows(IllegalArgumentException.class, () -> with(wrong), Arrays.toString(wrong));
      assertTrue(e.getMessage().startsWith(wrong[0] + " must be "), e.getMessage());
      assertTrue(e.getMessage().contains("'" + wrong[1] + "'"), e.getMessage());
    }
  }

  @Test
  void addressesMayBeNamesOrFigures() {
    for (String host :
        new String[] {
          "localhost", "my_host-1.example.com.", "h\u00f6st", "3com.example", "10.0.0.1", "0.0.0.0", "::",
          "[::1]", "fe80::1%no-interface-0", "::ffff:10.0.0.1"
        }) {
      with("spark.bigcast.bindAddress", host);
      String server = host.contains(":") && !host.startsWith("[") ? "[" + host + "]:1" : host + ":1";
      with("spark.bigcast.servers", server, "spark.bigcast.secret.file", "/s");
    }
    for (String socket : new String[] {"@bigcast", "/run/bigcast.sock", "unix:/run/s", "unix:@s"}) {
      with("spark.bigcast.socket", socket);
    }
  }

  @Test
  void chunksAreEncryptedWhereSparkEncryptsOrNodesAreNotOurs() {
    assertFalse(with().encrypts());
    for (String key :
        new String[] {
          "spark.io.encryption.enabled",
          "spark.network.crypto.enabled",
          "spark.authenticate.enableSaslEncryption",
          "spark.ssl.rpc.enabled"
        }) {
      assertTrue(with(key, "true").encrypts(), key);
    }
    assertTrue(with("spark.bigcast.servers", "a:1", "spark.bigcast.secret.file", "/s").encrypts());
  }

  @Test
  void sharedModeNeedsASecret() {
    IllegalArgumentException e =
        assertThrows(
            IllegalArgumentException.class, () -> with("spark.bigcast.servers", "192.0.2.1:7420"));
    assertTrue(e.getMessage().contains("spark.bigcast.secret.file"), e.getMessage());
    BigcastConf conf =
        with("spark.bigcast.servers", " a:1 , b:2,", "spark.bigcast.secret.file", "/etc/secret");
    assertTrue(conf.shared());
    assertEquals(Arrays.asList("a:1", "b:2"), conf.list(Key.SERVERS));
    assertEquals(1, conf.number(Key.HOMES));
    String[] two = {
      "spark.bigcast.servers", "a:1,b:2", "spark.bigcast.secret.file", "/s", "spark.bigcast.homes", "2"
    };
    assertEquals(2, with(two).number(Key.HOMES));
    two[5] = "3";
    e = assertThrows(IllegalArgumentException.class, () -> with(two));
    assertTrue(e.getMessage().startsWith("spark.bigcast.homes must be from 1 to 2"), e.getMessage());
    two[4] = "spark.bigcast.replicas";
    two[5] = "2";
    assertEquals(2, with(two).number(Key.REPLICAS));
    assertFalse(with(two).durable());
    String[] onDisk = Arrays.copyOf(two, 8);
    onDisk[6] = "spark.bigcast.durability";
    onDisk[7] = "disk";
    assertTrue(with(onDisk).durable());
    String[] both = Arrays.copyOf(two, 8);
    both[6] = "spark.bigcast.homes";
    both[7] = "2";
    e = assertThrows(IllegalArgumentException.class, () -> with(both));
    assertTrue(e.getMessage().startsWith("spark.bigcast.replicas must be 1"), e.getMessage());
  }

  @Test
  void unknownKeysAreFound() {
    assertEquals(
        Collections.singletonList("spark.bigcast.minsize"),
        BigcastConf.unknownKeys(
            spark("spark.bigcast.minsize", "1", "spark.bigcast.minSize", "1", "spark.app.name", "x")));
  }

  @Test
  void aMisspeltKeyIsToldWithTheOneThatWasMeant() {
    assertEquals(
        "spark.bigcast.nodeMemory is not a setting; did you mean spark.bigcast.node.memory?",
        SettingsHelp.unknown("spark.bigcast.nodeMemory"));
    assertTrue(SettingsHelp.unknown("spark.bigcast.chunksize").contains("bigcast.chunkSize?"));
    assertTrue(SettingsHelp.unknown("spark.bigcast.server").contains("bigcast.servers?"));
  }

  @Test
  void distanceIsTheNumberOfEdits() {
    assertEquals(0, SettingsHelp.distance("same", "same"));
    assertEquals(3, SettingsHelp.distance("kitten", "sitting"));
    assertEquals(4, SettingsHelp.distance("", "four"));
    assertEquals(1, SettingsHelp.distance("abcd", "acd"));
  }

  /** Failing? Put what it prints between the marks in docs/SPARK-CONFIG.md. */
  @Test
  void theReferenceIsWhatTheCodeSays() throws IOException {
    String page =
        new String(Files.readAllBytes(Paths.get("../docs/SPARK-CONFIG.md")), StandardCharsets.UTF_8);
    String begin = "<!-- settings -->\n";
    int from = page.indexOf(begin) + begin.length();
    assertEquals(
        SettingsHelp.toMarkdown(), page.substring(from, page.indexOf("<!-- /settings -->")));
  }

  /** Nothing reads a key that the reference does not have. */
  @Test
  void noKeyIsReadByItsName() throws IOException {
    try (Stream<Path> sources = Files.walk(Paths.get("src/main/java"))) {
      for (Path source : sources.filter(each -> each.toString().endsWith(".java")).toArray(Path[]::new)) {
        String text = new String(Files.readAllBytes(source), StandardCharsets.UTF_8);
        assertFalse(
            Pattern.compile("get\\w*\\(\\s*\"spark\\.bigcast\\.").matcher(text).find(), source.toString());
      }
    }
  }

  @Test
  void serversAreResolvedToFigures() throws BigcastException {
    assertEquals("127.0.0.1:7420", Embedded.resolveServer("127.0.0.1:7420"));
    assertTrue(Embedded.resolveServer("[::1]:7420").matches("\\[[0-9a-f:]+\\]:7420"));
    BigcastException e =
        assertThrows(BigcastException.class, () -> Embedded.resolveServer("nowhere.invalid:1"));
    assertEquals(BigcastException.Code.UNAVAILABLE, e.code());
    assertTrue(e.getMessage().contains("nowhere.invalid"), e.getMessage());
  }
}
