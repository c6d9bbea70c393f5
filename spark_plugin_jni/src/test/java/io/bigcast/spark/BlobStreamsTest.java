package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** The streams' arithmetic, against chunks in memory. */
class BlobStreamsTest {
  private static final int CHUNK = 64;

  /** Keeps what is committed, and watches that the contract is kept. */
  private static final class Chunks implements ChunkSink {
    final List<byte[]> committed = new ArrayList<>();
    int failAt = Integer.MAX_VALUE;
    int calls;
    boolean sealed;
    boolean closed;
    private ByteBuffer buffer;

    @Override
    public ByteBuffer nextBuffer() throws IOException {
      calls++;
      assertNull(buffer, "one buffer at a time");
      if (committed.size() == failAt) {
        throw new BigcastException(BigcastException.Code.RESOURCE_EXHAUSTED, "full");
      }
      buffer = ByteBuffer.allocate(CHUNK);
      return buffer;
    }

    @Override
    public void commit(int size) {
      calls++;
      assertTrue(size > 0 && size <= CHUNK);
      for (byte[] before : committed) {
        assertEquals(CHUNK, before.length, "only the last chunk may be short");
      }
      byte[] bytes = new byte[size];
      System.arraycopy(buffer.array(), 0, bytes, 0, size);
      committed.add(bytes);
      buffer = null;
    }

    @Override
    public byte[] seal() {
      sealed = true;
      return new byte[] {7};
    }

    @Override
    public void close() {
      closed = true;
    }

    byte[] all() {
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      committed.forEach(bytes -> out.write(bytes, 0, bytes.length));
      return out.toByteArray();
    }
  }

  private static byte[] random(int size) {
    byte[] bytes = new byte[size];
    new Random(size).nextBytes(bytes);
    return bytes;
  }

  private static void writeInPieces(BlobOutputStream out, byte[] bytes, int piece)
      throws IOException {
    for (int i = 0; i < bytes.length; i += piece) {
      if (piece == 1) {
        out.write(bytes[i]);
      } else {
        out.write(bytes, i, Math.min(piece, bytes.length - i));
      }
    }
  }

  @Test
  void everySizeArrivesWholeAndOnlyIfLargeEnough() throws IOException {
    int[] sizes = {0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5, 1000};
    for (int minSize : new int[] {0, 1, 10, CHUNK, CHUNK + 1, 200}) {
      for (int size : sizes) {
        for (int piece : new int[] {1, 7, CHUNK, 999}) {
          String what = "minSize " + minSize + ", size " + size + ", piece " + piece;
          Chunks sink = new Chunks();
          BlobOutputStream out = new BlobOutputStream(minSize, () -> sink);
          byte[] bytes = random(size);
          writeInPieces(out, bytes, piece);
          assertEquals(size, out.total(), what);
          byte[] ref = out.finish();
          assertEquals(size >= minSize, ref != null, what);
          assertEquals(size >= minSize, sink.sealed, what);
          if (ref != null) {
            assertArrayEquals(bytes, sink.all(), what);
          }
          out.abort();
          assertEquals(ref != null, sink.closed, what);
        }
      }
    }
  }

  @Test
  void whatIsSmallOpensNothing() throws IOException {
    BlobOutputStream out =
        new BlobOutputStream(
            3 * CHUNK,
            () -> {
              throw new AssertionError("opened");
            });
    out.write(random(3 * CHUNK - 1));
    assertNull(out.finish());
  }

  @Test
  void aFailedUploadIsToldApartFromAFailedSerialiser() throws IOException {
    Chunks sink = new Chunks();
    sink.failAt = 2;
    BlobOutputStream out = new BlobOutputStream(0, () -> sink);
    BigcastException e =
        assertThrows(BigcastException.class, () -> out.write(random(3 * CHUNK)));
    assertSame(e, out.failure());
    // A serialiser may swallow it and go on.
    assertSame(e, assertThrows(BigcastException.class, () -> out.write(1)));
    assertSame(e, assertThrows(BigcastException.class, out::finish));
    assertFalse(sink.sealed);
    out.abort();
    assertTrue(sink.closed);
  }

  /** Spark's own broadcast is then asked, and not the user. */
  @Test
  void whateverEndsAnUploadIsBigcastsFailure() throws IOException {
    Error noThread = new OutOfMemoryError("unable to create native thread");
    for (Throwable each : new Throwable[] {noThread, new IllegalStateException("broken")}) {
      BlobOutputStream out =
          new BlobOutputStream(
              10,
              () -> {
                throw Sneaky.<IOException>rethrow(each);
              });
      out.write(random(10)); // held back
      BigcastException e = assertThrows(BigcastException.class, () -> out.write(1));
      assertEquals(BigcastException.Code.INTERNAL, e.code());
      assertSame(each, e.getCause());
      assertTrue(e.getMessage().contains(each.getMessage()), e.getMessage());
      assertSame(e, out.failure());
      assertSame(e, assertThrows(BigcastException.class, out::finish));
    }
  }

  @Test
  void whatIsWrittenAfterAnAbortIsThrownAway() throws IOException {
    Chunks sink = new Chunks();
    BlobOutputStream out = new BlobOutputStream(0, () -> sink);
    out.write(random(2 * CHUNK));
    out.abort();
    out.write(random(2 * CHUNK));
    out.write(1);
    assertEquals(2, sink.committed.size());
    assertNull(out.failure());
    assertTrue(sink.closed);
  }

  private static final class Source implements ChunkSource {
    private final Iterator<byte[]> chunks;
    private final boolean fails;

    int calls;

    Source(List<byte[]> chunks, boolean fails) {
      this.chunks = chunks.iterator();
      this.fails = fails;
    }

    @Override
    public ByteBuffer next() throws IOException {
      calls++;
      if (!chunks.hasNext() && fails) {
        throw new BigcastException(BigcastException.Code.ABORTED, "its writer gave up");
      }
      return chunks.hasNext() ? ByteBuffer.wrap(chunks.next()) : null;
    }

    @Override
    public void close() {}
  }

  private static List<byte[]> split(byte[] bytes) throws IOException {
    Chunks sink = new Chunks();
    BlobOutputStream out = new BlobOutputStream(0, () -> sink);
    out.write(bytes);
    assertNotNull(out.finish());
    return sink.committed;
  }

  @Test
  void bytesAreReadInOrderHoweverTheyAreAskedFor() throws IOException {
    for (int size : new int[] {0, 1, CHUNK, 5 * CHUNK + 3}) {
      byte[] bytes = random(size);
      for (int piece : new int[] {1, 10, 1000}) {
        BlobInputStream in = new BlobInputStream(new Source(split(bytes), false));
        ByteArrayOutputStream got = new ByteArrayOutputStream();
        byte[] buffer = new byte[piece];
        for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
          got.write(buffer, 0, n);
        }
        assertArrayEquals(bytes, got.toByteArray());
        assertEquals(-1, in.read());
        assertEquals(size, in.total());
      }
    }
  }

  /** Each of these calls crosses into native code, and waits there. */
  @Test
  void nativeCodeIsCalledByTheChunkHoweverSmallTheRecords() throws IOException {
    byte[] bytes = random(5 * CHUNK + 3);
    Chunks sink = new Chunks();
    BlobOutputStream out = new BlobOutputStream(0, () -> sink);
    for (byte each : bytes) {
      out.write(each);
    }
    out.flush();
    assertNotNull(out.finish());
    assertEquals(2 * 6, sink.calls);
    Source source = new Source(sink.committed, false);
    BlobInputStream in = new BlobInputStream(source);
    for (byte each : bytes) {
      assertEquals(each & 0xff, in.read());
    }
    assertEquals(-1, in.read());
    assertEquals(6 + 1, source.calls);
  }

  @Test
  void drainingReachesTheEndOrTheFailure() throws IOException {
    BlobInputStream whole = new BlobInputStream(new Source(split(random(200)), false));
    whole.read();
    whole.drain();
    assertEquals(200, whole.total());

    BlobInputStream broken = new BlobInputStream(new Source(split(random(200)), true));
    assertThrows(BigcastException.class, broken::drain);
    assertNotNull(broken.failure());
    assertThrows(BigcastException.class, broken::read);
  }

  @Test
  void aBugBelowAReadIsToldApartFromAFailedDeserialiser() {
    RuntimeException bug = new IllegalStateException("broken");
    BlobInputStream in =
        new BlobInputStream(
            new ChunkSource() {
              @Override
              public ByteBuffer next() {
                throw bug;
              }

              @Override
              public void close() {}
            });
    BigcastException e = assertThrows(BigcastException.class, in::read);
    assertEquals(BigcastException.Code.INTERNAL, e.code());
    assertSame(bug, e.getCause());
    assertSame(e, in.failure());
  }

  @Test
  void anInterruptedReaderStops() throws IOException {
    BlobInputStream in = new BlobInputStream(new Source(split(random(200)), false));
    Thread.currentThread().interrupt();
    try {
      assertThrows(java.io.InterruptedIOException.class, in::read);
    } finally {
      assertTrue(Thread.interrupted(), "the interrupt is Spark's to see");
    }
  }

  @Test
  void aClosedStreamTouchesNoMemory() throws IOException {
    BlobInputStream in = new BlobInputStream(new Source(split(random(200)), false));
    in.read();
    in.close();
    assertEquals(0, in.available());
    assertEquals(-1, in.read());
  }
}
