"""The smallest heap that a driver needs to hold a value, to broadcast it, and to use Bigcast.

For each size the smallest -Xmx is bisected for three programs: one that builds the value (arrays of
64 KiB that don't compress) and runs a job without it, the same with sc.broadcast on plain Spark and
an executor that reads and checks it, and that on Bigcast. Each bisection is repeated; the medians
count. Every program holds 256 MiB more, so that Spark's own lower bound for a heap (450 MiB) does
not hide the effect. Then, with each at its smallest heap, touched from the start, the peak charge
of the driver's memory cgroup, which the driver's node belongs to.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
from cgroup import MemoryCgroup  # noqa: E402
from cluster import Cluster, bigcast_conf, compile_job  # noqa: E402
from netns import make_hosts  # noqa: E402

STEP_MIB = 16
BALLAST_MIB = 256
TIMEOUT_S = 240
MODES = ("hold", "torrent", "bigcast")
MEBI = 1 << 20


class Bench:
    """The cluster and the program, and one run of it."""

    def __init__(self, arguments, hosts, work_dir):
        self._hosts = hosts
        self._work_dir = work_dir
        self._jar = arguments.jar
        self.executor_mib = 1024 + 5 * max(arguments.sizes) // 2
        source = ROOT / "scripts" / "bench.d" / "MemoryProbe.java"
        self._program = compile_job(arguments.spark_home, source, work_dir)
        self._cluster = Cluster(
            hosts, arguments.spark_home, work_dir / "cluster", 1, f"{self.executor_mib}m"
        )
        self._extra = dict(pair.split("=", 1) for pair in arguments.conf)

    def run(self, mode, size, heap, options="", cgroup=None):
        """Runs the program once; whether it worked within the heap (MiB)."""
        result = self._work_dir / "result"
        result.unlink(missing_ok=True)
        conf = {
            "spark.driver.memory": f"{heap}m",
            "spark.executor.memory": f"{self.executor_mib}m",
            "spark.driver.extraJavaOptions": f"-XX:+UseG1GC -XX:+ExitOnOutOfMemoryError {options}",
            "spark.cores.max": "1",
            **(bigcast_conf(self._jar) if mode == "bigcast" else {}),
            **self._extra,
        }
        with open(self._work_dir / "driver.log", "wb") as log:
            process = self._cluster.submit(
                ["--class", "MemoryProbe", str(self._program)]
                + [mode, str(size), str(BALLAST_MIB), str(result)],
                conf,
                wrapper=cgroup.command([]) if cgroup else (),
                stdout=log,
                stderr=log,
            )
            end_by(process, TIMEOUT_S)
        self._end_nodes()
        log = (self._work_dir / "driver.log").read_text(encoding="utf-8", errors="replace")
        if "did not go through Bigcast" in log:
            print("     (went through TorrentBroadcast)", flush=True)
        return result.exists()

    def _end_nodes(self):
        """Ends the nodes that an application left for its grace period: their memory is in use."""
        for host in range(self._hosts.count):
            for node in bigcast_nodes.on_host(self._hosts, host):
                os.kill(node.pid, signal.SIGKILL)


def end_by(process, timeout_s):
    """Waits for the process; after the timeout it and its children are ended."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.05)


def smallest_heap(works, guess):
    """The smallest multiple of the step, in MiB, for which works; searched outwards from a guess."""
    at = max(1, guess // STEP_MIB)
    stride = 2
    if works(at * STEP_MIB):
        passed = at
        while True:
            at = max(1, passed - stride)
            if at == passed or not works(at * STEP_MIB):
                break
            passed, stride = at, stride * 2
        failed = at if at != passed else 0
    else:
        failed = at
        while True:
            at = failed + stride
            if works(at * STEP_MIB):
                break
            failed, stride = at, stride * 2
        passed = at
    while passed - failed > 1:
        middle = (passed + failed) // 2
        if works(middle * STEP_MIB):
            passed = middle
        else:
            failed = middle
    return passed * STEP_MIB


def measure_heaps(bench, size, repeats, modes):
    """{mode: the median of the smallest heaps}."""
    found = {}
    for mode in modes:
        more = {"hold": 64, "torrent": 64 + size * 5 // 4, "bigcast": 96}[mode]
        guess = found["hold"] + more - 64 if "hold" in found else BALLAST_MIB + size + more
        results = []
        for _ in range(repeats):
            results.append(smallest_heap(lambda heap: probe(bench, mode, size, heap), guess))
            guess = results[-1]
        found[mode] = int(statistics.median(results))
        print(f"   {size} MiB, {mode}: {found[mode]} MiB of {sorted(results)}", flush=True)
    return found


def probe(bench, mode, size, heap):
    started = time.monotonic()
    worked = bench.run(mode, size, heap)
    what = "works" if worked else "fails"
    print(f"     {mode} {size} MiB in -Xmx{heap}m {what}, {time.monotonic() - started:.0f} s", flush=True)
    return worked


def measure_cgroups(bench, size, heaps):
    """{mode: the peak charge of the driver's cgroup in MiB}; empty where cgroups can't be made."""
    found = {}
    for mode, heap in heaps.items():
        try:
            with MemoryCgroup(f"bc-{os.getpid()}") as cgroup:
                for more in (0, STEP_MIB, 2 * STEP_MIB):  # the smallest heap is a matter of luck
                    options = f"-Xms{heap + more}m -XX:+AlwaysPreTouch"
                    if bench.run(mode, size, heap + more, options, cgroup):
                        found[mode] = cgroup.peak() // MEBI - more
                        break
        except OSError as error:
            print(f"   no cgroups here, their part is left out: {error}", flush=True)
            return {}
    return found


def report(size, heaps, charges):
    base = heaps["hold"]
    lines = []
    for mode, heap in heaps.items():
        row = {"bench": "driver-memory", "size_mib": size, "mode": mode, "smallest_heap_mib": heap}
        row["added_heap_mib"] = heap - base
        row["added_heap_ratio"] = round((heap - base) / size, 3)
        if mode in charges:
            row["driver_cgroup_peak_mib"] = charges[mode]
            row["added_cgroup_mib"] = charges[mode] - charges["hold"]
        lines.append(row)
    return lines


def print_table(rows):
    print("\n| value | program | smallest heap | added | driver's cgroup, peak | added |")
    print("|---:|---|---:|---:|---:|---:|")
    for row in rows:
        peak, added = row.get("driver_cgroup_peak_mib", "-"), row.get("added_cgroup_mib", "-")
        print(
            f"| {row['size_mib']} MiB | {row['mode']} | {row['smallest_heap_mib']} MiB "
            f"| {row['added_heap_mib']} MiB | {peak} MiB | {added} MiB |"
        )


def parse_size(text):
    unit = {"m": 1, "g": 1024}.get(text[-1:].lower())
    if unit is None or not text[:-1].isdigit() or not 1 <= int(text[:-1]) * unit <= 65536:
        raise argparse.ArgumentTypeError(f"a size such as 256m or 2g, not '{text}'")
    return int(text[:-1]) * unit


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench driver-memory", description=__doc__)
    parser.add_argument("--spark-home", default=os.environ.get("SPARK_HOME"), help="(set by bench)")
    parser.add_argument("--jar", type=pathlib.Path, default=os.environ.get("plugin_jar"))
    parser.add_argument(
        "--sizes", type=lambda text: [parse_size(size) for size in text.split(",")],
        default=[256, 1024, 2048], help="of the value (default 256m,1g,2g)",
    )
    parser.add_argument("--repeats", type=int, default=3, help="bisections each (default 3)")
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {','.join(MODES)}")
    parser.add_argument("--no-cgroup", action="store_true", help="leave the cgroup's part out")
    parser.add_argument("--conf", action="append", default=[], help="NAME=VALUE for every run")
    parser.add_argument("--json", action="store_true", help="also print a JSON line for each row")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    modes = [mode for mode in MODES if mode in arguments.modes.split(",")]
    print(f"== step {STEP_MIB} MiB, {arguments.repeats} bisections each, medians", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as directory, make_hosts(2) as hosts:
        bench = Bench(arguments, hosts, pathlib.Path(directory))
        for size in arguments.sizes:
            heaps = measure_heaps(bench, size, arguments.repeats, modes)
            charges = {} if arguments.no_cgroup else measure_cgroups(bench, size, heaps)
            rows += report(size, heaps, charges)
    print_table(rows)
    if arguments.json:
        print("\n".join(json.dumps(row) for row in rows))


if __name__ == "__main__":
    main()
