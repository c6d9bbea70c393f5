package io.bigcast.spark;

import com.codahale.metrics.Gauge;
import com.codahale.metrics.MetricRegistry;
import java.util.Locale;
import java.util.function.DoubleSupplier;
import java.util.function.LongSupplier;

/** {@link BigcastStats} as gauges of Spark's metrics system, below plugin.io.bigcast.spark.BigcastPlugin. */
final class Metrics {
  private Metrics() {}

  static void registerDriver(MetricRegistry registry) {
    gauge(registry, "broadcasts_offloaded_total", BigcastStats::offloaded);
    for (BigcastStats.Reason reason : BigcastStats.Reason.values()) {
      String label = reason.name().toLowerCase(Locale.ROOT);
      gauge(registry, "broadcasts_delegated_" + label + "_total", () -> BigcastStats.delegated(reason));
    }
    gauge(registry, "uploaded_raw_bytes_total", BigcastStats::uploadedRawBytes);
    gauge(registry, "uploaded_stored_bytes_total", BigcastStats::uploadedStoredBytes);
    gauge(registry, "chunks_uploaded_total", BigcastStats::chunksUploaded);
    fraction(registry, "upload_ratio", BigcastStats::uploadRatio);
    gauge(registry, "driver_heap_saved_bytes", BigcastStats::driverHeapSavedBytes);
    fraction(registry, "upload_seconds_total", BigcastStats::uploadSeconds);
    gauge(registry, "driver_rereads_total", BigcastStats::driverRereads);
    gauge(registry, "blobs_removed_total", BigcastStats::removed);
    gauge(registry, "replaced_by_upload_total", BigcastStats::replacedByUpload);
    gauge(registry, "replaced_by_torrent_total", BigcastStats::replacedByTorrent);
    gauge(registry, "replaced_for_python_total", BigcastStats::replacedForPython);
    gauge(registry, "replacements_refused_total", BigcastStats::replacementsRefused);
    registerExecutor(registry);
  }

  static void registerExecutor(MetricRegistry registry) {
    gauge(registry, "reads_total", BigcastStats::reads);
    gauge(registry, "read_failures_total", BigcastStats::readFailures);
    gauge(registry, "open_downloads", BigcastStats::openDownloads);
    gauge(registry, "native_buffer_bytes", BigcastStats::nativeBufferBytes);
    gauge(registry, "mapped_reads_total", BigcastStats::mappedReads);
    gauge(registry, "open_mappings", BigcastStats::openMappings);
    gauge(registry, "python_files_shared_total", BigcastStats::pythonFilesShared);
    gauge(registry, "python_files_written_total", BigcastStats::pythonFilesWritten);
    gauge(registry, "reads_repeated_total", BigcastStats::readsRepeated);
    gauge(registry, "reads_replaced_total", BigcastStats::readsReplaced);
    gauge(registry, "read_raw_bytes_total", BigcastStats::readRawBytes);
    fraction(registry, "read_seconds_total", BigcastStats::readSeconds);
    gauge(registry, "chunks_read_total", BigcastStats::chunksRead);
    gauge(registry, "chunks_located_total", BigcastStats::chunksLocated);
    gauge(registry, "chunks_reread_total", BigcastStats::chunksReread);
    gauge(registry, "chunks_forged_total", BigcastStats::chunksForged);
    gauge(registry, "local_node_reads_total", BigcastStats::localNodeReads);
    gauge(registry, "nodes_started_total", BigcastStats::nodesStarted);
  }

  private static void gauge(MetricRegistry registry, String name, LongSupplier value) {
    registry.register(name, (Gauge<Long>) value::getAsLong);
  }

  private static void fraction(MetricRegistry registry, String name, DoubleSupplier value) {
    registry.register(name, (Gauge<Double>) value::getAsDouble);
  }
}
