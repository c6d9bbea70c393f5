package io.bigcast.spark;

import java.lang.ref.WeakReference;
import java.util.ArrayList;
import java.util.List;

/**
 * A broadcast that is in Bigcast, as the driver knows it: where its blob is now, what else must be
 * freed with it, and its handle, weakly, so that Spark's cleaner sees it go. Thread-safe.
 */
final class Offloaded {
  final long id;

  /** Of what executors get; null if the value can't have been changed since (Spark made it). */
  final Fingerprint fingerprint;

  /** Of its blob, as it travelled. */
  final long storedBytes;

  /** What was published and has no value; else null. */
  private final Source source;

  private final boolean isNull;
  private final WeakReference<BigcastBroadcast<?>> handle;
  private final List<BlobPlace> replaced = new ArrayList<>();
  private BlobPlace place;
  private byte[] torrent;

  Offloaded(BigcastBroadcast<?> handle, ValueUpload upload, boolean isNull, boolean changeable) {
    this.id = handle.id();
    this.handle = new WeakReference<>(handle);
    this.fingerprint = changeable ? upload.fingerprint() : null;
    this.source = null;
    this.isNull = isNull;
    this.storedBytes = upload.stats().storedBytes;
    this.place = upload.place();
  }

  Offloaded(BigcastBroadcast<?> handle, ValueUpload upload, Source source) {
    this.id = handle.id();
    this.handle = new WeakReference<>(handle);
    this.fingerprint = upload.fingerprint();
    this.source = source;
    this.isNull = false;
    this.storedBytes = upload.stats().storedBytes;
    this.place = upload.place();
  }

  synchronized BlobPlace place() {
    return place;
  }

  /** How many blobs it has had beside the first one. */
  synchronized int replacements() {
    return replaced.size();
  }

  /** From now on readers are sent to this upload's blob. */
  synchronized void moveTo(ValueUpload upload) {
    replaced.add(place);
    place = upload.place();
  }

  /** The serialised handle of Spark's own broadcast of the same id; null unless it was needed. */
  synchronized byte[] torrent() {
    return torrent;
  }

  synchronized void moveToTorrent(byte[] serialisedHandle) {
    torrent = serialisedHandle;
  }

  /** Every blob that may still exist somewhere, the one readers are sent to first. */
  synchronized List<BlobPlace> blobs() {
    List<BlobPlace> all = new ArrayList<>();
    all.add(place);
    all.addAll(replaced);
    return all;
  }

  /**
   * The value, as long as somebody has it; or the source of what was published.
   *
   * @throws BigcastException NOT_FOUND if it was collected
   */
  Object value() throws BigcastException {
    Object value = source == null ? heldValue() : source;
    if (value == null && !isNull) {
      throw new BigcastException(
          BigcastException.Code.NOT_FOUND,
          "the driver does not have the value of broadcast " + id + " any more ("
              + BigcastConf.Key.KEEP_VALUE.key + ")");
    }
    return value;
  }

  private Object heldValue() {
    BigcastBroadcast<?> broadcast = handle.get();
    return broadcast == null ? null : broadcast.heldValue();
  }
}
