package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.spark.SparkConf;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Where the native code is unpacked others may write, or be its owner. */
class NativeLibraryTest {
  private static final byte[] PLANTED = "#!/bin/sh\necho planted\n".getBytes();

  @TempDir Path folder;

  private BigcastConf conf() {
    return in(folder);
  }

  private static BigcastConf in(Path folder) {
    return BigcastConf.from(
        new SparkConf(false).set("spark.bigcast.native.dir", folder.toString()));
  }

  private static Set<String> names(Path folder) throws IOException {
    try (Stream<Path> all = Files.list(folder)) {
      return all.map(each -> each.getFileName().toString())
          .collect(Collectors.toCollection(TreeSet::new));
    }
  }

  @Test
  void whatOthersPlantedIsNeitherUsedNorTouched() throws Exception {
    Path victim = Files.write(folder.resolve("victim"), PLANTED);
    for (String name : new String[] {"libbigcast_jni.so", "unfinished", "bigcast-native-1"}) {
      Files.createSymbolicLink(folder.resolve(name), victim);
    }
    Files.write(folder.resolve("bigcastd"), PLANTED);
    Set<String> before = names(folder);
    String used =
        NativeLibrary.withNodeProgram(
            conf(),
            path -> {
              check(Paths.get(path));
              return path;
            });
    assertFalse(Files.exists(Paths.get(used), LinkOption.NOFOLLOW_LINKS), "it stayed");
    assertEquals(before, names(folder), "something was left or taken away");
    assertArrayEquals(PLANTED, Files.readAllBytes(victim));
    assertArrayEquals(PLANTED, Files.readAllBytes(folder.resolve("bigcastd")));
  }

  /** A file of our own, in a directory of its own that nobody else can enter. */
  private void check(Path program) {
    try {
      Path own = program.getParent();
      assertEquals(folder, own.getParent());
      assertTrue(Files.isRegularFile(program, LinkOption.NOFOLLOW_LINKS));
      for (Path each : new Path[] {own, program}) {
        assertEquals(
            "rwx------",
            PosixFilePermissions.toString(
                Files.getPosixFilePermissions(each, LinkOption.NOFOLLOW_LINKS)));
      }
      byte[] head = Files.readAllBytes(program);
      assertEquals("ELF", new String(head, 1, 3));
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  /** A JVM that loads the library, as an executor does; what it says. */
  private static String load(Path folder) throws Exception {
    Process process =
        new ProcessBuilder(
                System.getProperty("java.home") + "/bin/java",
                "-cp",
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                LoadingJvm.class.getName(),
                folder.toString())
            .redirectErrorStream(true)
            .start();
    process.getOutputStream().close();
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    byte[] buffer = new byte[4096];
    for (int n = process.getInputStream().read(buffer); n > 0; n = process.getInputStream().read(buffer)) {
      out.write(buffer, 0, n);
    }
    process.waitFor();
    return out.toString();
  }

  /** Prints what {@code NativeLibrary.load} came to, and which files of that name are mapped then. */
  static final class LoadingJvm {
    public static void main(String[] arguments) throws IOException {
      try {
        NativeLibrary.load(
            BigcastConf.from(new SparkConf(false).set("spark.bigcast.native.dir", arguments[0])));
        System.out.println("LOADED version " + NativeLibrary.version());
      } catch (BigcastException e) {
        System.out.println("REFUSED " + e.getMessage());
      }
      try (Stream<String> maps = Files.lines(Paths.get("/proc/self/maps"))) {
        maps.filter(line -> line.contains("bigcast_jni") && line.contains("r-xp"))
            .forEach(line -> System.out.println("MAPPED " + line.substring(line.indexOf('/'))));
      }
    }
  }

  @Test
  void loadUsesNothingThatWasPlanted() throws Exception {
    Path victim = Files.write(folder.resolve("victim"), PLANTED);
    Files.write(folder.resolve("libbigcast_jni.so"), PLANTED);
    Files.createSymbolicLink(folder.resolve("unfinished"), victim);
    Files.createSymbolicLink(folder.resolve("bigcast-native-1"), folder);
    Files.setAttribute(folder, "unix:mode", 01777);
    Set<String> before = names(folder);
    String said = load(folder);
    assertTrue(
        Pattern.compile(
                "LOADED version \\S+\nMAPPED " + folder
                    + "/bigcast-native-\\d+/[0-9a-f]{16}-libbigcast_jni\\.so \\(deleted\\)\n")
            .matcher(said)
            .find(),
        said);
    assertEquals(before, names(folder), "something was left or taken away");
    assertArrayEquals(PLANTED, Files.readAllBytes(victim));
  }

  @Test
  void loadRefusesAPlaceWhereOthersCanExchangeIt() throws Exception {
    Path open = Files.createDirectory(folder.resolve("open"));
    Path inside = Files.createDirectory(open.resolve("inside"));
    Path link = Files.createSymbolicLink(folder.resolve("link"), open);
    List<Path> wrong = new ArrayList<>(Arrays.asList(open, link, inside));
    Files.setAttribute(open, "unix:mode", 0777);
    Path shared = Files.createDirectory(folder.resolve("shared"));
    Files.setAttribute(shared, "unix:mode", 0770);
    wrong.add(shared);
    if ((Integer) Files.getAttribute(folder, "unix:uid") == 0) {
      Path foreign = Files.createDirectory(folder.resolve("foreign"));
      Files.setAttribute(foreign, "unix:mode", 01755);
      Files.setAttribute(foreign, "unix:uid", 65534);
      wrong.add(foreign);
    }
    for (Path each : wrong) {
      BigcastException e =
          assertThrows(
              BigcastException.class,
              () -> NativeLibrary.withNodeProgram(in(each), path -> path),
              each.toString());
      assertEquals(BigcastException.Code.IO, e.code());
      assertTrue(e.getMessage().contains("spark.bigcast.native.dir"), e.getMessage());
      assertEquals(
          each.equals(open) || each.equals(link) ? "[inside]" : "[]", names(each).toString());
    }
    String said = load(link);
    assertTrue(said.contains("REFUSED IO: can't unpack libbigcast_jni.so below " + link), said);
    assertTrue(said.contains("others can rename"), said);
    assertFalse(said.contains("MAPPED"), said);
    Files.setAttribute(open, "unix:mode", 01777);
    NativeLibrary.withNodeProgram(in(inside), path -> path);
  }

  @Test
  void whatWasAlteredAfterItWasUnpackedIsRefused() throws Exception {
    byte[] bytes = new byte[100_000];
    byte[] digest = MessageDigest.getInstance("SHA-256").digest(bytes);
    Path file = folder.resolve("unpacked");
    Files.write(file, bytes);
    NativeLibrary.checkUnchanged(file, digest);
    byte[] altered = bytes.clone();
    altered[77_777] ^= 1;
    for (byte[] wrong :
        new byte[][] {altered, Arrays.copyOf(bytes, 99_999), Arrays.copyOf(bytes, 100_001), {}}) {
      Files.write(file, wrong);
      IOException e =
          assertThrows(IOException.class, () -> NativeLibrary.checkUnchanged(file, digest));
      assertTrue(e.getMessage().contains("is not what was written"), e.getMessage());
      assertFalse(Files.exists(file), "it stayed");
    }
  }

  @Test
  void afterAFailureNothingIsLeft() throws IOException {
    BigcastException failure = new BigcastException(BigcastException.Code.INTERNAL, "no use");
    assertThrows(
        BigcastException.class,
        () ->
            NativeLibrary.withNodeProgram(
                conf(),
                path -> {
                  throw failure;
                }));
    assertEquals(new TreeSet<String>(), names(folder));
  }

  private static String refusal(String platform, boolean musl) {
    BigcastException e =
        assertThrows(BigcastException.class, () -> NativeLibrary.checkPlatform(platform, musl));
    assertEquals(BigcastException.Code.UNSUPPORTED, e.code());
    return e.getMessage();
  }

  @Test
  void otherPlatformsAreToldWhatItNeeds() throws BigcastException {
    NativeLibrary.checkPlatform("Linux amd64", false);
    for (String other : new String[] {"Linux aarch64", "Mac OS X x86_64", "Windows 11 amd64"}) {
      String told = refusal(other, false);
      assertTrue(told.contains(other), told);
      assertTrue(told.contains("glibc 2.28 or newer"), told);
    }
    String told = refusal("Linux amd64", true);
    assertTrue(told.contains("musl"), told);
    assertTrue(told.contains("glibc 2.28 or newer"), told);
    assertFalse(told.contains("noexec"), told);
  }

  @Test
  void muslIsKnownByWhatIsMapped() {
    String at = "7f5c8a000000-7f5c8a014000 r--p 00000000 fe:01 1311 ";
    assertTrue(NativeLibrary.isOfMusl(at + "/lib/ld-musl-x86_64.so.1"));
    assertFalse(NativeLibrary.isOfMusl(at + "/usr/lib/x86_64-linux-gnu/libc.so.6"));
    assertFalse(NativeLibrary.isOfMusl(at + "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
  }

  @Test
  void theLoadersWordsDecideWhatMayBeWrong() {
    String[] ofAnotherLibc = {
      "/tmp/x.so: /lib64/libc.so.6: version `GLIBC_2.28' not found (required by /tmp/x.so)",
      "Error loading shared library ld-linux-x86-64.so.2: No such file (needed by /tmp/x.so)",
      "/tmp/x.so: libc.musl-x86_64.so.1: cannot open shared object file",
    };
    for (String words : ofAnotherLibc) {
      String told = NativeLibrary.doesNotLoad(words).getMessage();
      assertTrue(told.contains("glibc 2.28 or newer"), told);
      assertFalse(told.contains("noexec"), told);
      assertTrue(told.endsWith(words), told);
    }
    String told =
        NativeLibrary.doesNotLoad("/tmp/x.so: failed to map segment from shared object")
            .getMessage();
    assertTrue(told.contains("spark.bigcast.native.dir mounted noexec?"), told);
    assertFalse(told.contains("glibc"), told);
  }
}
