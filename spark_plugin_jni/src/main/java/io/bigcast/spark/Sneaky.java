package io.bigcast.spark;

/** Throws checked exceptions out of methods that Scala declared without them. */
final class Sneaky {
  private Sneaky() {}

  /** Never returns; the type lets callers write {@code throw rethrow(e)}. */
  @SuppressWarnings("unchecked")
  static <E extends Throwable> RuntimeException rethrow(Throwable e) throws E {
    throw (E) e;
  }
}
