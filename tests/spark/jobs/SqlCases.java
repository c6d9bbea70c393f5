package io.bigcast.sparktest;

import static org.apache.spark.sql.functions.broadcast;
import static org.apache.spark.sql.functions.col;

import io.bigcast.sparktest.Cases.Path;
import java.nio.file.Files;
import java.util.Map;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/**
 * SQL queries with broadcasting, each compared with the same query without it. Results are compared
 * by row count and an order-free hash of all rows.
 */
final class SqlCases {
  private static final String THRESHOLD = "spark.sql.autoBroadcastJoinThreshold";
  private final Cases cases;
  private final SparkSession session;

  private SqlCases(Cases cases) {
    this.cases = cases;
    this.session = cases.session;
  }

  static void addTo(Cases cases) {
    SqlCases sql = new SqlCases(cases);
    cases.add("sql_hash_join_long_key", () -> sql.join("ON f.k = d.k", "BroadcastHashJoin"));
    cases.add("sql_hash_join_string_key", () -> sql.join("ON f.s = d.s", "BroadcastHashJoin"));
    cases.add(
        "sql_hash_join_two_keys", () -> sql.join("ON f.k = d.k AND f.s = d.s", "BroadcastHashJoin"));
    cases.add(
        "sql_hash_join_duplicates", () -> sql.join("ON f.k % 20000 = d.dup", "BroadcastHashJoin"));
    cases.add("sql_nested_loop_join", sql::nestedLoop);
    cases.add("sql_left_and_anti_joins", sql::leftAndAnti);
    cases.add("sql_empty_relation", sql::emptyRelation);
    cases.add("sql_data_frame_hint", sql::dataFrameHint);
    cases.add("sql_adaptive_conversion", sql::adaptiveConversion);
    cases.add("sql_adaptive_reuse", sql::adaptiveReuse);
    cases.add("sql_partition_pruning", sql::partitionPruning);
  }

  private void views() {
    session
        .range(0, 120_000, 1, 4)
        .selectExpr("id", "id % 70000 AS k", "concat('s', id % 70000) AS s")
        .createOrReplaceTempView("f");
    session
        .range(0, 60_000, 1, 2)
        .selectExpr(
            "id AS k", "concat('s', id) AS s", "id % 20000 AS dup",
            "concat(md5(cast(id AS string)), md5(cast(id + 1 AS string))) AS payload")
        .createOrReplaceTempView("d");
  }

  /** Of rows with that hash. Equal ones cancel each other in a bit_xor, not in a sum. */
  static String[] digests(String hash) {
    return new String[] {
      "count(*)", "bit_xor(" + hash + ")", "sum(cast(" + hash + " AS decimal(38, 0)))"
    };
  }

  /** Rows and hash of a query's result. */
  private String result(Dataset<Row> query) {
    String[] columns = query.columns();
    Row row =
        query
            .selectExpr("xxhash64(" + String.join(", ", columns) + ") AS h")
            .selectExpr(digests("h"))
            .head();
    return row.toString();
  }

  /** `SELECT /*+ BROADCAST(d) *\/ rest` against `SELECT rest` with no broadcasting at all. */
  private void compare(String rest, String joinName, Path path) throws Exception {
    session.conf().set(THRESHOLD, "-1");
    String without = result(session.sql("SELECT " + rest));
    String hinted = "SELECT /*+ BROADCAST(d) */ " + rest;
    String plan = session.sql("EXPLAIN " + hinted).head().getString(0);
    Cases.check(plan.contains(joinName), "no " + joinName + " in " + plan);
    String with = viaAtLeastOne(path, () -> result(session.sql(hinted)));
    Cases.equal(without, with, "rows and hash");
    Cases.check(!without.startsWith("[0,"), "the query gives rows");
  }

  /** A relation may be broadcast beside other things, such as the Hadoop configuration. */
  private <T> T viaAtLeastOne(Path path, java.util.concurrent.Callable<T> body) throws Exception {
    Map<String, Long> before = Probe.here();
    T value = body.call();
    if (cases.plugin && path == Path.BIGCAST) {
      Cases.check(
          Probe.delta(before, Probe.here(), Probe.OFFLOADED) > 0, "no relation was offloaded");
    }
    return value;
  }

  private void join(String condition, String joinName) throws Exception {
    views();
    compare(
        "f.id, d.k, d.s, d.payload FROM f JOIN d " + condition, joinName,
        cases.expected(4 << 20));
  }

  private void nestedLoop() throws Exception {
    views();
    compare(
        "f.id, d.k FROM (SELECT * FROM f WHERE id < 200) f JOIN "
            + "(SELECT k, payload FROM d WHERE k < 3000) d ON f.id > d.k AND d.payload > 'a'",
        "BroadcastNestedLoopJoin", cases.expected(200 << 10));
  }

  private void leftAndAnti() throws Exception {
    views();
    compare(
        "f.id, d.payload FROM f LEFT JOIN d ON f.k = d.k", "BroadcastHashJoin",
        cases.expected(4 << 20));
    compare(
        "f.id FROM f LEFT ANTI JOIN d ON f.s = d.s", "BroadcastHashJoin", cases.expected(2 << 20));
    session.conf().set(THRESHOLD, "-1");
    String notIn = "SELECT id FROM f WHERE k NOT IN (SELECT if(k = 5, 6, k) FROM d)";
    String in = "SELECT id FROM f WHERE k IN (SELECT k FROM d WHERE k % 3 = 0)";
    // Without broadcasting NOT IN needs a nested loop over all pairs; plain anti join is its equal.
    String notInPlain = result(session.sql("SELECT id FROM f WHERE k = 5 OR k >= 60000"));
    String inPlain = result(session.sql("SELECT id FROM f WHERE k < 60000 AND k % 3 = 0"));
    session.conf().set(THRESHOLD, "50m");
    Cases.equal(
        notInPlain,
        viaAtLeastOne(cases.expected(1 << 20), () -> result(session.sql(notIn))), "NOT IN");
    Cases.equal(
        inPlain, viaAtLeastOne(cases.expected(160 << 10), () -> result(session.sql(in))), "IN");
  }

  private void emptyRelation() throws Exception {
    views();
    session.conf().set(THRESHOLD, "-1");
    String rest = "f.id FROM f LEFT JOIN (SELECT * FROM d WHERE payload = 'none') d ON f.s = d.s";
    String without = result(session.sql("SELECT " + rest));
    Cases.equal(
        without, result(session.sql("SELECT /*+ BROADCAST(d) */ " + rest)), "rows and hash");
  }

  private void dataFrameHint() throws Exception {
    views();
    session.conf().set(THRESHOLD, "-1");
    Dataset<Row> facts = session.table("f");
    Dataset<Row> dim = session.table("d");
    String without =
        result(facts.join(dim, facts.col("k").equalTo(dim.col("k"))).select(
            col("id"), dim.col("payload")));
    String with =
        viaAtLeastOne(
            cases.expected(4 << 20),
            () ->
                result(facts.join(broadcast(dim), facts.col("k").equalTo(dim.col("k"))).select(
                    col("id"), dim.col("payload"))));
    Cases.equal(without, with, "rows and hash");
  }

  /** Statistics say too large; the sizes after the shuffle make AQE broadcast one side. */
  private void adaptiveConversion() throws Exception {
    views();
    String query =
        "SELECT f.id, d.payload FROM f JOIN (SELECT k, payload FROM d WHERE payload LIKE '%a%') d "
            + "ON f.k = d.k";
    session.conf().set(THRESHOLD, "-1");
    String without = result(session.sql(query));
    session.conf().set("spark.sql.adaptive.autoBroadcastJoinThreshold", "100m");
    try {
      String with =
          viaAtLeastOne(cases.expected(4 << 20), () -> result(session.sql(query)));
      Cases.equal(without, with, "rows and hash");
    } finally {
      session.conf().unset("spark.sql.adaptive.autoBroadcastJoinThreshold");
    }
  }

  /** One relation, broadcast once and used by two joins. */
  private void adaptiveReuse() throws Exception {
    views();
    String query =
        "f.id, a.payload AS a, b.payload AS b FROM f"
            + " JOIN (SELECT k, payload FROM d) a ON f.k = a.k"
            + " JOIN (SELECT k, payload FROM d) b ON f.id = b.k";
    session.conf().set(THRESHOLD, "-1");
    String without = result(session.sql("SELECT " + query));
    session.conf().set(THRESHOLD, "50m");
    Dataset<Row> rows = session.sql("SELECT " + query);
    String with = viaAtLeastOne(cases.expected(4 << 20), () -> result(rows));
    Cases.equal(without, with, "rows and hash");
    rows.collectAsList();
    String plan = rows.queryExecution().executedPlan().toString();
    Cases.check(plan.contains("ReusedExchange"), "nothing is reused in " + plan);
  }

  private void partitionPruning() throws Exception {
    java.nio.file.Path folder = Files.createTempDirectory("bigcast-pruning-");
    try {
      session.range(0, 20_000).selectExpr("id", "cast(id % 8 AS int) AS part").write()
          .partitionBy("part").mode("overwrite").parquet(folder.toString());
      session.read().parquet(folder.toString()).createOrReplaceTempView("parts");
      session.range(0, 8).selectExpr("cast(id AS int) AS part", "id % 4 AS class")
          .createOrReplaceTempView("classes");
      String query =
          "SELECT p.id, p.part FROM parts p JOIN classes c ON p.part = c.part WHERE c.class = 1";
      // Hadoop's configuration is broadcast for the files either way.
      session.conf().set(THRESHOLD, "-1");
      Map<String, Long> before = Probe.here();
      String without = result(session.sql(query));
      long others = Probe.delta(before, Probe.here(), Probe.OFFLOADED);
      session.conf().set(THRESHOLD, "10m");
      String plan = session.sql("EXPLAIN " + query).head().getString(0);
      Cases.check(plan.contains("dynamicpruning"), "no pruning in " + plan);
      before = Probe.here();
      Cases.equal(without, result(session.sql(query)), "rows and hash");
      cases.expectOffloaded(before, others + 1, 100);
      Cases.equal(
          without, result(session.sql("SELECT id, part FROM parts WHERE part IN (1, 5)")),
          "rows and hash of a filter");
      pruningByASubquery(query, without);
    } finally {
      deleteTree(folder);
    }
  }

  /** Not by a join's relation: in Spark 3 the values of the subquery are a broadcast of their own. */
  private void pruningByASubquery(String query, String expected) throws Exception {
    String ofJoinsOnly = "spark.sql.optimizer.dynamicPartitionPruning.reuseBroadcastOnly";
    session.conf().set(THRESHOLD, "-1");
    session.conf().set("spark.sql.adaptive.enabled", "false"); // which would not broadcast them
    try {
      Map<String, Long> before = Probe.here();
      Cases.equal(expected, result(session.sql(query)), "rows and hash without pruning");
      long others = Probe.delta(before, Probe.here(), Probe.OFFLOADED);
      session.conf().set(ofJoinsOnly, "false");
      String plan = session.sql("EXPLAIN " + query).head().getString(0);
      Cases.check(
          plan.contains("dynamicpruningexpression(part") && !plan.contains("Broadcast"),
          "no subquery in " + plan);
      before = Probe.here();
      Cases.equal(expected, result(session.sql(query)), "rows and hash by a subquery");
      cases.expectOffloaded(before, others + (session.version().startsWith("3.") ? 1 : 0), 100);
    } finally {
      session.conf().unset(ofJoinsOnly);
      session.conf().unset("spark.sql.adaptive.enabled");
    }
  }

  static void deleteTree(java.nio.file.Path folder) throws java.io.IOException {
    try (java.util.stream.Stream<java.nio.file.Path> walk = Files.walk(folder)) {
      walk.sorted(java.util.Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
    }
  }
}
