package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import org.apache.spark.SparkConf;

/**
 * This JVM's way to Bigcast, opened when it is first needed: in embedded mode the host's node, which
 * it starts if nobody did, in shared mode the nodes of the settings. Thread-safe, and nothing here
 * waits for a network with a lock held: who needs a client that is being made waits for that alone.
 *
 * <p>After a failure uploads rest, so that a Bigcast that is away costs the driver one attempt each
 * {@link #RETRY_NANOS} and no more. Reads always try: they have nowhere else to go.
 */
final class Connection implements AutoCloseable {
  private static final long RETRY_NANOS = 30_000_000_000L;

  /** There is a second home only after the driver's node died and was started again. */
  private static final int CLIENTS_MAX = 4;

  interface Call<T> {
    T on(NativeClient client) throws BigcastException;
  }

  private final SparkConf spark;
  private final BigcastConf conf;
  private final AppIdentity app;
  private final boolean driver;

  /** One a home, made or being made, least recently used first; what failed is not kept. */
  private final Map<String, CompletableFuture<NativeClient>> clients =
      new LinkedHashMap<>(8, 0.75f, true);

  /** Shared mode: the homes to follow, whichever client there is. */
  private final Set<String> followed = ConcurrentHashMap.newKeySet();

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
   * Makes a call, connecting first if need be. If nobody answers it, the next one connects anew.
   *
   * @param home where the blobs are that an executor of embedded mode reads, "host:port"; empty for
   *     the driver and in shared mode, which don't need it
   */
  <T> T call(String home, Call<T> call) throws BigcastException {
    for (;;) {
      NativeClient client = client(home);
      try {
        return call.on(client);
      } catch (HandleClosedException e) {
        // Another thread found it dead between the two lines; by now there is a better one.
        Warnings.LOG.debug("connecting again", e);
      } catch (BigcastException e) {
        if (e.nobodyAnswered()) {
          lost(client);
        }
        throw e;
      } catch (RuntimeException | Error e) {
        throw BigcastException.of(e);
      }
    }
  }

  /**
   * As {@link #call}. If the node that was there has died, this connection lets go of it: then once
   * more, by another.
   */
  <T> T callOrAnew(String home, Call<T> call) throws BigcastException {
    boolean[] reached = {false};
    try {
      return call(
          home,
          client -> {
            reached[0] = true;
            return call.on(client);
          });
    } catch (BigcastException e) {
      if (!reached[0] || !e.nobodyAnswered()) {
        throw e;
      }
      return call(home, call);
    }
  }

  /** Starts to read a blob, from this host's node or past it. */
  NativeDownload download(BlobPlace place) throws BigcastException {
    return call(driver ? "" : place.home, client -> client.download(place.ref));
  }

  /**
   * Maps a blob in the memory of this host's node; counts it.
   *
   * @throws BigcastException NOT_MAPPABLE: download it instead
   */
  BlobBytes map(long id, BlobPlace place) throws BigcastException {
    long start = System.nanoTime();
    NativeMapping mapping = call(driver ? "" : place.home, client -> client.map(place.ref));
    BlobBytes bytes =
        new BlobBytes(Unmapper.piecesOf(mapping, BlobBytes.PIECE), BlobBytes.PIECE, true);
    BigcastStats.MAPPED_READS.increment();
    Warnings.LOG.info("{}", Explain.mapped(id, bytes.size(), System.nanoTime() - start));
    return bytes;
  }

  /** As {@link #map}, as a file that Python workers open; who makes it one counts it. */
  NativeFile lend(long id, BlobPlace place) throws BigcastException {
    long start = System.nanoTime();
    NativeFile file = call(driver ? "" : place.home, client -> client.lend(place.ref));
    Warnings.LOG.info("{}", Explain.lent(id, System.nanoTime() - start));
    return file;
  }

  /** Tells that a read came to its end; counts it. */
  void finished(NativeDownload download, long id, long nanos) throws BigcastException {
    TransferStats stats = download.stats();
    BigcastStats.countRead(stats, nanos);
    countForged(stats);
    Warnings.LOG.info("{}", Explain.read(id, stats, nanos));
    if (!stats.throughLocalNode) {
      bypassedNode(download.client());
    }
  }

  /**
   * Tells what ended a read: if nobody answered it, the next one connects anew.
   *
   * @return true if a node gave what this application did not write
   */
  boolean failed(NativeDownload download, BigcastException why) {
    if (why.nobodyAnswered()) {
      lost(download.client());
    }
    try {
      return countForged(download.stats());
    } catch (BigcastException closed) {
      return false;
    }
  }

  private static boolean countForged(TransferStats stats) {
    if (stats.chunksForged > 0) {
      BigcastStats.CHUNKS_FORGED.add(stats.chunksForged);
      Warnings.once("a node gave chunks that this application did not write; they were not used");
    }
    return stats.chunksForged > 0;
  }

  /**
   * Has this host's node, if there is one, fetch what the driver announces at this home. In embedded
   * mode each client follows its home anyway.
   */
  void follow(String home) throws BigcastException {
    if (!conf.shared()) {
      client(home);
    } else if (followed.add(home)) {
      call(
          "",
          client -> {
            followAll(client, Collections.singleton(home));
            return null;
          });
    }
  }

  /** Throws why Bigcast is not to be tried now, if so. */
  synchronized void checkNotResting() throws BigcastException {
    if (failure != null && System.nanoTime() - retryAt < 0) {
      throw failure;
    }
  }

  /** Until RETRY_NANOS from now, {@link #checkNotResting} throws {@code why}, unless it is null. */
  synchronized void rest(BigcastException why) {
    failure = why;
    retryAt = System.nanoTime() + RETRY_NANOS;
  }

  /** Tells that this client reaches no node any more: the next use starts anew. */
  void lost(NativeClient which) {
    synchronized (this) {
      clients.values().removeIf(each -> each.getNow(null) == which);
    }
    which.close();
  }

  /**
   * Tells that a read through this client went past the host's own node. If that node died, whoever
   * reads next starts it again.
   */
  private void bypassedNode(NativeClient which) {
    if (!conf.shared() && System.nanoTime() - which.connectedAtNanos() > RETRY_NANOS) {
      lost(which);
    }
  }

  synchronized boolean isOpen() {
    return !clients.isEmpty();
  }

  @Override
  public void close() {
    List<CompletableFuture<NativeClient>> left;
    synchronized (this) {
      closed = true;
      left = new ArrayList<>(clients.values());
      clients.clear();
    }
    left.forEach(Connection::closeWhenMade);
  }

  private NativeClient client(String home) throws BigcastException {
    CompletableFuture<NativeClient> made;
    CompletableFuture<NativeClient> surplus = null;
    boolean ours = false;
    synchronized (this) {
      if (closed) {
        throw new BigcastException(
            BigcastException.Code.UNAVAILABLE, "the application is ending");
      }
      made = clients.get(home);
      if (made == null) {
        ours = true;
        made = new CompletableFuture<>();
        clients.put(home, made);
        surplus = clients.size() > CLIENTS_MAX ? removeEldest() : null;
      }
    }
    if (surplus != null) {
      closeWhenMade(surplus);
    }
    if (ours) {
      make(home, made);
    }
    return await(made);
  }

  private CompletableFuture<NativeClient> removeEldest() {
    Iterator<CompletableFuture<NativeClient>> all = clients.values().iterator();
    CompletableFuture<NativeClient> eldest = all.next();
    all.remove();
    return eldest;
  }

  private void make(String home, CompletableFuture<NativeClient> made) {
    try {
      NativeLibrary.load(conf);
      NativeClient.Options options = conf.shared() ? sharedOptions() : embeddedOptions(home);
      NativeClient client = NativeClient.connect(options);
      rest(null);
      if (conf.prefetches() && !driver && !options.localNode.isEmpty()) {
        followAll(client, conf.shared() ? followed : Collections.singleton(home));
      }
      made.complete(client);
    } catch (Throwable e) { // no thread to be had, say: nothing in here is the application's
      BigcastException why = BigcastException.of(e);
      synchronized (this) {
        clients.remove(home, made);
        rest(why);
      }
      made.completeExceptionally(why);
    }
  }

  /** What the driver connects with. */
  NativeClient.Options options() throws BigcastException {
    return conf.shared() ? sharedOptions() : embeddedOptions("");
  }

  private static void followAll(NativeClient client, Set<String> homes) {
    for (String home : homes) {
      try {
        client.followHome(home);
      } catch (BigcastException e) {
        Warnings.LOG.debug("broadcasts of {} are fetched when they are read", home, e);
      }
    }
  }

  private static NativeClient await(CompletableFuture<NativeClient> made) throws BigcastException {
    try {
      return made.get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new BigcastException(
          BigcastException.Code.ABORTED, "interrupted while another task connects");
    } catch (ExecutionException e) {
      throw Sneaky.<BigcastException>rethrow(e.getCause());
    }
  }

  private static void closeWhenMade(CompletableFuture<NativeClient> client) {
    client.thenAccept(NativeClient::close);
  }

  private NativeClient.Options sharedOptions() throws BigcastException {
    NativeClient.Options options = commonOptions();
    List<String> servers = new ArrayList<>();
    BigcastException unresolved = null;
    for (String server : conf.list(Key.SERVERS)) {
      try {
        servers.add(Embedded.resolveServer(server));
      } catch (BigcastException e) {
        Warnings.once("a server is left out: " + e.getMessage());
        unresolved = e;
      }
    }
    if (servers.isEmpty()) {
      throw unresolved;
    }
    options.servers = servers.toArray(new String[0]);
    String socket = conf.socketName();
    options.localNode = socket.isEmpty() ? "" : "unix:" + socket;
    options.secretFile = conf.text(Key.SECRET_FILE);
    return options;
  }

  private NativeClient.Options embeddedOptions(String home) throws BigcastException {
    NativeClient.Options options = commonOptions();
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
    options.applicationId = app.id;
    options.secret = app.secret;
    options.encrypts = conf.encrypts();
    options.name = driver ? "spark-driver" : "spark-executor";
    options.localReads = conf.flag(Key.LOCAL_READS);
    options.progressTimeoutMs = (int) conf.number(Key.PROGRESS_TIMEOUT);
    return options;
  }
}
