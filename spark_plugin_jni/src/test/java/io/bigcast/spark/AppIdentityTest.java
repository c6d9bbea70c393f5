package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.Collections;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.java.JavaSparkContext;
import org.junit.jupiter.api.Test;

class AppIdentityTest {
  private static final String SECRET = "of-spark's-own-0123456789abcdef0";
  private static final String OTHER = "of-spark's-own-0123456789abcdef1";

  @Test
  void whatSparkHasIsTheRootAndIsNotHandedOut() {
    AppIdentity sparks = AppIdentity.create(SECRET);
    assertEquals(SECRET, sparks.secret);
    assertEquals(Collections.singleton("app.id"), sparks.toMap().keySet());
    AppIdentity ours = AppIdentity.create(null);
    assertEquals(ours.secret, ours.toMap().get("app.secret"));
    assertNotEquals(ours.secret, AppIdentity.create(null).secret);
    assertNotEquals(sparks.id, AppIdentity.create(SECRET).id);
  }

  @Test
  void aRegexThatDoesNotRedactTheSecretIsTold() {
    AppIdentity ours = AppIdentity.create();
    assertNull(ours.shownIn(new SparkConf(false)), "Spark's default redacts it");
    for (String good : new String[] {"(?i)secret|password", "BigcastPlugin", "[0-9a-f]{64}"}) {
      assertNull(ours.shownIn(new SparkConf(false).set("spark.redaction.regex", good)), good);
    }
    for (String bad : new String[] {"(?i)password|token", "SECRET", "secret$x"}) {
      SparkConf spark = new SparkConf(false).set("spark.redaction.regex", bad);
      String key = "spark.plugins.internal.conf.io.bigcast.spark.BigcastPlugin.app.secret";
      assertEquals(key, ours.shownIn(spark), bad);
      assertNull(AppIdentity.create(SECRET).shownIn(spark), "in no configuration of ours");
    }
    assertNull(ours.shownIn(new SparkConf(false).set("spark.redaction.regex", "(")));
  }

  @Test
  void keysAreDerivedFromTheRootAndTheApplication() throws BigcastException {
    NativeLibrary.load(BigcastConf.from(new SparkConf(false)));
    AppIdentity app = AppIdentity.create(SECRET);
    String key = NativeNode.secret(app.id, app.secret);
    assertTrue(key.matches("[0-9a-f]{64}"), key);
    assertEquals(key, NativeNode.secret(app.id, SECRET));
    assertEquals(key, PythonSecret.ofNodes(app.id, SECRET));
    assertEquals(key, PythonSecret.ofNodes(app.id, " \t" + SECRET + "\r\n"));
    assertNotEquals(key, NativeNode.secret(app.id, OTHER));
    assertNotEquals(key, NativeNode.secret(AppIdentity.create(SECRET).id, SECRET));
  }

  /** In local mode Spark makes one itself. */
  @Test
  void withSparksAuthenticationItsSecretIsOurs() throws BigcastException {
    SparkConf spark =
        new SparkConf(false)
            .setMaster("local[1]")
            .setAppName("identity")
            .set("spark.ui.enabled", "false")
            .set("spark.driver.host", "127.0.0.1")
            .set("spark.plugins", BigcastPlugin.class.getName());
    try (JavaSparkContext context = new JavaSparkContext(spark)) {
      assertNull(AppIdentity.sparkSecret());
    }
    try (JavaSparkContext context = new JavaSparkContext(spark.set("spark.authenticate", "true"))) {
      String secret = SparkEnv.get().securityManager().getSecretKey();
      assertEquals(secret, AppIdentity.sparkSecret());
      SparkConf told = SparkEnv.get().conf();
      assertEquals(secret, AppIdentity.of(told).secret);
      assertTrue(
          Arrays.stream(told.getAll()).noneMatch(each -> each._2.contains(secret)), "it is told");
    }
  }
}
