package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.stream.Stream;

/** The process that is this host's node of an application. */
final class NodeProcess {
  private NodeProcess() {}

  /** @param name of a signal, without SIG */
  static void signal(AppIdentity app, String name) throws Exception {
    assertEquals(0, new ProcessBuilder("kill", "-" + name, pid(app)).start().waitFor());
  }

  /** Its socket is named after the application. */
  private static String pid(AppIdentity app) throws IOException {
    try (Stream<Path> processes = Files.list(Paths.get("/proc"))) {
      return processes
          .filter(each -> each.getFileName().toString().matches("\\d+"))
          .filter(each -> commandLine(each).contains("bigcast-" + app.id))
          .findFirst()
          .get()
          .getFileName()
          .toString();
    }
  }

  private static String commandLine(Path process) {
    try {
      return new String(Files.readAllBytes(process.resolve("cmdline")));
    } catch (IOException gone) {
      return "";
    }
  }
}
