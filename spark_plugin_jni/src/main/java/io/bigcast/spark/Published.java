package io.bigcast.spark;

import java.io.Serializable;

/** What was published, as a handle tells it to executors. Immutable. */
final class Published implements Serializable {
  private static final long serialVersionUID = 1L;

  final Source.Content content;
  final boolean mappable;

  /** Bytes in all. */
  final long size;

  Published(Source source, long size) {
    this.content = source.content();
    this.mappable = source.isMappable();
    this.size = size;
  }
}
