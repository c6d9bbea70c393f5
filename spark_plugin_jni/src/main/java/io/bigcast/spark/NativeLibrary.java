package io.bigcast.spark;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.channels.Channels;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.DigestInputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.EnumSet;
import java.util.stream.Stream;

/**
 * The native code inside the jar. Each file is unpacked into a new directory that only this user can
 * enter, in a place where nobody else can put another one instead of it, used, and deleted at once: so
 * nobody can plant or replace what is loaded, and nothing stays behind.
 */
final class NativeLibrary {
  private static final String FOLDER = "/native/linux/amd64/";
  private static final String LIBRARY = "libbigcast_jni.so";
  private static final String NODE = "bigcastd";
  private static final String NEEDS = "it needs glibc 2.28 or newer";

  private static final int STICKY = 01000;
  private static final int GROUP_AND_OTHERS_WRITE = 022;
  private static final int OTHERS_WRITE = 02;

  private static final FileAttribute<?> OWNER_ONLY =
      PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"));

  private static boolean loaded;
  private static BigcastException failure;

  interface Use<T> {
    T with(String path) throws BigcastException;
  }

  private NativeLibrary() {}

  /** Loads the library unless it is loaded. A failure is final for this JVM, and told each time. */
  static synchronized void load(BigcastConf conf) throws BigcastException {
    if (failure != null) {
      throw failure;
    }
    if (loaded) {
      return;
    }
    try {
      checkPlatform(
          System.getProperty("os.name") + " " + System.getProperty("os.arch"), libcIsMusl());
      unpacked(
          conf,
          LIBRARY,
          path -> {
            System.load(path);
            return null;
          });
      checkVersion();
      loaded = true;
    } catch (BigcastException e) {
      failure = e;
      throw e;
    } catch (LinkageError e) {
      failure = doesNotLoad(e.getMessage());
      throw failure;
    }
  }

  /** True once loading it has failed, for good. */
  static synchronized boolean hasFailed() {
    return failure != null;
  }

  /** Unpacks the node's program for as long as {@code use} runs. */
  static <T> T withNodeProgram(BigcastConf conf, Use<T> use) throws BigcastException {
    return unpacked(conf, NODE, use);
  }

  /** The version this jar was built as. */
  static String jarVersion() {
    String version = NativeLibrary.class.getPackage().getImplementationVersion();
    return version == null ? "unpackaged" : version;
  }

  /**
   * Tells in one sentence what the loader would tell in its own way, or not at all.
   *
   * @param platform such as "Linux amd64"
   */
  static void checkPlatform(String platform, boolean musl) throws BigcastException {
    if (!platform.equals("Linux amd64")) {
      throw new BigcastException(
          BigcastException.Code.UNSUPPORTED,
          "no native library for " + platform + ", only for Linux amd64: " + NEEDS);
    }
    if (musl) {
      throw new BigcastException(
          BigcastException.Code.UNSUPPORTED,
          "the native library does not load where the C library is musl: " + NEEDS);
    }
  }

  private static boolean libcIsMusl() {
    try (Stream<String> mapped = Files.lines(Paths.get("/proc/self/maps"), ISO_8859_1)) {
      return mapped.anyMatch(NativeLibrary::isOfMusl);
    } catch (IOException | UncheckedIOException e) {
      return false; // the loader tells
    }
  }

  /**
   * Whether a line of /proc/self/maps is of musl, whose loader is the C library. A glibc system may
   * have its file, too, and does not run by it.
   */
  static boolean isOfMusl(String mapped) {
    return mapped.contains("/ld-musl-");
  }

  /** @param words the loader's */
  static BigcastException doesNotLoad(String words) {
    boolean libc = words.contains("GLIBC_") || words.contains("ld-linux") || words.contains("musl");
    return new BigcastException(
        BigcastException.Code.UNSUPPORTED,
        "the native library does not load ("
            + (libc ? NEEDS : "is " + BigcastConf.Key.NATIVE_DIR.key + " mounted noexec?")
            + "): "
            + words);
  }

  private static void checkVersion() throws BigcastException {
    if (!jarVersion().equals("unpackaged") && !jarVersion().equals(version())) {
      throw new BigcastException(
          BigcastException.Code.UNSUPPORTED,
          "the jar is version " + jarVersion() + ", its native library " + version());
    }
  }

  private static <T> T unpacked(BigcastConf conf, String name, Use<T> use) throws BigcastException {
    String base = conf.text(BigcastConf.Key.NATIVE_DIR);
    if (base.isEmpty()) {
      base = System.getProperty("java.io.tmpdir");
    }
    Path folder = null;
    Path file = null;
    try {
      Path place = Paths.get(base).toRealPath();
      folder = Files.createTempDirectory(place, "bigcast-native-", OWNER_ONLY);
      checkPlace(place, attribute("unix:uid", folder));
      file = unpack(name, folder);
      return use.with(file.toString());
    } catch (BigcastException e) {
      throw e;
    } catch (IOException e) {
      throw new BigcastException(
          BigcastException.Code.IO,
          "can't unpack " + name + " below " + base + " (" + BigcastConf.Key.NATIVE_DIR.key + "): " + e);
    } finally {
      delete(file);
      delete(folder);
    }
  }

  /**
   * Who may rename or remove what is in a directory could exchange ours between the moment in which it
   * is checked and that in which it is loaded: its owner and, unless it is sticky, whoever may write to
   * it; and so could they with the directories above. Those have owners that must be trusted anyway
   * (YARN's containers are below its own), and groups that often are one user's.
   */
  private static void checkPlace(Path place, int ownUser) throws IOException {
    int owner = attribute("unix:uid", place);
    if (owner != 0 && owner != ownUser) {
      throw new IOException(place + " belongs to another user");
    }
    for (Path each = place; each != null; each = each.getParent()) {
      int others = each == place ? GROUP_AND_OTHERS_WRITE : OTHERS_WRITE;
      int mode = attribute("unix:mode", each);
      if ((mode & others) != 0 && (mode & STICKY) == 0) {
        throw new IOException(
            String.format("others can rename what is in %s (mode %04o, not sticky)", each, mode & 07777));
      }
    }
  }

  private static int attribute(String name, Path path) throws IOException {
    return (Integer) Files.getAttribute(path, name);
  }

  private static Path unpack(String name, Path folder) throws IOException {
    MessageDigest digest = sha256();
    Path unfinished = folder.resolve("unfinished");
    try (InputStream raw = NativeLibrary.class.getResourceAsStream(FOLDER + name)) {
      if (raw == null) {
        throw new BigcastException(
            BigcastException.Code.UNSUPPORTED, "the jar has no " + FOLDER + name);
      }
      try (InputStream in = new DigestInputStream(raw, digest);
          OutputStream out = createNew(unfinished)) {
        copy(in, out);
      }
    } catch (IOException e) {
      delete(unfinished);
      throw e;
    }
    byte[] bytes = digest.digest();
    checkUnchanged(unfinished, bytes);
    if (!name.endsWith(".so")) {
      return Files.move(unfinished, folder.resolve(name));
    }
    StringBuilder hash = new StringBuilder();
    for (int i = 0; i < 8; i++) {
      hash.append(String.format("%02x", bytes[i]));
    }
    // A core dump and /proc/<pid>/maps then tell which build a JVM had loaded.
    return Files.move(unfinished, folder.resolve(hash + "-" + name));
  }

  /** Fails if anything of that name is there, a symbolic link too. */
  private static OutputStream createNew(Path file) throws IOException {
    return Channels.newOutputStream(
        Files.newByteChannel(
            file, EnumSet.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE), OWNER_ONLY));
  }

  /** What is in the file is what was in the jar, whoever else may write there. */
  static void checkUnchanged(Path file, byte[] digestInJar) throws IOException {
    MessageDigest digest = sha256();
    try (InputStream in = new DigestInputStream(Files.newInputStream(file), digest)) {
      copy(in, null);
    }
    if (!MessageDigest.isEqual(digest.digest(), digestInJar)) {
      delete(file);
      throw new IOException(file + " is not what was written there");
    }
  }

  private static void copy(InputStream in, OutputStream out) throws IOException {
    byte[] buffer = new byte[64 << 10];
    for (int n = in.read(buffer); n > 0; n = in.read(buffer)) {
      if (out != null) {
        out.write(buffer, 0, n);
      }
    }
  }

  private static MessageDigest sha256() throws IOException {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IOException(e);
    }
  }

  private static void delete(Path path) {
    try {
      if (path != null) {
        Files.deleteIfExists(path);
      }
    } catch (IOException e) {
      Warnings.once("could not delete " + path + ": " + e);
    }
  }

  /** Bytes of native memory that transfers hold now, all together. */
  static synchronized long buffersInUse() {
    return loaded ? bufferBytes() : 0;
  }

  private static native long bufferBytes();

  /** {@link #version}, or what stands for it where the library is not used. */
  static synchronized String loadedVersion() {
    return loaded ? version() : "not loaded";
  }

  /** The version the native library was built as. */
  static native String version();
}
