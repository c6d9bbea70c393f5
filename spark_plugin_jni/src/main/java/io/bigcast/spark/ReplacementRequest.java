package io.bigcast.spark;

/** An executor can't read a broadcast: what shall it read instead? */
final class ReplacementRequest extends DriverRequest<Replacement> {
  private static final long serialVersionUID = 1L;

  final long id;

  /** Of the blob that could not be read. */
  final byte[] ref;

  /** How often this read has failed, the first time included. */
  final int failures;

  /**
   * False: nothing of Bigcast can be used there, whatever the place, as far as this read can tell; or
   * it must not be: nodes lied.
   */
  final boolean canUseBigcast;

  ReplacementRequest(long id, byte[] ref, int failures, boolean canUseBigcast) {
    this.id = id;
    this.ref = ref;
    this.failures = failures;
    this.canUseBigcast = canUseBigcast;
  }

  @Override
  Replacement answer(DriverSide driver) throws BigcastException {
    return driver.replacements().answer(this);
  }
}
