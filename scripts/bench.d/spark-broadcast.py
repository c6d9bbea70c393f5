"""How long a Spark broadcast takes until every executor has read it, on Bigcast and on plain Spark.

A real standalone cluster: the driver on host 0, K executors of one core on each of N hosts, which
are network namespaces whose links are limited to the rate. Timed: sc.broadcast and the first read
in every executor at once. Beside it, from the same run: the serialiser's floor, and S/B: the time
that a raw TCP connection takes for as many bytes as the value has when serialised. The bar is S/B +
1.2 x the floor. A smaller broadcast comes first, to load and compile what is used; what was read is
checked after the timed part. Heaps are touched from the start, as the floor's is.

The floor is what no system can do without: writing the value into memory by Spark's serializer and
reading it back, nothing being sent. It is timed in a JVM of its own that does nothing else, with the
driver's heap and settings, before the systems have their turn: 6 times, of which the first, which
compiles and touches the heap, does not count; the floor is the median of the others. Nothing collects
garbage in between but what the JVM does by itself. All rows have the same floor.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
import measure  # noqa: E402
from cluster import Cluster, bigcast_conf, compile_job, parse_spark_arguments  # noqa: E402
from measure import GIGA, MEBI  # noqa: E402
from netns import Hosts, available  # noqa: E402

JOB = "BroadcastProbe"
SYSTEMS = ("torrent", "bigcast")
# Bigcast with the one setting of Spark's that has chunks encrypted and leaves the network alone; and
# plain Spark with it.
SEALED = {"sealed": "bigcast", "torrent-sealed": "torrent"}
SEALED_CONF = {"spark.io.encryption.enabled": "true"}
FLOOR_FACTOR = 1.2
FLOOR_RUNS = 6  # of which the first does not count
# The value in a heap, as a multiple of its --size.
HEAP_FACTOR = {"bytes": 1, "longs": 1, "map": 3}
SERIALIZERS = {
    "java": "org.apache.spark.serializer.JavaSerializer",
    "kryo": "org.apache.spark.serializer.KryoSerializer",
}


def heap_conf(role, mib):
    """A heap whose pages are all there before the timed part: the first touch of a page is no
    system's, and costs several times as much on a virtual machine as elsewhere."""
    return {
        f"spark.{role}.memory": f"{mib}m",
        f"spark.{role}.extraJavaOptions": f"-Xms{mib}m -XX:+AlwaysPreTouch",
    }


class Bench:
    """A cluster with so many executors a host, and runs of the program on it."""

    def __init__(self, arguments, hosts, executors, work_dir):
        self._arguments = arguments
        self._hosts = hosts
        self._executors = executors
        self._work_dir = work_dir
        value_mib = arguments.size // MEBI * HEAP_FACTOR[arguments.kind]
        # Beside the value, its serialised form and, in the driver, the copy that the floor makes,
        # twice: what is dead may still be in the way of an array.
        self._driver_mib = 1024 + 4 * value_mib
        self._executor_mib = 768 + 2 * value_mib + arguments.size // MEBI
        sources = ROOT / "scripts" / "bench.d"
        self._program = compile_job(
            arguments.spark_home, sources / f"{JOB}.java", work_dir, sources / "EverySlot.java",
            sources / "PluginStats.java",
        )
        self._cluster = Cluster(
            hosts, arguments.spark_home, work_dir / "cluster", worker_cores=executors,
            worker_memory=f"{executors * self._executor_mib}m",
        )

    def floor_runs(self):
        """Seconds of the serialiser and its counterpart, warm, in a JVM of their own."""
        figures = self.run("floor", FLOOR_RUNS, {"spark.master": "local[1]"})
        pairs = zip(figures["serialize_seconds"], figures["deserialize_seconds"])
        return [sum(pair) for pair in pairs][1:]

    def run(self, system, repeats, conf=None):
        """The program's figures, each a list with a number for each repeat, and the traffic."""
        arguments = self._arguments
        carrier = SEALED.get(system, system)
        slots = self._executors * arguments.hosts
        result = self._work_dir / f"{system}.json"
        conf = {
            **heap_conf("driver", self._driver_mib),
            **heap_conf("executor", self._executor_mib),
            "spark.executor.cores": "1",
            "spark.cores.max": str(slots),
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
            "spark.serializer": SERIALIZERS[arguments.serializer],
            **(bigcast_conf(arguments.jar) if carrier == "bigcast" else {}),
            **(SEALED_CONF if system in SEALED else {}),
            **arguments.conf,
            **(conf or {}),
        }
        log_path = self._work_dir / f"{system}.log"
        with open(log_path, "wb") as log:
            process = self._cluster.submit(
                ["--class", JOB, str(self._program), carrier, arguments.kind]
                + [str(arguments.size), str(slots), str(repeats), str(result)],
                conf, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )
            snapshots = self._follow(process)
        if process.wait() != 0:
            tail = log_path.read_text(encoding="utf-8", errors="replace")[-4000:]
            raise SystemExit(f"{tail}\nspark-broadcast: the program failed on {system}")
        bigcast_nodes.end_all(self._hosts)
        return self._add_differences(json.loads(result.read_text(encoding="utf-8")), snapshots)

    def _follow(self, process):
        snapshots = []
        for line in process.stdout:
            if line.startswith("phase "):
                hosts = range(self._hosts.count)
                pids = [pid for host in hosts for pid in self._hosts.pids(host)]
                cpu = sum(map(measure.cpu_seconds, pids))
                snapshots.append(([self._hosts.traffic(host) for host in hosts], cpu))
                process.stdin.write("go\n")
                process.stdin.flush()
        return snapshots

    def _add_differences(self, figures, snapshots):
        readers = range(1, self._hosts.count)
        figures["into_host_max_bytes"], figures["sent_bytes"], figures["cpu_s"] = [], [], []
        for (before, cpu_before), (after, cpu_after) in zip(snapshots[::2], snapshots[1::2]):
            into = [after[host].received - before[host].received for host in readers]
            sent = [a.sent - b.sent for a, b in zip(after, before)]
            figures["into_host_max_bytes"].append(max(into))
            figures["sent_bytes"].append(sum(sent))
            figures["cpu_s"].append(cpu_after - cpu_before)
        return figures


def row_of(arguments, executors, system, figures, bytes_per_s, floors):
    """Medians, and what follows from them."""
    medians = {name: statistics.median(values) for name, values in figures.items()}
    size = medians["serialized_bytes"]
    copies = arguments.hosts
    row = {"bench": "spark-broadcast", "system": system, "spark": arguments.spark}
    row.update(hosts=arguments.hosts, executors_per_host=executors, rate=arguments.rate)
    row.update(kind=arguments.kind, size_bytes=arguments.size, serializer=arguments.serializer)
    row.update(repeats=arguments.repeats, serialized_bytes=int(size))
    for name in ("broadcast_seconds", "total_seconds"):
        row[name] = medians[name]
    row["link_seconds"] = size / bytes_per_s
    row["floor_seconds"] = statistics.median(floors)
    row["floor_seconds_min"], row["floor_seconds_max"] = min(floors), max(floors)
    row["bar_seconds"] = row["link_seconds"] + FLOOR_FACTOR * row["floor_seconds"]
    row["into_host"] = medians["into_host_max_bytes"] / size
    row["sent"] = medians["sent_bytes"] / size / copies
    row["cpu_s_per_gb"] = medians["cpu_s"] / (size * copies / GIGA)
    row["cores_used"] = medians["cpu_s"] / medians["total_seconds"]
    return row


def measure_with(arguments, executors):
    """A row for each system, from one cluster."""
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as directory:
        with Hosts(1 + arguments.hosts, rate=arguments.rate) as hosts:
            data = os.urandom(min(arguments.size, 256 * MEBI))
            seconds = [measure.raw_seconds(hosts, 0, 1, data) for _ in range(3)]
            bytes_per_s = len(data) / statistics.median(seconds)
            print(f"   raw socket: {bytes_per_s * 8 / 1e6:.0f} Mbit/s", flush=True)
            del data
            bench = Bench(arguments, hosts, executors, pathlib.Path(directory))
            floors = bench.floor_runs()
            print(f"   floor: {', '.join(f'{each:.2f}' for each in floors)} s", flush=True)
            rows = []
            for system in arguments.systems:
                print(f"   {executors} executors a host, {system}", flush=True)
                figures = bench.run(system, arguments.repeats)
                rows.append(row_of(arguments, executors, system, figures, bytes_per_s, floors))
    seconds = {row["system"]: row["total_seconds"] for row in rows}
    torrent = seconds.get("torrent")
    for row in rows:
        clear = seconds.get(SEALED.get(row["system"]))
        row["of_clear"] = clear and row["total_seconds"] / clear
        row["ratio"] = row["total_seconds"] / row["bar_seconds"]
        row["of_torrent"] = torrent and row["total_seconds"] / torrent
    return rows


COLUMNS = (
    ("system", "system", ""),
    ("executors a host", "executors_per_host", "d"),
    ("serialised MiB", lambda row: row["serialized_bytes"] / MEBI, ".0f"),
    ("broadcast", "broadcast_seconds", ".2f"),
    ("read by all", "total_seconds", ".2f"),
    ("S/B", "link_seconds", ".2f"),
    ("floor", "floor_seconds", ".2f"),
    ("÷ (S/B + 1.2 × floor)", "ratio", ".2f"),
    ("÷ Torrent", "of_torrent", ".2f"),
    ("÷ in clear", "of_clear", ".2f"),
    ("into a host ÷ S", "into_host", ".3f"),
    ("sent ÷ N×S", "sent", ".3f"),
    ("CPU-s/GB", "cpu_s_per_gb", ".1f"),
    ("cores used", "cores_used", ".1f"),
)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench spark-broadcast", description=__doc__)
    parser.add_argument("--hosts", type=measure.positive, default=2, help="that read (default 2)")
    parser.add_argument("--executors", type=measure.list_of(measure.positive), default="1",
                        help="a host, such as 1,2,4 (default 1)")
    parser.add_argument("--rate", type=measure.parse_rate, default="1gbit", help="default 1gbit")
    parser.add_argument("--size", type=measure.parse_size, default=512 * MEBI,
                        help="of the value (default 512m); a map has an entry for each 64 bytes")
    parser.add_argument("--kind", choices=sorted(HEAP_FACTOR), default="bytes")
    parser.add_argument("--serializer", choices=sorted(SERIALIZERS), default="java")
    parser.add_argument("--systems", default=",".join(SYSTEMS),
                        help=f"of {','.join([*SYSTEMS, *SEALED])} (sealed: chunks are encrypted)")
    parser.add_argument("--encrypted", action="store_true", help="all of them")
    parser.add_argument("--repeats", type=measure.positive, default=3, help="default 3")
    parser.add_argument("--quick", action="store_true", help="32m, 1 host, one run: does it work?")
    arguments = parse_spark_arguments(parser)
    asked = arguments.systems.split(",")
    arguments.systems = [system for system in (*SYSTEMS, *SEALED)
                         if system in asked or arguments.encrypted]
    if arguments.quick:
        arguments.hosts, arguments.size, arguments.repeats = 1, 32 * MEBI, 1
    if arguments.size > 2047 * MEBI:
        parser.error("--size: must be at most 2047m, an array can't be longer")
    return arguments


def main():
    arguments = parse_arguments()
    if why_not := available():
        measure.cannot_run(f"no network namespaces: {why_not}")
    print(
        f"== spark-broadcast: Spark {arguments.spark}, {arguments.kind} of "
        f"{measure.size_text(arguments.size)}, {arguments.serializer}, {arguments.hosts} hosts, "
        f"{arguments.rate}",
        flush=True,
    )
    rows = [row for count in arguments.executors for row in measure_with(arguments, count)]
    print(f"\nmedians of {arguments.repeats}; times in seconds; bytes by the interfaces")
    measure.print_table(COLUMNS, rows)
    if arguments.json:
        measure.print_json(rows)


if __name__ == "__main__":
    measure.run(main)
