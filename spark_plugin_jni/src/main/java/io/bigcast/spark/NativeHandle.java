package io.bigcast.spark;

/**
 * Owns one native object, which the last to use it frees: so no thread can free what another is
 * using, and nobody holds a lock while a call waits for the network. Any thread may close it.
 */
abstract class NativeHandle implements AutoCloseable {
  interface Call<T> {
    T on(long pointer) throws BigcastException;
  }

  private final long pointer;
  private int users;
  private boolean closed;

  NativeHandle(long pointer) {
    this.pointer = pointer;
  }

  /**
   * Makes a native call.
   *
   * @throws HandleClosedException if the handle is closed, or was before the call failed
   */
  final <T> T use(Call<T> call) throws BigcastException {
    enter();
    try {
      return call.on(pointer);
    } catch (BigcastException e) {
      checkOpen(e);
      throw e;
    } finally {
      leave();
    }
  }

  /** As {@link #use}, for what gives memory that goes with the object: none of a closed one's. */
  final <T> T useForMemory(Call<T> call) throws BigcastException {
    return use(
        used -> {
          T memory = call.on(used);
          checkOpen(null);
          return memory;
        });
  }

  abstract void free(long pointer);

  /** Makes native calls that wait end soon. It may run beside them. */
  void interrupt(long pointer) {}

  /** Waits for nothing but what {@link #free} does. Memory that the object gave out goes with it. */
  @Override
  public final void close() {
    boolean inUse;
    synchronized (this) {
      if (closed) {
        return;
      }
      closed = true;
      inUse = users > 0;
      users++;
    }
    try {
      if (inUse) {
        interrupt(pointer);
      }
    } finally {
      leave();
    }
  }

  private synchronized void enter() throws HandleClosedException {
    checkOpen(null);
    users++;
  }

  private synchronized void checkOpen(BigcastException cause) throws HandleClosedException {
    if (closed) {
      HandleClosedException e = new HandleClosedException();
      e.initCause(cause);
      throw e;
    }
  }

  /** A closed handle gets no new users, so that only one of them is the last. */
  private void leave() {
    boolean last;
    synchronized (this) {
      users--;
      last = closed && users == 0;
    }
    if (last) {
      free(pointer);
    }
  }
}
