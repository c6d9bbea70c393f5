package io.bigcast.spark;

import java.lang.ref.PhantomReference;
import java.lang.ref.ReferenceQueue;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Ends mappings, and nobody else does: each when the garbage collector has found that nothing can
 * read it any more. A view of a direct buffer (a slice, a duplicate, a FloatBuffer) holds the buffer
 * that it was made from, so what is watched are the buffers that all views of a mapping come from.
 * Its thread lives as long as something is mapped. Thread-safe.
 */
final class Unmapper {
  private static final ReferenceQueue<ByteBuffer> UNREACHABLE = new ReferenceQueue<>();
  private static final Set<Piece> PIECES = new HashSet<>();

  private Unmapper() {}

  private static final class Mapped {
    final NativeMapping mapping;
    int pieces;

    Mapped(NativeMapping mapping) {
      this.mapping = mapping;
    }
  }

  private static final class Piece extends PhantomReference<ByteBuffer> {
    final Mapped whole;

    Piece(ByteBuffer buffer, Mapped whole) {
      super(buffer, UNREACHABLE);
      this.whole = whole;
    }
  }

  /**
   * All of a mapping, which from now on belongs to the buffers and their views.
   *
   * @param pieceSize bytes of each buffer but the last
   */
  static List<ByteBuffer> piecesOf(NativeMapping mapping, int pieceSize) throws BigcastException {
    List<ByteBuffer> pieces = new ArrayList<>();
    try {
      long size = mapping.size();
      for (long offset = 0; offset < size; offset += pieceSize) {
        pieces.add(mapping.piece(offset, (int) Math.min(pieceSize, size - offset)));
      }
    } catch (Throwable e) {
      mapping.close();
      throw e;
    }
    if (pieces.isEmpty()) {
      mapping.close();
    } else {
      watch(pieces, new Mapped(mapping));
    }
    return pieces;
  }

  private static synchronized void watch(List<ByteBuffer> pieces, Mapped whole) {
    if (PIECES.isEmpty()) {
      DriverSide.daemon(Unmapper::run, "bigcast-unmapper").start();
    }
    whole.pieces = pieces.size();
    for (ByteBuffer piece : pieces) {
      PIECES.add(new Piece(piece, whole));
    }
  }

  private static void run() {
    boolean last = false;
    while (!last) {
      try {
        Piece piece = (Piece) UNREACHABLE.remove();
        if (isWholeUnreachable(piece)) {
          piece.whole.mapping.close(); // tells the node, so it may take a while
        }
        last = removeAndTellIfLast(piece);
      } catch (InterruptedException e) {
        Warnings.LOG.debug("nobody interrupts this thread", e);
      }
    }
  }

  private static synchronized boolean isWholeUnreachable(Piece piece) {
    return --piece.whole.pieces == 0;
  }

  /** Only then does it leave the set, so that there is one thread at a time. */
  private static synchronized boolean removeAndTellIfLast(Piece piece) {
    PIECES.remove(piece);
    return PIECES.isEmpty();
  }
}
