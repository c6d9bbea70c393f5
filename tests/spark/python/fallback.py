"""bigcast.broadcast where Bigcast can't carry it: a context each, one after the other.

Arguments: a file with a secret, a pattern of cases' names, and prefixes of those.
"""

import contextlib
import random
import re
import sys
import zlib

import bigcast
from cases import equal, run_cases
from pyspark import SparkConf, SparkContext

CLUSTER = "local-cluster[1,1,1024]"
MIB = 1 << 20
PATTERN = bytes(range(256))


class Scale:
    """Of the main program: only Spark's pickler can send it."""

    def __init__(self, factor):
        self.factor = factor


class Fallback:
    """Each case has a context of its own, over what spark-submit was given."""

    def __init__(self, secret_file):
        self.secret_file = secret_file

    @contextlib.contextmanager
    def context(self, master, settings):
        conf = SparkConf().setMaster(master)
        for key, value in settings.items():
            conf.set(key, value)
        context = SparkContext(conf=conf)
        try:
            yield context
        finally:
            context.stop()

    def check(self, master, settings):
        data = PATTERN * (3 * MIB // len(PATTERN))
        with self.context(master, settings) as context:
            goes_through_spark(context, data)
            goes_through_spark(context, memoryview(data)[::-1])
            goes_through_spark(context, [Scale(3), lambda x: x + 4],
                               lambda value: (value[0].factor, value[1](1)), list)

    def py_encrypted(self):
        """What is mapped can't be encrypted."""
        self.check(CLUSTER, {"spark.io.encryption.enabled": "true"})

    def py_local_mode(self):
        self.check("local[2]", {})

    def py_too_full(self):
        """What is shared is not compressed: one value fits only if it is, one not even then, and one
        does."""
        with self.context(CLUSTER, {"spark.bigcast.node.memory": "16m",
                                    "spark.bigcast.node.disk": "none"}) as context:
            stats = context._jvm.io.bigcast.spark.BigcastStats
            for value, carried in ((PATTERN * (40 * MIB // len(PATTERN)), 1),
                                   (random.Random(1).randbytes(40 * MIB), 0)):
                before = stats.offloaded()
                goes_through_spark(context, value)
                equal(stats.offloaded() - before, carried, "carried as a pickle")
            equal(type(bigcast.broadcast(context, bytes(2 * MIB))), bigcast.Broadcast, "what fits")

    def py_unreachable(self):
        self.check(CLUSTER, {"spark.bigcast.servers": "127.0.0.1:1",
                             "spark.bigcast.secret.file": self.secret_file})

    def more_dry_run(self):
        self.check(CLUSTER, {"spark.bigcast.dryRun": "true"})

    def more_switched_off(self):
        self.check(CLUSTER, {"spark.bigcast.enabled": "false"})

    def more_without_plugin(self):
        """Though its jar is on the class path."""
        self.check(CLUSTER, {"spark.plugins": ""})


def goes_through_spark(context, value, look=lambda value: zlib.crc32(bytes(value)), kind=bytes):
    broadcast = bigcast.broadcast(context, value)
    equal(isinstance(broadcast, bigcast.Broadcast), False, "its type is Bigcast's")
    found = context.parallelize(range(2), 2).map(
        lambda _: (type(broadcast.value), look(broadcast.value))).collect()
    equal(found, [(kind, look(value))] * 2, "in tasks")
    equal((type(broadcast.value), look(broadcast.value)), (kind, look(value)), "on the driver")
    broadcast.destroy()


def main():
    secret_file, pattern, *prefixes = sys.argv[1:]  # no context has begun that could tell settings
    for prefix in prefixes:
        run_cases(Fallback(secret_file), prefix, re.compile(pattern))
    print("END of cases", flush=True)


if __name__ == "__main__":
    main()
