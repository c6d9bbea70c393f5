package io.bigcast.spark;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Blobs that could not be freed when they should have been, because nobody answered. Their lease lives
 * as long as the application, so they are freed when somebody answers again. Thread-safe.
 */
final class LateFrees {
  /** All were made before the outage; what is beyond that stays until the application ends. */
  static final int MAX = 4096;

  static final class Late {
    final long id;
    final BlobPlace place;

    /** False: only relays' copies go. */
    final boolean remove;

    Late(long id, BlobPlace place, boolean remove) {
      this.id = id;
      this.place = place;
      this.remove = remove;
    }
  }

  /** By ref. */
  private final Map<ByteBuffer, Late> all = new LinkedHashMap<>();

  /** As the last one; of one blob the removal, if there is one. False if there is no room. */
  synchronized boolean add(Late late) {
    ByteBuffer ref = ByteBuffer.wrap(late.place.ref);
    Late known = all.get(ref);
    if (known == null && all.size() >= MAX) {
      return false;
    }
    if (known == null || late.remove) {
      all.put(ref, late);
    }
    return true;
  }

  /** All of them, the longest known first. What is still not freed is to be added again. */
  synchronized List<Late> take() {
    List<Late> taken = new ArrayList<>(all.values());
    all.clear();
    return taken;
  }

  synchronized boolean isEmpty() {
    return all.isEmpty();
  }

  synchronized int size() {
    return all.size();
  }
}
