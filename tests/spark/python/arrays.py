"""Cases of the Python package in one context: arrays that the workers of a host share."""

import contextlib
import hashlib
import os
import pathlib
import signal
import sys
import threading

import bigcast
import numpy as np
import pandas as pd
import pyarrow as pa
from cases import Runner, equal, nodes_with
from pyspark import BarrierTaskContext, cloudpickle
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

ROOT = pathlib.Path(__file__).resolve().parents[3]
ROWS = 8192
TASKS = 8
WORKERS = 4  # at a time


def matrix_of(rows, seed=1):
    return np.random.default_rng(seed).standard_normal((rows, 256), dtype=np.float32)


class Scale:
    """Of the main program: only Spark's pickler can send it."""

    def __init__(self, factor):
        self.factor = factor


def odd_values():
    """Of each kind something above and something below what is kept out of the pickle."""
    numbers = np.random.default_rng(7).integers(0, 1 << 60, 120_000)
    record = np.zeros(30_000, dtype=[("a", "<i2"), ("b", ">f8", (2,)), ("c", "S3")])
    record["a"], record["b"], record["c"] = np.arange(30_000), 0.5, b"xyz"
    cube = numbers.reshape(40, 50, 60)
    chunks = [[1, None, 3], list(range(100_000))]
    return {
        "bytes": numbers.tobytes(), "bytearray": bytearray(numbers.tobytes()),
        "empty bytes": b"", "empty bytearray": bytearray(),
        "no rows": np.empty((0, 5), np.float32), "scalar": np.array(7, ">i2"),
        "big endian": numbers.astype(">i8"), "half": (numbers % 1000).astype(np.float16),
        "complex": numbers + 1j, "bool": numbers % 2 == 0, "record": record,
        "dates": numbers[:50_000].astype("datetime64[s]"), "text": np.array(["é", "wörd"] * 20_000),
        "objects": np.array([None, "x", 3] * 100, dtype=object),
        "fortran": np.asfortranarray(cube), "transposed": cube.transpose(1, 0, 2),
        "strided": numbers[::3], "reversed": numbers[::-1], "broadcast": np.broadcast_to(5, (300, 400)),
        "few": numbers[:3], "table": pa.table({
            "n": pa.chunked_array(chunks), "list": [[i] * (i % 3) for i in range(100_003)],
            "name": pa.array(["a", None, "b"] * 33_334 + ["c"]).dictionary_encode()}),
        "no table": pa.table({"n": pa.array([], pa.int64())}),
        "part": pa.table({"n": np.arange(100_000)}).slice(50_000, 40_000),
    }


def differences(expected, got):
    """The names of those that are not the same in type, form and content."""
    def same(one, other):
        if type(one) is not type(other):
            return False
        if isinstance(one, pa.Table):
            other.validate(full=True)
            return one.schema == other.schema and one.equals(other)
        if isinstance(one, np.ndarray):
            return one.dtype == other.dtype and one.shape == other.shape and (
                one.tolist() == other.tolist() if one.dtype.hasobject
                else one.tobytes() == other.tobytes())
        return one == other

    return [name for name in {**expected, **got} if not same(expected[name], got[name])]


def memory_of(buffer):
    """Where in the node's memory a buffer begins: device, inode and offset; None if elsewhere."""
    address = np.frombuffer(buffer, np.uint8).ctypes.data
    for line in open("/proc/self/maps", encoding="ascii"):
        span, _, offset, device, inode, *name = line.split()
        begin, end = (int(part, 16) for part in span.split("-"))
        if begin <= address < end and "memfd:bigcast" in "".join(name):
            return device, inode, int(offset, 16) + address - begin
    return None


def kill_node(broadcast):
    """The home, which is also the only node of this host."""
    node = next(nodes_with(broadcast._place.lease), None)
    equal(node is not None, True, "there is a node")
    os.kill(int(node.name), signal.SIGKILL)


def secret_in_worker():
    """The mode of the file that has the secret of the application's nodes, and that one's digest."""
    file = pathlib.Path(os.environ["SPARK_LOCAL_DIRS"].split(",")[0], "bigcast-python-secret")
    return file.stat().st_mode & 0o777, hashlib.sha256(file.read_bytes()).hexdigest()


def ask_for_help():
    """In a worker: the mode of the file that has the token, and answers to four questions."""
    import socket

    file = pathlib.Path(os.environ["SPARK_LOCAL_DIRS"].split(",")[0], "bigcast-python")
    port, token = file.read_text(encoding="ascii").split()

    def ask(line):
        with socket.create_connection(("127.0.0.1", int(port))) as executor:
            with contextlib.suppress(ConnectionError):
                executor.sendall(line.encode("ascii"))
                return executor.makefile().readline()
            return ""

    lines = ["0" * len(token) + " x\n", token + "0 x\n", token + " " + "x" * 1000 + "\n",
             token + " x\n"]
    return [file.stat().st_mode & 0o777, *map(ask, lines)]


class Arrays(Runner):
    def seen_in_tasks(self, function):
        return self.context.parallelize(range(TASKS), TASKS).map(function).collect()

    def seen_in_workers(self, function):
        """In all at once, so that each has a process of its own."""
        def one(_):
            BarrierTaskContext.get().barrier()
            return [function()]

        return self.context.parallelize(range(WORKERS), WORKERS).barrier().mapPartitions(one).collect()

    def shared(self, value):
        broadcast = bigcast.broadcast(self.context, value)
        equal(type(broadcast), bigcast.Broadcast, "what it is")
        return broadcast

    def py_array_is_mapped_in_every_worker(self):
        matrix = matrix_of(ROWS)
        broadcast = self.shared(matrix)
        found = self.seen_in_tasks(lambda i: (
            float(broadcast.value[i].sum()), broadcast.value.flags.writeable))
        equal(found, [(float(matrix[i].sum()), False) for i in range(TASKS)], "in tasks")
        seen = self.seen_in_workers(lambda: (os.getpid(), memory_of(broadcast.value)))
        equal(len({pid for pid, _ in seen}), WORKERS, f"processes in {seen}")
        places = {place for _, place in seen}
        equal((len(places), None in places), (1, False), f"one place in the node's memory: {seen}")
        equal(broadcast.value is matrix, True, "the driver has its own")
        broadcast.destroy()

    def py_structures(self):
        table = pa.table({"key": np.arange(100_000), "name": [str(i) for i in range(100_000)]})
        frame = pd.DataFrame({"x": np.arange(100_000.0), "y": np.arange(100_000)})
        value = {"table": table, "frame": frame, "scale": Scale(3), "small": np.arange(3),
                 "fortran": np.asfortranarray(matrix_of(512))}
        broadcast = self.shared(value)

        def look(_):
            got = broadcast.value
            buffers = {f"{name} {i}": buffer for name in ("key", "name")
                       for i, buffer in enumerate(got["table"][name].chunk(0).buffers()) if buffer}
            buffers |= {name: got["frame"][name].to_numpy() for name in ("x", "y")}
            buffers["fortran"] = got["fortran"].T
            elsewhere = [name for name, buffer in buffers.items() if memory_of(buffer) is None]
            return (got["table"].column("key").to_numpy().sum(), str(got["table"]["name"][99_999]),
                    got["frame"].x.sum(), got["scale"].factor, list(got["small"]),
                    float(got["fortran"][7, 9]), len(buffers), elsewhere)

        expected = (4_999_950_000, "99999", 4_999_950_000.0, 3, [0, 1, 2],
                    float(value["fortran"][7, 9]), 6, [])
        equal(self.seen_in_tasks(look), [expected] * TASKS, "in tasks")

    def py_odd_values(self):
        broadcast = self.shared(odd_values())
        found = self.context.parallelize(range(2), 2).map(
            lambda _: differences(odd_values(), broadcast.value)).collect()
        equal(found, [[]] * 2, "what differs in tasks")

    def py_bytes(self):
        data = bytes(range(256)) * 8192
        broadcast = self.shared(data)
        found = self.seen_in_tasks(lambda i: (bytes(broadcast.value[i:i + 9]),
                                              len(broadcast.value), broadcast.value.readonly,
                                              memory_of(broadcast.value) is None))
        equal(found, [(data[i:i + 9], len(data), True, False) for i in range(TASKS)], "in tasks")

    def py_udfs(self):
        matrix = matrix_of(ROWS)
        broadcast = self.shared(matrix)
        plain = F.udf(lambda i: int(broadcast.value[i, 0] * 1000), LongType())

        @F.pandas_udf("long")
        def vectorised(rows: pd.Series) -> pd.Series:
            return pd.Series((broadcast.value[rows, 0] * 1000).astype("int64"))

        expected = int((matrix[:, 0] * 1000).astype("int64").sum())
        frame = self.session.range(0, ROWS, 1, 4)
        for function in (plain, vectorised):
            found = frame.select(F.sum(function("id"))).head()[0]
            equal(found, expected, "sum")

    def py_small_values_stay_with_spark(self):
        broadcast = bigcast.broadcast(self.context, np.arange(10))
        equal(isinstance(broadcast, bigcast.Broadcast), False, "its type is Bigcast's")
        equal(self.seen_in_tasks(lambda i: int(broadcast.value[i])), list(range(TASKS)), "in tasks")

    def py_unpersist_then_read(self):
        matrix = matrix_of(ROWS)
        broadcast = self.shared(matrix)
        for _ in range(2):
            found = self.seen_in_tasks(lambda i: float(broadcast.value[i].sum()))
            equal(found, [float(matrix[i].sum()) for i in range(TASKS)], "sums")
            broadcast.unpersist()

    def py_destroy_then_use(self):
        broadcast = self.shared(matrix_of(ROWS))
        self.seen_in_tasks(lambda i: broadcast.value.shape)
        broadcast.destroy()
        try:
            self.seen_in_tasks(lambda i: broadcast.value.shape)
        except Exception as failure:
            equal("destroyed" in str(failure), True, f"says destroyed: {failure}"[:300])
            return
        raise AssertionError("a destroyed broadcast could be used")

    def py_home_dies(self):
        """Who has not mapped it gets the driver's value, and whoever can't have it is told why."""
        matrix = matrix_of(ROWS, seed=2)
        changed = matrix_of(ROWS, seed=3)
        broadcasts = [self.shared(matrix), self.shared(changed)]
        changed[5, 5] += 1
        kill_node(broadcasts[0])
        # The driver starts the next one, in its own local directory, where it removes what is left.
        self.context._jvm.io.bigcast.spark.PythonSupport.connection()
        found = self.seen_in_tasks(lambda i: (
            float(broadcasts[0].value[i].sum()), broadcasts[0].value.flags.writeable))
        equal(found, [(float(matrix[i].sum()), False) for i in range(TASKS)], "in tasks")
        stats = self.context._jvm.io.bigcast.spark.BigcastStats
        equal(stats.replacedForPython(), 1, "replaced")
        try:
            self.seen_in_tasks(lambda i: broadcasts[1].value.shape)
        except Exception as failure:
            equal("has been changed" in str(failure), True, f"says changed: {failure}"[-600:])
        else:
            raise AssertionError("a changed value was given")
        for broadcast in broadcasts:
            broadcast.destroy()
        again = self.shared(matrix)
        found = self.seen_in_tasks(lambda i: float(again.value[i].sum()))
        equal(found, [float(matrix[i].sum()) for i in range(TASKS)], "through another home")

    def py_help_needs_the_token(self):
        """What executors give their workers, nobody else gets; and only what exists."""
        [(mode, *answers)] = self.context.parallelize([0], 1).map(lambda _: ask_for_help()).collect()
        equal(mode, 0o600, "who may read the token")
        equal(answers[:3], ["", "", ""], "without the token, with a longer one, with too long a line")
        equal(answers[3].startswith("error NOT_FOUND"), True, f"of what is not there: {answers[3]}")

    def py_no_secret_travels(self):
        """Spark authenticates here and does not encrypt: what tasks carry is on the network in clear."""
        broadcast = self.shared(matrix_of(ROWS))
        closure = cloudpickle.dumps(lambda i: broadcast.value[i])
        nodes = self.context._jvm.io.bigcast.spark.PythonSupport.connection()["secret"].encode()
        sparks = self.context.getConf().get("spark.authenticate.secret")
        equal(broadcast._place.lease.encode() in closure, True, "the closure has the broadcast")
        equal([len(nodes), len(sparks)], [64, 64], "digits of the secrets")
        equal([secret in closure for secret in (nodes, sparks.encode())], [False, False],
              "the closure has secrets")
        [found] = self.context.parallelize([0], 1).map(lambda _: secret_in_worker()).collect()
        equal(found, (0o600, hashlib.sha256(nodes).hexdigest()), "the worker's file")

    def py_pickling_fails(self):
        try:
            bigcast.broadcast(self.context, [matrix_of(ROWS), threading.Lock()])
        except Exception as failure:
            equal("pickle" in str(failure).lower(), True, f"names the cause: {failure}"[:300])
            return
        raise AssertionError("a lock was pickled")

    def py_example(self):
        sys.path.insert(0, str(ROOT / "examples"))
        import embedding_lookup as example

        matrix = example.make_embeddings(ROWS)
        pairs = self.session.range(0, 20_000, 1, 4).select(
            (F.col("id") % ROWS).alias("left"), (F.col("id") * 31 % ROWS).alias("right"))
        embeddings = self.shared(matrix)
        rows = example.similarities(self.session, embeddings, pairs).collect()
        equal(len(rows), 20_000, "rows")
        got = np.array([row.cosine for row in rows])
        expected = np.einsum("ij,ij->i", matrix[[row.left for row in rows]],
                             matrix[[row.right for row in rows]])
        equal(bool(np.allclose(got, expected, atol=1e-5)), True, "all cosines are the driver's")


def main():
    session = SparkSession.builder.getOrCreate()
    Arrays(session).run()
    session.stop()
    print("END of cases", flush=True)


if __name__ == "__main__":
    main()
