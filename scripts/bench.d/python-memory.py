"""What k Python workers of one executor take to read a broadcast matrix, and how long they take.

A real Spark cluster on two hosts, the driver on one and the workers on the other: one executor with
k cores, hence k Python workers, all in a memory cgroup with the executor's node. A float32 matrix is
broadcast; all workers read a row in every page of it at once. Memory: the cgroup's peak charge, less
page cache and what it was when all were idle, as a multiple of the matrix. Time: from the broadcast
until all workers have read. Both on plain PySpark and on the Python package. The bars are 1.15 x S,
and half of plain PySpark's time. Ends with an error if the first is missed, but for --quick, where
what the executor's JVM takes weighs more than the matrix.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
import measure  # noqa: E402
from cgroup import MemoryCgroup  # noqa: E402
from cluster import Cluster, bigcast_conf  # noqa: E402
from measure import MEBI  # noqa: E402
from netns import make_hosts  # noqa: E402

SYSTEMS = ("plain", "bigcast")
MEMORY_BAR, TIME_BAR = 1.15, 0.5
SETTLE_S = 2


def run(arguments, system, directory):
    """(bytes above idle, seconds until all have read, of those the broadcast's)."""
    mib = arguments.size // MEBI
    package = directory / "package"
    [wheel] = arguments.jar.parent.glob("bigcast-*.whl")
    zipfile.ZipFile(wheel).extractall(package)
    conf = {
        "spark.driver.memory": f"{1024 + 2 * mib}m",
        "spark.executor.memory": f"{1024 + 2 * mib}m",
        "spark.executor.cores": str(arguments.workers),
        "spark.cores.max": str(arguments.workers),
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
        "spark.executorEnv.PYTHONPATH": str(package),
    }
    if system == "bigcast":
        conf |= bigcast_conf(arguments.jar)
        conf |= {"spark.bigcast.node.memory": f"{max(3 * mib, 64)}m"}
    environment = {"PYSPARK_PYTHON": arguments.python, "PYTHONPATH": str(package)}
    gate = directory / "gate"
    gate.mkdir()
    with make_hosts(2) as hosts, MemoryCgroup() as cgroup:
        cluster = Cluster(hosts, arguments.spark_home, directory / "cluster", arguments.workers,
                          f"{2048 + 2 * mib}m", worker_wrapper=cgroup.command([]))
        process = cluster.submit(
            [str(ROOT / "scripts" / "lib" / "array_job.py"), system, str(arguments.size),
             str(arguments.workers), str(gate)],
            conf, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        figures, said = follow(process, cgroup, gate)
        if process.wait() != 0 or len(figures) != 3:
            raise SystemExit(f"{said[-4000:]}\npython-memory: the program failed on {system}")
        bigcast_nodes.end_all(hosts)
    return figures


def follow(process, cgroup, gate):
    """The figures, and all else that the program said."""
    idle, figures, said = 0, (), ""
    for line in process.stdout:
        words = line.split()
        if words[:2] == ["phase", "idle"]:
            time.sleep(SETTLE_S)
            idle = cgroup.charged()
            cgroup.forget_peak()
        elif words[:2] == ["phase", "read"]:
            time.sleep(SETTLE_S)
            figures = (cgroup.peak() - idle, float(words[2]), float(words[3]))
        else:
            said += line
            continue
        (gate / words[1]).touch()
    return figures, said


COLUMNS = (
    ("system", "system", ""),
    ("workers", "workers", "d"),
    ("matrix", lambda row: measure.size_text(row["size_bytes"]), ""),
    ("memory ÷ matrix", "memory_ratio", ".2f"),
    ("broadcast s", "broadcast_seconds", ".2f"),
    ("until all read s", "total_seconds", ".2f"),
)


def main():
    parser = argparse.ArgumentParser(prog="bench python-memory", description=__doc__)
    parser.add_argument("--size", type=measure.parse_size, default=1024 * MEBI, help="default 1g")
    parser.add_argument("--workers", type=measure.positive, default=4, help="default 4")
    parser.add_argument("--repeats", type=measure.positive, default=3, help="default 3")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="default both")
    parser.add_argument("--quick", action="store_true", help="16 MiB, one run: does it work?")
    parser.add_argument("--json", action="store_true", help="also print JSON lines")
    parser.add_argument("--jar", type=pathlib.Path, default=os.environ.get("plugin_jar"))
    parser.add_argument("--python", default=os.environ.get("spark_python"))
    parser.add_argument("--spark-home", default=os.environ.get("SPARK_HOME"))
    arguments = parser.parse_args()
    arguments.jar = pathlib.Path(arguments.jar)
    if arguments.quick:
        arguments.size, arguments.repeats = 16 * MEBI, 1
    print(f"== python-memory: {measure.size_text(arguments.size)}", flush=True)
    rows = []
    for system in arguments.systems.split(","):
        runs = []
        for _ in range(arguments.repeats):
            with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as directory:
                runs.append(run(arguments, system, pathlib.Path(directory)))
        memory, total, made = (statistics.median(values) for values in zip(*runs))
        rows.append({"bench": "python-memory", "system": system, "workers": arguments.workers,
                     "size_bytes": arguments.size, "memory_ratio": memory / arguments.size,
                     "broadcast_seconds": made, "total_seconds": total})
    measure.print_table(COLUMNS, rows)
    print(f"bars: memory {MEMORY_BAR} x the matrix, time {TIME_BAR} x plain PySpark's")
    if arguments.json:
        measure.print_json(rows)
    for row in rows:
        if row["system"] == "bigcast" and row["memory_ratio"] > MEMORY_BAR and not arguments.quick:
            raise SystemExit(f"python-memory: missed its bar: memory {row['memory_ratio']:.2f} x the "
                             f"matrix, bar {MEMORY_BAR}")


if __name__ == "__main__":
    measure.run(main)
