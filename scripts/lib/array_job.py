"""What scripts/bench python-memory runs on Spark: array_job.py SYSTEM BYTES WORKERS GATE.

Broadcasts a float32 matrix and reads a row in every page of it in all workers at once. Prints a line
at each phase and waits for a file of its name in the folder GATE: "phase idle", when the workers and
executors are there, and "phase read SECONDS", when all have read and nothing is freed yet. (Spark does
not pass on a standard input.)
"""

import pathlib
import sys
import time

import numpy as np
from pyspark.sql import SparkSession

COLUMNS = 256  # float32: four rows a page


def phase(name, *words):
    print("phase", name, *words, flush=True)
    while not pathlib.Path(sys.argv[4], name).exists():
        time.sleep(0.05)


def in_all_workers(context, workers, work):
    """Runs work(i) in so many workers at once."""
    def one(part):
        from pyspark import BarrierTaskContext

        BarrierTaskContext.get().barrier()
        return [work(i) for i in part]

    return context.parallelize(range(workers), workers).barrier().mapPartitions(one).collect()


def main():
    system, size, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    context = SparkSession.builder.getOrCreate().sparkContext
    if system == "bigcast":
        import bigcast

        make = lambda value: bigcast.broadcast(context, value)  # noqa: E731
    else:
        make = context.broadcast
    small = make(np.ones((2048, COLUMNS), dtype=np.float32))  # loads what is used
    in_all_workers(context, workers, lambda i: float(small.value[::4].sum()))
    small.destroy()
    rows = size // (4 * COLUMNS)
    matrix = np.random.default_rng(1).standard_normal((rows, COLUMNS), dtype=np.float32)
    expected = float(matrix[::4].sum(dtype=np.float64))
    phase("idle")
    start = time.monotonic()
    broadcast = make(matrix)
    made = time.monotonic() - start
    sums = in_all_workers(context, workers,
                          lambda i: float(broadcast.value[::4].sum(dtype=np.float64)))
    took = time.monotonic() - start
    assert all(abs(each - expected) < 1e-3 for each in sums), (sums, expected)
    phase("read", took, made)
    broadcast.destroy()
    context.stop()


if __name__ == "__main__":
    main()
