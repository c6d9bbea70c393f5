package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.spark.SparkConf;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Where the native code is unpacked others may write. */
class NativeLibraryTest {
  private static final byte[] PLANTED = "#!/bin/sh\necho planted\n".getBytes();

  @TempDir Path folder;

  private BigcastConf conf() {
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
}
