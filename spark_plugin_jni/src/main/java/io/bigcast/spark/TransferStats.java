package io.bigcast.spark;

/** One transfer's numbers, in the order native code sends them (jni/native_transfer.cc). */
final class TransferStats {
  final long rawBytes;
  final long storedBytes;
  final long chunks;
  final long chunksLocated;
  final long chunksReread;
  final long chunksForged;
  final boolean throughLocalNode;

  TransferStats(long[] values) {
    rawBytes = values[0];
    storedBytes = values[1];
    chunks = values[2];
    chunksLocated = values[3];
    chunksReread = values[4];
    chunksForged = values[5];
    throughLocalNode = values[6] != 0;
  }
}
