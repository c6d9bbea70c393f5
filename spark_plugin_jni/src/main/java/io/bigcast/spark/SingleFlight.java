package io.bigcast.spark;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;

/**
 * One run a key at a time; who comes meanwhile gets what it gives. Nobody holds a lock: who waits can
 * be interrupted, as a killed task is, and what ends a run by an error (that its task was killed, too)
 * is its caller's alone: the others run it anew, one after the other. Thread-safe; a run must not ask
 * for its own key.
 */
final class SingleFlight<K, V> {
  interface Body<V> {
    V run() throws IOException;
  }

  private final ConcurrentHashMap<K, CompletableFuture<V>> flights = new ConcurrentHashMap<>();

  V run(K key, Body<? extends V> body) throws IOException {
    CompletableFuture<V> mine = new CompletableFuture<>();
    for (;;) {
      CompletableFuture<V> others = flights.putIfAbsent(key, mine);
      if (others == null) {
        return fly(key, mine, body);
      }
      try {
        return others.get();
      } catch (ExecutionException itsOwn) {
        // It is over, so that the next one may begin.
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new InterruptedIOException("interrupted while another task reads " + key);
      }
    }
  }

  private V fly(K key, CompletableFuture<V> mine, Body<? extends V> body) throws IOException {
    V value;
    try {
      value = body.run();
    } catch (Throwable e) {
      flights.remove(key);
      mine.completeExceptionally(e);
      throw e;
    }
    flights.remove(key);
    mine.complete(value);
    return value;
  }

  int size() {
    return flights.size();
  }
}
