package io.bigcast.sparktest;

import io.bigcast.spark.Bigcast;
import io.bigcast.spark.BigcastException;
import io.bigcast.spark.BigcastStats;
import io.bigcast.spark.BlobBytes;
import io.bigcast.spark.BlobIterator;
import io.bigcast.spark.BlobReader;
import io.bigcast.sparktest.ext.Payload;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.zip.CRC32;
import org.apache.spark.SparkException;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * Broadcasts by Bigcast.publish. In a folder of its own, because it can't be compiled for plain
 * Spark; whoever runs without the plugin does not load it.
 */
public final class PublishCases {
  private static final int TASKS = 4;
  private final Cases cases;
  private final JavaSparkContext context;

  private PublishCases(Cases cases) {
    this.cases = cases;
    this.context = cases.context;
  }

  /** For a context in which Bigcast works. */
  public static void addTo(Cases cases) {
    PublishCases publish = new PublishCases(cases);
    for (int size : new int[] {0, 1, Values.CHUNK, Values.CHUNK + 1, 20 << 20}) {
      cases.add("publish_file_" + size, () -> publish.file(size));
    }
    cases.add("publish_stream", publish::stream);
    cases.add("publish_mapped", publish::mapped);
    cases.add("publish_objects", publish::objects);
    cases.add("publish_reads_end_with_tasks", publish::readsEndWithTasks);
    cases.add("publish_source_fails", publish::sourceFails);
    cases.add("publish_bigger_than_the_node", publish::biggerThanTheNode);
  }

  /** For a context whose node is too small for 40 MiB. */
  public static void addWithoutRoomTo(Cases cases) {
    PublishCases publish = new PublishCases(cases);
    cases.add(
        "publish_stream_does_not_fit",
        () ->
            publish.fails(BigcastException.Code.RESOURCE_EXHAUSTED, "can't be read again"));
  }

  /** For a context in which no node answers. */
  public static void addWithoutNodeTo(Cases cases) {
    PublishCases publish = new PublishCases(cases);
    cases.add("publish_file_through_spark", () -> publish.file(40 << 20));
    cases.add(
        "publish_stream_without_a_node",
        () -> publish.fails(BigcastException.Code.UNAVAILABLE, "nothing was read"));
  }

  /** Size and checksum, by either way to read. */
  static List<Long> digest(BlobReader<ByteBuffer> published) throws IOException {
    CRC32 byStream = new CRC32();
    try (InputStream in = published.stream()) {
      byte[] step = new byte[100_000];
      for (int size = in.read(step); size >= 0; size = in.read(step)) {
        byStream.update(step, 0, size);
      }
    }
    CRC32 byBuffers = new CRC32();
    long size = 0;
    try (BlobIterator<ByteBuffer> buffers = published.items()) {
      while (buffers.hasNext()) {
        ByteBuffer buffer = buffers.next();
        Cases.check(buffer.isReadOnly(), "a buffer that can be written");
        size += buffer.remaining();
        byBuffers.update(buffer);
      }
    }
    Cases.equal(byStream.getValue(), byBuffers.getValue(), "checksum by buffers");
    return Arrays.asList(size, byStream.getValue());
  }

  static List<Long> digest(byte[] bytes) {
    CRC32 crc = new CRC32();
    crc.update(bytes);
    return Arrays.asList((long) bytes.length, crc.getValue());
  }

  private void checkReads(Broadcast<BlobReader<ByteBuffer>> published, List<Long> expected)
      throws Exception {
    List<List<Long>> found =
        context
            .parallelize(Probe.numbers(TASKS), TASKS)
            .map(i -> digest(published.value()))
            .collect();
    Cases.equal(Collections.nCopies(TASKS, expected), found, "size and checksum in tasks");
    Cases.equal(expected, digest(published.value()), "size and checksum on the driver");
  }

  /** Publishes a file for whoever looks for pieces of it, of each MiB one: `PUBLISHED` and its bytes. */
  static void hold(JavaSparkContext context, Steps steps) throws IOException {
    byte[] content = Values.randomBytes(8 << 20, 8);
    Path file = Files.createTempFile("bigcast-publish-", "");
    try {
      Files.write(file, content);
      Broadcast<BlobReader<ByteBuffer>> published = Bigcast.publishMappable(context.sc(), file);
      for (int offset = 99; offset < content.length; offset += 1 << 20) {
        StringBuilder mark = new StringBuilder();
        for (int i = 0; i < 24; i++) {
          mark.append(String.format("%02x", content[offset + i]));
        }
        System.out.println("PUBLISHED " + mark);
      }
      steps.reach("published");
      published.destroy(true);
    } finally {
      Files.delete(file);
    }
  }

  private void file(int size) throws Exception {
    byte[] content = Values.randomBytes(size, size);
    Path file = Files.createTempFile("bigcast-publish-", "");
    try {
      Files.write(file, content);
      Broadcast<BlobReader<ByteBuffer>> published = Bigcast.publish(context.sc(), file);
      checkReads(published, digest(content));
      Cases.equal(
          Collections.nCopies(TASKS, digest(content)),
          context
              .parallelize(Probe.numbers(TASKS), TASKS)
              .map(i -> digest(published.value().bytes()))
              .collect(),
          "a copy in tasks");
      published.unpersist(true);
      checkReads(published, digest(content));
      published.destroy(true);
    } finally {
      Files.delete(file);
    }
  }

  /** What tasks keep of a broadcast that is long destroyed. */
  private static ByteBuffer kept;

  /**
   * The executors of a host share its node's memory, as long as they can reach it; or each has a copy,
   * where chunks are encrypted.
   */
  private void mapped() throws Exception {
    boolean maps = !cases.sparkEncrypts;
    int size = 20 << 20;
    byte[] content = Values.randomBytes(size, 61);
    Broadcast<BlobReader<ByteBuffer>> published =
        Bigcast.publishMappable(context.sc(), new java.io.ByteArrayInputStream(content));
    checkReads(published, digest(content));
    List<List<Long>> found =
        context
            .parallelize(Probe.numbers(TASKS), TASKS)
            .map(i -> digest(published.value().bytes()))
            .collect();
    Cases.equal(Collections.nCopies(TASKS, digest(content)), found, "bytes in tasks");
    Cases.equal(digest(content), digest(published.value().bytes()), "bytes on the driver");
    Cases.equal(maps, published.value().bytes().isMapped(), "mapped on the driver");
    onEachExecutor(() -> Cases.equal(maps, published.value().bytes().isMapped(), "mapped in tasks"));
    // One task an executor keeps a part, after which the broadcast goes.
    onEachExecutor(() -> kept = published.value().bytes().slice(size - 100, 100).slice());
    published.destroy(true);
    byte[] last = Arrays.copyOfRange(content, size - 100, size);
    onEachExecutor(
        () -> {
          System.gc();
          byte[] seen = new byte[100];
          kept.duplicate().get(seen);
          Cases.check(Arrays.equals(last, seen), "what is kept stays what it was");
        });
    Cases.equal(
        maps ? cases.executors : 0L,
        Probe.sum(Probe.onExecutors(context, cases.executors), "openMappings"),
        "mappings that are kept");
    onEachExecutor(() -> kept = null);
    Cases.eventually(
        "unmapped",
        () -> {
          onEachExecutor(System::gc);
          return Probe.sum(Probe.onExecutors(context, cases.executors), "openMappings") == 0;
        });
  }

  private interface Action extends java.io.Serializable {
    void run() throws Exception;
  }

  private void onEachExecutor(Action action) {
    int tasks = 4 * cases.executors;
    context
        .parallelize(Probe.numbers(tasks), tasks)
        .foreach(
            i -> {
              action.run();
              Thread.sleep(20); // so that one executor does not take all tasks
            });
  }

  static List<Long> digest(BlobBytes bytes) {
    CRC32 crc = new CRC32();
    for (ByteBuffer buffer : bytes.buffers()) {
      Cases.check(buffer.isReadOnly(), "a buffer that can be written");
      crc.update(buffer);
    }
    return Arrays.asList(bytes.size(), crc.getValue());
  }

  private void stream() throws Exception {
    Map<String, Long> before = Probe.here();
    byte[] content = Values.randomBytes(9 << 20, 51);
    Broadcast<BlobReader<ByteBuffer>> published =
        Bigcast.publish(context.sc(), new java.io.ByteArrayInputStream(content));
    Cases.equal(1L, Probe.delta(before, Probe.here(), Probe.OFFLOADED), "offloaded");
    checkReads(published, digest(content));
    published.destroy(true);
    Cases.eventually("blob freed", () -> Probe.live() <= Probe.live(before));
    Throwable inJob =
        LifecycleCases.thrownBy(
            () -> context.parallelize(Probe.numbers(1), 1)
                .map(i -> digest(published.value())).collect());
    Cases.check(inJob instanceof SparkException, "exception of the job: " + inJob);
    Cases.check(Cases.rootCause(inJob).getMessage().contains("destroyed"), inJob.toString());
  }

  /** Objects of the user's, from --jars, and nulls; read whole, twice, and in part. */
  private void objects() throws Exception {
    int count = 30_000;
    Iterator<Payload> payloads =
        java.util.stream.IntStream.range(0, count)
            .mapToObj(i -> i % 1000 == 7 ? null : new Payload("p" + i, Values.randomBytes(200, i)))
            .iterator();
    Broadcast<BlobReader<Payload>> published = Bigcast.publish(context.sc(), payloads);
    long expected = 0;
    for (int i = 0; i < count; i++) {
      expected = 31 * expected
          + (i % 1000 == 7 ? 5 : new Payload("p" + i, Values.randomBytes(200, i)).digest());
    }
    List<Long> found =
        context
            .parallelize(Probe.numbers(TASKS), TASKS)
            .map(i -> {
              readSome(published.value());
              return digestOf(published.value());
            })
            .collect();
    Cases.equal(Collections.nCopies(TASKS, expected), found, "digests in tasks");
    Cases.equal(expected, digestOf(published.value()), "digest on the driver");
    published.destroy(true);
  }

  private static long digestOf(BlobReader<Payload> published) throws IOException {
    long digest = 0;
    try (BlobIterator<Payload> items = published.items()) {
      while (items.hasNext()) {
        Payload each = items.next();
        digest = 31 * digest + (each == null ? 5 : each.digest());
      }
    }
    return digest;
  }

  private static void readSome(BlobReader<Payload> published) throws IOException {
    try (BlobIterator<Payload> items = published.items()) {
      for (int i = 0; i < 10; i++) {
        Cases.check(items.hasNext(), "an item");
        items.next();
      }
    }
  }

  /** What a task opened and left open holds no native memory when it has ended. */
  private void readsEndWithTasks() throws Exception {
    Broadcast<BlobReader<ByteBuffer>> published =
        Bigcast.publish(
            context.sc(), new java.io.ByteArrayInputStream(Values.randomBytes(9 << 20, 53)));
    List<Long> open =
        context
            .parallelize(Probe.numbers(TASKS), TASKS)
            .map(i -> {
              published.value().stream().read();
              published.value().buffers().next();
              boolean held = BigcastStats.nativeBufferBytes() >= Values.CHUNK;
              return held ? BigcastStats.openDownloads() : -1;
            })
            .collect();
    Cases.check(Collections.min(open) >= 2, "reads open in tasks, and native memory: " + open);
    Cases.eventually(
        "reads closed",
        () -> Probe.sum(Probe.onExecutors(context, cases.executors), "openDownloads") == 0);
    Cases.eventually(
        "native memory given back",
        () -> Probe.sum(Probe.onExecutors(context, cases.executors), "nativeBufferBytes") == 0);
    published.destroy(true);
  }

  private static final class Source extends InputStream {
    private final long size;
    private final boolean fails;
    private final byte[] pattern = Values.randomBytes(1 << 20, 57);
    private long given;

    Source(long size, boolean fails) {
      this.size = size;
      this.fails = fails;
    }

    @Override
    public int read() {
      throw new UnsupportedOperationException();
    }

    @Override
    public int read(byte[] bytes, int offset, int length) {
      if (given == size && fails) {
        throw new Values.Boom();
      }
      if (given == size) {
        return -1;
      }
      int from = (int) (given % pattern.length);
      int step = (int) Math.min(Math.min(length, pattern.length - from), size - given);
      System.arraycopy(pattern, from, bytes, offset, step);
      given += step;
      return step;
    }
  }

  /** What the user's source throws arrives unchanged, and nothing is left. */
  private void sourceFails() throws Exception {
    Map<String, Long> before = Probe.here();
    Throwable seen =
        LifecycleCases.thrownBy(
            () -> Bigcast.publish(context.sc(), new Source(10 << 20, true)));
    Cases.equal(Values.Boom.class, seen.getClass(), "exception that the user sees");
    Cases.equal(0L, Probe.delta(before, Probe.here(), Probe.OFFLOADED), "offloaded");
  }

  private void biggerThanTheNode() throws Exception {
    long size = 160L << 20;
    CRC32 crc = new CRC32();
    byte[] pattern = Values.randomBytes(1 << 20, 57);
    for (long done = 0; done < size; done += pattern.length) {
      crc.update(pattern);
    }
    Broadcast<BlobReader<ByteBuffer>> published =
        Bigcast.publish(context.sc(), new Source(size, false));
    checkReads(published, Arrays.asList(size, crc.getValue()));
    published.destroy(true);
  }

  private void fails(BigcastException.Code code, String says) {
    Throwable seen =
        LifecycleCases.thrownBy(
            () -> Bigcast.publish(context.sc(), new Source(40 << 20, false)));
    Cases.check(seen instanceof BigcastException, "exception that the user sees: " + seen);
    Cases.equal(code, ((BigcastException) seen).code(), seen.getMessage());
    Cases.check(seen.getMessage().contains(says), seen.getMessage());
  }
}
