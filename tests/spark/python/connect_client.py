"""DataFrames with broadcasts, by a Spark Connect client: connect_client.py sc://HOST:PORT PATTERN

Prints `CASE name ok|FAIL why` for each case, as the other jobs do."""

import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

from cases import equal, run_cases


class Client:
    def __init__(self, session):
        self.session = session
        # What is broadcast is said by hints, so that each query can also run without.
        session.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")
        self.facts = session.range(0, 60_000).withColumn("k", F.col("id") % 40_000)
        self.names = session.range(0, 20_000).select(
            F.col("id").alias("k"), F.md5(F.col("id").cast("string")).alias("name"))

    def same(self, query):
        """What query(hint) gives is the same with broadcasts as without."""
        without, with_broadcast = ([tuple(row) for row in query(hint).collect()]
                                   for hint in (lambda frame: frame, F.broadcast))
        equal(with_broadcast, without, "rows")

    def connect_hash_join(self):
        total = [F.count("*"), F.sum(F.length("name")), F.max("name"), F.countDistinct("name")]
        for how in ("inner", "left", "left_semi", "left_anti"):
            columns = total if how in ("inner", "left") else [F.count("*"), F.sum("id")]
            self.same(lambda hint: self.facts.join(hint(self.names), "k", how).agg(*columns))

    def connect_nested_loop_join(self):
        ranges = self.session.range(0, 40).select(
            (F.col("id") * 1000).alias("low"), (F.col("id") * 1000 + 17).alias("high"))
        joined = self.facts.join(F.broadcast(ranges), F.col("id").between(F.col("low"), F.col("high")), "inner")
        equal(joined.agg(F.count("*"), F.sum("id")).collect()[0],
              (40 * 18, sum(i * 1000 + j for i in range(40) for j in range(18))), "rows")

    def connect_not_in(self):
        """Null-aware: its relation is broadcast whatever the threshold."""
        self.session.conf.set("spark.sql.autoBroadcastJoinThreshold", "10m")
        self.facts.createOrReplaceTempView("facts")
        self.names.createOrReplaceTempView("names")
        found = self.session.sql("select count(*) from facts where k not in (select k from names)")
        equal(found.collect()[0][0], 20_000, "rows")
        self.session.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")

    def connect_udf(self):
        table = {i: i * 3 for i in range(300_000)}
        triple = F.udf(lambda i: table[i], LongType())
        joined = self.facts.join(F.broadcast(self.names), "k").select(triple("id").alias("x"))
        ids = [i for i in range(60_000) if i % 40_000 < 20_000]
        equal(joined.agg(F.sum("x")).collect()[0][0], 3 * sum(ids), "sum")


def main():
    session = SparkSession.builder.remote(sys.argv[1]).getOrCreate()
    run_cases(Client(session), "connect_", sys.argv[2])
    session.stop()
    print("END of cases", flush=True)


if __name__ == "__main__":
    main()
