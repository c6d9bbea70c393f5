package io.bigcast.spark;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.Objects;
import org.apache.spark.SparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * Broadcasts of what is not, and need not fit, in the driver's heap: the driver holds a few chunks
 * of it at a time, and tasks read it chunk by chunk from their host's node. Thread-safe.
 *
 * <p>All methods throw {@link BigcastException}: UNSUPPORTED if this context does not run the
 * plugin, else what kept Bigcast from taking it. A file then goes through Spark's own broadcast if
 * it is small enough for that; a stream or an iterator can't be read twice.
 */
public final class Bigcast {
  private Bigcast() {}

  /**
   * Broadcasts a file's content as it is. The file must stay as it is until the broadcast is
   * destroyed: it is read again if a node that had it died.
   */
  public static Broadcast<BlobReader<ByteBuffer>> publish(SparkContext context, Path file)
      throws IOException {
    return broadcast(context, new FileSource(file, false));
  }

  /**
   * As {@link #publish(SparkContext, Path)}, for {@link BlobReader#bytes}: the executors of a host
   * share one copy, in the memory of its node, of which at most half can be mapped at a time. It is
   * sent without being compressed, to one home. It means nothing where chunks are encrypted.
   */
  public static Broadcast<BlobReader<ByteBuffer>> publishMappable(SparkContext context, Path file)
      throws IOException {
    return broadcast(context, new FileSource(file, true));
  }

  /** Broadcasts all bytes of a stream, which is read to its end and not closed. */
  public static Broadcast<BlobReader<ByteBuffer>> publish(SparkContext context, InputStream bytes)
      throws IOException {
    return broadcast(context, OnceSource.of(Objects.requireNonNull(bytes, "bytes"), false));
  }

  /** A stream's bytes as {@link #publishMappable(SparkContext, Path)} has a file's. */
  public static Broadcast<BlobReader<ByteBuffer>> publishMappable(
      SparkContext context, InputStream bytes) throws IOException {
    return broadcast(context, OnceSource.of(Objects.requireNonNull(bytes, "bytes"), true));
  }

  /** Broadcasts objects, which Spark's serializer (spark.serializer) writes one after the other. */
  public static <T> Broadcast<BlobReader<T>> publish(SparkContext context, Iterator<T> objects)
      throws IOException {
    return broadcast(context, OnceSource.of(Objects.requireNonNull(objects, "objects")));
  }

  @SuppressWarnings("unchecked")
  private static <T> Broadcast<BlobReader<T>> broadcast(SparkContext context, Source source)
      throws IOException {
    if (!DriverSide.isOn()) {
      throw new BigcastException(
          BigcastException.Code.UNSUPPORTED,
          "publishing needs the plugin: set spark.plugins=" + BigcastPlugin.class.getName()
              + ", and neither " + BigcastConf.Key.ENABLED.key + "=false nor wrong settings");
    }
    // As any broadcast: Spark gives it an id, and sees to it when it is collected.
    Broadcast<?> made = context.broadcast(source, ValueReader.<Source>anyTag());
    return (Broadcast<BlobReader<T>>) made;
  }
}
