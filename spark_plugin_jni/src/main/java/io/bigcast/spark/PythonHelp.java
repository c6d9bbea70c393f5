package io.bigcast.spark;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import org.apache.spark.api.python.PythonBroadcast;

/**
 * Helps this executor's Python workers to what they can't read from a node (python/src/bigcast/
 * _spark.py asks): a file with the broadcast's bytes, which it gets from the driver by one of Spark's
 * broadcasts. On a loopback port, which is written into a file of the executor's own local directory,
 * with a token that nobody else has: a worker sends the token, a space and a blob's name in a line,
 * and gets a line "ok PATH" or "error MESSAGE". Thread-safe.
 */
final class PythonHelp implements AutoCloseable {
  private static final String FILE = "bigcast-python";
  private static final int THREADS_MAX = 16;
  private static final int LINE_MAX = 512;
  private static final int LINE_TIMEOUT_MS = 5_000;
  private static final long ASK_AGAIN_MS = 50;

  private final ServerSocket server;
  private final byte[] token;
  private final WorkerFile file;

  /** What comes while all are busy is refused. */
  private final ThreadPoolExecutor workers =
      new ThreadPoolExecutor(
          0, THREADS_MAX, 5, TimeUnit.SECONDS, new SynchronousQueue<>(),
          task -> DriverSide.daemon(task, "bigcast-python-help"));

  private PythonHelp(ServerSocket server) throws IOException {
    String secret = AppIdentity.create().secret;
    this.server = server;
    this.token = secret.getBytes(StandardCharsets.US_ASCII);
    this.file = WorkerFile.write(FILE, server.getLocalPort() + " " + secret);
  }

  /** Null, which is told, if this executor can't. */
  static PythonHelp start() {
    ServerSocket server = null;
    try {
      server = new ServerSocket(0, THREADS_MAX, InetAddress.getLoopbackAddress());
      PythonHelp help = new PythonHelp(server);
      DriverSide.daemon(help::serve, "bigcast-python-help").start();
      return help;
    } catch (IOException | UnsupportedOperationException e) {
      Warnings.LOG.info("Python workers get no help from this executor: {}", e.toString());
      close(server);
      return null;
    }
  }

  private void serve() {
    while (!server.isClosed()) {
      Socket caller = null;
      try {
        caller = server.accept();
        Socket accepted = caller;
        workers.execute(() -> answer(accepted));
      } catch (IOException | RuntimeException e) {
        Warnings.LOG.debug("a Python worker's call", e);
        close(caller);
      }
    }
  }

  private void answer(Socket caller) {
    try {
      caller.setSoTimeout(LINE_TIMEOUT_MS);
      String[] words = line(caller).split(" ");
      byte[] given = words[0].getBytes(StandardCharsets.US_ASCII);
      if (words.length == 2 && MessageDigest.isEqual(token, given)) {
        caller.getOutputStream().write((find(words[1]) + "\n").getBytes(StandardCharsets.UTF_8));
      }
    } catch (IOException | RuntimeException e) {
      Warnings.LOG.debug("a Python worker's call", e);
    } finally {
      close(caller);
    }
  }

  /** Of at most LINE_MAX characters: who calls may be anybody. */
  private static String line(Socket caller) throws IOException {
    BufferedReader in =
        new BufferedReader(
            new InputStreamReader(caller.getInputStream(), StandardCharsets.US_ASCII), LINE_MAX);
    StringBuilder line = new StringBuilder();
    for (int next = in.read(); next >= 0 && next != '\n'; next = in.read()) {
      line.append((char) next);
      if (line.length() > LINE_MAX) {
        throw new IOException("a line of more than " + LINE_MAX + " characters");
      }
    }
    return line.toString();
  }

  private static String find(String name) {
    try {
      byte[] handle =
          ExecutorSide.askUntil(
              new PythonValueRequest(name),
              answer -> answer.length == PythonValues.LATER.length,
              ASK_AGAIN_MS,
              ASK_AGAIN_MS);
      // Once an executor, whoever asks: Spark keeps it, and drops it with the broadcast.
      return "ok " + ((PythonBroadcast) Handles.of(handle).value()).path();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return "error the executor ends";
    } catch (Throwable e) {
      return "error " + String.valueOf(e.getMessage()).replace('\n', ' ');
    }
  }

  @Override
  public void close() {
    close(server);
    workers.shutdownNow();
    file.close();
  }

  private static void close(AutoCloseable what) {
    try {
      if (what != null) {
        what.close();
      }
    } catch (Exception e) {
      Warnings.LOG.debug("closing", e);
    }
  }
}
