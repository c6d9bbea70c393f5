package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import java.util.ArrayList;
import java.util.List;
import org.apache.spark.SparkConf;

/**
 * This JVM's way to Bigcast, opened when it is first needed: in embedded mode the host's node, which
 * it starts if nobody did, in shared mode the nodes of the settings. Thread-safe.
 *
 * <p>After a failure uploads rest, so that a Bigcast that is away costs the driver one attempt each
 * {@link #RETRY_NANOS} and no more. Reads always try: they have nowhere else to go.
 */
final class Connection implements AutoCloseable {
  private static final long RETRY_NANOS = 30_000_000_000L;

  private final SparkConf spark;
  private final BigcastConf conf;
  private final AppIdentity app;
  private final boolean driver;

  private NativeClient client;
  private String clientHome;
  private long connectedAt;
  private BigcastException failure;
  private long retryAt;
  private boolean closed;

  Connection(SparkConf spark, BigcastConf conf, AppIdentity app, boolean driver) {
    this.spark = spark;
    this.conf = conf;
    this.app = app;
    this.driver = driver;
  }

  /**
   * @param home where the blobs are that an executor of embedded mode reads, "host:port"; the driver
   *     and shared mode don't need it
   */
  synchronized NativeClient client(String home) throws BigcastException {
    if (closed) {
      throw new BigcastException(BigcastException.Code.UNAVAILABLE, "the application is ending");
    }
    if (client != null && (home.isEmpty() || home.equals(clientHome))) {
      return client;
    }
    drop();
    try {
      NativeLibrary.load(conf);
      client = NativeClient.connect(conf.shared() ? sharedOptions() : embeddedOptions(home));
      clientHome = home;
      connectedAt = System.nanoTime();
      failure = null;
      return client;
    } catch (BigcastException e) {
      rest(e);
      throw e;
    }
  }

  /** Throws why Bigcast is not to be tried now, if so. */
  synchronized void checkNotResting() throws BigcastException {
    if (failure != null && System.nanoTime() - retryAt < 0) {
      throw failure;
    }
  }

  /** Until RETRY_NANOS from now, {@link #checkNotResting} throws {@code why}. */
  synchronized void rest(BigcastException why) {
    failure = why;
    retryAt = System.nanoTime() + RETRY_NANOS;
  }

  /** Tells that this client reaches no node any more: the next use starts anew. */
  synchronized void lost(NativeClient which) {
    if (which == client) {
      drop();
    }
  }

  /**
   * Tells that a read through this client went past the host's own node. If that node died, whoever
   * reads next starts it again.
   */
  synchronized void bypassedNode(NativeClient which) {
    if (!conf.shared() && System.nanoTime() - connectedAt > RETRY_NANOS) {
      lost(which);
    }
  }

  synchronized boolean isOpen() {
    return client != null;
  }

  @Override
  public synchronized void close() {
    closed = true;
    drop();
  }

  private void drop() {
    if (client != null) {
      client.close();
      client = null;
    }
  }

  private NativeClient.Options sharedOptions() throws BigcastException {
    NativeClient.Options options = commonOptions();
    List<String> servers = new ArrayList<>();
    BigcastException unresolved = null;
    for (String server : conf.list(Key.SERVERS)) {
      try {
        servers.add(Embedded.resolveServer(server));
      } catch (BigcastException e) {
        Warnings.once(e.getMessage());
        unresolved = e;
      }
    }
    if (servers.isEmpty()) {
      throw unresolved;
    }
    options.servers = servers.toArray(new String[0]);
    String socket = conf.text(Key.SOCKET);
    options.localNode = socket.isEmpty() ? "" : "unix:" + socket.replaceFirst("^unix:", "");
    options.secretFile = conf.text(Key.SECRET_FILE);
    return options;
  }

  private NativeClient.Options embeddedOptions(String home) throws BigcastException {
    NativeClient.Options options = commonOptions();
    options.secret = app.secret;
    options.servers = home.isEmpty() ? new String[] {} : new String[] {home};
    try {
      Embedded.ensureNode(spark, conf, app, driver);
      options.localNode = NativeNode.address(app.id);
    } catch (BigcastException e) {
      if (driver) {
        throw e;
      }
      Warnings.once(
          "this host has no node, its executors read from the driver's directly: " + e.getMessage());
    }
    return options;
  }

  private NativeClient.Options commonOptions() {
    NativeClient.Options options = new NativeClient.Options();
    options.namespace = conf.text(Key.NAMESPACE);
    options.lease = app.id;
    options.name = driver ? "spark-driver" : "spark-executor";
    options.localReads = conf.flag(Key.LOCAL_READS);
    options.progressTimeoutMs = (int) conf.number(Key.PROGRESS_TIMEOUT);
    return options;
  }
}
