package io.bigcast.spark;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * All bytes of what was published ({@link BlobReader#bytes}), to be read in any order. Immutable;
 * what the methods return has its own position and limit each time.
 *
 * <p>Nothing takes the memory from under a reader: it is given back once neither this object nor any
 * buffer that came from it, nor any view of one, can be reached, which the garbage collector finds
 * out. {@code unpersist} and {@code destroy} only let go of what Spark holds of it.
 */
public final class BlobBytes {
  /** Bytes of each buffer but the last: a ByteBuffer can't have all of a large blob. */
  static final int PIECE = 1 << 30;

  private final List<ByteBuffer> pieces;
  private final int pieceSize;
  private final long size;
  private final boolean mapped;

  /** @param pieces of pieceSize bytes each, but for the last, from position 0 */
  BlobBytes(List<ByteBuffer> pieces, int pieceSize, boolean mapped) {
    this.pieces = pieces;
    this.pieceSize = pieceSize;
    this.mapped = mapped;
    this.size = pieces.stream().mapToLong(ByteBuffer::capacity).sum();
  }

  /** In bytes. */
  public long size() {
    return size;
  }

  /** True: in the memory of this host's node. False: in a copy that this JVM has outside its heap. */
  public boolean isMapped() {
    return mapped;
  }

  /** The bytes in order, read-only direct buffers of 1 GiB each, the last one shorter. */
  public List<ByteBuffer> buffers() {
    List<ByteBuffer> views = new ArrayList<>(pieces.size());
    for (ByteBuffer piece : pieces) {
      views.add(piece.asReadOnlyBuffer());
    }
    return views;
  }

  /**
   * A part, read-only: a view, or where it spans two of the {@link #buffers} a copy in the heap.
   *
   * @throws IndexOutOfBoundsException if it is not within the blob
   */
  public ByteBuffer slice(long offset, int length) {
    if (offset < 0 || length < 0 || offset > size - length) {
      throw new IndexOutOfBoundsException(
          length + " bytes at " + offset + " are not within a blob of " + size);
    }
    int first = (int) (offset / pieceSize);
    int begin = (int) (offset % pieceSize);
    if (length == 0) {
      return ByteBuffer.allocate(0).asReadOnlyBuffer();
    }
    if (length <= pieces.get(first).capacity() - begin) {
      return part(first, begin, length).slice();
    }
    ByteBuffer copy = ByteBuffer.allocate(length);
    for (int i = first; copy.hasRemaining(); i++, begin = 0) {
      copy.put(part(i, begin, Math.min(copy.remaining(), pieces.get(i).capacity() - begin)));
    }
    copy.flip();
    return copy.asReadOnlyBuffer();
  }

  private ByteBuffer part(int piece, int begin, int length) {
    ByteBuffer view = pieces.get(piece).asReadOnlyBuffer();
    view.position(begin).limit(begin + length);
    return view;
  }

  /** A copy of all that a source gives. */
  static BlobBytes copyOf(ChunkSource chunks, long size) throws java.io.IOException {
    List<ByteBuffer> pieces = new ArrayList<>();
    try {
      for (long left = size; left > 0; left -= PIECE) {
        pieces.add(ByteBuffer.allocateDirect((int) Math.min(PIECE, left)));
      }
    } catch (OutOfMemoryError e) {
      throw new BigcastException(
          BigcastException.Code.RESOURCE_EXHAUSTED,
          "a copy of " + size + " bytes does not fit outside the heap (-XX:MaxDirectMemorySize); "
              + "read it by stream() or buffers(): " + e.getMessage());
    }
    long copied = 0;
    for (ByteBuffer chunk = chunks.next(); chunk != null; chunk = chunks.next()) {
      copied += chunk.remaining();
      if (copied > size) {
        break;
      }
      put(chunk, pieces, copied - chunk.remaining());
    }
    if (copied != size) {
      throw new BigcastException(
          BigcastException.Code.CORRUPT, "there are not the " + size + " bytes that were published");
    }
    pieces.forEach(ByteBuffer::clear);
    return new BlobBytes(pieces, PIECE, false);
  }

  private static void put(ByteBuffer chunk, List<ByteBuffer> pieces, long offset) {
    for (int i = (int) (offset / PIECE); chunk.hasRemaining(); i++) {
      ByteBuffer to = pieces.get(i);
      int end = chunk.limit();
      chunk.limit(chunk.position() + Math.min(chunk.remaining(), to.remaining()));
      to.put(chunk);
      chunk.limit(end);
    }
  }
}
