package io.bigcast.spark;

/** A connection to Bigcast. Thread-safe; every call ends by a deadline on progress. */
final class NativeClient extends NativeHandle {
  /** What a connection needs; the fields are those of ClientOptions in client_native/client.h. */
  static final class Options {
    String[] servers = {};
    String localNode = "";
    /** 32 hexadecimal digits; also the lease. */
    String applicationId;
    /** The application's; what nodes and readers know is derived from it. */
    String secret;
    /** The file that holds the secret of nodes that are not the application's own, or empty. */
    String secretFile = "";
    String namespace = "";
    String name = "";
    boolean encrypts;
    boolean localReads = true;
    int progressTimeoutMs;
  }

  private final long connectedAtNanos = System.nanoTime();

  private NativeClient(long pointer) {
    super(pointer);
  }

  /** Throws why this file can't be used to log in to this namespace, as far as it shows. */
  static native void checkSecret(String secretFile, String namespace) throws BigcastException;

  /** The native library must be loaded. */
  static NativeClient connect(Options options) throws BigcastException {
    return new NativeClient(
        connect(
            options.servers,
            options.localNode,
            options.applicationId,
            options.secret,
            options.secretFile,
            options.namespace,
            options.name,
            options.encrypts,
            options.localReads,
            options.progressTimeoutMs));
  }

  /**
   * @param homes servers that it is spread over
   * @param replicas servers that have each chunk; one of both is 1
   * @param announceFrom bytes from which on hosts that follow the home fetch it; 0: never
   * @param mappable not compressed; needs one home; means nothing where chunks are encrypted
   * @param durable each home keeps it on its disk, beyond its own end
   */
  NativeUpload upload(
      String name,
      int chunkSize,
      boolean compress,
      int homes,
      int replicas,
      long announceFrom,
      boolean mappable,
      boolean durable)
      throws BigcastException {
    return new NativeUpload(
        upload(
            share(), name, chunkSize, compress, homes, replicas, announceFrom, mappable, durable));
  }

  /** Has this host's node fetch what is announced at a home, "host:port", until the client ends. */
  void followHome(String home) throws BigcastException {
    followHome(share(), home);
  }

  NativeDownload download(byte[] ref) throws BigcastException {
    return new NativeDownload(this, download(share(), ref));
  }

  /**
   * Waits until the blob is sealed and all of it is in the memory of this host's node.
   *
   * @throws BigcastException NOT_MAPPABLE: read a download instead
   */
  NativeMapping map(byte[] ref) throws BigcastException {
    return new NativeMapping(map(share(), ref));
  }

  /** As {@link #map}, as a file. */
  NativeFile lend(byte[] ref) throws BigcastException {
    return new NativeFile(lend(share(), ref));
  }

  void remove(byte[] ref) throws BigcastException {
    remove(share(), ref);
  }

  void dropCopies(byte[] ref) throws BigcastException {
    dropCopies(share(), ref);
  }

  /** What a node says of itself. */
  static final class Node {
    /** New at each start. */
    final String epoch;

    /** Where others reach it: "host:port", or empty. */
    final String advertised;

    Node(String[] epochAndAdvertised) {
      epoch = epochAndAdvertised[0];
      advertised = epochAndAdvertised[1];
    }

    /** Shared nodes are those of the settings, whatever they advertise. */
    void checkIsReachable(BigcastConf conf) throws BigcastException {
      if (!conf.shared() && advertised.isEmpty()) {
        throw new BigcastException(
            BigcastException.Code.UNAVAILABLE,
            "the node on the driver's host serves this host only");
      }
    }
  }

  /** The first server that answers, which is also the local node in embedded mode. */
  Node node() throws BigcastException {
    return new Node(node(share()));
  }

  /** By System.nanoTime(). */
  long connectedAtNanos() {
    return connectedAtNanos;
  }

  @Override
  void free(long pointer) {
    destroy(pointer);
  }

  /**
   * A reference of its own to the native client, which the native call takes over: so calls run side
   * by side, and closing while one runs is harmless.
   */
  private long share() throws BigcastException {
    return use(NativeClient::share);
  }

  private static native long connect(
      String[] servers,
      String localNode,
      String applicationId,
      String secret,
      String secretFile,
      String namespace,
      String name,
      boolean encrypts,
      boolean localReads,
      int progressTimeoutMs)
      throws BigcastException;

  private static native long share(long client);

  private static native long upload(
      long client,
      String name,
      int chunkSize,
      boolean compress,
      int homes,
      int replicas,
      long announceFrom,
      boolean mappable,
      boolean durable)
      throws BigcastException;

  private static native void followHome(long client, String home) throws BigcastException;

  private static native long download(long client, byte[] ref) throws BigcastException;

  private static native long map(long client, byte[] ref) throws BigcastException;

  private static native long lend(long client, byte[] ref) throws BigcastException;

  private static native void remove(long client, byte[] ref) throws BigcastException;

  private static native void dropCopies(long client, byte[] ref) throws BigcastException;

  private static native String[] node(long client) throws BigcastException;

  private static native void destroy(long client);
}
