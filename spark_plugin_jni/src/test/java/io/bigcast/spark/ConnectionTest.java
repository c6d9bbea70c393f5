package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.spark.SparkConf;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Clients of real nodes, started from the program that the jar carries. */
class ConnectionTest {
  private static SparkConf spark() {
    return new SparkConf(false)
        .set("spark.driver.host", "127.0.0.1")
        .set("spark.bigcast.lease.grace", "2s")
        .set("spark.bigcast.node.memory", "16m")
        .set("spark.bigcast.node.disk", "none");
  }

  private static Connection embedded(boolean driver) {
    return new Connection(spark(), BigcastConf.from(spark()), AppIdentity.create(), driver);
  }

  @Test
  void aClientClosedByAnotherThreadIsNoFailure() throws Exception {
    try (Connection connection = embedded(true)) {
      List<NativeClient> used = new ArrayList<>();
      String home =
          connection.call(
              "",
              client -> {
                used.add(client);
                if (used.size() == 1) {
                  connection.lost(client);
                }
                return client.node().advertised;
              });
      assertTrue(home.startsWith("127.0.0.1:"), home);
      assertEquals(2, used.size());
      assertNotSame(used.get(0), used.get(1));
      connection.checkNotResting();
    }
  }

  @Test
  void whatIsNoAnswerOfBigcastsIsToldAsOne() throws Exception {
    Error noThread = new OutOfMemoryError("unable to create native thread");
    try (Connection connection = embedded(true)) {
      NativeClient before = connection.call("", client -> client);
      BigcastException e =
          assertThrows(
              BigcastException.class,
              () ->
                  connection.call(
                      "",
                      client -> {
                        throw noThread;
                      }));
      assertEquals(BigcastException.Code.INTERNAL, e.code());
      assertSame(noThread, e.getCause());
      assertSame(before, connection.call("", client -> client), "it says nothing about the node");
      connection.checkNotResting();
    }
  }

  /** Without the driver's host, which Spark always sets, asking for it throws. */
  @Test
  void whateverEndsConnectingIsBigcastsFailureAndIsNotRepeatedAtOnce() throws Exception {
    BigcastConf conf = BigcastConf.from(spark());
    try (Connection connection =
        new Connection(new SparkConf(false), conf, AppIdentity.create(), true)) {
      BigcastException e =
          assertThrows(BigcastException.class, () -> connection.call("", NativeClient::node));
      assertEquals(BigcastException.Code.INTERNAL, e.code());
      assertTrue(e.getMessage().contains("spark.driver.host"), e.getMessage());
      assertSame(e, assertThrows(BigcastException.class, connection::checkNotResting));
      assertFalse(connection.isOpen());
    }
  }

  @Test
  void homesKeepTheirClientsAndTheLeastUsedGoes() throws Exception {
    try (Connection connection = embedded(false)) {
      // Nobody answers at these; the host's own node does.
      NativeClient first = connection.call("127.0.0.1:1", client -> client);
      NativeClient second = connection.call("127.0.0.1:2", client -> client);
      assertNotSame(first, second);
      for (int port = 3; port <= 5; port++) {
        assertSame(first, connection.call("127.0.0.1:1", client -> client));
        connection.call("127.0.0.1:" + port, client -> client);
      }
      assertThrows(HandleClosedException.class, second::node);
      connection.close();
      assertThrows(HandleClosedException.class, first::node);
      BigcastException e =
          assertThrows(
              BigcastException.class, () -> connection.call("127.0.0.1:1", client -> client));
      assertEquals(BigcastException.Code.UNAVAILABLE, e.code());
    }
  }

  @Test
  void nobodyWaitsForAClientThatIsBeingMade(@TempDir Path folder) throws Exception {
    Path secret = folder.resolve("secret");
    Files.createFile(
        secret, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
    Files.write(secret, new byte[64]);
    ExecutorService pool = Executors.newFixedThreadPool(2);
    // Accepts, and never says a word.
    try (ServerSocket silent = new ServerSocket(0, 8, InetAddress.getByName("127.0.0.1"))) {
      SparkConf spark =
          spark()
              .set("spark.bigcast.servers", "127.0.0.1:" + silent.getLocalPort())
              .set("spark.bigcast.secret.file", secret.toString());
      Connection connection =
          new Connection(spark, BigcastConf.from(spark), AppIdentity.create(), true);
      Future<?> first = pool.submit(() -> connection.call("", NativeClient::node));
      Socket login = silent.accept();
      assertTrue(connection.isOpen());
      connection.checkNotResting();
      Future<?> second = pool.submit(() -> connection.call("", NativeClient::node));
      second.cancel(true); // a killed task
      connection.close();
      assertFalse(first.isDone(), "all of the above came while it connects");
      login.close();
      ExecutionException e =
          assertThrows(ExecutionException.class, () -> first.get(60, TimeUnit.SECONDS));
      assertTrue(e.getCause() instanceof IOException, e.toString());
    } finally {
      pool.shutdownNow();
      assertTrue(pool.awaitTermination(60, TimeUnit.SECONDS));
    }
  }

  private static final int CHUNK = 64 << 10;

  @Test
  void aValueIsSentWhileItIsSerialisedAndDeserialisedWhileItIsFetched() throws Exception {
    int chunks = 32;
    byte[] record = new byte[CHUNK / 4];
    try (Connection connection = embedded(true)) {
      NativeUpload upload = upload(connection, "overlapping");
      BlobOutputStream sent = new BlobOutputStream(0, () -> upload);
      ObjectOutputStream out = new ObjectOutputStream(sent);
      int records = 0;
      for (; sent.total() < 2 * CHUNK; records++) {
        out.writeUnshared(record);
      }
      // The home has the first chunk though nobody knows the third one.
      while (upload.stats().chunks == 0) {
        Thread.sleep(5);
      }
      assertTrue(sent.total() < 3 * CHUNK);
      for (; sent.total() < chunks * CHUNK; records++) {
        out.writeUnshared(record);
      }
      out.flush();
      byte[] ref = sent.finish();
      upload.close();

      try (NativeDownload download = connection.call("", client -> client.download(ref))) {
        BlobInputStream got = new BlobInputStream(download);
        ObjectInputStream in = new ObjectInputStream(got);
        assertArrayEquals(record, (byte[]) in.readObject());
        // What follows was not given yet and, beyond the window, not even asked for.
        assertTrue(got.total() <= 2 * CHUNK);
        assertTrue(download.stats().chunksLocated <= 8);
        for (int i = 1; i < records; i++) {
          in.readObject();
        }
        got.drain();
        assertEquals(sent.total(), got.total());
      }
    }
  }

  private static NativeUpload upload(Connection connection, String name) throws BigcastException {
    return connection.call(
        "", client -> client.upload(name, CHUNK, false, 1, 1, 0, false, false));
  }

  private static void write(NativeUpload upload, AtomicInteger calls) throws BigcastException {
    upload.nextBuffer();
    upload.commit(CHUNK);
    calls.incrementAndGet();
  }

  @Test
  void closingEndsWhatAnotherThreadWaitsFor() throws Exception {
    AppIdentity app = AppIdentity.create();
    ExecutorService pool = Executors.newFixedThreadPool(2);
    long open = BigcastStats.OPEN_DOWNLOADS.sum();
    try (Connection connection =
        new Connection(spark(), BigcastConf.from(spark()), app, true)) {
      AtomicInteger calls = new AtomicInteger();
      NativeUpload written = upload(connection, "read");
      for (int i = 0; i < 32; i++) {
        write(written, calls);
      }
      byte[] ref = written.seal();
      written.close();
      NativeDownload reading = connection.call("", client -> client.download(ref));
      NativeUpload writing = upload(connection, "written");
      NodeProcess.signal(app, "STOP");
      try {
        Future<?> reader =
            pool.submit(
                () -> {
                  while (reading.next() != null) {
                    calls.incrementAndGet();
                  }
                  return null;
                });
        Future<?> writer =
            pool.submit(
                () -> {
                  for (;;) {
                    write(writing, calls);
                  }
                });
        // Both wait for the node once what was fetched ahead and the window are used up.
        for (int before = 0; before != calls.get(); Thread.sleep(500)) {
          before = calls.get();
        }
        reading.close();
        writing.close();
        for (Future<?> waiting : new Future<?>[] {reader, writer}) {
          ExecutionException e =
              assertThrows(ExecutionException.class, () -> waiting.get(60, TimeUnit.SECONDS));
          assertTrue(e.getCause() instanceof HandleClosedException, e.toString());
        }
        assertEquals(open, BigcastStats.OPEN_DOWNLOADS.sum(), "freed by its last user");
        assertThrows(HandleClosedException.class, reading::next);
        assertThrows(HandleClosedException.class, writing::seal);
      } finally {
        NodeProcess.signal(app, "CONT");
      }
    } finally {
      pool.shutdownNow();
    }
  }
}
