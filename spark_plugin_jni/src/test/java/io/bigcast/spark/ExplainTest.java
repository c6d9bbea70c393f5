package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.bigcast.spark.BigcastStats.Reason;
import org.junit.jupiter.api.Test;

class ExplainTest {
  @Test
  void sizesAreReadable() {
    assertEquals("0 B", Explain.size(0));
    assertEquals("1023 B", Explain.size(1023));
    assertEquals("1.0 KiB", Explain.size(1024));
    assertEquals("24.5 MiB", Explain.size(49L << 19));
    assertEquals("2048.0 TiB", Explain.size(2L << 50));
  }

  @Test
  void aLineTellsTheWayAndWhatItWasLike() {
    TransferStats upload = new TransferStats(new long[] {8 << 20, 2 << 20, 2, 0, 0, 0, 0});
    BlobPlace place = new BlobPlace(new byte[0], "192.0.2.1:7420", "epoch");
    assertEquals(
        "broadcast 7: 8.0 MiB to Bigcast in 2 chunks, 2.0 MiB stored (0.25), 1.50 s, home"
            + " 192.0.2.1:7420",
        Explain.offloaded(7, upload, 1_500_000_000, place));
    TransferStats download = new TransferStats(new long[] {8 << 20, 2 << 20, 2, 1, 3, 0, 1});
    assertEquals(
        "broadcast 7: read 8.0 MiB in 0.25 s, through this host's node, 1 of 2 chunks by descriptor,"
            + " 3 asked for again",
        Explain.read(7, download, 250_000_000));
    assertEquals(
        "broadcast 7: read 8.0 MiB through Spark's TorrentBroadcast in 0.25 s",
        Explain.torrent(7, 8 << 20, 250_000_000));
    assertEquals(
        "broadcast 7: read through Spark's TorrentBroadcast in 0.25 s",
        Explain.torrent(7, -1, 250_000_000));
    assertEquals(
        "broadcast 8: 12 B stays with Spark, it is smaller than spark.bigcast.minSize",
        Explain.stayed(8, 12, Reason.SMALL));
    assertEquals(
        "broadcast 9: stays with Spark, Bigcast can't be used now",
        Explain.stayed(9, -1, Reason.UNAVAILABLE));
    assertEquals(
        "broadcast 9: 8.0 MiB stays with Spark, sending it to Bigcast failed: 2.0 MiB written, 1.50 s"
            + " lost",
        Explain.failed(9, 8 << 20, Reason.UPLOAD_FAILED, 2 << 20, 1_500_000_000));
  }
}
