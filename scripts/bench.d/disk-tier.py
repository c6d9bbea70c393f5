"""How fast chunks of 4 MiB go to disk and come back, beside a raw file on the same disk.

Threads move them in order between a memory file and the disk tier (what a demotion and a read from
disk do; reads are verified), and, in turn for 128 MiB each, the same bytes to and from one
preallocated O_DIRECT file; with one thread, and with four at once, as a node of two processors has.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import large_pages  # noqa: E402
import measure  # noqa: E402
from bigcast_nodes import parse_node_arguments  # noqa: E402
from measure import MEBI  # noqa: E402

BAR = 0.8
CPU_BAR_S = 0.2


COLUMNS = (
    ("way", "what", ""),
    ("threads", "threads", "d"),
    ("GB/s", "gb_per_s", ".2f"),
    ("raw file", "raw_gb_per_s", ".2f"),
    ("ratio", "ratio", ".2f"),
    ("CPU-s/GB", "cpu_s_per_gb", ".3f"),
    ("raw CPU-s/GB", "raw_cpu_s_per_gb", ".3f"),
)


def measure_round(arguments):
    """What one run with each number of threads says, by that number."""
    runs = {}
    for threads in arguments.threads:
        with tempfile.TemporaryDirectory(prefix="bigcast-bench-", dir=arguments.scratch) as disk:
            argv = [arguments.binaries / "bigcast-bench", "disk-tier", disk]
            argv += [str(arguments.mib * MEBI), "--threads", str(threads)]
            done = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
            runs[threads] = json.loads(done.stdout)
    return runs


def main():
    parser = argparse.ArgumentParser(prog="bench disk-tier", description=__doc__)
    parser.add_argument("--mib", type=measure.positive, default=2048, help="default 2048")
    parser.add_argument("--threads", type=measure.list_of(measure.positive), default="1,4",
                        help="at once, default 1,4")
    parser.add_argument("--repeats", type=measure.positive, default=5)
    parser.add_argument("--quick", action="store_true", help="16 MiB, one run: does it work?")
    parser.add_argument("--scratch", help="folder on the disk to measure")
    large_pages.add_argument(parser)
    arguments = parse_node_arguments(parser)
    if arguments.quick:
        arguments.mib, arguments.repeats = 16, 1
    with large_pages.given(arguments.large_pages):
        rounds = [measure_round(arguments) for _ in range(arguments.repeats)]
    gigabytes = arguments.mib * MEBI / 1e9
    rows = []
    for what, raw in (("demote", "raw_write"), ("promote", "raw_read")):
        for threads in arguments.threads:
            seconds = [runs[threads][f"{what}_s"] for runs in rounds]
            raw_seconds = [runs[threads][f"{raw}_s"] for runs in rounds]
            cpu_s, raw_cpu_s = (
                [runs[threads][f"{each}_cpu_s"] for runs in rounds] for each in (what, raw)
            )
            rows.append({
                "bench": "disk-tier",
                "what": what,
                "threads": threads,
                "large_pages": arguments.large_pages,
                "gb_per_s": gigabytes / statistics.median(seconds),
                "raw_gb_per_s": gigabytes / statistics.median(raw_seconds),
                "ratio": statistics.median(r / s for r, s in zip(raw_seconds, seconds)),
                "cpu_s_per_gb": statistics.median(cpu_s) / gigabytes,
                "raw_cpu_s_per_gb": statistics.median(raw_cpu_s) / gigabytes,
            })
    measure.print_table(COLUMNS, rows)
    print(f"the bars: {BAR} of the raw file, {CPU_BAR_S} CPU-s/GB")
    if arguments.json:
        measure.print_json(rows)


if __name__ == "__main__":
    measure.run(main)
