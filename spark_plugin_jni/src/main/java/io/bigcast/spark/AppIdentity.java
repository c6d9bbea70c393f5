package io.bigcast.spark;

import java.security.SecureRandom;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;

/**
 * Who this Spark application is to Bigcast: an id, which is also its lease and names its embedded
 * nodes, and the secret from which all its keys are derived (client_native/application_secret.h).
 * Made by the driver; Spark hands it to the executors, but not the secret if Spark has one of its own
 * (spark.authenticate), which then is ours, too. (Spark's own application id is neither known when
 * plugins start nor unique.)
 */
final class AppIdentity {
  private static final String ID = "app.id";

  /** The name makes Spark redact it in its UI and event log, unless REDACTED says otherwise. */
  private static final String SECRET = "app.secret";

  private static final String REDACTED = "spark.redaction.regex";

  private static final String PREFIX =
      "spark.plugins.internal.conf." + BigcastPlugin.class.getName() + ".";

  final String id;
  final String secret;

  private final boolean isSparks;

  private AppIdentity(String id, String secret, boolean isSparks) {
    this.id = id;
    this.secret = secret;
    this.isSparks = isSparks;
  }

  static AppIdentity create() {
    return create(null);
  }

  /** @param sparkSecret what Spark's processes share, or null */
  static AppIdentity create(String sparkSecret) {
    SecureRandom random = new SecureRandom();
    String secret = sparkSecret == null ? hex(random, 32) : sparkSecret;
    return new AppIdentity(hex(random, 16), secret, sparkSecret != null);
  }

  /**
   * The secret that this application's processes share with spark.authenticate; null without it.
   *
   * @throws IllegalArgumentException if there is none, though there should be
   */
  static String sparkSecret() {
    return SparkEnv.get().securityManager().getSecretKey();
  }

  /** What DriverPlugin.init gives to Spark for the executors. */
  Map<String, String> toMap() {
    Map<String, String> map = new HashMap<>();
    map.put(ID, id);
    if (!isSparks) {
      map.put(SECRET, secret);
    }
    return map;
  }

  /**
   * The setting in which Spark's UI and event log show the secret, as spark.redaction.regex leaves it out;
   * null if they don't, or if it is none of ours.
   */
  String shownIn(SparkConf conf) {
    String key = PREFIX + SECRET;
    String regex = conf.get(REDACTED, null);
    if (isSparks || regex == null) {
      return null;
    }
    try {
      Pattern redacted = Pattern.compile(regex);
      if (redacted.matcher(key).find() || redacted.matcher(secret).find()) {
        return null;
      }
    } catch (PatternSyntaxException e) {
      return null; // Spark refuses it
    }
    return key;
  }

  static AppIdentity of(SparkConf conf) throws BigcastException {
    String id = conf.get(PREFIX + ID, "");
    if (id.isEmpty()) {
      throw new BigcastException(
          BigcastException.Code.UNAVAILABLE, "the driver's Bigcast plugin is not in spark.plugins");
    }
    String secret = conf.get(PREFIX + SECRET, null);
    return secret != null
        ? new AppIdentity(id, secret, false)
        : new AppIdentity(id, sparkSecret(), true);
  }

  private static String hex(SecureRandom random, int size) {
    byte[] bytes = new byte[size];
    random.nextBytes(bytes);
    StringBuilder out = new StringBuilder();
    for (byte b : bytes) {
      out.append(String.format("%02x", b));
    }
    return out.toString();
  }
}
