package io.bigcast.spark;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.ObjectStreamClass;
import org.apache.spark.broadcast.Broadcast;

/** Handles of broadcasts, Spark's or ours, as bytes in messages between plugins. */
final class Handles {
  private Handles() {}

  static byte[] toBytes(Broadcast<?> handle) throws BigcastException {
    try {
      return DriverMessages.pack(handle);
    } catch (IOException e) {
      throw new BigcastException(BigcastException.Code.INTERNAL, "a broadcast's handle: " + e);
    }
  }

  static Broadcast<?> of(byte[] bytes) throws IOException {
    try (ObjectInputStream in = new SparksAndOurs(bytes)) {
      return (Broadcast<?>) in.readObject();
    } catch (ClassNotFoundException e) {
      throw new IOException(e);
    }
  }

  /** Our loader finds Spark's classes, too; those of the calling thread's may find neither. */
  private static final class SparksAndOurs extends ObjectInputStream {
    SparksAndOurs(byte[] bytes) throws IOException {
      super(new ByteArrayInputStream(bytes));
    }

    @Override
    protected Class<?> resolveClass(ObjectStreamClass described)
        throws IOException, ClassNotFoundException {
      return Class.forName(described.getName(), false, Handles.class.getClassLoader());
    }
  }
}
