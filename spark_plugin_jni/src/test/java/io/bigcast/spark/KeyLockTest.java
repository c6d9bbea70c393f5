package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class KeyLockTest {
  @Test
  void holdersOfOneKeyExcludeEachOther() throws Exception {
    KeyLock<Long> lock = new KeyLock<>();
    ExecutorService pool = Executors.newFixedThreadPool(4);
    AtomicInteger inside = new AtomicInteger();
    int[] sum = {0};
    List<Future<?>> done = new ArrayList<>();
    for (int i = 0; i < 4; i++) {
      done.add(
          pool.submit(
              () -> {
                for (int n = 0; n < 1000; n++) {
                  lock.with(
                      1L,
                      () -> {
                        assertEquals(1, inside.incrementAndGet());
                        sum[0]++;
                        return inside.decrementAndGet();
                      });
                }
                return null;
              }));
    }
    for (Future<?> one : done) {
      one.get(60, TimeUnit.SECONDS);
    }
    pool.shutdown();
    assertEquals(4000, sum[0]);
    assertEquals(0, lock.size(), "no lock outlives its users");
  }

  @Test
  void holdersOfDifferentKeysDoNotWait() throws Exception {
    KeyLock<Long> lock = new KeyLock<>();
    ExecutorService pool = Executors.newFixedThreadPool(1);
    CountDownLatch other = new CountDownLatch(1);
    boolean met =
        lock.with(
            1L,
            () -> {
              pool.submit(
                  () ->
                      lock.with(
                          2L,
                          () -> {
                            other.countDown();
                            return null;
                          }));
              try {
                return other.await(60, TimeUnit.SECONDS);
              } catch (InterruptedException e) {
                throw new IOException(e);
              }
            });
    pool.shutdown();
    assertTrue(met);
  }

  @Test
  void aKilledTaskDoesNotSitOutTheWait() throws Exception {
    KeyLock<Long> lock = new KeyLock<>();
    lock.with(
        1L,
        () -> {
          Throwable[] thrown = {null};
          Thread task =
              new Thread(
                  () -> thrown[0] = assertThrows(IOException.class, () -> lock.with(1L, () -> 0)));
          task.start();
          task.interrupt();
          try {
            task.join(60_000);
          } catch (InterruptedException e) {
            throw new IOException(e);
          }
          assertTrue(thrown[0] instanceof java.io.InterruptedIOException, "still waiting");
          return null;
        });
    assertEquals(0, lock.size());
  }

  @Test
  void aFailureReleases() {
    KeyLock<Long> lock = new KeyLock<>();
    assertThrows(
        IOException.class,
        () ->
            lock.with(
                1L,
                () -> {
                  throw new IOException("x");
                }));
    assertEquals(0, lock.size());
  }
}
