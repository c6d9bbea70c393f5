package io.bigcast.spark;

import java.io.Serializable;
import java.util.Arrays;

/** Where a blob is, as a handle carries it to executors. Immutable. */
final class BlobPlace implements Serializable {
  private static final long serialVersionUID = 1L;

  /** The ref that the native library made; nobody else looks into it. */
  final byte[] ref;

  /** "host:port" of the blob's home in embedded mode, else empty. */
  final String home;

  /** Of the node that the blob was sent to: new at each start of a node. */
  final String epoch;

  BlobPlace(byte[] ref, String home, String epoch) {
    this.ref = ref;
    this.home = home;
    this.epoch = epoch;
  }

  boolean isSameBlob(byte[] otherRef) {
    return Arrays.equals(ref, otherRef);
  }
}
