package io.bigcast.spark;

import java.io.InterruptedIOException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.ReentrantLock;

/**
 * One lock a key, which exists while someone holds or awaits it. Thread-safe, reentrant. Who waits
 * can be interrupted, as a killed task is.
 */
final class KeyLock<K> {
  interface Body<T> {
    T run() throws java.io.IOException;
  }

  private static final class Counted {
    final ReentrantLock lock = new ReentrantLock();
    int users;
  }

  private final ConcurrentHashMap<K, Counted> locks = new ConcurrentHashMap<>();

  <T> T with(K key, Body<T> body) throws java.io.IOException {
    Counted counted =
        locks.compute(
            key,
            (k, present) -> {
              Counted used = present == null ? new Counted() : present;
              used.users++;
              return used;
            });
    try {
      counted.lock.lockInterruptibly();
      try {
        return body.run();
      } finally {
        counted.lock.unlock();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new InterruptedIOException("interrupted while another task reads " + key);
    } finally {
      locks.computeIfPresent(key, (k, used) -> --used.users == 0 ? null : used);
    }
  }

  int size() {
    return locks.size();
  }
}
