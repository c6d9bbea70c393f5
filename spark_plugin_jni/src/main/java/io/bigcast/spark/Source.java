package io.bigcast.spark;

import java.io.IOException;
import java.io.OutputStream;

/** What is published instead of a value: it writes itself, and has no part in any heap. */
interface Source {
  /** What its bytes are. */
  enum Content {
    BYTES,
    OBJECTS
  }

  Content content();

  /**
   * Writes all of it; out stays open. What the user's source throws passes unchanged.
   *
   * @throws BigcastException if it can't be read a second time
   */
  void writeTo(OutputStream out) throws IOException;

  /** Whether readers are to map it. */
  boolean isMappable();

  /** @throws BigcastException if it can't be written again */
  void checkReadableAgain() throws BigcastException;

  /**
   * Returns if Spark's own broadcast can carry it, as it is now.
   *
   * @param why Bigcast does not
   * @throws BigcastException with that reason and why Spark's can't either
   */
  void checkSparkCanCarry(BigcastException why) throws BigcastException;
}
