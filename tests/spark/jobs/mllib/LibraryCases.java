package io.bigcast.sparktest;

import static org.apache.spark.sql.functions.broadcast;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.spark.api.java.JavaRDD;
import org.apache.spark.graphx.Graph;
import org.apache.spark.graphx.GraphLoader;
import org.apache.spark.graphx.lib.ConnectedComponents;
import org.apache.spark.mllib.clustering.KMeans;
import org.apache.spark.mllib.linalg.Matrices;
import org.apache.spark.mllib.linalg.Matrix;
import org.apache.spark.mllib.linalg.Vector;
import org.apache.spark.mllib.linalg.Vectors;
import org.apache.spark.mllib.linalg.distributed.RowMatrix;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.streaming.StreamingQuery;
import org.apache.spark.sql.streaming.Trigger;
import org.apache.spark.storage.StorageLevel;
import scala.Tuple2;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;

/**
 * What Spark's own libraries broadcast. Their results are known beforehand. In a folder of its own,
 * because it is not compiled for a Spark without MLlib.
 */
public final class LibraryCases {
  private final Cases cases;
  private final SparkSession session;

  private LibraryCases(Cases cases) {
    this.cases = cases;
    this.session = cases.session;
  }

  public static void addTo(Cases cases) {
    LibraryCases libraries = new LibraryCases(cases);
    cases.add("lib_matrix_product", libraries::matrixProduct);
    cases.add("lib_k_means", libraries::kMeans);
    cases.add("lib_graph_components", libraries::graphComponents);
    cases.add("lib_streaming_micro_batches", libraries::microBatches);
  }

  private void expectOffloaded(Map<String, Long> before, long least, long size) {
    if (cases.expected(size) == Cases.Path.BIGCAST) {
      long offloaded = Probe.delta(before, Probe.here(), Probe.OFFLOADED);
      Cases.check(offloaded >= least, offloaded + " broadcasts offloaded, not " + least);
    }
  }

  /** The right-hand matrix is broadcast: 1.6 MB. Small whole numbers, so sums are exact. */
  private void matrixProduct() {
    int inner = 500;
    int columns = 400;
    double[] right = new double[inner * columns];
    for (int i = 0; i < right.length; i++) {
      right[i] = i % 7 - 3;
    }
    Matrix matrix = Matrices.dense(inner, columns, right);
    List<Vector> rows = new ArrayList<>();
    for (int row = 0; row < 8; row++) {
      double[] left = new double[inner];
      for (int i = 0; i < inner; i++) {
        left[i] = (row * 31 + i) % 11 - 5;
      }
      rows.add(Vectors.dense(left));
    }
    Map<String, Long> before = Probe.here();
    JavaRDD<Vector> product =
        new RowMatrix(cases.context.parallelize(rows, 4).rdd())
            .multiply(matrix).rows().toJavaRDD();
    List<Vector> found = product.collect();
    for (int row = 0; row < rows.size(); row++) {
      Cases.equal(matrix.transpose().multiply(rows.get(row)), found.get(row), "row " + row);
    }
    expectOffloaded(before, 1, inner * columns * 8L);
  }

  /** Centres are broadcast in each step. Two clouds, far from each other. */
  private void kMeans() {
    List<Vector> points = new ArrayList<>();
    for (int i = 0; i < 400; i++) {
      double middle = i % 2 == 0 ? -1000 : 1000;
      points.add(Vectors.dense(middle + i / 2 % 5 - 2, middle));
    }
    Map<String, Long> before = Probe.here();
    Vector[] centres =
        KMeans.train(cases.context.parallelize(points, 4).rdd().cache(), 2, 10).clusterCenters();
    double[] first = {centres[0].apply(0), centres[1].apply(0)};
    java.util.Arrays.sort(first);
    Cases.check(
        Math.abs(first[0] + 1000) < 1e-6 && Math.abs(first[1] - 1000) < 1e-6,
        "centres " + centres[0] + " and " + centres[1]);
    expectOffloaded(before, 1, 100);
  }

  /** Three rings of ten; each one's component is its smallest vertex. */
  private void graphComponents() throws IOException {
    StringBuilder edges = new StringBuilder();
    for (int vertex = 0; vertex < 30; vertex++) {
      edges.append(vertex).append(' ').append(vertex / 10 * 10 + (vertex + 1) % 10).append('\n');
    }
    Path file = Files.createTempFile("bigcast-graph-", "");
    try {
      Files.writeString(file, edges);
      StorageLevel memory = StorageLevel.MEMORY_ONLY();
      Graph<Object, Object> graph =
          GraphLoader.edgeListFile(
              cases.context.sc(), file.toString(), false, 3, memory, memory);
      ClassTag<Object> numbers = ClassTag$.MODULE$.Int();
      Map<Object, Object> found = new TreeMap<>();
      for (Tuple2<Object, Object> each :
          ConnectedComponents.run(graph, numbers, numbers).vertices().toJavaRDD().collect()) {
        found.put(each._1, each._2);
      }
      Map<Object, Object> expected = new TreeMap<>();
      for (long vertex = 0; vertex < 30; vertex++) {
        expected.put(vertex, vertex / 10 * 10);
      }
      Cases.equal(expected, found, "components");
    } finally {
      Files.delete(file);
    }
  }

  /** Three batches, each of which broadcasts the table it is joined with. */
  private void microBatches() throws Exception {
    Path folder = Files.createTempDirectory("bigcast-stream-");
    try {
      String input = folder.resolve("input").toString();
      session.range(0, 9_000, 1, 3).write().parquet(input);
      Dataset<Row> table =
          session.range(0, 40_000).selectExpr("id", "md5(cast(id AS string)) AS payload");
      Dataset<Row> stream =
          session.readStream().schema("id LONG").option("maxFilesPerTrigger", 1).parquet(input);
      Map<String, Long> before = Probe.here();
      StreamingQuery query =
          stream.join(broadcast(table), "id").writeStream().format("parquet")
              .option("path", folder.resolve("output").toString())
              .option("checkpointLocation", folder.resolve("checkpoint").toString())
              .trigger(Trigger.AvailableNow()).start();
      query.awaitTermination();
      String[] sums = {"count(*)", "bit_xor(xxhash64(id, payload))"};
      Dataset<Row> found = session.read().parquet(folder.resolve("output").toString());
      Cases.equal(
          table.where("id < 9000").selectExpr(sums).head(), found.selectExpr(sums).head(),
          "rows and hash");
      expectOffloaded(before, 3, 2 << 20);
    } finally {
      SqlCases.deleteTree(folder);
    }
  }
}
