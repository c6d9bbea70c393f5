"""Runs the demo's job on plain Spark and on Bigcast and prints the table. Called by scripts/demo."""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
from cluster import Cluster, bigcast_conf, compile_job  # noqa: E402
from measure import available_mib  # noqa: E402
from netns import make_hosts  # noqa: E402

WORKERS = 2
EXECUTORS_PER_WORKER = 2
JOB = "PackageClosures"
MEBI = 1 << 20


@dataclasses.dataclass
class Memory:
    """Heap sizes in MiB, enough for the scale."""

    driver: int
    executor: int

    @staticmethod
    def for_scale(scale):
        # About 85 MiB of map a step; plain Spark keeps the value and its serialised form in each
        # JVM, and deserialising leaves garbage behind.
        return Memory(driver=1024 + 448 * scale, executor=768 + 320 * scale)

    def total(self):
        return self.driver + WORKERS * EXECUTORS_PER_WORKER * self.executor


def write_input(path):
    """Writes what apt knows of the archive; fetches the package lists first if there are none."""
    for attempt in range(2):
        with open(path, "wb") as file:
            subprocess.run(["apt-cache", "dumpavail"], check=True, stdout=file)
        if path.stat().st_size > MEBI:
            return
        if attempt == 0:
            print("== no package lists yet: apt-get update", flush=True)
            sudo = [] if os.getuid() == 0 else ["sudo"]
            subprocess.run(
                [*sudo, "apt-get", "-q", "update"], check=True, stdin=subprocess.DEVNULL
            )
    raise SystemExit("demo: apt-cache dumpavail prints no packages, even after apt-get update")


def traffic_in(hosts):
    counters = [hosts.traffic(host) for host in range(1, hosts.count)]
    return [counter.received if counter else None for counter in counters]


class Watcher:
    """Answers the phases of the job, and reads the counters of the hosts as each begins."""

    def __init__(self, hosts):
        self._hosts = hosts
        self.traffic = {}
        self.nodes = []

    def follow(self, process):
        for line in process.stdout:
            if not line.startswith("phase "):
                print(f"   {line.rstrip()}", flush=True)
                continue
            phase = line.split()[1]
            self.traffic[phase] = traffic_in(self._hosts)
            if phase == "read":
                self.nodes = [
                    bigcast_nodes.on_host(self._hosts, host) for host in range(self._hosts.count)
                ]
            process.stdin.write("go\n")
            process.stdin.flush()


def run_job(cluster, hosts, name, arguments, conf, work_dir):
    """Runs the job once; returns its figures. What Spark logs goes to a file in work_dir."""
    result = work_dir / f"{name}.json"
    log_path = work_dir / f"{name}.log"
    started = time.monotonic()
    with open(log_path, "wb") as log:
        process = cluster.submit(
            ["--class", JOB, str(arguments[0]), *map(str, arguments[1:]), str(result)],
            conf,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        watcher = Watcher(hosts)
        watcher.follow(process)
        status = process.wait()
    if status != 0:
        tail = log_path.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise SystemExit(f"{tail}\ndemo: the job on {name} failed with exit code {status}")
    figures = json.loads(result.read_text(encoding="utf-8"))
    figures["total_seconds"] = time.monotonic() - started
    before, after = watcher.traffic["begin"], watcher.traffic["read"]
    figures["bytes_in"] = [None if b is None else a - b for b, a in zip(before, after)]
    add_copies(figures, watcher.nodes)
    return figures


def add_copies(figures, nodes):
    """Serialised copies a host: what executors and nodes of the workers hold, in whole values.

    The size of one copy is what the driver's block manager holds of it on plain Spark, and what
    the home, the driver's node, holds on Bigcast."""
    held = figures["host_serialized_bytes"] / figures["hosts"]
    one = figures["driver_serialized_bytes"]
    if nodes and any(nodes):
        home = nodes[0]
        one += sum(node.stored_bytes for node in home)
        if len({node.pid for host in nodes for node in host}) > len(home):  # hosts are separate
            relays = [sum(node.stored_bytes for node in host) for host in nodes[1:]]
            held += sum(relays) / len(relays)
        else:
            held += one
    figures["serialized_bytes"] = one
    figures["copies_per_host"] = held / one if one else None


def mib(count):
    return f"{round(count / MEBI)} MiB"


def rows(figures):
    bytes_in = figures["bytes_in"]
    copies = figures["copies_per_host"]
    return [
        ("driver heap above the value", mib(figures["driver_heap_above_value_bytes"])),
        ("time to broadcast", f"{figures['broadcast_seconds']:.2f} s"),
        ("time until every executor has read it", f"{figures['read_seconds']:.2f} s"),
        ("bytes into each host", ", ".join(mib(c) for c in bytes_in if c is not None) or "-"),
        ("serialised copies a host", "-" if copies is None else f"{copies:.2f}"),
        ("size of one copy", mib(figures["serialized_bytes"])),
        ("whole job", f"{figures['total_seconds']:.1f} s"),
    ]


def print_table(title, columns):
    """columns: {heading: figures}."""
    cells = {heading: rows(figures) for heading, figures in columns.items()}
    names = [name for name, _ in next(iter(cells.values()))]
    width = max(map(len, names))
    print(f"\n{title}\n")
    print(f"| {'':{width}} |" + "".join(f" {heading:>16} |" for heading in cells))
    print(f"|-{'-' * width}-|" + "".join(f"-{'-' * 16}:|" for _ in cells))
    for number, name in enumerate(names):
        values = "".join(f" {column[number][1]:>16} |" for column in cells.values())
        print(f"| {name:{width}} |{values}")
    print()


def same_result(columns):
    results = [
        {name: figures[name] for name in ("checksum", "packages", "closure_entries", "top")}
        for figures in columns.values()
    ]
    return all(result == results[0] for result in results)


def parse_arguments():
    """scripts/demo has checked the values."""
    parser = argparse.ArgumentParser(prog="demo")
    parser.add_argument("--spark-home", required=True)
    parser.add_argument("--spark-version", required=True)
    parser.add_argument("--scale", type=int, default=4, help="copies of the archive (default 4)")
    parser.add_argument("--jar", type=pathlib.Path, required=True, help="the Bigcast plugin")
    parser.add_argument("--only", choices=["plain", "bigcast"], help="leave the other run out")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    parser.add_argument("--conf", action="append", default=[], help="NAME=VALUE for both runs")
    return parser.parse_args()


def run(arguments, hosts, work_dir):
    memory = Memory.for_scale(arguments.scale)
    if memory.total() > available_mib():
        print(
            f"== warning: the heaps may grow to {memory.total()} MiB, and only {available_mib()} MiB "
            "are available; a smaller --scale needs less",
            flush=True,
        )
    job = compile_job(
        arguments.spark_home, ROOT / "scripts" / "demo.d" / f"{JOB}.java", work_dir
    )
    packages = work_dir / "packages"
    write_input(packages)
    cluster = Cluster(
        hosts,
        arguments.spark_home,
        work_dir / "cluster",
        worker_cores=EXECUTORS_PER_WORKER,
        worker_memory=f"{EXECUTORS_PER_WORKER * memory.executor}m",
    )
    conf = {
        "spark.driver.memory": f"{memory.driver}m",
        "spark.executor.memory": f"{memory.executor}m",
        "spark.executor.cores": "1",
        "spark.cores.max": str(WORKERS * EXECUTORS_PER_WORKER),
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
        **dict(pair.split("=", 1) for pair in arguments.conf),
    }
    plans = {"plain": ("plain Spark", {}), "bigcast": ("Bigcast", bigcast_conf(arguments.jar))}
    columns = {}
    for name, (heading, more) in plans.items():
        if arguments.only in (None, name):
            print(f"== the job on {heading}", flush=True)
            job_arguments = [job, packages, arguments.scale]
            columns[heading] = run_job(
                cluster, hosts, name, job_arguments, {**conf, **more}, work_dir
            )
    return columns


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="bigcast-demo-") as directory:
        with make_hosts(1 + WORKERS) as hosts:
            columns = run(arguments, hosts, pathlib.Path(directory))
            separate = hosts.separate
    first = next(iter(columns.values()))
    where = "hosts are network namespaces" if separate else "all on one host"
    print_table(
        f"Spark {arguments.spark_version}, scale {arguments.scale}: {first['packages']} packages, "
        f"{first['closure_entries'] * 4 / MEBI:.0f} MiB of closures; {WORKERS} workers, "
        f"{first['executors']} executors; {where}",
        columns,
    )
    print(f"checksum {first['checksum']}; needed by most: {', '.join(first['top'])}")
    if arguments.json:
        arguments.json.write_text(json.dumps(columns, indent=1) + "\n", encoding="utf-8")
    if not same_result(columns):
        raise SystemExit("demo: the results differ")
    if len(columns) > 1:
        print("both runs gave the same result")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
