package io.bigcast.spark;

import java.io.Serializable;

/** The driver's answer to an executor that can't read a broadcast. Immutable. */
final class Replacement implements Serializable {
  private static final long serialVersionUID = 1L;

  enum Kind {
    /** It is being worked on: ask again. */
    LATER,
    /** As far as the driver sees nothing is wrong: read the same blob again. */
    SAME,
    /** Read it at {@link #place}. */
    BLOB,
    /** Read it through {@link #torrent}. */
    TORRENT
  }

  static final Replacement LATER = new Replacement(Kind.LATER, null, null);
  static final Replacement SAME = new Replacement(Kind.SAME, null, null);

  final Kind kind;
  final BlobPlace place;

  /** A handle of Spark's own, serialised, because only Spark's class loader knows its class. */
  final byte[] torrent;

  private Replacement(Kind kind, BlobPlace place, byte[] torrent) {
    this.kind = kind;
    this.place = place;
    this.torrent = torrent;
  }

  static Replacement blob(BlobPlace place) {
    return new Replacement(Kind.BLOB, place, null);
  }

  static Replacement torrent(byte[] handle) {
    return new Replacement(Kind.TORRENT, null, handle);
  }
}
