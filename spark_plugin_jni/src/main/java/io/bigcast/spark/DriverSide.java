package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import io.bigcast.spark.BigcastStats.Reason;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.python.PythonBroadcast;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.broadcast.BroadcastFactory;

/**
 * What the driver has of Bigcast: the connection, and which blobs its broadcasts are. It never holds
 * a {@link Broadcast}, which Spark's cleaner must be able to see go. Thread-safe.
 */
final class DriverSide {
  private static final long CLOSE_MS_MAX = 10_000;
  private static final int REMOVALS_QUEUED_MAX = 1024;

  /** How often a home that is away is looked for. */
  static final long LOOK_AGAIN_MS = 500;

  /** Both far below any usual grace of a lease. */
  private static final long ATTACH_AGAIN_MS_MIN = 2_000;
  private static final long ATTACH_AGAIN_MS_MAX = 30_000;

  /** After one home among several did not answer. */
  private static final long FREE_AGAIN_NANOS = 30_000_000_000L;

  /** Each may take seconds. */
  private static final int LATE_FAILURES_MAX = 8;

  enum Home {
    HAS_IT,
    LOST_IT,
    /** Nobody answers: what it has on its disk it may have again. */
    IS_AWAY
  }

  private static volatile DriverSide current;

  private final BigcastConf conf;
  private final OffloadRules rules;
  private final AppIdentity app;
  private final Connection connection;
  private final Replacements replacements;
  private final PythonValues pythonValues = new PythonValues();

  /** For Python workers of the driver's, such as those that plan a data source. Guarded by this. */
  private WorkerFile pythonSecret;

  private final Map<Long, Offloaded> broadcasts = new ConcurrentHashMap<>();
  private final ThreadPoolExecutor removals;
  private final LateFrees late = new LateFrees();
  private volatile long freeLateAtNanos = System.nanoTime();
  private final CompletableFuture<String> followable = new CompletableFuture<>();
  private final Thread attached = daemon(this::stayAttached, "bigcast-lease");

  /** Guarded by {@code this}. */
  private boolean closed;

  /** Whether anything but Spark's own broadcast is used. */
  private volatile boolean carries;

  /** Where the last upload went; null before the first. */
  private volatile String latestHome;

  /** @param sparks Spark's own factory, for what Bigcast turns out not to carry */
  DriverSide(SparkConf spark, BigcastConf conf, AppIdentity app, BroadcastFactory sparks) {
    this.conf = conf;
    this.rules = new OffloadRules(conf.number(Key.MIN_SIZE));
    this.app = app;
    this.connection = new Connection(spark, conf, app, true);
    this.replacements = new Replacements(this, sparks);
    this.removals =
        new ThreadPoolExecutor(
            1,
            1,
            5,
            TimeUnit.SECONDS,
            new LinkedBlockingQueue<>(REMOVALS_QUEUED_MAX),
            task -> daemon(task, "bigcast-removals"),
            new ThreadPoolExecutor.CallerRunsPolicy());
    removals.allowCoreThreadTimeOut(true);
  }

  static Thread daemon(Runnable task, String name) {
    Thread thread = new Thread(task, name);
    thread.setDaemon(true);
    return thread;
  }

  /** From now on this is the one that values are read back by. */
  void start() {
    current = this;
  }

  /**
   * Starts the home, in the background, so that executors' hosts can follow it before there is
   * anything to fetch. Not before Spark knows the application's id.
   */
  void startHome() {
    if (!conf.prefetches()) {
      return;
    }
    Thread thread =
        new Thread(
            () -> {
              try {
                followable.complete(connection.call("", this::addressOfHome));
              } catch (BigcastException e) {
                followable.completeExceptionally(e);
              }
            },
            "bigcast-start");
    thread.setDaemon(true);
    thread.start();
  }

  private String addressOfHome(NativeClient client) throws BigcastException {
    NativeClient.Node node = client.node();
    node.checkIsReachable(conf);
    return node.advertised;
  }

  /**
   * The home that executors' hosts may follow, "host:port", as far as it is known: empty while it is
   * being started.
   *
   * @throws BigcastException if there is none
   */
  String homeToFollow() throws BigcastException {
    if (latestHome != null) {
      return latestHome; // the one that was started first may have died
    }
    try {
      return followable.getNow("");
    } catch (CompletionException e) {
      throw Sneaky.<BigcastException>rethrow(e.getCause());
    }
  }

  OffloadRules rules() {
    return rules;
  }

  /** From now on Python programs are told how to reach Bigcast, and the lease is kept. */
  void carry() {
    carries = true;
    if (conf.shared()) {
      startAttached();
    }
  }

  private synchronized void startAttached() {
    if (!closed && attached.getState() == Thread.State.NEW) {
      attached.start();
    }
  }

  private synchronized void endOwn() {
    closed = true;
    attached.interrupt();
    if (pythonSecret != null) {
      pythonSecret.close();
    }
  }

  /** See {@link PythonSupport}. */
  static Map<String, String> forPython() throws BigcastException {
    DriverSide side = current;
    // What is mapped can't be encrypted, so where chunks must be this is Spark's own broadcast.
    boolean serves = side != null && side.carries && !side.conf.encrypts();
    return serves ? side.pythonOptions() : null;
  }

  private synchronized void writePythonSecret() {
    if (pythonSecret == null && !closed) {
      pythonSecret = PythonSecret.write(app);
    }
  }

  private Map<String, String> pythonOptions() throws BigcastException {
    writePythonSecret();
    connection.checkNotResting();
    NativeClient.Options options = connection.options();
    String home = connection.callOrAnew("", this::addressOfHome);
    Map<String, String> map = new HashMap<>();
    map.put("servers", String.join(",", options.servers));
    map.put("localNode", options.localNode);
    map.put("secret", NativeNode.secret(options.applicationId, options.secret));
    map.put("namespace", options.namespace);
    map.put("lease", options.applicationId);
    map.put("home", home);
    map.put("keepValue", conf.text(Key.KEEP_VALUE));
    map.put("chunkSize", Long.toString(conf.number(Key.CHUNK_SIZE)));
    map.put("minSize", Long.toString(conf.number(Key.MIN_SIZE)));
    map.put("announceFrom", Long.toString(conf.prefetches() ? conf.number(Key.PREFETCH_MIN_SIZE) : 0));
    return map;
  }

  /** Whether this driver runs the plugin, if only to leave all to Spark. */
  static boolean isOn() {
    return current != null;
  }

  static Connection currentConnection() throws BigcastException {
    return currentOrThrow().connection;
  }

  /** What was published may be more than Spark can broadcast: then throws why. */
  static void checkSparkCanCarry(Object value, BigcastException why) {
    if (value instanceof Source) {
      try {
        ((Source) value).checkSparkCanCarry(why);
      } catch (BigcastException e) {
        throw Sneaky.rethrow(e);
      }
    }
  }

  /** Where executors find a broadcast now; {@code known} if this JVM knows no better. */
  static BlobPlace latestPlace(long id, BlobPlace known) {
    DriverSide side = current;
    Offloaded broadcast = side == null ? null : side.broadcasts.get(id);
    return broadcast == null ? known : broadcast.place();
  }

  /** Of the broadcasts that live and that Spark's own mechanism has not taken over. */
  static long heapSavedBytes() {
    DriverSide side = current;
    return side == null
        ? 0
        : side.broadcasts.values().stream()
            .filter(each -> each.torrent() == null)
            .mapToLong(each -> each.storedBytes)
            .sum();
  }

  /** The serialised handle of Spark's own broadcast if it took this one over, else null. */
  static byte[] torrentOf(long id) {
    DriverSide side = current;
    Offloaded broadcast = side == null ? null : side.broadcasts.get(id);
    return broadcast == null ? null : broadcast.torrent();
  }

  PythonValues pythonValues() {
    return pythonValues;
  }

  static DriverSide currentOrThrow() throws BigcastException {
    DriverSide side = current;
    if (side == null) {
      throw new BigcastException(BigcastException.Code.UNAVAILABLE, "the application has ended");
    }
    return side;
  }

  Replacements replacements() {
    return replacements;
  }

  /** Null if there is none, or none any more. */
  Offloaded find(long id) {
    return broadcasts.get(id);
  }

  /**
   * Serialises the value into Bigcast, or what is published instead of one.
   *
   * @return null if it must go Spark's own way, which is then counted and, if it is a failure, told
   *     once; nothing is left behind
   */
  <T> Broadcast<T> offload(T value, long id, boolean serializedOnly) {
    long start = System.nanoTime();
    try {
      // Before serialising, which may take long and would be for nothing.
      connection.checkNotResting();
    } catch (BigcastException e) {
      countFailed(value, id, Reason.UNAVAILABLE, 0, start);
      return unavailable(value, e);
    }
    ValueUpload upload = new ValueUpload(connection, conf, blobName(id, 0));
    try {
      if (!upload.run(value, rules.leastWritten(value))) {
        BigcastStats.countDelegated(Reason.SMALL);
        Warnings.LOG.debug("{}", Explain.stayed(id, upload.rawBytes(), Reason.SMALL));
        return null;
      }
    } catch (BigcastException e) {
      boolean reached = upload.client() != null;
      Reason why = reached ? Reason.UPLOAD_FAILED : Reason.UNAVAILABLE;
      countFailed(value, id, why, upload.rawBytes(), start);
      return reached ? uploadFailed(value, upload.client(), e) : unavailable(value, e);
    }
    BigcastStats.OFFLOADED.increment();
    count(id, upload, System.nanoTime() - start);
    if (value instanceof Source) {
      Source source = (Source) value;
      // Not what the chunks have: sealed ones have more.
      BigcastBroadcast<T> handle =
          new BigcastBroadcast<>(id, upload.place(), new Published(source, upload.rawBytes()));
      broadcasts.put(id, new Offloaded(handle, upload, source));
      return handle;
    }
    BigcastBroadcast<T> handle =
        new BigcastBroadcast<>(id, upload.place(), value, keep(value, serializedOnly));
    broadcasts.put(id, new Offloaded(handle, upload, value == null, !serializedOnly));
    ValueReader.remember(id, value);
    return handle;
  }

  /** A file of PySpark's is no burden to a heap. */
  private BigcastBroadcast.Keep keep(Object value, boolean serializedOnly) {
    return value instanceof PythonBroadcast
        ? BigcastBroadcast.Keep.STRONGLY
        : conf.keep(serializedOnly);
  }

  private String blobName(long id, int replacement) {
    String name = app.id + "/broadcast-" + id;
    return replacement == 0 ? name : name + "-" + replacement;
  }

  private void count(long id, ValueUpload upload, long nanos) {
    BigcastStats.UPLOADED_RAW_BYTES.add(upload.stats().rawBytes);
    BigcastStats.UPLOADED_STORED_BYTES.add(upload.stats().storedBytes);
    BigcastStats.CHUNKS_UPLOADED.add(upload.stats().chunks);
    BigcastStats.UPLOAD_NANOS.add(nanos);
    latestHome = upload.address();
    Warnings.LOG.info("{}", Explain.offloaded(id, upload.stats(), nanos, upload.place()));
  }

  private static void countFailed(Object value, long id, Reason why, long written, long start) {
    BigcastStats.countDelegated(why);
    Warnings.LOG.info(
        "{}",
        Explain.failed(
            id, OffloadRules.knownSize(value), why, written, System.nanoTime() - start));
  }

  /** What the driver sees of where a broadcast was sent to. */
  Home home(Offloaded broadcast) {
    try {
      if (conf.shared()) { // which of them it is on, its ref knows
        connection.download(broadcast.place()).close();
        return Home.HAS_IT;
      }
      NativeClient.Node node = connection.call("", NativeClient::node);
      return isSentTo(broadcast.place(), node) ? Home.HAS_IT : Home.LOST_IT;
    } catch (BigcastException e) {
      Warnings.LOG.debug("broadcast {} is not at its home", broadcast.id, e);
      return e.nobodyAnswered() ? Home.IS_AWAY : Home.LOST_IT;
    }
  }

  /** For how long a home that is away is worth waiting for; 0: it would have lost all it had. */
  long homeAwaitedMs() {
    return conf.durable() ? conf.number(Key.PROGRESS_TIMEOUT) : 0;
  }

  /** Waits until a broadcast's home has it again; false if it will not, or not in time. */
  static boolean awaitHome(long id) throws InterruptedException {
    DriverSide side = current;
    Offloaded broadcast = side == null ? null : side.broadcasts.get(id);
    long awaitedMs = broadcast == null ? 0 : side.homeAwaitedMs();
    if (awaitedMs == 0) {
      return false;
    }
    Warnings.LOG.info("the driver waits for the home of broadcast {}, to read it", id);
    long untilNanos = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(awaitedMs);
    Home home = side.home(broadcast);
    while (home == Home.IS_AWAY && System.nanoTime() - untilNanos < 0) {
      Thread.sleep(LOOK_AGAIN_MS);
      home = side.home(broadcast);
    }
    return home == Home.HAS_IT;
  }

  /**
   * Nobody renews the lease while there is no client, and a node whose connections all broke may
   * still have broadcasts, or have them again, also such as were destroyed meanwhile. In embedded mode,
   * where that would start a node, only the latter, and once something else has connected.
   */
  private void stayAttached() {
    long pauseMs = ATTACH_AGAIN_MS_MIN;
    try {
      for (;;) {
        Thread.sleep(pauseMs);
        boolean isNeeded = conf.shared() && !(broadcasts.isEmpty() && late.isEmpty());
        boolean isAttached = !isNeeded || connection.isOpen() || attach();
        pauseMs = isAttached ? ATTACH_AGAIN_MS_MIN : Math.min(2 * pauseMs, ATTACH_AGAIN_MS_MAX);
        if (connection.isOpen()) {
          freeLate();
        }
      }
    } catch (InterruptedException e) {
      // it ends
    }
  }

  /** Connects, if need be; false if nobody answers. */
  boolean attach() {
    try {
      connection.call("", NativeClient::node);
      return true;
    } catch (BigcastException e) {
      Warnings.LOG.debug("no node lets the driver in", e);
      return false;
    }
  }

  private static boolean isSentTo(BlobPlace place, NativeClient.Node node) {
    return place.epoch.equals(node.epoch);
  }

  /**
   * Sends readers of a broadcast to a new blob.
   *
   * @throws Replacements.Changed if that would not be the value that other readers have had
   */
  void uploadAgain(Offloaded broadcast, Object value) throws BigcastException {
    connection.checkNotResting();
    long start = System.nanoTime();
    String name = blobName(broadcast.id, broadcast.replacements() + 1);
    ValueUpload upload = new ValueUpload(connection, conf, name);
    try {
      upload.run(value, 0);
    } catch (BigcastException e) {
      letGo(upload.client(), e);
      throw e;
    }
    try {
      Replacements.checkUnchanged(broadcast, upload.fingerprint());
    } catch (Replacements.Changed e) {
      free(broadcast.id, upload.place(), true);
      throw e;
    }
    broadcast.moveTo(upload);
    count(broadcast.id, upload, System.nanoTime() - start);
  }

  /** What was made for a broadcast while that was being destroyed would stay until the end. */
  void freeIfDestroyed(Offloaded broadcast) {
    if (find(broadcast.id) != broadcast) {
      SparkEnv.get().blockManager().master().removeBroadcast(broadcast.id, true, false);
      free(broadcast.id, broadcast.place(), true);
    }
  }

  boolean knows(long id) {
    return broadcasts.containsKey(id);
  }

  /** Frees the executors' copies and, if so asked, the blob itself. */
  void unbroadcast(long id, boolean removeFromDriver, boolean blocking) {
    Offloaded broadcast = removeFromDriver ? broadcasts.remove(id) : broadcasts.get(id);
    Runnable free = () -> free(broadcast, removeFromDriver);
    if (removeFromDriver) {
      replacements.forget(id);
    }
    if (!blocking) {
      removals.execute(free);
    }
    try {
      SparkEnv.get().blockManager().master().removeBroadcast(id, removeFromDriver, blocking);
    } finally {
      if (blocking) {
        free.run();
      }
    }
  }

  /** The application ends: removes what is left, within CLOSE_MS_MAX in all, and disconnects. */
  void close() {
    endOwn();
    replacements.close();
    pythonValues.close();
    removals.shutdown();
    Thread last = daemon(this::removeAll, "bigcast-removals");
    last.start();
    try {
      last.join(CLOSE_MS_MAX);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    int left = broadcasts.size() + late.size();
    if (left > 0) {
      Warnings.LOG.info("{} broadcasts are left to the lease's end", left);
    }
    connection.close();
    if (current == this) {
      current = null;
    }
  }

  private void removeAll() {
    try {
      removals.awaitTermination(CLOSE_MS_MAX, TimeUnit.MILLISECONDS);
    } catch (InterruptedException e) {
      return;
    }
    Iterator<Offloaded> left = broadcasts.values().iterator();
    while (left.hasNext() && connection.isOpen()) {
      free(left.next(), true);
      left.remove();
    }
  }

  private void free(Offloaded broadcast, boolean remove) {
    if (broadcast == null) {
      return;
    }
    boolean freed = false;
    for (BlobPlace place : broadcast.blobs()) {
      freed |= free(broadcast.id, place, remove);
    }
    if (remove && freed) {
      BigcastStats.REMOVED.increment();
    }
  }

  private boolean free(long id, BlobPlace place, boolean remove) {
    boolean[] reached = {false};
    try {
      connection.checkNotResting();
      connection.call(
          "",
          client -> {
            reached[0] = true;
            freeAt(client, place, remove);
            return null;
          });
      return true;
    } catch (BigcastException e) {
      notFreed(new LateFrees.Late(id, place, remove), reached[0], e);
      restIfNobodyAnswered(e);
      return false;
    }
  }

  private void freeAt(NativeClient client, BlobPlace place, boolean remove)
      throws BigcastException {
    if (!conf.shared() && !isSentTo(place, client.node())) {
      return; // its home has died, and the blob with it
    }
    if (remove) {
      client.remove(place.ref);
    } else {
      client.dropCopies(place.ref);
    }
  }

  /** What a node has answered is final; else it is tried again by a thread of ours. */
  private void notFreed(LateFrees.Late what, boolean reached, BigcastException why) {
    if (reached && isFinal(why)) {
      if (why.code() != BigcastException.Code.NOT_FOUND) {
        Warnings.LOG.info("broadcast {} can't be freed: {}", what.id, why.getMessage());
      }
    } else if (late.add(what)) {
      Warnings.LOG.info(
          "broadcast {} is freed when somebody answers again: {}", what.id, why.getMessage());
      startAttached();
    } else {
      Warnings.LOG.info(
          "broadcast {} is left to the application's end, as are {} others: {}",
          what.id, LateFrees.MAX, why.getMessage());
    }
  }

  private static boolean isFinal(BigcastException e) {
    return !e.nobodyAnswered() && e.code() != BigcastException.Code.ABORTED;
  }

  /** Blobs and copies that are still to be freed because nobody answered. */
  int lateFrees() {
    return late.size();
  }

  /**
   * Frees what could not be freed when it should have been. While one of several homes is away the
   * others' blobs go.
   */
  void freeLate() {
    if (late.isEmpty() || System.nanoTime() - freeLateAtNanos < 0) {
      return;
    }
    List<LateFrees.Late> failed = new ArrayList<>();
    for (LateFrees.Late each : late.take()) {
      if (failed.size() >= LATE_FAILURES_MAX || !connection.isOpen()) {
        late.add(each);
      } else if (!freeLate(each)) {
        failed.add(each);
      }
    }
    failed.forEach(late::add); // last, so that others' turn comes
    if (!failed.isEmpty() && connection.isOpen()) {
      freeLateAtNanos = System.nanoTime() + FREE_AGAIN_NANOS;
    }
  }

  /** False if it is to be tried again. */
  private boolean freeLate(LateFrees.Late what) {
    NativeClient client = null;
    try {
      client = connection.call("", connected -> connected);
      freeAt(client, what.place, what.remove);
      Warnings.LOG.info("broadcast {} is freed, late", what.id);
      if (what.remove) {
        BigcastStats.REMOVED.increment();
      }
      return true;
    } catch (BigcastException e) {
      if (client != null && isFinal(e)) {
        notFreed(what, true, e);
        return true;
      }
      // That its home is away says nothing of a client that reaches others.
      if (client != null && e.nobodyAnswered() && !reachesAny(client)) {
        connection.lost(client);
      }
      return false;
    }
  }

  private static boolean reachesAny(NativeClient client) {
    try {
      client.node();
      return true;
    } catch (BigcastException e) {
      return !e.nobodyAnswered();
    }
  }

  private <T> Broadcast<T> unavailable(T value, BigcastException e) {
    checkSparkCanCarry(value, e);
    Warnings.once("broadcasts go through Spark's TorrentBroadcast: " + e.getMessage());
    return null;
  }

  private <T> Broadcast<T> uploadFailed(T value, NativeClient client, BigcastException e) {
    letGo(client, e);
    checkSparkCanCarry(value, e);
    Warnings.once("a broadcast goes through Spark's TorrentBroadcast: " + e.getMessage());
    return null;
  }

  private void letGo(NativeClient client, BigcastException e) {
    if (e.nobodyAnswered() && client != null) {
      connection.lost(client);
    }
    restIfNobodyAnswered(e);
  }

  private void restIfNobodyAnswered(BigcastException e) {
    if (e.nobodyAnswered() && !anotherServerAnswers()) {
      connection.rest(e);
    }
  }

  /** While one of several is restarted, the others are to go on. */
  private boolean anotherServerAnswers() {
    if (!conf.shared() || conf.list(Key.SERVERS).size() < 2) {
      return false;
    }
    try {
      connection.call("", NativeClient::node);
      return true;
    } catch (BigcastException e) {
      return false;
    }
  }
}
