"""Eviction policies on what Spark really reads: a job's nodes record it, policy_sim replays it.

A real standalone cluster: the driver on host 0, K executors of one core on each of N hosts, which are
network namespaces. Jobs that run at the same time read broadcasts of their own and one of all; each
node records what its readers do (spark.bigcast.node.recordTrace). Then each relay's trace is replayed
with caches of half of the nodes' memory, of all of it and of twice as much: what is fetched again,
that is beyond each chunk's first time, in per cent of the bytes read. Spark's readers go through a
broadcast in order (fixed); resident-first is what would be fetched again if they took what is resident
first. Ends with an error if the traces have not every chunk that executors have read.
"""

import argparse
import functools
import json
import pathlib
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
import measure  # noqa: E402
import replays  # noqa: E402
from cluster import Cluster, bigcast_conf, compile_job, parse_spark_arguments  # noqa: E402
from measure import MEBI  # noqa: E402
from netns import Hosts, available  # noqa: E402

JOB = "TraceProbe"
SHARES = (0.5, 1, 2)  # of the nodes' memory
EXECUTOR_MIB = 768


def record(arguments, work_dir):
    """Runs the job; the nodes' traces, and how many chunks executors have read."""
    slots = arguments.hosts * arguments.executors
    traces, result, log_path = (work_dir / name for name in ("traces", "result", "driver.log"))
    sources = ROOT / "scripts" / "bench.d"
    program = compile_job(
        arguments.spark_home, sources / f"{JOB}.java", work_dir, sources / "EverySlot.java",
        sources / "PluginStats.java")
    conf = {
        "spark.driver.memory": "1g",
        "spark.executor.memory": f"{EXECUTOR_MIB}m",
        "spark.executor.cores": "1",
        "spark.cores.max": str(slots),
        "spark.scheduler.mode": "FAIR",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
        **bigcast_conf(arguments.jar),
        "spark.bigcast.node.memory": f"{arguments.node_memory // MEBI}m",
        "spark.bigcast.node.recordTrace": str(traces),
        **arguments.conf,
    }
    with Hosts(1 + arguments.hosts, rate=arguments.rate) as hosts:
        cluster = Cluster(
            hosts, arguments.spark_home, work_dir / "cluster", worker_cores=arguments.executors,
            worker_memory=f"{arguments.executors * EXECUTOR_MIB}m")
        with open(log_path, "wb") as log:
            process = cluster.submit(
                ["--class", JOB, str(program), str(slots), str(arguments.jobs), str(arguments.size)]
                + [str(arguments.seed), str(result)],
                conf, stdout=log, stderr=log)
            code = process.wait()
        bigcast_nodes.end_all(hosts, signal.SIGTERM)
        while any(bigcast_nodes.on_host(hosts, host) for host in range(hosts.count)):
            time.sleep(0.1)
    if code != 0:
        tail = log_path.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise SystemExit(f"{tail}\nspark-trace: the program failed")
    return sorted(traces.glob("*.jsonl")), int(result.read_text(encoding="ascii"))


class Trace:
    def __init__(self, path):
        self.path = path
        lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
        self.blobs, self.streams = (self._count(lines, op) for op in ("put", "open"))
        chunks = [line for line in lines if line["op"] == "chunk"]
        self.chunks, self.bytes = len(chunks), sum(line["bytes"] for line in chunks)
        self.by_streams = sum("stream" in line for line in chunks)
        self._bytes_once = sum(
            {(line["blob"], line["chunk"]): line["bytes"] for line in chunks}.values())

    @staticmethod
    def _count(lines, operation):
        return sum(line["op"] == operation for line in lines)

    def fetched_again(self, binaries, capacity, policy, order):
        """Per cent of the bytes read; also what a policy fetches and does not keep."""
        result = replays.simulate(binaries, self.path, policy, capacity, "--order", order)
        return 100 * (result["byte_miss_ratio"] - self._bytes_once / self.bytes)


def rows_of(arguments, number, trace):
    for share in SHARES:
        capacity = int(arguments.node_memory * share)
        fetched_again = functools.partial(
            trace.fetched_again, arguments.jar.parent / "bin", capacity)
        yield {"bench": "spark-trace", "spark": arguments.spark, "relay": number,
               "blobs": trace.blobs, "readers": trace.streams, "chunks": trace.chunks,
               "read_bytes": trace.bytes, "capacity_bytes": capacity,
               **replays.compare(fetched_again, least=0.005)}


COLUMNS = (
    ("relay", "relay", "d"),
    ("blobs", "blobs", "d"),
    ("readers", "readers", "d"),
    ("chunks read", "chunks", "d"),
    ("MiB read", lambda row: row["read_bytes"] / MEBI, ".0f"),
    ("cache, MiB", lambda row: row["capacity_bytes"] / MEBI, ".0f"),
    *replays.COLUMNS,
)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench spark-trace", description=__doc__)
    parser.add_argument("--hosts", type=measure.positive, default=2, help="that read (default 2)")
    parser.add_argument("--executors", type=measure.positive, default=3, help="a host (default 3)")
    parser.add_argument("--rate", type=measure.parse_rate, default="1gbit", help="default 1gbit")
    parser.add_argument("--jobs", type=measure.positive, default=40, help="default 40")
    parser.add_argument("--size", type=measure.parse_size, default=48 * MEBI,
                        help="of a broadcast, at most (default 48m)")
    parser.add_argument("--node-memory", type=measure.parse_size, default=64 * MEBI,
                        help="the budget of each of Bigcast's nodes (default 64m)")
    parser.add_argument("--seed", type=measure.positive, default=1, help="of the job (default 1)")
    parser.add_argument("--quick", action="store_true",
                        help="six jobs, one host, two executors, nodes of 16m: does it work?")
    arguments = parse_spark_arguments(parser)
    if arguments.quick:
        arguments.hosts, arguments.executors, arguments.jobs = 1, 2, 6
        arguments.size, arguments.node_memory = 12 * MEBI, 16 * MEBI
    return arguments


def main():
    arguments = parse_arguments()
    if why_not := available():
        measure.cannot_run(f"no network namespaces: {why_not}")
    print(f"== spark-trace: Spark {arguments.spark}, {arguments.jobs} jobs with broadcasts of up to "
          f"{measure.size_text(arguments.size)}, {arguments.hosts} hosts of {arguments.executors} "
          f"executors, nodes of {measure.size_text(arguments.node_memory)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as directory:
        paths, chunks_read = record(arguments, pathlib.Path(directory))
        traces = [Trace(path) for path in paths]
        relays = [trace for trace in traces if trace.streams]
        recorded = sum(trace.by_streams for trace in traces)
        print(f"   executors read {chunks_read} chunks; {len(relays)} relays recorded {recorded}, and "
              f"their home {sum(trace.chunks - trace.by_streams for trace in traces)} of theirs")
        if recorded < chunks_read or not chunks_read:
            raise SystemExit("spark-trace: the traces are not complete")
        rows = [row for number, trace in enumerate(relays, 1)
                for row in rows_of(arguments, number, trace)]
    print("\nbytes fetched again, in per cent of the bytes read")
    measure.print_table(COLUMNS, rows)
    if arguments.json:
        measure.print_json(rows)


if __name__ == "__main__":
    measure.run(main)
