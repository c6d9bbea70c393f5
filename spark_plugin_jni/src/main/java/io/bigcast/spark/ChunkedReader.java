package io.bigcast.spark;

import java.io.EOFException;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.NoSuchElementException;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContext;
import org.apache.spark.serializer.DeserializationStream;
import org.apache.spark.util.TaskCompletionListener;

/** The ways to read a blob, on top of its chunks. */
abstract class ChunkedReader<T> implements BlobReader<T> {
  /** A new read of all chunks, from the beginning. */
  abstract ChunkSource open() throws IOException;

  abstract Source.Content content();

  /** Bytes of all chunks together. */
  abstract long size() throws IOException;

  @Override
  public final InputStream stream() throws IOException {
    ChunkSource chunks = openForTask();
    return new FilterInputStream(new BlobInputStream(chunks)) {
      @Override
      public void close() throws IOException {
        super.close();
        chunks.close();
      }
    };
  }

  @Override
  public final BlobIterator<ByteBuffer> buffers() throws IOException {
    return new Buffers(openForTask());
  }

  @Override
  @SuppressWarnings("unchecked")
  public final BlobIterator<T> items() throws IOException {
    return content() == Source.Content.BYTES
        ? (BlobIterator<T>) buffers()
        : new Objects<>(openForTask());
  }

  final BlobBytes copy() throws IOException {
    try (ChunkSource chunks = open()) {
      return BlobBytes.copyOf(chunks, size());
    }
  }

  private ChunkSource openForTask() throws IOException {
    ChunkSource chunks = open();
    TaskContext task = TaskContext.get();
    if (task != null) {
      TaskCompletionListener close = context -> chunks.close();
      task.addTaskCompletionListener(close);
    }
    return chunks;
  }

  /** Something that is looked for one step ahead; frees the chunks at the end and at failures. */
  private abstract static class Ahead<T> implements BlobIterator<T> {
    final ChunkSource chunks;
    private T next;
    private boolean hasNext;
    private boolean ended;

    Ahead(ChunkSource chunks) {
      this.chunks = chunks;
    }

    /** EOFException if there is no more. */
    abstract T read() throws IOException;

    @Override
    public boolean hasNext() {
      if (!hasNext && !ended) {
        try {
          next = read();
          hasNext = true;
        } catch (EOFException e) {
          close();
        } catch (IOException e) {
          close();
          throw new UncheckedIOException(e);
        }
      }
      return hasNext;
    }

    @Override
    public T next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      T given = next;
      next = null;
      hasNext = false;
      return given;
    }

    @Override
    public void close() {
      ended = true;
      hasNext = false;
      next = null;
      chunks.close();
    }
  }

  /**
   * Copies, because a native buffer's memory goes with its read, and nobody can tell how long a user
   * keeps what he was given.
   */
  private static final class Buffers extends Ahead<ByteBuffer> {
    private byte[] copy = {};

    Buffers(ChunkSource chunks) {
      super(chunks);
    }

    @Override
    ByteBuffer read() throws IOException {
      ByteBuffer chunk = chunks.next();
      if (chunk == null) {
        throw new EOFException();
      }
      int size = chunk.remaining();
      copy = size <= copy.length ? copy : new byte[size];
      chunk.get(copy, 0, size);
      return ByteBuffer.wrap(copy, 0, size).asReadOnlyBuffer();
    }
  }

  private static final class Objects<T> extends Ahead<T> {
    private final BlobInputStream bytes;
    private final DeserializationStream stream;

    Objects(ChunkSource chunks) {
      super(chunks);
      bytes = new BlobInputStream(chunks);
      stream = SparkEnv.get().serializer().newInstance().deserializeStream(bytes);
    }

    @Override
    T read() throws IOException {
      try {
        return stream.readObject(ValueReader.<T>anyTag());
      } catch (Throwable e) {
        // What failed below the serializer may come out of it as anything, or as the end.
        if (bytes.failure() != null) {
          throw bytes.failure();
        }
        close();
        throw Sneaky.rethrow(e);
      }
    }
  }
}
