"""The smallest heap that a driver needs to hold a value, to broadcast it, and to use Bigcast.

For each size the smallest -Xmx is bisected for three programs: one that builds the value (arrays
of 64 KiB that don't compress) and runs a job without it, the same with sc.broadcast on plain Spark
and an executor that reads and checks it, and that on Bigcast. Each bisection is repeated, from
where the one before ended; the medians count. Every program holds 256 MiB more, so that Spark's own
lower bound for a heap (450 MiB) does not hide the effect. TorrentBroadcast's step is a 32nd of the
value, if that is more than the 16 MiB of the others.

A heap is too small only if the driver says that it ran out of it; whatever else fails, such as an
executor out of memory, is no result and ends the bisection. Every heap is touched from the start,
and every run has a memory cgroup, which the driver's node belongs to: its peak charge less page
cache, at the smallest heap, is what the driver needs in all. Bigcast's nodes get a small budget,
with disk behind it, so that the bar (64 MiB and that budget) says something. The last line's ratio is
what Bigcast adds to that cgroup (without cgroups: to the heap) at the largest size, divided by the bar.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
from cgroup import MemoryCgroup, has_memory_cgroups  # noqa: E402
from cluster import Cluster, bigcast_conf, compile_job  # noqa: E402
from measure import (  # noqa: E402
    MEBI, available_mib, list_of, parse_size, positive, print_json, print_table,
)
from netns import make_hosts  # noqa: E402

STEP_MIB = 16
BALLAST_MIB = 256
BAR_MIB = 64  # that Bigcast may add to a driver, beside its node's budget
TIMEOUT_S = 900  # for what hangs or collects garbage for ever; said below the table
ATTEMPTS = 3
MODES = ("hold", "torrent", "bigcast")
OUT_OF_MEMORY = "Terminating due to java.lang.OutOfMemoryError"
JVM_OPTIONS = "-XX:+UseG1GC -XX:+ExitOnOutOfMemoryError"
PATIENCE = {"spark.network.timeout": "3600s", "spark.executor.heartbeatInterval": "60s"}


class NoResult(Exception):
    """A run that says nothing about the driver's heap, and why."""


def executor_mib(size):
    """Enough for the value, its serialised pieces, which fill G1 regions badly, and garbage."""
    return 1536 + 3 * size


class Bench:
    """The cluster and the program, and one run of it."""

    def __init__(self, arguments, hosts, work_dir):
        self._hosts = hosts
        self._work_dir = work_dir
        source = ROOT / "scripts" / "bench.d" / "MemoryProbe.java"
        self._program = compile_job(
            arguments.spark_home, source, work_dir, source.with_name("PluginStats.java"))
        memory = f"{executor_mib(max(arguments.sizes))}m"
        self._cluster_dir = work_dir / "cluster"
        self._cluster = Cluster(hosts, arguments.spark_home, self._cluster_dir, 1, memory)
        budget = {"spark.bigcast.node.memory": f"{arguments.node_memory}m"}
        extra = dict(pair.split("=", 1) for pair in arguments.conf)
        self._conf = {**PATIENCE, "spark.cores.max": "1", "spark.task.maxFailures": "1", **extra}
        self._bigcast_conf = {**bigcast_conf(arguments.jar), **budget, **extra}

    def run(self, mode, size, heap, cgroup):
        """Runs the program once in a heap (MiB) and a cgroup or None: "works", "fails" or "hangs".

        NoResult is raised if it failed for another reason than its heap."""
        result, log = self._work_dir / "result", self._work_dir / "driver.log"
        result.unlink(missing_ok=True)
        conf = {
            **self._conf,
            "spark.driver.memory": f"{heap}m",
            "spark.driver.extraJavaOptions": f"{JVM_OPTIONS} -Xms{heap}m -XX:+AlwaysPreTouch",
            "spark.executor.memory": f"{executor_mib(size)}m",
            "spark.executor.extraJavaOptions": JVM_OPTIONS,
            **(self._bigcast_conf if mode == "bigcast" else {}),
        }
        with open(log, "wb") as output:
            process = self._cluster.submit(
                ["--class", "MemoryProbe", str(self._program)]
                + [mode, str(size), str(BALLAST_MIB), str(result)],
                conf,
                wrapper=cgroup.command([]) if cgroup else (),
                stdout=output,
                stderr=output,
            )
            ended = end_by(process, TIMEOUT_S)
        executor_failed = OUT_OF_MEMORY in self._settle()
        said = log.read_text(encoding="utf-8", errors="replace")
        if executor_failed:
            raise NoResult(f"the executor ran out of its {executor_mib(size)} MiB of heap")
        if result.exists():
            return "works"
        if OUT_OF_MEMORY in said:
            return "fails"
        if not ended:
            return "hangs"
        raise NoResult(f"the driver failed, but not for its heap:\n{said[-4000:]}")

    def _settle(self):
        """Ends the nodes, which an application leaves for a grace period, and waits for executors.

        Their memory is in use. Returns what the executors printed, and removes what they and the
        driver left on disk."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._leftovers():
            if time.monotonic() > deadline:
                raise SystemExit("driver-memory: the last run's executor does not end")
            time.sleep(0.05)
        applications = list(self._cluster_dir.glob("work-*/app-*"))
        outputs = [path for application in applications for path in application.glob("*/std*")]
        printed = "\n".join(path.read_text(errors="replace") for path in outputs)
        for path in [*applications, *self._cluster_dir.glob("*-0/*")]:
            shutil.rmtree(path, ignore_errors=True)
        return printed

    def _leftovers(self):
        """Kills the nodes; whether they, or executors, are still there."""
        found = False
        for host in range(self._hosts.count):
            for node in bigcast_nodes.on_host(self._hosts, host):
                found = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(node.pid, signal.SIGKILL)
            found = found or any(map(is_executor, self._hosts.pids(host)))
        return found


def is_executor(pid):
    try:
        command = pathlib.Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return False
    return b"CoarseGrainedExecutorBackend" in command


def end_by(process, timeout_s):
    """Waits for the process, False if it had to be ended, with its children, after the timeout."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
        time.sleep(0.05)
    return True


def await_memory(mib):
    """Waits until other programs leave so much; NoResult if they don't, or there is not as much."""
    machine_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEBI
    deadline = time.monotonic() + (TIMEOUT_S if mib < machine_mib else 0)
    while available_mib() < mib:
        if time.monotonic() > deadline:
            raise NoResult(f"driver and executor may need {mib} MiB, more than there is")
        time.sleep(1)


@dataclasses.dataclass
class Found:
    """What one program needs at one size, in MiB; a value for each bisection."""

    step: int
    heaps: list = dataclasses.field(default_factory=list)
    peaks: list = dataclasses.field(default_factory=list)  # empty without cgroups
    hung: int = 0
    why_not: str = ""  # there are not more heaps

    def heap(self):
        return statistics.median_low(self.heaps) if self.heaps else None

    def peak(self):
        return statistics.median_low(self.peaks) if self.peaks else None


class Prober:
    """Runs of one program at one size."""

    def __init__(self, bench, mode, size, with_cgroup, found):
        self._bench = bench
        self._mode = mode
        self._size = size
        self._with_cgroup = with_cgroup
        self._found = found
        self.peaks = {}  # heap -> peak charge, of the last run that worked in it

    def works(self, heap):
        """Whether the program works in the heap."""
        await_memory(heap + executor_mib(self._size))
        for attempt in range(ATTEMPTS):
            try:
                return self._once(heap)
            except NoResult as reason:
                print(f"     no result: {reason}", flush=True)
                if attempt == ATTEMPTS - 1:
                    raise

    def _once(self, heap):
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            cgroup = stack.enter_context(MemoryCgroup()) if self._with_cgroup else None
            outcome = self._bench.run(self._mode, self._size, heap, cgroup)
        peak = cgroup.peak() // MEBI if cgroup else None
        if outcome == "works":
            self.peaks[heap] = peak
        self._found.hung += outcome == "hangs"
        charged = f", cgroup's peak {peak} MiB" if cgroup and outcome == "works" else ""
        print(
            f"     {self._mode} {self._size} MiB in -Xmx{heap}m {outcome}{charged}, "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        return outcome == "works"


def smallest_heap(works, guess, step):
    """The smallest multiple of the step for which works, searched outwards from a guess; in MiB."""
    at = max(1, guess // step)
    stride = 1
    if works(at * step):
        passed, failed = at, 0
        while passed - failed > 1:
            at = max(failed + 1, passed - stride)
            if not works(at * step):
                failed = at
                break
            passed, stride = at, stride * 2
    else:
        failed, passed = at, at + stride
        while not works(passed * step):
            stride *= 2
            failed, passed = passed, passed + stride
    while passed - failed > 1:
        middle = (passed + failed) // 2
        if works(middle * step):
            passed = middle
        else:
            failed = middle
    return passed * step


def measure(bench, arguments, size, mode, guess):
    """Bisects repeatedly; returns Found."""
    found = Found(step=max(STEP_MIB, size // 32) if mode == "torrent" else STEP_MIB)
    try:
        for _ in range(arguments.repeats):
            prober = Prober(bench, mode, size, not arguments.no_cgroup, found)
            guess = smallest_heap(prober.works, guess, found.step)
            found.heaps.append(guess)
            if not arguments.no_cgroup:
                found.peaks.append(prober.peaks[guess])
    except NoResult as reason:
        found.why_not = str(reason).splitlines()[0]
    print(f"   {size} MiB, {mode}: {found}", flush=True)
    return found


def measure_size(bench, arguments, size, modes):
    """{mode: Found}."""
    found = {}
    for mode in modes:
        base = found["hold"].heap() if "hold" in found else None
        base = base or BALLAST_MIB + size + 3 * STEP_MIB
        guess = base + (size * 3 // 2 if mode == "torrent" else 0)
        found[mode] = measure(bench, arguments, size, mode, guess)
    return found


def difference(value, base):
    return None if value is None or base is None else value - base


def report(size, found, node_memory):
    base = found.get("hold", Found(STEP_MIB))
    lines = []
    for mode, one in found.items():
        row = {"bench": "driver-memory", "size_mib": size, "mode": mode, "step_mib": one.step}
        row["smallest_heap_mib"] = one.heap()
        row["smallest_heaps_mib"] = one.heaps
        row["added_heap_mib"] = difference(one.heap(), base.heap())
        row["cgroup_peak_mib"] = one.peak()
        row["cgroup_peaks_mib"] = one.peaks
        row["added_cgroup_mib"] = difference(one.peak(), base.peak())
        row["hung"] = one.hung
        row["why_not"] = one.why_not
        if mode == "bigcast":
            row["node_memory_mib"] = node_memory
            row["ratio"] = ratio_of(row)
        lines.append(row)
    return lines


def ratio_of(row):
    """What Bigcast adds, divided by the bar: of the driver's cgroup or, without it, of its heap."""
    if row["added_cgroup_mib"] is not None:
        return row["added_cgroup_mib"] / (BAR_MIB + row["node_memory_mib"])
    return None if row["added_heap_mib"] is None else row["added_heap_mib"] / BAR_MIB


COLUMNS = [("value, MiB", "size_mib", "d"), ("program", "mode", "")] + [
    (heading, name, "d")
    for heading, name in (
        ("step, MiB", "step_mib"),
        ("smallest heap, MiB", "smallest_heap_mib"),
        ("added, MiB", "added_heap_mib"),
        ("driver's cgroup, peak, MiB", "cgroup_peak_mib"),
        ("added, MiB", "added_cgroup_mib"),
    )
] + [("added ÷ bar", "ratio", ".2f")]


def print_notes(rows):
    """What is missing from the rows, or doubtful."""
    for row in rows:
        what = f"{row['mode']} at {row['size_mib']} MiB"
        if row["why_not"]:
            print(f"{what}: {len(row['smallest_heaps_mib'])} bisections only: {row['why_not']}")
        if row["hung"]:
            print(f"{what}: {row['hung']} runs of {TIMEOUT_S} s hung, as in too small a heap")


def mebibytes(text):
    """'2g' -> 2048."""
    size = parse_size(text)
    if size % MEBI:
        raise argparse.ArgumentTypeError(f"whole mebibytes, not '{text}'")
    return size // MEBI


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench driver-memory", description=__doc__)
    parser.add_argument("--spark-home", default=os.environ.get("SPARK_HOME"), help="(set by bench)")
    parser.add_argument("--jar", type=pathlib.Path, default=os.environ.get("plugin_jar"))
    parser.add_argument(
        "--sizes", type=list_of(mebibytes),
        default=[256, 1024, 2048, 4096], help="of the value (default 256m,1g,2g,4g)",
    )
    parser.add_argument("--repeats", type=positive, default=3, help="bisections each (default 3)")
    parser.add_argument(
        "--node-memory", type=mebibytes, default=256,
        help="the budget of each of Bigcast's nodes; disk is behind it (default 256m)",
    )
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {','.join(MODES)}")
    parser.add_argument("--no-cgroup", action="store_true", help="leave the cgroup's part out")
    parser.add_argument("--conf", action="append", default=[], help="NAME=VALUE for every run")
    parser.add_argument("--json", action="store_true", help="also print a JSON line for each row")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    arguments.no_cgroup = arguments.no_cgroup or not has_memory_cgroups()
    modes = [mode for mode in MODES if mode in arguments.modes.split(",")]
    print(f"== {arguments.repeats} bisections each, medians", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as directory, make_hosts(2) as hosts:
        bench = Bench(arguments, hosts, pathlib.Path(directory))
        for size in arguments.sizes:
            found = measure_size(bench, arguments, size, modes)
            rows += report(size, found, arguments.node_memory)
    print_table(COLUMNS, rows)
    print_notes(rows)
    if arguments.json:
        print_json(rows)
    if any(row["why_not"] for row in rows):
        raise SystemExit("driver-memory: some bisections came to no result, see above")


if __name__ == "__main__":
    main()
