package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.IntBuffer;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.apache.spark.SparkConf;
import org.junit.jupiter.api.Test;

/** Blobs of a real node, mapped here. */
class BlobBytesTest {
  private static final int PIECE = 1 << 20;
  private static final byte[] CONTENT = new byte[2 * PIECE + 12];

  static {
    new Random(3).nextBytes(CONTENT);
  }

  private final AppIdentity app = AppIdentity.create();

  private Connection connection() {
    SparkConf spark =
        new SparkConf(false)
            .set("spark.driver.host", "127.0.0.1")
            .set("spark.bigcast.lease.grace", "2s")
            .set("spark.bigcast.node.memory", "16m")
            .set("spark.bigcast.node.disk", "none");
    return new Connection(spark, BigcastConf.from(spark), app, true);
  }

  private static byte[] upload(NativeClient client, boolean mappable) throws BigcastException {
    try (NativeUpload upload =
        client.upload("test/" + mappable, PIECE, false, 1, 1, 0, mappable, false)) {
      for (int done = 0; done < CONTENT.length; done += PIECE) {
        int size = Math.min(PIECE, CONTENT.length - done);
        upload.nextBuffer().put(CONTENT, done, size);
        upload.commit(size);
      }
      return upload.seal();
    }
  }

  private static BlobBytes map(Connection connection) throws BigcastException {
    return connection.call(
        "",
        client ->
            new BlobBytes(
                Unmapper.piecesOf(client.map(upload(client, true)), PIECE), PIECE, true));
  }

  private static byte[] content(ByteBuffer buffer) {
    byte[] bytes = new byte[buffer.remaining()];
    buffer.get(bytes);
    return bytes;
  }

  private static byte[] content(int offset, int length) {
    return java.util.Arrays.copyOfRange(CONTENT, offset, offset + length);
  }

  @Test
  void everyPartIsThereAndCannotBeWritten() throws IOException {
    try (Connection connection = connection()) {
      BlobBytes bytes = map(connection);
      assertEquals(CONTENT.length, bytes.size());
      assertEquals(3, bytes.buffers().size());
      int offset = 0;
      for (ByteBuffer buffer : bytes.buffers()) {
        assertTrue(buffer.isReadOnly() && buffer.isDirect());
        int size = buffer.remaining();
        assertArrayEquals(content(offset, size), content(buffer));
        offset += size;
      }
      assertEquals(CONTENT.length, offset);
      for (int[] part :
          new int[][] {
            {0, 0}, {0, 7}, {PIECE - 3, 3}, {PIECE - 3, 4}, {5, 2 * PIECE + 1},
            {0, CONTENT.length}, {2 * PIECE, 12}, {CONTENT.length, 0}
          }) {
        ByteBuffer slice = bytes.slice(part[0], part[1]);
        assertTrue(slice.isReadOnly());
        assertArrayEquals(content(part[0], part[1]), content(slice));
      }
      assertThrows(IndexOutOfBoundsException.class, () -> bytes.slice(-1, 1));
      assertThrows(IndexOutOfBoundsException.class, () -> bytes.slice(0, CONTENT.length + 1));
      assertThrows(IndexOutOfBoundsException.class, () -> bytes.slice(1L << 40, 1));
    }
  }

  @Test
  void nothingIsUnmappedUnderAReader() throws Exception {
    awaitMappings(0);
    IntBuffer view;
    try (Connection connection = connection()) {
      // A view of a view of a view; all else of the blob is out of reach.
      view = map(connection).slice(PIECE + 4, 40).duplicate().slice().asIntBuffer();
      collect();
      NodeProcess.signal(app, "KILL");
    }
    collect();
    assertEquals(1, BigcastStats.openMappings());
    assertEquals(ByteBuffer.wrap(CONTENT, PIECE + 4, 40).getInt(), view.get(0));
    view = null;
    awaitMappings(0);
  }

  private static void collect() throws InterruptedException {
    for (int i = 0; i < 3; i++) {
      System.gc();
      Thread.sleep(20);
    }
  }

  private static void awaitMappings(long count) throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
    while (BigcastStats.openMappings() != count && System.nanoTime() < deadline) {
      collect();
    }
    assertEquals(count, BigcastStats.openMappings());
  }

  @Test
  void whatIsNotMappableIsCopied() throws IOException {
    try (Connection connection = connection()) {
      BlobBytes copy =
          connection.call(
              "",
              client -> {
                byte[] ref = upload(client, false);
                BigcastException e = assertThrows(BigcastException.class, () -> client.map(ref));
                assertEquals(BigcastException.Code.NOT_MAPPABLE, e.code());
                try (NativeDownload download = client.download(ref)) {
                  return BlobBytes.copyOf(download, CONTENT.length);
                } catch (IOException other) {
                  throw Sneaky.<BigcastException>rethrow(other);
                }
              });
      assertFalse(copy.isMapped());
      assertArrayEquals(CONTENT, content(copy.slice(0, CONTENT.length)));
    }
  }
}
