package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.bigcast.spark.Replacement.Kind;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.RandomAccessFile;
import java.lang.ref.WeakReference;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.Random;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.api.plugin.PluginContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.broadcast.BroadcastFactory;
import org.apache.spark.broadcast.TorrentBroadcastFactory;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What the driver gives to executors that can't read a broadcast: on a real node that dies. */
class ReplacementsTest {
  private static final long ID = 1_000_007; // not one that Spark itself makes here

  private final AppIdentity app = AppIdentity.create();
  private final byte[] value = new byte[2 << 20];
  private JavaSparkContext context;
  private DriverSide driver;

  @BeforeEach
  void start() {
    Arrays.fill(value, (byte) 3);
    SparkConf spark = conf("auto");
    context = new JavaSparkContext(spark);
    driver = driver(spark);
  }

  @AfterEach
  void stop() {
    driver.close();
    context.close();
  }

  private static SparkConf conf(String keepValue) {
    return new SparkConf(false)
        .setMaster("local[1]")
        .setAppName("replacements")
        .set("spark.ui.enabled", "false")
        .set("spark.driver.host", "127.0.0.1")
        .set("spark.bigcast.driver.keepValue", keepValue)
        .set("spark.bigcast.prefetch", "lazy")
        .set("spark.bigcast.lease.grace", "2s")
        .set("spark.bigcast.node.memory", "16m")
        .set("spark.bigcast.node.disk", "none");
  }

  private DriverSide driver(SparkConf spark) {
    BroadcastFactory sparks = new TorrentBroadcastFactory();
    sparks.initialize(true, spark);
    DriverSide made = new DriverSide(spark, BigcastConf.from(spark), app, sparks);
    made.start();
    return made;
  }

  private BlobPlace place() {
    return driver.find(ID).place();
  }

  /** Asks until the driver has made up its mind. */
  private Replacement ask(BlobPlace unreadable, int failures, boolean canUseBigcast)
      throws Exception {
    ReplacementRequest request =
        new ReplacementRequest(ID, unreadable.ref, failures, canUseBigcast);
    for (int i = 0; i < 1200; i++) {
      Replacement answer = driver.replacements().answer(request);
      if (answer.kind != Kind.LATER) {
        return answer;
      }
      Thread.sleep(50);
    }
    throw new AssertionError("the driver still works on it after a minute");
  }

  private byte[] read(BlobPlace place) throws Exception {
    return ValueReader.read(ID, place, connection(), true);
  }

  private Connection connection() {
    SparkConf spark = conf("auto");
    return new Connection(spark, BigcastConf.from(spark), app, true);
  }

  private void forgetCachedValue() {
    SparkEnv.get().broadcastManager().cachedValues().clear();
  }

  @Test
  void aHomeThatLivesIsWorthASecondAttemptAndThenAnotherUpload() throws Exception {
    Broadcast<byte[]> handle = driver.offload(value, ID, false);
    BlobPlace first = place();
    assertSame(Replacement.SAME, ask(first, 1, true));
    Replacement second = ask(first, 2, true);
    assertEquals(Kind.BLOB, second.kind);
    assertFalse(second.place.isSameBlob(first.ref));
    assertEquals(Kind.BLOB, ask(first, 1, true).kind, "others are sent there, too");
    assertTrue(second.place.isSameBlob(ask(first, 1, true).place.ref), "to one blob");
    forgetCachedValue();
    assertTrue(Arrays.equals(value, read(second.place)));
    assertSame(value, handle.value());
  }

  @Test
  void aHomeThatDiedIsReplacedAtOnce() throws Exception {
    Broadcast<byte[]> handle = driver.offload(value, ID, false);
    BlobPlace first = place();
    NodeProcess.signal(app, "KILL");
    Replacement answer = ask(first, 1, true);
    assertEquals(Kind.BLOB, answer.kind);
    assertFalse(answer.place.epoch.equals(first.epoch));
    forgetCachedValue();
    assertTrue(Arrays.equals(value, read(answer.place)));
    assertTrue(place().isSameBlob(answer.place.ref), "new tasks are sent there");
    assertSame(value, handle.value());
  }

  /** Nobody can start another one beside it. tests/spark/faults.py lets it sleep past its lease. */
  @Test
  void aHomeThatIsStoppedIsReplacedBySparksOwnAndWakesWithAllItHadOrNothing() throws Exception {
    driver.close();
    driver = driver(conf("auto").set("spark.bigcast.progressTimeout", "1s"));
    driver.offload(value, ID, false);
    NodeProcess.signal(app, "STOP");
    try {
      assertEquals(Kind.TORRENT, ask(place(), 2, true).kind);
    } finally {
      NodeProcess.signal(app, "CONT");
    }
    try (Connection connection = connection();
        NativeDownload download = connection.download(place());
        BlobInputStream in = new BlobInputStream(download)) {
      Object read = SparkEnv.get().serializer().newInstance().deserializeStream(in)
          .readObject(ValueReader.anyTag());
      assertTrue(Arrays.equals(value, (byte[]) read));
    } catch (BigcastException e) { // on a machine on which all that took longer than its lease
      assertEquals(BigcastException.Code.NOT_FOUND, e.code());
    }
  }

  @Test
  void sparksOwnTakesOverWhereBigcastCannotBeUsed() throws Exception {
    Broadcast<byte[]> handle = driver.offload(value, ID, false);
    Replacement answer = ask(place(), 1, false);
    assertEquals(Kind.TORRENT, answer.kind);
    forgetCachedValue();
    try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(answer.torrent))) {
      Broadcast<?> torrent = (Broadcast<?>) in.readObject();
      assertEquals(ID, torrent.id());
      assertTrue(Arrays.equals(value, (byte[]) torrent.value()));
    }
    assertEquals(Kind.TORRENT, ask(place(), 1, true).kind, "for all, from now on");
    assertSame(value, handle.value());
    driver.unbroadcast(ID, true, true);
    assertTrue(
        SparkEnv.get().blockManager().getMatchingBlockIds(new OfBroadcast()).isEmpty(),
        "blocks are left");
  }

  /** An executor's way to the driver's plugin. */
  private PluginContext toDriver() {
    return (PluginContext)
        Proxy.newProxyInstance(
            PluginContext.class.getClassLoader(),
            new Class<?>[] {PluginContext.class},
            (self, ask, arguments) -> DriverMessages.receive(arguments[0], driver));
  }

  /** Such as where a firewall is between an executor and the home, which lives. */
  @Test
  void oneReadThatNoBlobHelpsComesToSparksOwn() throws Exception {
    driver.offload(value, ID, false);
    ExecutorSide.start(toDriver());
    try {
      Places places = new Places(ID, place(), false);
      while (!places.isWithSpark()) {
        places.failed(new BigcastException(BigcastException.Code.UNAVAILABLE, "by a firewall"));
      }
      forgetCachedValue();
      assertTrue(Arrays.equals(value, (byte[]) places.torrent()));
    } finally {
      ExecutorSide.close();
    }
  }

  private static final class OfBroadcast
      extends scala.runtime.AbstractFunction1<org.apache.spark.storage.BlockId, Object> {
    @Override
    public Object apply(org.apache.spark.storage.BlockId block) {
      return block.name().startsWith("broadcast_" + ID);
    }
  }

  @Test
  void aChangedValueReplacesNothing() throws Exception {
    Broadcast<byte[]> handle = driver.offload(value, ID, false);
    value[9]++;
    for (boolean canUseBigcast : new boolean[] {true, false}) {
      BigcastException e =
          assertThrows(BigcastException.class, () -> ask(place(), 2, canUseBigcast));
      assertTrue(e.getMessage().contains("has changed the value"), e.getMessage());
    }
    assertSame(value, handle.value());
  }

  @Test
  void aValueThatTheDriverDidNotKeepCannotBeReplaced() throws Exception {
    driver.close();
    driver = driver(conf("never"));
    Broadcast<byte[]> handle = driver.offload(new byte[2 << 20], ID, false);
    forgetCachedValue();
    WeakReference<Object> kept = new WeakReference<>(driver.find(ID).value());
    while (kept.get() != null) {
      System.gc();
    }
    BigcastException e = assertThrows(BigcastException.class, () -> ask(place(), 2, true));
    assertEquals(BigcastException.Code.NOT_FOUND, e.code());
    assertTrue(e.getMessage().contains("spark.bigcast.driver.keepValue"), e.getMessage());

    byte[] readBack = handle.value();
    assertEquals(Kind.BLOB, askLater(place()).kind, "what failed once is tried again");
    assertEquals(2 << 20, readBack.length);
  }

  /** Asks until what was found out before is forgotten. */
  private Replacement askLater(BlobPlace unreadable) throws Exception {
    for (int i = 0; ; i++) {
      try {
        return ask(unreadable, 2, true);
      } catch (BigcastException e) {
        assertTrue(i < 1200, e.getMessage());
        Thread.sleep(50);
      }
    }
  }

  @Test
  void aDestroyedBroadcastIsNotReplaced() throws Exception {
    driver.offload(value, ID, false);
    BlobPlace place = place();
    driver.unbroadcast(ID, true, true);
    BigcastException e = assertThrows(BigcastException.class, () -> ask(place, 1, true));
    assertEquals(BigcastException.Code.NOT_FOUND, e.code());
  }

  private Path file(Path folder, int size) throws IOException {
    byte[] content = new byte[size];
    new Random(size).nextBytes(content);
    return Files.write(folder.resolve("published"), content);
  }

  @Test
  void aReadOfAPublishedFileGoesOnInWhatReplacesIt(@TempDir Path folder) throws Exception {
    Path file = file(folder, 13 << 20);
    Broadcast<FileSource> handle = driver.offload(new FileSource(file, false), ID, false);
    BlobReader<?> published = (BlobReader<?>) (Object) ((Broadcast<?>) handle).value();
    byte[] read = new byte[13 << 20];
    try (DataInputStream in = new DataInputStream(published.stream())) {
      in.readFully(read, 0, 5 << 20);
      NodeProcess.signal(app, "KILL");
      assertEquals(Kind.BLOB, ask(place(), 1, true).kind);
      in.readFully(read, 5 << 20, 8 << 20);
      assertEquals(-1, in.read());
    }
    assertTrue(Arrays.equals(Files.readAllBytes(file), read));
  }

  @Test
  void sparksOwnTakesOverAPublishedFile(@TempDir Path folder) throws Exception {
    Path file = file(folder, 5 << 20);
    driver.offload(new FileSource(file, false), ID, false);
    Replacement answer = ask(place(), 1, false);
    assertEquals(Kind.TORRENT, answer.kind);
    forgetCachedValue();
    try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(answer.torrent))) {
      BlobReader<?> published = (BlobReader<?>) ((Broadcast<?>) in.readObject()).value();
      try (DataInputStream bytes = new DataInputStream(published.stream())) {
        byte[] read = new byte[5 << 20];
        bytes.readFully(read);
        assertEquals(-1, bytes.read());
        assertTrue(Arrays.equals(Files.readAllBytes(file), read));
      }
    }
  }

  /** That Spark's own broadcast can't carry it ends nothing but the reads that only that could help. */
  @Test
  void aFileTooLargeForSparkIsUploadedAgainWheneverItsHomeDies(@TempDir Path folder)
      throws Exception {
    Path file = folder.resolve("published");
    try (RandomAccessFile sparse = new RandomAccessFile(file.toFile(), "rw")) {
      sparse.setLength(Runtime.getRuntime().maxMemory() / 4 + 1);
    }
    driver.offload(new FileSource(file, false), ID, false);
    for (int i = 0; i < 3; i++) {
      BlobPlace lost = place();
      BigcastException e = assertThrows(BigcastException.class, () -> ask(lost, 1, false));
      assertTrue(e.getMessage().contains("a quarter of the driver's heap"), e.getMessage());
      NodeProcess.signal(app, "KILL");
      assertEquals(Kind.BLOB, ask(lost, 1, true).kind);
    }
  }

  @Test
  void whatCannotBeReadAgainReplacesNothing(@TempDir Path folder) throws Exception {
    Path file = file(folder, 5 << 20);
    driver.offload(new FileSource(file, false), ID, false);
    Files.write(file, new byte[] {1}, StandardOpenOption.APPEND);
    BigcastException changed =
        assertThrows(BigcastException.class, () -> ask(place(), 2, true));
    assertTrue(changed.getMessage().contains("has changed"), changed.getMessage());
    driver.unbroadcast(ID, true, true);

    driver.offload(OnceSource.of(new ByteArrayInputStream(new byte[5 << 20]), false), ID, false);
    BigcastException consumed =
        assertThrows(BigcastException.class, () -> ask(place(), 2, true));
    assertEquals(BigcastException.Code.NOT_FOUND, consumed.code());
    assertTrue(consumed.getMessage().contains("can't be read again"), consumed.getMessage());
  }

  @Test
  void whatDoesNotFitIsATypedErrorIfItIsConsumed() {
    byte[] random = new byte[40 << 20];
    new Random(40).nextBytes(random);
    BigcastException e =
        assertThrows(
            BigcastException.class,
            () ->
                driver.offload(
                    OnceSource.of(new ByteArrayInputStream(random), false), ID, false));
    assertEquals(BigcastException.Code.RESOURCE_EXHAUSTED, e.code(), e.getMessage());
    assertTrue(e.getMessage().contains("can't be read again"), e.getMessage());
  }
}
