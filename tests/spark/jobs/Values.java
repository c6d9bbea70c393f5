package io.bigcast.sparktest;

import com.esotericsoftware.kryo.Kryo;
import com.esotericsoftware.kryo.KryoSerializable;
import com.esotericsoftware.kryo.io.Input;
import com.esotericsoftware.kryo.io.Output;
import java.io.Externalizable;
import java.io.IOException;
import java.io.ObjectInput;
import java.io.ObjectInputStream;
import java.io.ObjectOutput;
import java.io.ObjectOutputStream;
import java.io.Serializable;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import org.apache.spark.SparkEnv;

/** The values that cases broadcast. All are the same in every run. */
final class Values {
  static final int CHUNK = 2 << 20;

  private Values() {}

  static byte[] randomBytes(int size, long seed) {
    byte[] bytes = new byte[size];
    new Random(seed).nextBytes(bytes);
    return bytes;
  }

  /** `keys` arrays, together about `keys * 400` bytes. */
  static HashMap<Integer, int[]> intArrays(int keys) {
    Random random = new Random(7);
    HashMap<Integer, int[]> map = new HashMap<>();
    for (int key = 0; key < keys; key++) {
      map.put(key, random.ints(50 + key % 100).toArray());
    }
    return map;
  }

  static long digest(Map<Integer, int[]> map) {
    long sum = 0;
    for (Map.Entry<Integer, int[]> each : map.entrySet()) {
      sum += 31L * each.getKey() + Arrays.hashCode(each.getValue());
    }
    return sum;
  }

  /** Not compressible beyond a factor of two; lengths differ; not only ASCII. */
  static HashMap<String, String> strings(int count) {
    Random random = new Random(11);
    HashMap<String, String> map = new HashMap<>();
    for (int i = 0; i < count; i++) {
      map.put("key-" + i, Long.toHexString(random.nextLong()) + (i % 7 == 0 ? "žluťoučký €" : ""));
    }
    return map;
  }

  /** `megabytes` of random 64 KiB arrays. */
  static ArrayList<byte[]> pieces(int megabytes) {
    ArrayList<byte[]> list = new ArrayList<>();
    for (int i = 0; i < megabytes * 16; i++) {
      list.add(randomBytes(64 << 10, i));
    }
    return list;
  }

  static long digest(List<byte[]> pieces) {
    long sum = 1;
    for (byte[] piece : pieces) {
      sum = 31 * sum + Arrays.hashCode(piece);
    }
    return sum;
  }

  /** Cycles, shared references, a null, a transient field. */
  static final class Node implements Serializable {
    private static final long serialVersionUID = 1;
    String name;
    Node parent;
    List<Node> children = new ArrayList<>();
    Node absent;
    String padding;
    transient String scratch;

    Node() {}

    Node(String name, Node parent) {
      this.name = name;
      this.parent = parent;
      this.scratch = "not sent";
    }

    static Node tree(int width) {
      Node root = new Node("root", null);
      root.parent = root;
      for (int i = 0; i < width; i++) {
        Node child = new Node("child-" + i, root);
        child.children.add(new Node("leaf-" + i, child));
        child.padding = Long.toHexString(i * 0x9E3779B97F4A7C15L).repeat(4);
        root.children.add(child);
      }
      root.children.add(root.children.get(0));
      return root;
    }

    /** True if the structure is that of `tree(width)` with identities kept and scratch lost. */
    boolean isTree(int width) {
      boolean good = parent == this && absent == null && scratch == null;
      good &= children.size() == width + 1 && children.get(width) == children.get(0);
      for (int i = 0; i < width && good; i++) {
        Node child = children.get(i);
        Node leaf = child.children.get(0);
        good = child.parent == this && leaf.parent == child && leaf.name.equals("leaf-" + i);
      }
      return good;
    }
  }

  /** Counts, in each JVM, how often it was deserialised, by either serializer. */
  static final class Counted implements Serializable, KryoSerializable {
    private static final long serialVersionUID = 1;
    static final AtomicInteger READS = new AtomicInteger();
    byte[] payload;

    Counted() {}

    Counted(int size) {
      payload = randomBytes(size, 3);
    }

    private void readObject(ObjectInputStream in) throws IOException, ClassNotFoundException {
      in.defaultReadObject();
      READS.incrementAndGet();
    }

    @Override
    public void write(Kryo kryo, Output output) {
      output.writeInt(payload.length);
      output.writeBytes(payload);
    }

    @Override
    public void read(Kryo kryo, Input input) {
      payload = input.readBytes(input.readInt());
      READS.incrementAndGet();
    }
  }

  /**
   * Pieces behind a gate: in an executor, reading it leaves a file `reading-N` in the folder, N being
   * the executor's id, and goes on to the pieces when there is a file `go`. No folder, no gate.
   */
  static final class Gated implements Serializable, KryoSerializable {
    private static final long serialVersionUID = 1;
    private static final int DEADLINE_S = 120;
    transient String folder;
    transient ArrayList<byte[]> pieces;

    Gated(String folder, ArrayList<byte[]> pieces) {
      this.folder = folder;
      this.pieces = pieces;
    }

    private void writeObject(ObjectOutputStream out) throws IOException {
      out.writeUTF(folder);
      out.writeObject(pieces);
    }

    @SuppressWarnings("unchecked")
    private void readObject(ObjectInputStream in) throws IOException, ClassNotFoundException {
      folder = in.readUTF();
      pass();
      pieces = (ArrayList<byte[]>) in.readObject();
    }

    @Override
    public void write(Kryo kryo, Output out) {
      out.writeString(folder);
      kryo.writeObject(out, pieces);
    }

    @Override
    @SuppressWarnings("unchecked")
    public void read(Kryo kryo, Input in) {
      folder = in.readString();
      try {
        pass();
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
      pieces = kryo.readObject(in, ArrayList.class);
    }

    private void pass() throws IOException {
      if (!folder.isEmpty()) {
        // It may be there: a read that fails half-way begins again.
        Files.write(Path.of(folder, "reading-" + SparkEnv.get().executorId()), new byte[0]);
        waitFor(Path.of(folder, "go"));
      }
    }

    private static void waitFor(Path file) throws IOException {
      long deadline = System.nanoTime() + DEADLINE_S * 1_000_000_000L;
      while (!Files.exists(file)) {
        if (System.nanoTime() > deadline) {
          throw new IOException("no " + file + " after " + DEADLINE_S + " s");
        }
        LockSupport.parkNanos(20_000_000);
      }
    }
  }

  /** Calls `atHalf` between its halves when it is written for the first time. */
  static final class Halting implements Serializable {
    private static final long serialVersionUID = 1;
    static Cases.Body atHalf;
    private transient ArrayList<byte[]> first;
    private transient ArrayList<byte[]> second;

    Halting(ArrayList<byte[]> first, ArrayList<byte[]> second) {
      this.first = first;
      this.second = second;
    }

    long digest() {
      return 31 * Values.digest(first) + Values.digest(second);
    }

    private void writeObject(ObjectOutputStream out) throws IOException {
      out.writeObject(first);
      out.flush();
      Cases.Body body = atHalf;
      atHalf = null;
      if (body != null) {
        try {
          body.run();
        } catch (Throwable e) {
          throw new IOException(e);
        }
      }
      out.writeObject(second);
    }

    @SuppressWarnings("unchecked")
    private void readObject(ObjectInputStream in) throws IOException, ClassNotFoundException {
      first = (ArrayList<byte[]>) in.readObject();
      second = (ArrayList<byte[]>) in.readObject();
    }
  }

  /** Counts how often it is serialised, by either serializer. */
  public static final class Written implements Externalizable, KryoSerializable {
    private static final long serialVersionUID = 1;
    static final AtomicInteger WRITES = new AtomicInteger();
    byte[] payload;

    public Written() {}

    Written(int size) {
      payload = randomBytes(size, 13);
    }

    @Override
    public void writeExternal(ObjectOutput out) throws IOException {
      WRITES.incrementAndGet();
      out.writeInt(payload.length);
      out.write(payload);
    }

    @Override
    public void readExternal(ObjectInput in) throws IOException {
      payload = new byte[in.readInt()];
      in.readFully(payload);
    }

    @Override
    public void write(Kryo kryo, Output output) {
      WRITES.incrementAndGet();
      output.writeInt(payload.length);
      output.writeBytes(payload);
    }

    @Override
    public void read(Kryo kryo, Input input) {
      payload = input.readBytes(input.readInt());
    }
  }

  static final class Boom extends RuntimeException {
    private static final long serialVersionUID = 1;

    Boom() {
      super("the user's own serialiser failed");
    }
  }

  /** Fails in the writer after `size` bytes went out, so that an upload is under way. */
  static final class FailsToWrite implements Serializable, KryoSerializable {
    private static final long serialVersionUID = 1;
    final transient int size;
    final transient boolean notSerializable;

    FailsToWrite(int size, boolean notSerializable) {
      this.size = size;
      this.notSerializable = notSerializable;
    }

    private void writeObject(ObjectOutputStream out) throws IOException {
      for (int written = 0; written < size; written += 64 << 10) {
        out.write(randomBytes(64 << 10, written));
      }
      if (notSerializable) {
        out.writeObject(new Object());
      }
      throw new Boom();
    }

    @Override
    public void write(Kryo kryo, Output output) {
      for (int written = 0; written < size; written += 64 << 10) {
        output.writeBytes(randomBytes(64 << 10, written));
      }
      throw new Boom();
    }

    @Override
    public void read(Kryo kryo, Input input) {
      throw new UnsupportedOperationException();
    }
  }

  /** Fails in every reader. */
  static final class FailsToRead implements Serializable, KryoSerializable {
    private static final long serialVersionUID = 1;
    byte[] payload;

    FailsToRead() {}

    FailsToRead(int size) {
      payload = randomBytes(size, 5);
    }

    private void readObject(ObjectInputStream in) throws IOException, ClassNotFoundException {
      in.defaultReadObject();
      throw new Boom();
    }

    @Override
    public void write(Kryo kryo, Output output) {
      output.writeInt(payload.length);
      output.writeBytes(payload);
    }

    @Override
    public void read(Kryo kryo, Input input) {
      throw new Boom();
    }
  }
}
