package io.bigcast.spark;

import java.io.Serializable;

/**
 * What an executor asks the driver: the fields are the question, and {@link #answer} runs on the
 * driver. {@link DriverMessages#ask} sends it.
 *
 * @param <A> the answer's type, one of ours or of the JDK
 */
abstract class DriverRequest<A extends Serializable> implements Serializable {
  private static final long serialVersionUID = 1L;

  /**
   * Runs on the only thread that answers all executors, so it may neither wait nor compute for long:
   * what takes time is begun here, and asked about again.
   */
  abstract A answer(DriverSide driver) throws BigcastException;
}
