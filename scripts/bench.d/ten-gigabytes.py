"""Ten gigabytes from a driver with a heap of one, to two hosts, by Bigcast.publish.

A real standalone cluster: the driver on host 0, an executor of one core on each of two hosts, which
are network namespaces whose links are limited to the rate. The driver publishes a stream; each
executor compares every byte. The nodes have a memory budget of --node-memory each, with disk behind
it. The driver, with its node, has a memory cgroup, whose peak charge less page cache is shown beside
the peak of the driver's heap, with garbage and just after collections. Time is compared with S/B: how
long a raw TCP connection takes for as many bytes. Plain Spark gets the same stream in the same heap:
it can broadcast what the driver holds, so it collects the stream first. Ends with an error if bytes
that Bigcast carried are not what was published, or a bar of memory is missed.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
import measure  # noqa: E402
from cgroup import MemoryCgroup, has_memory_cgroups  # noqa: E402
from cluster import Cluster, bigcast_conf, compile_job, parse_spark_arguments  # noqa: E402
from measure import MEBI  # noqa: E402
from netns import Hosts, available  # noqa: E402

JOB = "PublishProbe"
SYSTEMS = ("bigcast", "torrent")
READERS = 2
WINDOW_MIB = 64
HEAP_BAR_MIB = 256  # above idle and the window
CGROUP_BAR_MIB = 64  # above heap and budget
OUT_OF_MEMORY = "java.lang.OutOfMemoryError"


class Bench:
    def __init__(self, arguments, hosts, work_dir):
        self._arguments = arguments
        self._hosts = hosts
        self._work_dir = work_dir
        sources = ROOT / "scripts" / "bench.d"
        self._program = compile_job(
            arguments.spark_home, sources / f"{JOB}.java", work_dir, sources / "EverySlot.java",
            arguments.jar,
        )
        self._cluster = Cluster(hosts, arguments.spark_home, work_dir / "cluster", worker_cores=1,
                                worker_memory=f"{arguments.heap // MEBI}m")

    def run(self, system):
        """One run's row; how it failed is one of its values."""
        arguments = self._arguments
        result = self._work_dir / f"{system}.json"
        log_path = self._work_dir / f"{system}.log"
        heap = f"{arguments.heap // MEBI}m"
        conf = {
            "spark.driver.memory": heap,
            "spark.executor.memory": heap,
            "spark.executor.cores": "1",
            "spark.cores.max": str(READERS),
            "spark.driver.extraJavaOptions": "-XX:+UseG1GC -XX:+ExitOnOutOfMemoryError",
            **(bigcast_conf(arguments.jar) if system == "bigcast" else {}),
            **({"spark.bigcast.node.memory": f"{arguments.node_memory // MEBI}m"}
               if system == "bigcast" else {}),
            **arguments.conf,
        }
        if system == "torrent":  # it is compiled against the plugin, and does not use it
            conf["spark.driver.extraClassPath"] = conf["spark.executor.extraClassPath"] = str(
                arguments.jar)
        with contextlib.ExitStack() as stack:
            cgroup = None if arguments.no_cgroup else stack.enter_context(MemoryCgroup())
            with open(log_path, "wb") as log:
                process = self._cluster.submit(
                    ["--class", JOB, str(self._program), system, str(arguments.size // MEBI)]
                    + [str(READERS), str(result)],
                    conf, wrapper=cgroup.command([]) if cgroup else (), stdout=log, stderr=log,
                )
                code = process.wait()
            bigcast_nodes.end_all(self._hosts)
        row = {"system": system, "outcome": "every byte verified"}
        if cgroup:
            row["cgroup_peak_bytes"] = cgroup.peak()
        said = log_path.read_text(encoding="utf-8", errors="replace")
        if code == 0:
            return row | json.loads(result.read_text(encoding="utf-8"))
        if OUT_OF_MEMORY in said and system == "torrent":
            collected = [line for line in said.splitlines() if line.startswith("collected ")]
            row["outcome"] = f"OutOfMemoryError; {collected[-1] if collected else 'collected none'}"
            return row
        wrong = re.search(r"executors read \[.*\] good blocks of \d+", said)
        raise SystemExit(f"{said[-4000:]}\nten-gigabytes: the program failed on {system}"
                         + (f": {wrong[0]}" if wrong else ""))


def complete(row, arguments, bytes_per_s):
    row = {"bench": "ten-gigabytes", "spark": arguments.spark, "size_bytes": arguments.size,
           "heap_bytes": arguments.heap, "node_memory_bytes": arguments.node_memory,
           "rate": arguments.rate, "link_seconds": arguments.size / bytes_per_s, **row}
    if "total_seconds" in row:
        row["ratio"] = row["total_seconds"] / row["link_seconds"]
        row["heap_above_idle_bytes"] = row["heap_live_peak_bytes"] - row["heap_idle_bytes"]
    return row


def mebibytes(name):
    return lambda row: row[name] / MEBI if row.get(name) is not None else None


COLUMNS = (
    ("system", "system", ""),
    ("outcome", "outcome", ""),
    ("published, s", "made_seconds", ".1f"),
    ("read by all, s", "total_seconds", ".1f"),
    ("S/B, s", "link_seconds", ".1f"),
    ("÷ S/B", "ratio", ".2f"),
    ("heap with garbage, peak, MiB", mebibytes("heap_peak_bytes"), ".0f"),
    ("heap after collections, peak, MiB", mebibytes("heap_live_peak_bytes"), ".0f"),
    ("heap after collections, above idle, MiB", mebibytes("heap_above_idle_bytes"), ".0f"),
    ("driver's cgroup, peak, MiB", mebibytes("cgroup_peak_bytes"), ".0f"),
)


def missed(row, arguments):
    """Prints Bigcast's bars; those that it missed."""
    budget_mib = (arguments.heap + arguments.node_memory) // MEBI
    bars = (("heap after collections, above idle", "heap_above_idle_bytes",
             WINDOW_MIB + HEAP_BAR_MIB, f"window + {HEAP_BAR_MIB}"),
            ("driver's cgroup", "cgroup_peak_bytes",
             budget_mib + CGROUP_BAR_MIB, f"heap + budget + {CGROUP_BAR_MIB}"))
    over = []
    for what, name, bar_mib, why in bars:
        if name in row:
            line = f"{what}: {row[name] / MEBI:.0f} MiB, bar {bar_mib} MiB ({why})"
            print(line)
            over += [line] if row[name] > bar_mib * MEBI else []
    return over


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench ten-gigabytes", description=__doc__)
    parser.add_argument("--size", type=measure.parse_size, default=10 << 30, help="default 10g")
    parser.add_argument("--heap", type=measure.parse_size, default=1 << 30,
                        help="of driver and executors (default 1g)")
    parser.add_argument("--node-memory", type=measure.parse_size, default=1 << 30,
                        help="the budget of each of Bigcast's nodes (default 1g)")
    parser.add_argument("--rate", type=measure.parse_rate, default="1gbit", help="default 1gbit")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--no-cgroup", action="store_true", help="leave the cgroup's part out")
    parser.add_argument("--quick", action="store_true",
                        help="640m from a heap of 512m, nodes of 64m, Bigcast only: does it work?")
    arguments = parse_spark_arguments(parser)
    if arguments.quick:
        arguments.size, arguments.node_memory, arguments.systems = 640 * MEBI, 64 * MEBI, "bigcast"
        arguments.heap = 512 * MEBI
    arguments.systems = [system for system in SYSTEMS if system in arguments.systems.split(",")]
    return arguments


def main():
    arguments = parse_arguments()
    if why_not := available():
        measure.cannot_run(f"no network namespaces: {why_not}")
    arguments.no_cgroup = arguments.no_cgroup or not has_memory_cgroups()
    print(f"== ten-gigabytes: Spark {arguments.spark}, {measure.size_text(arguments.size)} from a "
          f"heap of {measure.size_text(arguments.heap)} to {READERS} hosts, {arguments.rate}",
          flush=True)
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as directory:
        with Hosts(1 + READERS, rate=arguments.rate) as hosts:
            data = os.urandom(min(arguments.size, 256 * MEBI))
            seconds = [measure.raw_seconds(hosts, 0, 1, data) for _ in range(1 if arguments.quick else 3)]
            bytes_per_s = len(data) / statistics.median(seconds)
            print(f"   raw socket: {bytes_per_s * 8 / 1e6:.0f} Mbit/s", flush=True)
            del data
            bench = Bench(arguments, hosts, pathlib.Path(directory))
            rows = []
            for system in arguments.systems:
                print(f"   {system}", flush=True)
                rows.append(complete(bench.run(system), arguments, bytes_per_s))
    measure.print_table(COLUMNS, rows)
    over = [line for row in rows if row["system"] == "bigcast" for line in missed(row, arguments)]
    if arguments.json:
        measure.print_json(rows)
    if over:
        raise SystemExit(f"ten-gigabytes: missed its bar: {'; '.join(over)}")


if __name__ == "__main__":
    measure.run(main)
