package io.bigcast.spark;

import java.io.Closeable;
import java.util.Iterator;

/** What comes out of a {@link BlobReader}, to be closed if it is not read to its end. */
public interface BlobIterator<T> extends Iterator<T>, Closeable {
  @Override
  void close();
}
