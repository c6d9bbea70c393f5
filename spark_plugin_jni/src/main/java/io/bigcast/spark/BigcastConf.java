package io.bigcast.spark;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.spark.SparkConf;
import scala.Tuple2;

/**
 * All settings, {@code spark.bigcast.*}, with their defaults, ranges and meaning in one table.
 * Immutable. Only what the table names may be set; {@link #unknownKeys} lists the rest.
 */
final class BigcastConf {
  static final String PREFIX = "spark.bigcast.";
  private static final long NODE_MEMORY_DEFAULT_MAX = 1L << 30;
  private static final Pattern NAMESPACE = Pattern.compile("[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}");
  private static final String EAGER = "eager";
  private static final String LAZY = "lazy";
  private static final String DISK = "disk";

  enum Type {
    BOOLEAN("flag"),
    BYTES("size"),
    MILLISECONDS("time"),
    INTEGER("number"),
    CHOICE("choice"),
    TEXT("text");

    final String text;

    Type(String text) {
      this.text = text;
    }
  }

  /** One setting. {@code min} and {@code max} are in the type's unit, and unused for text. */
  enum Key {
    ENABLED("enabled", Type.BOOLEAN, "true", 0, 1, "false: all broadcasts stay with Spark"),
    DRY_RUN(
        "dryRun",
        Type.BOOLEAN,
        "false",
        0,
        1,
        "true: all broadcasts stay with Spark, and the log tells what would have gone to Bigcast (whose"
            + " size is not known beforehand is serialised once more for that)"),
    FAIL_ON_ERROR(
        "failOnError",
        Type.BOOLEAN,
        "false",
        0,
        1,
        "true: an unknown setting, a wrong value (what a file or directory is like on the driver's host"
            + " is part of it) or a native library that does not load ends the application at its start;"
            + " false: it is a warning, and but for unknown settings all broadcasts stay with Spark"),
    MIN_SIZE(
        "minSize",
        Type.BYTES,
        "1m",
        0,
        Long.MAX_VALUE,
        "serialised broadcasts of at least this size go to Bigcast; 0: all. Where only serialising tells"
            + " the size, so do those above 64m"),
    CHUNK_SIZE(
        "chunkSize",
        Type.BYTES,
        "2m",
        64 << 10,
        16 << 20,
        "unit of transfer: larger ones take less CPU, smaller ones spread over many hosts sooner"),
    COMPRESS("compress", Type.BOOLEAN, "true", 0, 1, "LZ4 for chunks that shrink by it"),
    PREFETCH(
        "prefetch",
        Type.CHOICE,
        EAGER,
        0,
        0,
        "eager: executors' hosts fetch a large broadcast while it is written, and nodes start with the"
            + " application; lazy: both at the first use",
        EAGER,
        LAZY),
    PREFETCH_MIN_SIZE(
        "prefetchMinSize",
        Type.BYTES,
        "16m",
        1,
        Long.MAX_VALUE,
        "broadcasts of at least this size are fetched eagerly"),
    KEEP_VALUE(
        "driver.keepValue",
        Type.CHOICE,
        "auto",
        0,
        0,
        "whether the driver keeps the live value, which is what a lost blob is replaced from; auto: of"
            + " what the application broadcasts, and of what Spark does (SQL relations) until memory"
            + " is short",
        "auto",
        "always",
        "never"),
    LOCAL_READS(
        "localReads",
        Type.BOOLEAN,
        "true",
        0,
        1,
        "read the local node's memory through descriptors; false: through its socket"),
    PROGRESS_TIMEOUT(
        "progressTimeout",
        Type.MILLISECONDS,
        "30s",
        1_000,
        3_600_000,
        "a transfer that moves no byte for this long fails"),
    LEASE_GRACE(
        "lease.grace",
        Type.MILLISECONDS,
        "",
        1_000,
        86_400_000,
        "embedded: how long blobs outlive a silent application; default: the larger of 120s and"
            + " spark.network.timeout"),
    NATIVE_DIR(
        "native.dir",
        Type.TEXT,
        "",
        0,
        0,
        "where the native library is unpacked: not mounted noexec, this user's or root's, and written to"
            + " by others only if it is sticky; default: java.io.tmpdir"),
    BIND_ADDRESS(
        "bindAddress",
        Type.TEXT,
        "",
        0,
        0,
        "embedded: where the driver's node listens; default: spark.driver.bindAddress, then"
            + " spark.driver.host"),
    ADVERTISE(
        "advertise",
        Type.TEXT,
        "",
        0,
        0,
        "embedded: the address executors reach the driver's node at; default: bindAddress if it is"
            + " set and no wildcard, else spark.driver.host"),
    PORT("port", Type.INTEGER, "0", 0, 65_535, "embedded: the driver's node's port; 0: any"),
    NODE_MEMORY(
        "node.memory",
        Type.BYTES,
        "",
        16 << 20,
        1L << 40,
        "embedded: a node's memory budget; default: min(1g, 5 % of RAM, half of what the cgroup"
            + " has free), at least 64m"),
    NODE_DISK(
        "node.disk",
        Type.TEXT,
        "",
        0,
        0,
        "embedded: directory for what memory does not hold; of several, separated by commas, the"
            + " first that is there and can be written to; 'none': no disk; default: Spark's local directories"),
    NODE_DISK_SIZE(
        "node.diskSize",
        Type.BYTES,
        "",
        1 << 20,
        1L << 50,
        "embedded: a node's disk budget; default: half of what is free"),
    NODE_LOG("node.log", Type.TEXT, "", 0, 0, "embedded: the nodes' log file; default: none"),
    NODE_RECORD_TRACE(
        "node.recordTrace",
        Type.TEXT,
        "",
        0,
        0,
        "embedded: a directory on each host, where each node writes a file of what readers open, read and"
            + " release, for policy_sim to replay; default: none"),
    SERVERS(
        "servers",
        Type.TEXT,
        "",
        0,
        0,
        "host:port of running nodes, separated by commas: shared mode; default: embedded mode"),
    HOMES(
        "homes",
        Type.INTEGER,
        "1",
        1,
        16,
        "shared: spread each broadcast over so many of the servers, the first that answer"),
    REPLICAS(
        "replicas",
        Type.INTEGER,
        "1",
        1,
        4,
        "shared: keep each broadcast at so many of the servers; not with homes above 1"),
    DURABILITY(
        "durability",
        Type.CHOICE,
        "memory",
        0,
        0,
        "shared: what a broadcast survives; memory: nothing that ends its home; disk: its homes'"
            + " restarts, being on their disks before the driver goes on, and readers wait for a home"
            + " to come back",
        "memory",
        DISK),
    SECRET_FILE(
        "secret.file",
        Type.TEXT,
        "",
        0,
        0,
        "shared: file with the namespace's key (bigcast key NAMESPACE) or the nodes' secret, on every"
            + " host, readable by its owner only"),
    NAMESPACE("namespace", Type.TEXT, "spark", 0, 0, "the namespace blobs are in"),
    SOCKET(
        "socket",
        Type.TEXT,
        "",
        0,
        0,
        "shared: socket of this host's node, a path from the root or @name; default: none");

    final String key;
    final String defaultValue;
    final String doc;
    final Type type;
    final long min;
    final long max;
    final List<String> choices;

    Key(
        String name,
        Type type,
        String defaultValue,
        long min,
        long max,
        String doc,
        String... choices) {
      this.key = PREFIX + name;
      this.type = type;
      this.defaultValue = defaultValue;
      this.min = min;
      this.max = max;
      this.doc = doc;
      this.choices = Arrays.asList(choices);
    }
  }

  /** Any of these promises that what the application sends or stores can't be read by others. */
  private static final String[] SPARK_ENCRYPTION_KEYS = {
    "spark.io.encryption.enabled",
    "spark.network.crypto.enabled",
    "spark.authenticate.enableSaslEncryption",
    "spark.ssl.rpc.enabled"
  };

  private final Map<Key, String> texts;
  private final boolean encrypts;

  private BigcastConf(Map<Key, String> texts, boolean sparkEncrypts) {
    this.texts = texts;
    this.encrypts = sparkEncrypts || shared();
  }

  /**
   * Reads and checks every setting.
   *
   * @throws IllegalArgumentException with one line that names the wrong setting
   */
  static BigcastConf from(SparkConf conf) {
    Map<Key, String> texts = new TreeMap<>();
    for (Key key : Key.values()) {
      texts.put(key, conf.get(key.key, key.defaultValue).trim());
    }
    texts.computeIfPresent(
        Key.LEASE_GRACE, (key, text) -> text.isEmpty() ? defaultGraceMs(conf) + "ms" : text);
    boolean sparkEncrypts =
        Arrays.stream(SPARK_ENCRYPTION_KEYS).anyMatch(key -> conf.getBoolean(key, false));
    BigcastConf result = new BigcastConf(texts, sparkEncrypts);
    for (Key key : Key.values()) {
      result.check(key);
    }
    result.checkAddresses();
    if (!NAMESPACE.matcher(result.text(Key.NAMESPACE)).matches()) {
      throw new IllegalArgumentException(
          Key.NAMESPACE.key + " must be 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-', the first no"
              + " '.', not '" + result.text(Key.NAMESPACE) + "'");
    }
    if (result.shared() && result.text(Key.SECRET_FILE).isEmpty()) {
      throw new IllegalArgumentException(Key.SECRET_FILE.key + " must be set beside " + Key.SERVERS.key);
    }
    result.checkServers(Key.HOMES);
    result.checkServers(Key.REPLICAS);
    if (result.number(Key.HOMES) > 1 && result.number(Key.REPLICAS) > 1) {
      throw new IllegalArgumentException(
          Key.REPLICAS.key + " must be 1 beside " + Key.HOMES.key + ", not '"
              + result.text(Key.REPLICAS) + "'");
    }
    if (result.durable() && !result.shared()) { // nodes of the application's own keep nothing
      throw new IllegalArgumentException(
          Key.DURABILITY.key + " must be memory without " + Key.SERVERS.key + ", not '"
              + result.text(Key.DURABILITY) + "'");
    }
    return result;
  }

  private void checkAddresses() {
    boolean isList = list(Key.SERVERS).stream().allMatch(AddressSyntax::isServer);
    checkText(Key.SERVERS, isList && shared(), "a list of host:port");
    String bind = text(Key.BIND_ADDRESS);
    checkText(Key.BIND_ADDRESS, AddressSyntax.isHost(bind), "a host's name or address");
    String advertise = text(Key.ADVERTISE);
    checkText(
        Key.ADVERTISE,
        AddressSyntax.isHost(advertise) && !AddressSyntax.isWildcard(advertise),
        "a host's name or address, by which others reach it");
    checkText(
        Key.SOCKET, AddressSyntax.isUnixSocket(socketName()), "a path from the root, or @name");
  }

  /** What is not set is right. */
  private void checkText(Key key, boolean isGood, String what) {
    if (!isGood && !text(key).isEmpty()) {
      throw new IllegalArgumentException(key.key + " must be " + what + ", not '" + text(key) + "'");
    }
  }

  private void checkServers(Key key) {
    int max = Math.max(1, list(Key.SERVERS).size());
    if (number(key) > max) {
      throw new IllegalArgumentException(
          key.key + " must be from 1 to " + max + ", as many as " + Key.SERVERS.key
              + " names, not '" + text(key) + "'");
    }
  }

  /** Keys under our prefix that mean nothing, sorted: most likely misspelt. */
  static List<String> unknownKeys(SparkConf conf) {
    List<String> known = Arrays.stream(Key.values()).map(k -> k.key).collect(Collectors.toList());
    return Arrays.stream(conf.getAll())
        .map(Tuple2::_1)
        .filter(key -> key.startsWith(PREFIX) && !known.contains(key))
        .sorted()
        .collect(Collectors.toList());
  }

  boolean flag(Key key) {
    return Boolean.parseBoolean(texts.get(key));
  }

  /** Bytes, milliseconds or a plain number, by the key's type; 0 where the default is "decide". */
  long number(Key key) {
    String text = texts.get(key);
    return text.isEmpty() ? 0 : parse(key, text);
  }

  String text(Key key) {
    return texts.get(key);
  }

  /** Of this host's node in shared mode: a path, or @name; empty if it is not set. */
  String socketName() {
    return text(Key.SOCKET).replaceFirst("^unix:", "");
  }

  List<String> list(Key key) {
    String text = texts.get(key);
    if (text.isEmpty()) {
      return Collections.emptyList();
    }
    return Arrays.stream(text.split(","))
        .map(String::trim)
        .filter(part -> !part.isEmpty())
        .collect(Collectors.toList());
  }

  /** Whether embedded nodes are to have memory only. */
  boolean usesNoDisk() {
    List<String> set = list(Key.NODE_DISK);
    return set.size() == 1 && set.get(0).equalsIgnoreCase("none");
  }

  /** Whether executors' hosts fetch before they are asked. */
  boolean prefetches() {
    return text(Key.PREFETCH).equals(EAGER);
  }

  /**
   * Whether chunks are encrypted from the driver to the executors: where nodes are not the
   * application's own, and where Spark itself encrypts.
   */
  boolean encrypts() {
    return encrypts;
  }

  /** Whether the nodes of hosts can be expected to have a blob mapped, as far as the driver knows. */
  boolean maps(long bytes) {
    long memory = number(Key.NODE_MEMORY);
    return !encrypts() && flag(Key.LOCAL_READS)
        && bytes <= (memory > 0 ? memory : NODE_MEMORY_DEFAULT_MAX) / 2;
  }

  /** Whether homes keep broadcasts on their disks, beyond their own ends. */
  boolean durable() {
    return text(Key.DURABILITY).equals(DISK);
  }

  /** True: use the nodes of spark.bigcast.servers; false: start nodes of our own. */
  boolean shared() {
    return !list(Key.SERVERS).isEmpty();
  }

  /**
   * How the driver holds a value.
   *
   * @param serializedOnly Spark does not ask for more than the serialised form
   */
  BigcastBroadcast.Keep keep(boolean serializedOnly) {
    switch (text(Key.KEEP_VALUE)) {
      case "always":
        return BigcastBroadcast.Keep.STRONGLY;
      case "never":
        return BigcastBroadcast.Keep.WEAKLY;
      default:
        return serializedOnly ? BigcastBroadcast.Keep.SOFTLY : BigcastBroadcast.Keep.STRONGLY;
    }
  }

  private void check(Key key) {
    String text = texts.get(key);
    if (key.type == Type.BOOLEAN) {
      if (!text.equalsIgnoreCase("true") && !text.equalsIgnoreCase("false")) {
        throw new IllegalArgumentException(key.key + " must be true or false, not '" + text + "'");
      }
    } else if (key.type == Type.CHOICE) {
      if (!key.choices.contains(text)) {
        throw new IllegalArgumentException(
            key.key + " must be one of " + String.join(", ", key.choices) + ", not '" + text + "'");
      }
    } else if (key.type != Type.TEXT && !text.isEmpty()) {
      long value = parse(key, text);
      if (value < key.min || value > key.max) {
        throw new IllegalArgumentException(
            key.key + " must be from " + key.min + " to " + key.max + ", not '" + text + "'");
      }
    }
  }

  private static long parse(Key key, String text) {
    try {
      SparkConf one = new SparkConf(false).set("v", text);
      switch (key.type) {
        case BYTES:
          return one.getSizeAsBytes("v");
        case MILLISECONDS:
          return one.getTimeAsMs("v");
        default:
          return Long.parseLong(text);
      }
    } catch (RuntimeException e) {
      String example = key.type == Type.BYTES ? "a size like 64m" : "a time like 30s";
      throw new IllegalArgumentException(
          key.key + " must be " + (key.type == Type.INTEGER ? "a number" : example) + ", not '" + text + "'");
    }
  }

  private static long defaultGraceMs(SparkConf conf) {
    return Math.max(120_000, conf.getTimeAsSeconds("spark.network.timeout", "120s") * 1000);
  }

  /** Readable even where other settings are wrong. */
  static boolean failsOnError(SparkConf conf) {
    return Boolean.parseBoolean(conf.get(Key.FAIL_ON_ERROR.key, "").trim());
  }
}
