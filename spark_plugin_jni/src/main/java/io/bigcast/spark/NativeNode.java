package io.bigcast.spark;

/** Starting a node of embedded mode; the fields are those of client_native/embedded_node.h. */
final class NativeNode {
  static final class Options {
    String applicationId = "";
    String secret = "";
    /** Numeric address to listen on; empty: Unix socket only. */
    String listenHost = "";
    int listenPort;
    /** Numeric address that other hosts reach it at; empty: listenHost. */
    String advertiseHost = "";
    /** 0: default. */
    long memoryBytes;
    String[] diskPaths = {};
    long diskBytes;
    int graceMs;
    String logFile = "";
    String traceDirectory = "";
  }

  private NativeNode() {}

  /**
   * Whether this host has a node of the application. Blocks up to 5 seconds.
   *
   * @throws BigcastException if someone else has its socket
   */
  static native boolean answers(String applicationId, String secret) throws BigcastException;

  /** Attaches to this host's node or starts one; true if it was started. Blocks up to 5 seconds. */
  static boolean ensure(String program, Options options) throws BigcastException {
    return ensure(
        program,
        options.applicationId,
        options.secret,
        options.listenHost,
        options.listenPort,
        options.advertiseHost,
        options.memoryBytes,
        options.diskPaths,
        options.diskBytes,
        options.graceMs,
        options.logFile,
        options.traceDirectory);
  }

  /** The address of this host's node of an application. */
  static native String address(String applicationId);

  /** What logins to the application's nodes prove, derived from the application's secret. */
  static native String secret(String applicationId, String secret);

  private static native boolean ensure(
      String program,
      String applicationId,
      String secret,
      String listenHost,
      int listenPort,
      String advertiseHost,
      long memoryBytes,
      String[] diskPaths,
      long diskBytes,
      int graceMs,
      String logFile,
      String traceDirectory)
      throws BigcastException;
}
