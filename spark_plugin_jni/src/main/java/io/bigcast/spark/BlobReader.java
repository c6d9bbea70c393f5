package io.bigcast.spark;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;

/**
 * What was published ({@link Bigcast#publish}), to be read as often as one likes; it is never in the
 * heap as a whole. But for {@link #bytes}, each call opens a read of its own, from the beginning.
 * Thread-safe; what the calls return is for one thread. A read holds native buffers until it comes
 * to its end or is closed; a task's reads are closed when the task ends.
 *
 * <p>Reads throw {@link BigcastException} if the bytes can't be had, from iterators wrapped in an
 * {@link java.io.UncheckedIOException}. All bytes are verified before they are handed out.
 *
 * @param <T> {@link ByteBuffer} if a file or a stream was published, else the type of the objects
 */
public interface BlobReader<T> {
  /** The bytes. Of published objects, as Spark's serializer wrote them. */
  InputStream stream() throws IOException;

  /**
   * The bytes, a chunk each (spark.bigcast.chunkSize; the last one may be shorter), read-only. A
   * buffer's content is valid until the next call of the iterator.
   */
  BlobIterator<ByteBuffer> buffers() throws IOException;

  /**
   * All of it at once, to be read in any order. What was published as mappable is in the memory of
   * this host's node, which all executors of the host share ({@link BlobBytes#isMapped}). What can't
   * be mapped is copied, once a JVM, outside the heap.
   *
   * @throws BigcastException RESOURCE_EXHAUSTED if there is no room for a copy
   */
  BlobBytes bytes() throws IOException;

  /** The objects that were published, in order; of a file or a stream, the same as its buffers. */
  BlobIterator<T> items() throws IOException;
}
