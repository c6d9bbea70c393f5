"""How long a SQL broadcast hash join takes, on Bigcast and on plain Spark.

A real standalone cluster: the driver on host 0, an executor of one core on each of N hosts, which are
network namespaces whose links are limited to the rate. The table is made by the executors, collected
and hashed by the driver, broadcast and joined; that and all else in the query is timed. The systems
take turns, and must give the same result. The bar: less time than plain Spark's.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
import measure  # noqa: E402
from cluster import Cluster, bigcast_conf, compile_job, parse_spark_arguments  # noqa: E402
from measure import MEBI  # noqa: E402
from netns import Hosts, available  # noqa: E402

JOB = "JoinProbe"
SYSTEMS = ("torrent", "bigcast")
ROW_BYTES = 64  # a key, 32 characters, and what an UnsafeRow and the hash table add


class Bench:
    def __init__(self, arguments, hosts, work_dir):
        self._arguments = arguments
        self._hosts = hosts
        self._work_dir = work_dir
        self._program = compile_job(
            arguments.spark_home, ROOT / "scripts" / "bench.d" / f"{JOB}.java", work_dir)
        self._executor_mib = 1024 + 4 * max(arguments.sizes) // MEBI
        self._cluster = Cluster(hosts, arguments.spark_home, work_dir / "cluster", worker_cores=1,
                                worker_memory=f"{self._executor_mib}m")

    def run(self, system, size):
        """{"seconds": of each query, "result": of the last}."""
        arguments = self._arguments
        result = self._work_dir / "result.json"
        log_path = self._work_dir / f"{system}.log"
        conf = {
            "spark.driver.memory": f"{1024 + 6 * size // MEBI}m",
            "spark.executor.memory": f"{self._executor_mib}m",
            "spark.executor.cores": "1",
            "spark.cores.max": str(arguments.hosts),
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
            "spark.sql.shuffle.partitions": str(arguments.hosts),
            **(bigcast_conf(arguments.jar) if system == "bigcast" else {}),
            **arguments.conf,
        }
        with open(log_path, "wb") as log:
            process = self._cluster.submit(
                ["--class", JOB, str(self._program), str(size // ROW_BYTES)]
                + [str(arguments.hosts), str(arguments.repeats), str(result)],
                conf, stdout=log, stderr=log,
            )
        code = process.wait()
        said = log_path.read_text(encoding="utf-8", errors="replace")
        bigcast_nodes.end_all(self._hosts)
        if code != 0:
            raise SystemExit(f"{said[-4000:]}\nsql-join: the program failed on {system}")
        if system == "bigcast" and said.count(" to Bigcast in ") <= arguments.repeats:
            raise SystemExit("sql-join: a relation did not go through Bigcast")
        return json.loads(result.read_text(encoding="utf-8"))


def measure_size(bench, arguments, size):
    seconds = {system: [] for system in SYSTEMS}
    results = set()
    for turn in range(arguments.turns):
        for system in SYSTEMS[:: 1 if turn % 2 == 0 else -1]:
            print(f"   {measure.size_text(size)}, {system}", flush=True)
            run = bench.run(system, size)
            seconds[system] += run["seconds"]
            results.add(run["result"])
    if len(results) != 1:
        raise SystemExit(f"sql-join: different results: {results}")
    row = {"bench": "sql-join", "spark": arguments.spark, "hosts": arguments.hosts,
           "rate": arguments.rate, "size_bytes": size, "queries": len(seconds["bigcast"])}
    for system in SYSTEMS:
        row[f"{system}_seconds"] = statistics.median(seconds[system])
    row["of_torrent"] = row["bigcast_seconds"] / row["torrent_seconds"]
    return row


COLUMNS = (
    ("table", lambda row: measure.size_text(row["size_bytes"]), ""),
    ("hosts", "hosts", "d"),
    ("queries each", "queries", "d"),
    ("plain Spark, s", "torrent_seconds", ".2f"),
    ("Bigcast, s", "bigcast_seconds", ".2f"),
    ("÷ plain Spark", "of_torrent", ".2f"),
)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench sql-join", description=__doc__)
    parser.add_argument("--hosts", type=measure.positive, default=2, help="that read (default 2)")
    parser.add_argument("--rate", type=measure.parse_rate, default="1gbit", help="default 1gbit")
    parser.add_argument(
        "--sizes", type=measure.list_of(measure.parse_size),
        default=[64 * MEBI, 256 * MEBI], help="of the table, about (default 64m,256m)",
    )
    parser.add_argument("--repeats", type=measure.positive, default=3,
                        help="queries in an application (default 3)")
    parser.add_argument("--turns", type=measure.positive, default=2,
                        help="applications on each system (default 2)")
    parser.add_argument("--quick", action="store_true", help="16m, one turn: does it work?")
    arguments = parse_spark_arguments(parser)
    if arguments.quick:
        arguments.sizes, arguments.repeats, arguments.turns = [16 * MEBI], 1, 1
    return arguments


def main():
    arguments = parse_arguments()
    if why_not := available():
        measure.cannot_run(f"no network namespaces: {why_not}")
    print(f"== sql-join: Spark {arguments.spark}, {arguments.hosts} hosts, {arguments.rate}",
          flush=True)
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as directory:
        with Hosts(1 + arguments.hosts, rate=arguments.rate) as hosts:
            bench = Bench(arguments, hosts, pathlib.Path(directory))
            rows = [measure_size(bench, arguments, size) for size in arguments.sizes]
    print("\nmedians; the whole query")
    measure.print_table(COLUMNS, rows)
    if arguments.json:
        measure.print_json(rows)


if __name__ == "__main__":
    measure.run(main)
