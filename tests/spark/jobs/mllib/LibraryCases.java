package io.bigcast.sparktest;

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
import org.apache.spark.graphx.lib.PageRank;
import org.apache.spark.mllib.clustering.KMeans;
import org.apache.spark.mllib.linalg.Matrices;
import org.apache.spark.mllib.linalg.Matrix;
import org.apache.spark.mllib.linalg.Vector;
import org.apache.spark.mllib.linalg.Vectors;
import org.apache.spark.mllib.linalg.distributed.RowMatrix;
import org.apache.spark.storage.StorageLevel;
import scala.Tuple2;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;

/**
 * What Spark's own libraries broadcast. Their results are known beforehand. In a folder of its own,
 * because it is not compiled for a Spark without MLlib.
 */
public final class LibraryCases {
  private static final ClassTag<Object> NUMBERS = ClassTag$.MODULE$.Int();
  private final Cases cases;

  private LibraryCases(Cases cases) {
    this.cases = cases;
  }

  public static void addTo(Cases cases) {
    LibraryCases libraries = new LibraryCases(cases);
    cases.add("lib_matrix_product", libraries::matrixProduct);
    cases.add("lib_k_means", libraries::kMeans);
    cases.add("lib_graph_components", () -> libraries.onRings(libraries::graphComponents));
    cases.add("lib_graph_page_rank", () -> libraries.onRings(libraries::pageRank));
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
    cases.expectOffloaded(before, 1, inner * columns * 8L);
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
    cases.expectOffloaded(before, 1, 100);
  }

  private interface OnGraph {
    void run(Graph<Object, Object> graph);
  }

  /** Three rings of ten: vertex 0 goes to 1, and 9 to 0; 10 to 11, and so on. */
  private void onRings(OnGraph body) throws IOException {
    StringBuilder edges = new StringBuilder();
    for (int vertex = 0; vertex < 30; vertex++) {
      edges.append(vertex).append(' ').append(vertex / 10 * 10 + (vertex + 1) % 10).append('\n');
    }
    Path file = Files.createTempFile("bigcast-graph-", "");
    try {
      Files.writeString(file, edges);
      StorageLevel memory = StorageLevel.MEMORY_ONLY();
      body.run(
          GraphLoader.edgeListFile(
              cases.context.sc(), file.toString(), false, 3, memory, memory));
    } finally {
      Files.delete(file);
    }
  }

  /** Each ring's component is its smallest vertex. GraphX broadcasts nothing for that. */
  private void graphComponents(Graph<Object, Object> rings) {
    Map<Object, Object> found = new TreeMap<>();
    for (Tuple2<Object, Object> each :
        ConnectedComponents.run(rings, NUMBERS, NUMBERS).vertices().toJavaRDD().collect()) {
      found.put(each._1, each._2);
    }
    Map<Object, Object> expected = new TreeMap<>();
    for (long vertex = 0; vertex < 30; vertex++) {
      expected.put(vertex, vertex / 10 * 10);
    }
    Cases.equal(expected, found, "components");
  }

  /** Personalised for two vertices, whose first ranks GraphX broadcasts. */
  private void pageRank(Graph<Object, Object> rings) {
    long[] sources = {3, 17};
    rings.vertices().count();
    Map<String, Long> before = Probe.here();
    List<Tuple2<Object, org.apache.spark.ml.linalg.Vector>> found =
        PageRank.runParallelPersonalizedPageRank(rings, 4, 0.15, sources, NUMBERS, NUMBERS)
            .vertices().toJavaRDD().collect();
    Cases.equal(30, found.size(), "vertices");
    double[] sums = new double[sources.length];
    for (Tuple2<Object, org.apache.spark.ml.linalg.Vector> each : found) {
      for (int i = 0; i < sources.length; i++) {
        sums[i] += each._2.apply(i);
        boolean inRing = (Long) each._1 / 10 == sources[i] / 10;
        Cases.check(inRing || each._2.apply(i) == 0, "rank of " + each._1 + ": " + each._2);
      }
    }
    for (double sum : sums) { // a source's ring has all of what starts there
      Cases.check(Math.abs(sum - 1) < 1e-9, "sum of ranks " + sum);
    }
    cases.expectOffloaded(before, 1, 100);
  }
}
