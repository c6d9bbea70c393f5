package io.bigcast.spark;

import com.esotericsoftware.kryo.DefaultSerializer;
import com.esotericsoftware.kryo.serializers.JavaSerializer;
import java.io.IOException;
import java.io.InputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.io.OutputStream;
import java.io.Serializable;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;

/**
 * A file of the driver's, which can be read again, and by Spark's own broadcast: as a value of that
 * it is its content, which executors then have in their heaps. Immutable.
 */
@DefaultSerializer(JavaSerializer.class) // Kryo would write the fields
final class FileSource extends ChunkedReader<ByteBuffer> implements Source, Serializable {
  private static final long serialVersionUID = 1L;

  /** Torrent makes the whole serialised form in the driver's heap, and executors hold it twice. */
  private static final int HEAP_PARTS = 4;

  private static final int CHUNK_BYTES = 4 << 20;

  /** Null where it was deserialised. */
  private final transient String path;

  private final transient boolean mappable;

  /** Null where the file is. */
  private transient List<byte[]> content;

  /** Null until it is asked for. */
  private transient BlobBytes whole;

  FileSource(Path file, boolean mappable) throws IOException {
    if (!Files.isRegularFile(file)) {
      Files.size(file); // says so if it is not there
      throw new BigcastException(
          BigcastException.Code.INVALID_ARGUMENT,
          file + " is no regular file; publish a stream of what is in it");
    }
    path = file.toAbsolutePath().toString();
    this.mappable = mappable;
  }

  @Override
  public Content content() {
    return Content.BYTES;
  }

  @Override
  long size() throws IOException {
    return path != null
        ? Files.size(Paths.get(path))
        : content.stream().mapToLong(piece -> piece.length).sum();
  }

  @Override
  public boolean isMappable() {
    return mappable;
  }

  @Override
  public void writeTo(OutputStream out) throws IOException {
    try (InputStream in = Files.newInputStream(Paths.get(path))) {
      OnceSource.copy(in, out);
    }
  }

  @Override
  public void checkReadableAgain() {
    // As long as the file is there; what reads it says if not.
  }

  @Override
  public void checkSparkCanCarry(BigcastException why) throws BigcastException {
    long most = Runtime.getRuntime().maxMemory() / HEAP_PARTS;
    try {
      if (Files.size(Paths.get(path)) > most) {
        throw new BigcastException(
            why,
            path + " is larger than " + most + " bytes, a quarter of the driver's heap, so Spark"
                + " can't broadcast it instead");
      }
    } catch (BigcastException e) {
      throw e;
    } catch (IOException e) {
      throw new BigcastException(why, "and " + e);
    }
  }

  @Override
  public synchronized BlobBytes bytes() throws IOException {
    if (whole == null) {
      whole = copy();
    }
    return whole;
  }

  @Override
  ChunkSource open() throws IOException {
    return path == null ? new HeapChunks(content) : new FileChunks(Paths.get(path));
  }

  /** Pieces, each after its length, until one of length 0. */
  private void writeObject(ObjectOutputStream out) throws IOException {
    out.defaultWriteObject();
    try (ChunkSource chunks = open()) {
      for (ByteBuffer chunk = chunks.next(); chunk != null; chunk = chunks.next()) {
        byte[] piece = new byte[chunk.remaining()];
        chunk.get(piece);
        out.writeInt(piece.length);
        out.write(piece);
      }
    }
    out.writeInt(0);
  }

  private void readObject(ObjectInputStream in) throws IOException, ClassNotFoundException {
    in.defaultReadObject();
    content = new ArrayList<>();
    for (int size = in.readInt(); size > 0; size = in.readInt()) {
      byte[] piece = new byte[size];
      in.readFully(piece);
      content.add(piece);
    }
  }

  private static final class HeapChunks implements ChunkSource {
    private final List<byte[]> content;
    private int next;

    HeapChunks(List<byte[]> content) {
      this.content = content;
    }

    @Override
    public ByteBuffer next() {
      return next < content.size() ? ByteBuffer.wrap(content.get(next++)) : null;
    }

    @Override
    public void close() {
      next = Integer.MAX_VALUE;
    }
  }

  private static final class FileChunks implements ChunkSource {
    private final FileChannel file;
    private final ByteBuffer chunk = ByteBuffer.allocate(CHUNK_BYTES);

    FileChunks(Path path) throws IOException {
      file = FileChannel.open(path);
    }

    @Override
    public ByteBuffer next() throws IOException {
      chunk.clear();
      while (chunk.hasRemaining() && file.read(chunk) >= 0) {
        // until it is full or the file ends
      }
      chunk.flip();
      return chunk.hasRemaining() ? chunk : null;
    }

    @Override
    public void close() {
      try {
        file.close();
      } catch (IOException e) {
        Warnings.LOG.debug("closing a published file", e);
      }
    }
  }
}
