package io.bigcast.spark;

/** The handle was closed, by another thread: no fault, and no word about any node. */
final class HandleClosedException extends BigcastException {
  private static final long serialVersionUID = 1L;

  HandleClosedException() {
    super(Code.ABORTED, "the handle is closed");
  }
}
