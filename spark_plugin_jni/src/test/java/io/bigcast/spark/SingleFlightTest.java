package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class SingleFlightTest {
  private final SingleFlight<Long, Object> flights = new SingleFlight<>();
  private final ExecutorService pool = Executors.newCachedThreadPool();
  private final CountDownLatch landing = new CountDownLatch(1);
  private final AtomicInteger runs = new AtomicInteger();

  @AfterEach
  void nothingIsLeft() {
    landing.countDown();
    pool.shutdown();
    assertEquals(0, flights.size(), "no flight outlives its run");
  }

  /** Of key 1, in the air until `landing`. */
  private Future<Object> fly(Callable<Object> end) throws InterruptedException {
    CountDownLatch started = new CountDownLatch(1);
    Future<Object> flight =
        pool.submit(
            () ->
                flights.run(
                    1L,
                    () -> {
                      runs.incrementAndGet();
                      started.countDown();
                      try {
                        landing.await();
                        return end.call();
                      } catch (IOException e) {
                        throw e;
                      } catch (Exception e) {
                        throw new IOException(e);
                      }
                    }));
    started.await();
    return flight;
  }

  /** One that comes meanwhile, and waits for it. */
  private Thread join(FutureTask<Object> task) throws InterruptedException {
    Thread thread = new Thread(task);
    thread.start();
    while (thread.getState() != Thread.State.WAITING) {
      Thread.sleep(1);
    }
    return thread;
  }

  private FutureTask<Object> reader() {
    return new FutureTask<>(() -> flights.run(1L, runs::incrementAndGet));
  }

  private static Object get(Future<Object> result) throws Exception {
    return result.get(60, TimeUnit.SECONDS);
  }

  @Test
  void whoComesMeanwhileGetsTheSame() throws Exception {
    Object value = new Object();
    Future<Object> first = fly(() -> value);
    List<FutureTask<Object>> others = new ArrayList<>();
    for (int i = 0; i < 4; i++) {
      others.add(reader());
      join(others.get(i));
    }
    landing.countDown();
    assertSame(value, get(first));
    for (FutureTask<Object> each : others) {
      assertSame(value, get(each));
    }
    assertEquals(1, runs.get());
    assertEquals(2, flights.run(1L, runs::incrementAndGet), "what has landed is no flight");
  }

  @Test
  void thereMayBeNoValue() throws Exception {
    Future<Object> first = fly(() -> null);
    FutureTask<Object> other = reader();
    join(other);
    landing.countDown();
    assertEquals(null, get(first));
    assertEquals(null, get(other));
    assertEquals(1, runs.get());
  }

  @Test
  void differentKeysDoNotWait() throws Exception {
    Future<Object> first = fly(() -> 1);
    assertEquals(2, flights.run(2L, runs::incrementAndGet));
    landing.countDown();
    assertEquals(1, get(first));
  }

  @Test
  void aKilledTaskDoesNotSitOutTheWait() throws Exception {
    Future<Object> first = fly(() -> "value");
    FutureTask<Object> killed = reader();
    FutureTask<Object> other = reader();
    Thread task = join(killed);
    join(other);
    task.interrupt();
    ExecutionException thrown = assertThrows(ExecutionException.class, () -> get(killed));
    assertInstanceOf(InterruptedIOException.class, thrown.getCause());
    landing.countDown();
    assertEquals("value", get(first));
    assertEquals("value", get(other));
  }

  @Test
  void aFailureIsItsCallersAlone() throws Exception {
    Future<Object> first =
        fly(
            () -> {
              throw new InterruptedIOException("killed");
            });
    FutureTask<Object> one = reader();
    FutureTask<Object> another = reader();
    join(one);
    join(another);
    landing.countDown();
    ExecutionException thrown = assertThrows(ExecutionException.class, () -> get(first));
    assertInstanceOf(InterruptedIOException.class, thrown.getCause());
    get(one);
    get(another);
    assertEquals(true, runs.get() > 1, "they read it themselves");
  }
}
