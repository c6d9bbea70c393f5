package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import java.io.File;
import java.io.IOException;
import java.lang.reflect.Method;
import java.net.InetAddress;
import java.net.NetworkInterface;
import java.net.UnknownHostException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;

/** The nodes of embedded mode: what Spark's settings say about them, and starting one. */
final class Embedded {
  /** As the JVM prints it. */
  private static final String ANY_IPV6 = "0:0:0:0:0:0:0:0";

  private Embedded() {}

  /** Makes sure that this host has a node. */
  static void ensureNode(SparkConf spark, BigcastConf conf, AppIdentity app, boolean driver)
      throws BigcastException {
    if (NativeNode.answers(app.id, app.secret)) {
      return;
    }
    NativeNode.Options options = new NativeNode.Options();
    options.applicationId = app.id;
    options.secret = app.secret;
    // Whoever is first on the driver's host starts the home of what the driver uploads from now on.
    if (driver || isDriversHost(spark)) {
      listen(spark, conf, options);
    } else {
      listenForPeers(options);
    }
    options.memoryBytes = conf.number(Key.NODE_MEMORY);
    List<String> disks = diskPaths(spark, conf);
    options.diskPaths = disks.toArray(new String[0]);
    options.diskBytes = disks.isEmpty() ? 0 : diskBytes(conf, disks);
    options.graceMs = (int) conf.number(Key.LEASE_GRACE);
    options.logFile = conf.text(Key.NODE_LOG);
    options.traceDirectory = conf.text(Key.NODE_RECORD_TRACE);
    boolean started =
        NativeLibrary.withNodeProgram(conf, program -> NativeNode.ensure(program, options));
    if (started) {
      BigcastStats.NODES_STARTED.increment();
    }
  }

  private static void listen(SparkConf spark, BigcastConf conf, NativeNode.Options options)
      throws BigcastException {
    String sparksHost = spark.get("spark.driver.host");
    String bind = conf.text(Key.BIND_ADDRESS);
    String advertise = conf.text(Key.ADVERTISE);
    options.listenHost =
        resolve(bind.isEmpty() ? spark.get("spark.driver.bindAddress", sparksHost) : bind);
    options.listenPort = (int) conf.number(Key.PORT);
    if (!advertise.isEmpty()) {
      options.advertiseHost = resolve(advertise);
    } else if (bind.isEmpty() || isWildcard(options.listenHost)) {
      options.advertiseHost = resolve(sparksHost);
    }
  }

  /**
   * Where other hosts' nodes can read chunks from this one: at the address of Spark's block
   * manager, if it is one of this host's. Without it the node reads from others and gives nothing.
   */
  private static void listenForPeers(NativeNode.Options options) {
    SparkEnv env = SparkEnv.get();
    if (env == null) {
      return; // Spark stops
    }
    String host = env.blockManager().blockManagerId().host();
    try {
      InetAddress address = InetAddress.getByName(host);
      if (NetworkInterface.getByInetAddress(address) != null) {
        options.listenHost = address.getHostAddress();
      }
    } catch (IOException e) {
      Warnings.LOG.debug("this host's node gives no chunks to others: {} is not known", host, e);
    }
  }

  private static boolean isDriversHost(SparkConf spark) {
    try {
      InetAddress address = InetAddress.getByName(spark.get("spark.driver.host", ""));
      return NetworkInterface.getByInetAddress(address) != null;
    } catch (IOException e) {
      return false;
    }
  }

  private static boolean isWildcard(String host) {
    return host.equals("0.0.0.0") || host.equals(ANY_IPV6);
  }

  /** The numeric form of a host. */
  static String resolve(String host) throws BigcastException {
    try {
      return InetAddress.getByName(host).getHostAddress();
    } catch (UnknownHostException e) {
      throw new BigcastException(BigcastException.Code.UNAVAILABLE, "can't resolve host " + host);
    }
  }

  /** {@code host:port} with the host numeric, IPv6 in brackets. */
  static String resolveServer(String server) throws BigcastException {
    int colon = server.lastIndexOf(':'); // there is one: BigcastConf looks
    String host = resolve(server.substring(0, colon).replaceAll("^\\[|\\]$", ""));
    return (host.contains(":") ? "[" + host + "]" : host) + server.substring(colon);
  }

  private static List<String> diskPaths(SparkConf spark, BigcastConf conf) {
    if (conf.usesNoDisk()) {
      return Collections.emptyList();
    }
    List<String> set = conf.list(Key.NODE_DISK);
    return set.isEmpty() ? sparkLocalDirs(spark) : set;
  }

  /** Spark knows best (YARN and standalone workers give directories by environment). */
  private static List<String> sparkLocalDirs(SparkConf spark) {
    try {
      Class<?> utils = Class.forName("org.apache.spark.util.Utils");
      for (Method method : utils.getMethods()) {
        // Its parameter's type differs between the Spark lines.
        if (method.getName().equals("getConfiguredLocalDirs") && method.getParameterCount() == 1) {
          return outlivingThisExecutor((String[]) method.invoke(null, spark));
        }
      }
    } catch (ReflectiveOperationException | LinkageError e) {
      Warnings.LOG.debug("Spark does not tell its local directories", e);
    }
    String fallback = spark.get("spark.local.dir", System.getProperty("java.io.tmpdir"));
    return new ArrayList<>(Arrays.asList(fallback.split(",")));
  }

  /**
   * A standalone worker gives each executor directories of its own, inside the application's, and
   * deletes them when it ends; the host's node serves others then.
   */
  private static List<String> outlivingThisExecutor(String[] directories) {
    if (System.getenv("SPARK_EXECUTOR_DIRS") == null) {
      return Arrays.asList(directories);
    }
    return Arrays.stream(directories)
        .map(directory -> new File(directory).getAbsoluteFile().getParent())
        .collect(Collectors.toList());
  }

  private static long diskBytes(BigcastConf conf, List<String> disks) {
    long set = conf.number(Key.NODE_DISK_SIZE);
    if (set > 0) {
      return set;
    }
    for (String disk : disks) {
      long free = new File(disk).getUsableSpace();
      if (free > 0) {
        return free / 2;
      }
    }
    return 0;
  }
}
