"""Broadcasts of PySpark and of the Python package, on hosts of their own, whose home dies.

Prints `STEP name` and then waits for a file of that name in the folder spark.bigcasttest.gate, so that
whoever runs it can strike in between; `CASE name ok|FAIL why` for each case, and the driver's counters.
(Spark does not pass on a standard input.)
"""

import os
import pathlib
import sys
import threading
import time

import bigcast
import numpy as np
from cases import Runner, equal
from pyspark.sql import SparkSession

TASKS = 6


class Faults(Runner):
    def __init__(self, session):
        super().__init__(session)
        self.gate = pathlib.Path(self.context.getConf().get("spark.bigcasttest.gate"))
        rows = np.random.default_rng(1).standard_normal((8 << 10, 256), dtype=np.float32)
        self.pickled = {"rows": rows, "words": [str(i) for i in range(300_000)]}
        self.shared = rows * 2
        self.expected = (float(rows.sum()), len("".join(self.pickled["words"])),
                         float(self.shared.sum()))

    def step(self, name):
        print("STEP", name, flush=True)
        while not (self.gate / name).exists():
            time.sleep(0.05)

    def make(self):
        return self.context.broadcast(self.pickled), bigcast.broadcast(self.context, self.shared)

    def read(self, broadcasts):
        """(The executor's host, what it read), of each task."""
        pickled, shared = broadcasts

        def look(_):
            time.sleep(0.1)  # so that every executor gets tasks
            return (os.environ["SPARK_LOCAL_DIRS"], float(pickled.value["rows"].sum()),
                    len("".join(pickled.value["words"])), float(shared.value.sum()))

        return self.context.parallelize(range(TASKS), TASKS).map(look).collect()

    def check(self, found, executors=2):
        equal({tuple(values) for _, *values in found}, {self.expected}, "values in tasks")
        equal(len({where for where, *_ in found}), executors, "executors that read")

    def py_home_killed_before_a_read(self):
        broadcasts = self.make()
        self.step("made")
        self.check(self.read(broadcasts))
        self.gone(broadcasts)

    def py_home_killed_in_a_read(self):
        broadcasts = self.make()
        self.step("stopped")
        found = []
        reader = threading.Thread(target=lambda: found.extend(self.read(broadcasts)))
        reader.start()
        self.step("killed")
        reader.join()
        self.check(found)
        self.gone(broadcasts)

    def gone(self, broadcasts):
        for broadcast in broadcasts:
            broadcast.destroy()

    def start(self):
        """Starts the Python workers, and the nodes of all hosts."""
        warm = self.context.broadcast(list(range(400_000)))
        for _ in range(20):
            found = self.context.parallelize(range(TASKS), TASKS).map(lambda _: (
                time.sleep(0.1), os.environ["SPARK_LOCAL_DIRS"], len(warm.value))).collect()
            if len({where for _, where, _ in found}) == 2:
                return
        raise AssertionError("one executor gets all tasks")


def main():
    session = SparkSession.builder.getOrCreate()
    faults = Faults(session)
    faults.start()
    faults.run()
    for name in ("replacedByUpload", "replacedByTorrent", "replacedForPython"):
        print("COUNTER", name, faults.counter(name), flush=True)
    session.stop()
    print("END of cases", flush=True)


if __name__ == "__main__":
    sys.exit(main())
