"""Embedding look-up in a pandas UDF: k Python workers of a host share one copy of the matrix.

    spark-submit --master spark://HOST:7077 \\
        --conf spark.plugins=io.bigcast.spark.BigcastPlugin \\
        --conf spark.driver.extraClassPath=bigcast-spark-plugin.jar \\
        --conf spark.executor.extraClassPath=bigcast-spark-plugin.jar \\
        --conf spark.bigcast.node.memory=3g \\
        examples/embedding_lookup.py --rows 1048576

`bigcast` (the wheel), NumPy, pandas and PyArrow must be installed where the workers run. Without the
plugin, and in local mode, it runs all the same, and each worker has a copy of its own. At most half of
a node's memory can be mapped, hence 3g for a matrix of 1 GiB.
"""

import argparse

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import bigcast

DIMENSIONS = 256  # of float32: a row is 1 KiB


def make_embeddings(rows, seed=0):
    """A float32 matrix of unit vectors, made in place of one that was trained."""
    matrix = np.random.default_rng(seed).standard_normal((rows, DIMENSIONS), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix


def similarities(session, embeddings, pairs):
    """The cosine of each pair's rows: adds a column to a frame with columns `left` and `right`."""

    @F.pandas_udf("float")
    def cosine(left: pd.Series, right: pd.Series) -> pd.Series:
        matrix = embeddings.value  # read-only, in the memory of this host's node
        return pd.Series(np.einsum("ij,ij->i", matrix[left], matrix[right]))

    return pairs.withColumn("cosine", cosine("left", "right"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1 << 20, help="of the matrix (1 KiB each)")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=4, help="tasks at a time")
    arguments = parser.parse_args()

    session = SparkSession.builder.appName("embedding look-up").getOrCreate()
    matrix = make_embeddings(arguments.rows)
    embeddings = bigcast.broadcast(session.sparkContext, matrix)

    pairs = session.range(0, arguments.pairs, numPartitions=arguments.workers).select(
        (F.col("id") * 7919 % arguments.rows).alias("left"),
        (F.col("id") * 104729 % arguments.rows).alias("right"))
    result = similarities(session, embeddings, pairs)
    best = result.where("left != right").orderBy(F.desc("cosine")).head()
    print(f"rows {best.left} and {best.right} have a cosine of {best.cosine:.4f}")
    exact = float(matrix[best.left] @ matrix[best.right])
    assert abs(exact - best.cosine) < 1e-4, f"the driver computes {exact}"

    embeddings.destroy()
    session.stop()


if __name__ == "__main__":
    main()
