"""What a small broadcast costs: made, read once by an executor, destroyed; on Bigcast and on plain Spark.

Two applications run side by side on one cluster, one of them with Bigcast and spark.bigcast.minSize=0, so
that nothing is too small for it. They work in turn: a pair is a batch of broadcasts on one and then
on the other. The bar is 3 ms more than plain Spark for each broadcast, as a median over the pairs.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import measure  # noqa: E402
from cluster import Cluster, bigcast_conf, compile_job, parse_spark_arguments  # noqa: E402
from netns import Hosts, available  # noqa: E402

JOB = "SmallProbe"
BAR_MS = 3
BATCH = 50
WARM_UP = 10  # batches, for the compiler
PARTS = ("made", "read", "destroyed")


class Application:
    """One driver, told what to do by its standard input."""

    def __init__(self, cluster, program, conf, log_path):
        self._log_path = log_path
        with open(log_path, "wb") as log:
            self._process = cluster.submit(
                ["--class", JOB, str(program)],
                {"spark.executor.memory": "512m", "spark.executor.cores": "1",
                 "spark.cores.max": "1", "spark.driver.memory": "512m", **conf},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )
        self._line("ready")

    def _line(self, start):
        for line in self._process.stdout:
            if line.startswith(start):
                return line
        tail = self._log_path.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise SystemExit(f"{tail}\nsmall-broadcast: a driver ended")

    def batch(self, size):
        """Milliseconds for each broadcast, by part."""
        self._process.stdin.write(f"{size} {BATCH}\n")
        self._process.stdin.flush()
        return dict(zip(PARTS, map(float, self._line("cost").split()[1:])))

    def end(self):
        self._process.stdin.close()
        self._process.wait()


def measure_size(size, pairs, torrent, bigcast):
    for _ in range(WARM_UP):
        torrent.batch(size)
        bigcast.batch(size)
    runs = [(torrent.batch(size), bigcast.batch(size)) for _ in range(pairs)]
    row = {"bench": "small-broadcast", "size_bytes": size, "pairs": pairs}
    for number, system in enumerate(("torrent", "bigcast")):
        for part in PARTS:
            row[f"{system}_{part}_ms"] = statistics.median(run[number][part] for run in runs)
        row[f"{system}_ms"] = statistics.median(sum(run[number].values()) for run in runs)
    row["more_ms"] = statistics.median(sum(b.values()) - sum(t.values()) for t, b in runs)
    return row


COLUMNS = (
    ("size", lambda row: measure.size_text(row["size_bytes"]), ""),
    *((f"{system}: {part}, ms", f"{system}_{part}_ms", ".2f")
      for system in ("torrent", "bigcast") for part in PARTS),
    ("torrent, ms", "torrent_ms", ".2f"),
    ("bigcast, ms", "bigcast_ms", ".2f"),
    ("more, ms", "more_ms", ".2f"),
)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench small-broadcast", description=__doc__)
    parser.add_argument(
        "--sizes", type=measure.list_of(measure.parse_size),
        default=[100, 64 << 10, 900 << 10], help="default 100,64k,900k",
    )
    parser.add_argument("--pairs", type=measure.positive, default=20, help="default 20")
    parser.add_argument("--quick", action="store_true", help="one size, one pair: does it work?")
    arguments = parse_spark_arguments(parser)
    if arguments.quick:
        arguments.sizes, arguments.pairs = arguments.sizes[:1], 1
    return arguments


def main():
    arguments = parse_arguments()
    if why_not := available():
        measure.cannot_run(f"no network namespaces: {why_not}")
    print(f"== small-broadcast: Spark {arguments.spark}, {arguments.pairs} pairs of {BATCH} "
          f"broadcasts each", flush=True)
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as directory, Hosts(2) as hosts:
        work_dir = pathlib.Path(directory)
        program = compile_job(
            arguments.spark_home, ROOT / "scripts" / "bench.d" / f"{JOB}.java", work_dir)
        cluster = Cluster(hosts, arguments.spark_home, work_dir / "cluster", worker_cores=2,
                          worker_memory="1g")
        torrent = Application(cluster, program, arguments.conf, work_dir / "torrent.log")
        bigcast = Application(
            cluster, program,
            {**bigcast_conf(arguments.jar), "spark.bigcast.minSize": "0", **arguments.conf},
            work_dir / "bigcast.log")
        rows = [measure_size(size, arguments.pairs, torrent, bigcast) for size in arguments.sizes]
        torrent.end()
        bigcast.end()
    measure.print_table(COLUMNS, rows)
    worst = max(row["more_ms"] for row in rows)
    print(f"at most {worst:.2f} ms more than plain Spark; the bar is {BAR_MS} ms")
    if arguments.json:
        measure.print_json(rows)


if __name__ == "__main__":
    measure.run(main)
