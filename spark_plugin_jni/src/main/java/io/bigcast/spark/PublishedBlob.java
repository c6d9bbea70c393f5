package io.bigcast.spark;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.nio.ByteBuffer;

/** What was published, as its readers see it: where it is, and none of it. Immutable. */
final class PublishedBlob<T> extends ChunkedReader<T> {
  private final long id;
  private final BlobPlace place;
  private final Published what;
  private final boolean driver;
  private volatile BlobBytes whole;

  PublishedBlob(long id, BlobPlace place, Published what, boolean driver) {
    this.id = id;
    this.place = place;
    this.what = what;
    this.driver = driver;
  }

  @Override
  Source.Content content() {
    return what.content;
  }

  @Override
  long size() {
    return what.size;
  }

  @Override
  ChunkSource open() throws IOException {
    return new Chunks(source(), new Places(id, place, driver));
  }

  private Connection source() throws BigcastException {
    return driver ? DriverSide.currentConnection() : ExecutorSide.connection();
  }

  @Override
  public BlobBytes bytes() throws IOException {
    BlobBytes known = whole;
    if (known == null) {
      known = ValueReader.published(id, driver, this::mapOrCopy);
      whole = known;
    }
    return known;
  }

  private BlobBytes mapOrCopy() throws IOException {
    BlobBytes mapped = what.mappable ? map() : null;
    return mapped == null ? copy() : mapped;
  }

  /** Null if it can't be, which is no failure. */
  private BlobBytes map() throws IOException {
    Connection source = source();
    Places places = new Places(id, place, driver);
    while (!places.isWithSpark()) {
      try {
        BlobBytes mapped = source.map(id, places.place());
        places.countIfReplaced();
        return mapped;
      } catch (BigcastException e) {
        if (e.code() == BigcastException.Code.NOT_MAPPABLE) {
          Warnings.LOG.info("broadcast {} is copied: {}", id, e.getMessage());
          return null;
        }
        moveOn(places, e);
      }
    }
    return null;
  }

  private static void moveOn(Places places, BigcastException e) throws IOException {
    try {
      places.failed(e);
    } catch (IOException nothingLeft) {
      BigcastStats.READ_FAILURES.increment();
      throw nothingLeft;
    }
  }

  /** One read. What replaces a blob has the same bytes, so that it goes on where it was. */
  private final class Chunks implements ChunkSource {
    private final Connection source;
    private final Places places;
    private final long startNanos = System.nanoTime();
    private volatile boolean closed;
    private ChunkSource chunks;
    private long delivered;

    /** The rest of a chunk whose beginning was delivered from elsewhere. */
    private ByteBuffer pending;

    Chunks(Connection source, Places places) {
      this.source = source;
      this.places = places;
    }

    @Override
    public ByteBuffer next() throws IOException {
      for (;;) {
        if (Thread.currentThread().isInterrupted()) {
          throw new InterruptedIOException("interrupted while reading a broadcast from Bigcast");
        }
        try {
          return step();
        } catch (HandleClosedException e) {
          throw e;
        } catch (BigcastException e) {
          giveUp(e);
          moveOn(places, e);
        }
      }
    }

    private ByteBuffer step() throws IOException {
      if (chunks() == null) {
        reopen();
      }
      ByteBuffer chunk = pending == null ? chunks().next() : pending;
      pending = null;
      if (chunk == null) {
        finished();
      } else {
        delivered += chunk.remaining();
        places.madeProgress();
      }
      return chunk;
    }

    private synchronized ChunkSource chunks() throws HandleClosedException {
      if (closed) {
        throw new HandleClosedException();
      }
      return chunks;
    }

    private void reopen() throws IOException {
      ChunkSource opened =
          places.isWithSpark()
              ? ((FileSource) places.torrent()).open()
              : source.download(places.place());
      synchronized (this) {
        chunks = opened;
      }
      if (closed) {
        close();
      }
      skipDelivered();
    }

    private void skipDelivered() throws IOException {
      long left = delivered;
      while (left > 0) {
        ByteBuffer again = chunks().next();
        if (again == null) {
          throw new BigcastException(
              BigcastException.Code.CORRUPT, "broadcast " + id + " is shorter than it was");
        }
        int step = (int) Math.min(left, again.remaining());
        again.position(again.position() + step);
        left -= step;
        pending = again.hasRemaining() ? again : null;
      }
    }

    private void giveUp(BigcastException e) {
      ChunkSource failed;
      synchronized (this) {
        failed = chunks;
        chunks = null;
      }
      pending = null; // its memory goes now
      if (failed instanceof NativeDownload && source.failed((NativeDownload) failed, e)) {
        places.distrust();
      }
      if (failed != null) {
        failed.close();
      }
    }

    private void finished() throws IOException {
      places.countIfReplaced();
      ChunkSource read = chunks();
      if (read instanceof NativeDownload) {
        source.finished((NativeDownload) read, id, System.nanoTime() - startNanos);
      }
      close();
    }

    @Override
    public void close() {
      ChunkSource left;
      synchronized (this) {
        closed = true;
        left = chunks;
        chunks = null;
      }
      if (left != null) {
        left.close();
      }
    }
  }
}
