"""The largest value that sc.broadcast carries, on Bigcast and on plain Spark, in the same heaps.

A real standalone cluster: the driver on host 0, an executor of one core on each of two hosts, which
are network namespaces whose links are limited to the rate. All three heaps have --heap, by default a
third of the memory that is free now, less 5 GiB for everything else: the largest that this machine
allows. For each system the size is searched, in steps of an eighth of the heap, from a quarter of it on,
in three tries; a size is carried if both executors have the checksum of all of its bytes. Each try is
an application of its own. The value is a list of arrays of 16 MiB that do not compress. Each of
Bigcast's nodes has a memory budget of 512 MiB, and disk behind it.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
import measure  # noqa: E402
from cluster import Cluster, bigcast_conf, compile_job, parse_spark_arguments  # noqa: E402
from measure import MEBI  # noqa: E402
from netns import Hosts, available  # noqa: E402

JOB = "LargestProbe"
SYSTEMS = ("torrent", "bigcast")
READERS = 2
STEPS = 8  # of a heap
NODE_MIB = 512
REST_MIB = 5 << 10  # for three nodes, Spark's daemons, and what JVMs have beside their heaps


class Bench:
    def __init__(self, arguments, hosts, work_dir):
        self._arguments = arguments
        self._hosts = hosts
        self._work_dir = work_dir
        sources = ROOT / "scripts" / "bench.d"
        self._program = compile_job(arguments.spark_home, sources / f"{JOB}.java", work_dir,
                                    sources / "EverySlot.java")
        self._cluster = Cluster(hosts, arguments.spark_home, work_dir / "cluster", worker_cores=1,
                                worker_memory=f"{arguments.heap // MEBI}m")

    def run(self, system, mebibytes):
        """One try's row."""
        arguments = self._arguments
        result, log_path = (self._work_dir / f"{system}-{mebibytes}.{kind}"
                            for kind in ("json", "log"))
        heap = f"{arguments.heap // MEBI}m"
        java = "-XX:+ExitOnOutOfMemoryError"
        conf = {
            "spark.driver.memory": heap,
            "spark.executor.memory": heap,
            "spark.driver.extraJavaOptions": java,
            "spark.executor.extraJavaOptions": java,
            "spark.cores.max": str(READERS),
            "spark.task.maxFailures": "1",
            **(bigcast_conf(arguments.jar) | {"spark.bigcast.node.memory": f"{NODE_MIB}m"}
               if system == "bigcast" else {}),
            **arguments.conf,
        }
        row = {"bench": "largest-broadcast", "system": system, "spark": arguments.spark,
               "heap_bytes": arguments.heap, "size_bytes": mebibytes * MEBI, "outcome": "carried"}
        with open(log_path, "wb") as log:
            process = self._cluster.submit(
                ["--class", JOB, str(self._program), str(mebibytes), str(READERS), str(result)],
                conf, stdout=log, stderr=log)
            try:
                code = process.wait(arguments.deadline)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return row | {"outcome": f"no end within {arguments.deadline} s"}
            finally:
                bigcast_nodes.end_all(self._hosts)
        if code == 0:
            return row | json.loads(result.read_text(encoding="utf-8"))
        said = log_path.read_text(encoding="utf-8", errors="replace")
        if "OutOfMemoryError" not in said and "ExecutorLostFailure" not in said:
            raise SystemExit(f"{said[-4000:]}\nlargest-broadcast: the program failed on {system}")
        return row | {"outcome": "out of memory"}

    def search(self, system):
        """The rows of all tries."""
        step = self._arguments.heap // MEBI // STEPS
        carried, failed = STEPS // 4 - 1, STEPS  # the first is not tried: then the next is the least
        rows = []
        while failed - carried > 1:
            middle = (carried + failed) // 2
            print(f"   {system}, {middle * step} MiB", flush=True)
            rows.append(self.run(system, middle * step))
            if rows[-1]["outcome"] == "carried":
                carried = middle
            else:
                failed = middle
        return rows


COLUMNS = (
    ("system", "system", ""),
    ("value, MiB", lambda row: row["size_bytes"] / MEBI, ".0f"),
    ("of the heap", lambda row: row["size_bytes"] / row["heap_bytes"], ".2f"),
    ("outcome", "outcome", ""),
    ("broadcast, s", "made_seconds", ".1f"),
    ("read by all, s", "total_seconds", ".1f"),
)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench largest-broadcast", description=__doc__)
    parser.add_argument("--heap", type=measure.parse_size, default=None, help="of each JVM")
    parser.add_argument("--rate", type=measure.parse_rate, default="10gbit",
                        help="default 10gbit: it is the size that counts")
    parser.add_argument("--deadline", type=measure.positive, default=900,
                        help="seconds for a try (default 900)")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--quick", action="store_true",
                        help="64m in heaps of 512m, a try each: does it work?")
    arguments = parse_spark_arguments(parser)
    if arguments.heap is None:
        arguments.heap = ((measure.available_mib() - REST_MIB) // (1 + READERS)) * MEBI
    if arguments.quick:
        arguments.heap = 512 * MEBI
    if arguments.heap < 512 * MEBI:
        parser.error("--heap: must be at least 512m; is this machine's memory free?")
    arguments.systems = [system for system in SYSTEMS if system in arguments.systems.split(",")]
    return arguments


def main():
    arguments = parse_arguments()
    if why_not := available():
        measure.cannot_run(f"no network namespaces: {why_not}")
    print(f"== largest-broadcast: Spark {arguments.spark}, heaps of "
          f"{arguments.heap // MEBI} MiB, {READERS} hosts, {arguments.rate}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as directory:
        with Hosts(1 + READERS, rate=arguments.rate) as hosts:
            bench = Bench(arguments, hosts, pathlib.Path(directory))
            for system in arguments.systems:
                rows += [bench.run(system, 64)] if arguments.quick else bench.search(system)
    measure.print_table(COLUMNS, rows)
    if arguments.json:
        measure.print_json(rows)
    if arguments.quick and any(row["outcome"] != "carried" for row in rows):
        raise SystemExit("largest-broadcast: 64 MiB were not carried")


if __name__ == "__main__":
    measure.run(main)
