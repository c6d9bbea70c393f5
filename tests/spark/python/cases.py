"""PySpark cases in one context. Prints `CASE name ok|FAIL why` for each, as the Java jobs do."""

import contextlib
import os
import pathlib
import pickle
import re
import sys
import time
import traceback

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

EXECUTORS = 2
FILES = ("pythonFilesShared", "pythonFilesWritten")


class Runner:
    """Runs its methods that begin with py_."""

    def __init__(self, session):
        self.session = session
        self.context = session.sparkContext
        conf = self.context.getConf()
        self.plugin = "BigcastPlugin" in conf.get("spark.plugins", "")
        self.min_size = int(conf.get("spark.bigcast.minSize", str(1 << 20)))
        self.encrypted = conf.get("spark.io.encryption.enabled", "false") == "true"
        self.encrypts = self.encrypted or conf.get("spark.network.crypto.enabled", "false") == "true"
        self.pattern = re.compile(conf.get("spark.bigcasttest.filter", ""))

    def application(self):
        """Its id, after which its nodes' sockets are named."""
        conf = self.context._jsc.sc().conf()  # py4j can't look at SparkEnv's class on Spark 4
        return conf.get("spark.plugins.internal.conf.io.bigcast.spark.BigcastPlugin.app.id")

    def counter(self, name, *args):
        stats = self.context._jvm.io.bigcast.spark.BigcastStats
        return getattr(stats, name)(*args)

    def offloaded(self):
        return self.counter("offloaded") if self.plugin else 0

    def on_executors(self, name):
        """The sum of a counter over both executors."""
        probe = self.context._jvm.io.bigcast.sparktest.Probe
        found = probe.onExecutors(self.context._jsc, EXECUTORS)
        return sum(each[name] for each in found.values())

    def run(self):
        run_cases(self, "py_", self.pattern)


class Cases(Runner):
    def broadcast(self, value):
        """Broadcasts, and checks that the value went to Bigcast if it is large enough."""
        before = self.offloaded()
        broadcast = self.context.broadcast(value)
        if self.plugin:
            size = os.path.getsize(broadcast._path)
            equal(self.offloaded() - before, int(size >= self.min_size), f"{size} bytes offloaded")
        return broadcast

    def read_in_tasks(self, broadcast, digest):
        tasks = self.context.parallelize(range(4), 4)
        return tasks.map(lambda _: digest(broadcast.value)).collect()

    def py_dict(self):
        value = {i: [i, str(i) * 5, float(i)] for i in range(60_000)}
        expected = sum(len(v[1]) + v[0] for v in value.values())
        broadcast = self.broadcast(value)
        found = self.read_in_tasks(broadcast, lambda v: sum(len(x[1]) + x[0] for x in v.values()))
        equal(found, [expected] * 4, "sums in tasks")
        equal(broadcast.value, value, "value on the driver")

    def py_dict_as_lookup(self):
        value = {i: i * i for i in range(250_000)}
        equal(len(pickle.dumps(value)) > 1 << 20, True, "larger than 1 MiB")
        broadcast = self.broadcast(value)
        found = self.context.parallelize(range(0, 250_000, 7), 4).map(
            lambda i: broadcast.value[i]).sum()
        equal(found, sum(i * i for i in range(0, 250_000, 7)), "sum of squares")

    def py_bytes(self):
        for size in (0, 1, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 12 << 20):
            value = bytes(i * 31 % 251 for i in range(1000)) * (size // 1000 + 1)
            value = value[:size]
            found = self.read_in_tasks(self.broadcast(value), hash_of)
            equal(found, [hash_of(value)] * 4, f"hashes of {size} bytes")

    def py_none(self):
        broadcast = self.broadcast(None)
        found = self.context.parallelize(range(2), 2).map(lambda _: broadcast.value is None)
        equal(found.collect(), [True, True], "None in tasks")

    def py_two_in_one_task(self):
        first, second = self.broadcast(list(range(300_000))), self.broadcast("x" * 2_000_000)
        found = self.context.parallelize(range(4), 4).map(
            lambda i: first.value[i] + len(second.value)).collect()
        equal(found, [2_000_000 + i for i in range(4)], "both values")

    def py_large_closure(self):
        """Above 1 MiB Spark broadcasts the pickled function by itself."""
        table = {i: i * 3 for i in range(300_000)}
        before = self.offloaded()
        found = self.context.parallelize(range(0, 300_000, 11), 4).map(lambda i: table[i]).sum()
        equal(found, sum(3 * i for i in range(0, 300_000, 11)), "sum")
        if self.plugin:
            equal(self.offloaded() - before >= 1, True, "function offloaded")

    def py_large_udf(self):
        table = {i: i + 5 for i in range(300_000)}
        add = F.udf(lambda i: table[i], LongType())
        frame = self.session.range(0, 300_000, 50).select(add("id").alias("x"))
        equal(frame.agg(F.sum("x")).head()[0], sum(i + 5 for i in range(0, 300_000, 50)), "sum")

    def py_udf_with_broadcast(self):
        broadcast = self.broadcast({i: -i for i in range(200_000)})
        negate = F.udf(lambda i: broadcast.value[i], LongType())
        frame = self.session.range(0, 200_000, 40).select(negate("id").alias("x"))
        equal(frame.agg(F.sum("x")).head()[0], -sum(range(0, 200_000, 40)), "sum")

    def py_pandas_udf(self):
        import pandas  # without it or Arrow this fails: scripts/test installs them (need_arrays)

        broadcast = self.broadcast({i: i * 2 for i in range(200_000)})

        def double(ids: pandas.Series) -> pandas.Series:
            return ids.map(broadcast.value)

        frame = self.session.range(0, 200_000, 40).select(
            F.pandas_udf(double, LongType())("id").alias("x"))
        equal(frame.agg(F.sum("x")).head()[0], 2 * sum(range(0, 200_000, 40)), "sum")

    def py_join(self):
        self.session.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")
        facts = self.session.range(0, 50_000).withColumn("k", F.col("id") % 30_000)
        names = self.session.range(0, 20_000).select(
            F.col("id").alias("k"), F.md5(F.col("id").cast("string")).alias("name"))
        total = [F.count("*"), F.sum(F.length("name")), F.max("name"), F.countDistinct("name")]
        without = facts.join(names, "k").agg(*total).head()
        before = self.offloaded()
        equal(facts.join(F.broadcast(names), "k").agg(*total).head(), without, "aggregates")
        if self.plugin:
            equal(self.offloaded() > before, True, "relation offloaded")

    def py_nodes_have_plain_bytes_unless_spark_encrypts(self):
        """Any of its settings will do; with spark.io.encryption.enabled the pickle is no plain one."""
        if not self.plugin or self.min_size:
            return  # as below
        value = os.urandom(4 << 20)
        marks = [value[i:i + 24] for i in range(99, len(value), 1 << 18)]
        broadcast = self.broadcast(value)
        equal(self.read_in_tasks(broadcast, hash_of), [hash_of(value)] * 4, "hashes in tasks")
        size, found = 0, set()
        for part in memory_of_nodes(self.application()):
            size += len(part)
            found |= {mark for mark in marks if mark in part}
        equal(size >= len(value), True, f"nodes have {size} bytes")
        equal(bool(found), not self.encrypts, f"plain, of {len(marks)} pieces {len(found)}")
        broadcast.destroy()

    def py_one_copy_a_host(self):
        """The workers of both executors read what the node has, and no file is written; where Spark
        encrypts what is on its disks, each executor has its file."""
        if self.min_size:
            return  # it takes seconds
        value = list(range(400_000))
        before = [self.on_executors(name) for name in FILES] if self.plugin else []
        held = self.on_executors("openMappings") if self.plugin else 0
        broadcast = self.broadcast(value)
        seen = set()
        for _ in range(20):
            tasks = self.context.parallelize(range(8), 8)
            seen |= set(tasks.map(lambda _: place_of(broadcast)).collect())
            if len({path for path, *_ in seen}) == EXECUTORS:
                break
        equal({total for *_, total in seen}, {sum(value)}, "sums in tasks")
        if not self.plugin:
            return
        shared, written = (self.on_executors(name) - was for name, was in zip(FILES, before))
        if self.encrypted:
            equal((shared, written), (0, EXECUTORS), "shared and written")
            return
        equal((shared, written), (EXECUTORS, 0), "shared and written")
        equal({target.rpartition("/")[0].count("/proc/") for _, target, *_ in seen}, {1}, f"{seen}")
        equal(len({inode for *_, inode, _ in seen}), 1, f"files behind {seen}")
        broadcast.unpersist(blocking=True)
        for _ in range(300):
            if self.on_executors("openMappings") <= held:
                return
            time.sleep(0.1)
        raise AssertionError("executors still hold what was unpersisted")

    def py_unpersist_then_read(self):
        broadcast = self.broadcast(list(range(400_000)))
        for _ in range(2):
            equal(self.read_in_tasks(broadcast, sum), [sum(range(400_000))] * 4, "sums")
            broadcast.unpersist(blocking=True)

    def py_destroy_then_use(self):
        broadcast = self.broadcast(list(range(400_000)))
        self.read_in_tasks(broadcast, len)
        broadcast.destroy(blocking=True)
        try:
            self.read_in_tasks(broadcast, len)
        except Exception as failure:
            equal("destroyed" in str(failure), True, f"says destroyed: {failure}"[:300])
            return
        raise AssertionError("a destroyed broadcast could be used")

    def py_pickling_fails(self):
        before = self.offloaded()
        try:
            self.context.broadcast(["x" * 3_000_000, sys.stdout])
        except Exception as failure:
            equal("pickle" in str(failure).lower() or "serialize" in str(failure).lower(), True,
                  f"names the cause: {failure}"[:300])
            equal(self.offloaded(), before, "offloaded")
            return
        raise AssertionError("a file was pickled")


def place_of(broadcast):
    """In a worker: the file's name, what that links to, what is behind it, and the value's sum."""
    time.sleep(0.05)  # so that one executor does not get all tasks
    path = getattr(broadcast, "_path", "decrypted")
    if not os.path.exists(path):
        return os.environ["SPARK_LOCAL_DIRS"], "", 0, sum(broadcast.value)
    target = os.readlink(path) if os.path.islink(path) else ""
    status = os.stat(path)
    return path, target, (status.st_dev, status.st_ino), sum(broadcast.value)


def hash_of(value):
    import zlib

    return len(value), zlib.crc32(value)


def run_cases(cases, prefix, pattern):
    """Runs its methods of that prefix whose names match."""
    for name in [name for name in dir(cases) if name.startswith(prefix)]:
        if not re.search(pattern, name):
            continue
        print(f"=== case {name}", file=sys.stderr)
        try:
            getattr(cases, name)()
            print(f"CASE {name} ok", flush=True)
        except Exception as failure:
            traceback.print_exc()
            why = " ".join(repr(failure).split())[:600]
            print(f"CASE {name} FAIL {why}", flush=True)


def nodes_with(word):
    """Folders in /proc of the nodes whose command lines have that."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # others' processes, and such as end
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"bigcastd") and any(word.encode() in each for each in words):
                yield process


def memory_of_nodes(application):
    """What the application's nodes have in their memory files, of each file a piece at a time."""
    for node in nodes_with(application):
        with contextlib.suppress(OSError):  # it ends
            for file in (node / "fd").iterdir():
                if os.readlink(file).startswith("/memfd:"):
                    yield from data_of(file)


def data_of(file):
    """Without its holes."""
    with open(file, "rb") as opened, contextlib.suppress(OSError):  # ENXIO: no more data
        end = 0
        while True:
            begin = os.lseek(opened.fileno(), end, os.SEEK_DATA)
            end = os.lseek(opened.fileno(), begin, os.SEEK_HOLE)
            yield os.pread(opened.fileno(), end - begin, begin)


def equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f"{what}: expected {str(expected)[:200]}, got {str(actual)[:200]}")


def main():
    session = SparkSession.builder.getOrCreate()
    cases = Cases(session)
    cases.run()
    for name in FILES if cases.plugin else ():
        print("COUNTER", name, cases.on_executors(name), flush=True)
    session.stop()
    print("END of cases", flush=True)


if __name__ == "__main__":
    main()
