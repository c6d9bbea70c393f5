package io.bigcast.spark;

import java.security.SecureRandom;
import java.util.HashMap;
import java.util.Map;
import org.apache.spark.SparkConf;

/**
 * Who this Spark application is to Bigcast: an id, which is also its lease and names its embedded
 * nodes, and their secret. Made by the driver; Spark hands it to the executors. (Spark's own
 * application id is neither known when plugins start nor unique.)
 */
final class AppIdentity {
  private static final String ID = "app.id";

  /** The name makes Spark redact it in its UI and event log. */
  private static final String SECRET = "app.secret";

  private static final String PREFIX =
      "spark.plugins.internal.conf." + BigcastPlugin.class.getName() + ".";

  final String id;
  final String secret;

  private AppIdentity(String id, String secret) {
    this.id = id;
    this.secret = secret;
  }

  static AppIdentity create() {
    SecureRandom random = new SecureRandom();
    return new AppIdentity(hex(random, 16), hex(random, 32));
  }

  /** What DriverPlugin.init gives to Spark for the executors. */
  Map<String, String> toMap() {
    Map<String, String> map = new HashMap<>();
    map.put(ID, id);
    map.put(SECRET, secret);
    return map;
  }

  static AppIdentity of(SparkConf conf) throws BigcastException {
    String id = conf.get(PREFIX + ID, "");
    if (id.isEmpty()) {
      throw new BigcastException(
          BigcastException.Code.UNAVAILABLE, "the driver's Bigcast plugin is not in spark.plugins");
    }
    return new AppIdentity(id, conf.get(PREFIX + SECRET, ""));
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
