package io.bigcast.spark;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InvalidClassException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.io.ObjectStreamClass;
import java.io.Serializable;
import org.apache.spark.api.plugin.PluginContext;

/**
 * Requests to the driver's plugin, through Spark's own channel for plugins. They travel as bytes,
 * because Spark deserialises with a class loader that does not know a jar given by --jars. Only our
 * own classes and the JDK's are read out of them.
 */
final class DriverMessages {
  private DriverMessages() {}

  /**
   * Asks the driver and waits for the answer, at most spark.rpc.askTimeout.
   *
   * @throws BigcastException what the driver threw; UNAVAILABLE if it did not answer
   */
  @SuppressWarnings("unchecked")
  static <A extends Serializable> A ask(PluginContext context, DriverRequest<A> request)
      throws BigcastException {
    Object answer;
    try {
      answer = unpack((byte[]) context.ask(pack(request)));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new BigcastException(
          BigcastException.Code.ABORTED, "interrupted while the driver is asked");
    } catch (Exception e) {
      throw new BigcastException(
          BigcastException.Code.UNAVAILABLE, "the driver's plugin did not answer: " + e);
    }
    if (answer instanceof BigcastException) {
      throw (BigcastException) answer;
    }
    return (A) answer;
  }

  /**
   * The driver's part: a request's bytes to those of its answer, or of its {@link BigcastException}.
   *
   * @param driver null while Bigcast is off
   */
  static byte[] receive(Object message, DriverSide driver) throws IOException {
    Object request = unpack((byte[]) message);
    try {
      if (driver == null) {
        throw new BigcastException(
            BigcastException.Code.UNAVAILABLE, "Bigcast is off on the driver");
      }
      return pack(((DriverRequest<?>) request).answer(driver));
    } catch (BigcastException e) {
      return pack(e);
    }
  }

  static byte[] pack(Serializable message) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
      out.writeObject(message);
    }
    return bytes.toByteArray();
  }

  static Object unpack(byte[] bytes) throws IOException {
    try (ObjectInputStream in = new OurClassesOnly(bytes)) {
      return in.readObject();
    } catch (ClassNotFoundException e) {
      throw new InvalidClassException(e.getMessage(), "is not in this jar");
    }
  }

  private static final class OurClassesOnly extends ObjectInputStream {
    private static final String OURS = DriverMessages.class.getPackage().getName() + ".";

    OurClassesOnly(byte[] bytes) throws IOException {
      super(new ByteArrayInputStream(bytes));
    }

    @Override
    protected Class<?> resolveClass(ObjectStreamClass described)
        throws IOException, ClassNotFoundException {
      String name = described.getName();
      String element = name.replaceFirst("^\\[+L?", "");
      if (element.length() > 1 && !element.startsWith(OURS) && !element.startsWith("java.")) {
        throw new InvalidClassException(name, "is no class of a message between plugins");
      }
      return Class.forName(name, false, DriverMessages.class.getClassLoader());
    }
  }
}
