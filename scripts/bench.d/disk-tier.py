"""How fast chunks of 4 MiB go to disk and come back, beside a raw file on the same disk.

One thread moves them between a memory file and the disk tier (what a demotion and a read from disk
do; reads are verified), and the same bytes to and from one preallocated O_DIRECT file. Runs of the
two alternate.
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

import measure  # noqa: E402
from measure import MEBI  # noqa: E402

BAR = 0.8
CPU_BAR_S = 0.2


def main():
    parser = argparse.ArgumentParser(prog="bench disk-tier", description=__doc__)
    parser.add_argument("--mib", type=measure.positive, default=2048, help="default 2048")
    parser.add_argument("--repeats", type=measure.positive, default=5)
    parser.add_argument("--quick", action="store_true", help="16 MiB, one run: does it work?")
    parser.add_argument("--scratch", help="folder on the disk to measure")
    parser.add_argument("--json", action="store_true", help="also print JSON lines")
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "build/release/bin")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.mib, arguments.repeats = 16, 1
    runs = []
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory(prefix="bigcast-bench-", dir=arguments.scratch) as disk:
            done = subprocess.run(
                [arguments.binaries / "bigcast-bench", "disk-tier", disk,
                 str(arguments.mib * MEBI)],
                check=True, stdout=subprocess.PIPE,
            )
            runs.append(json.loads(done.stdout))
    gigabytes = arguments.mib * MEBI / 1e9
    rows = []
    for what, raw in (("demote", "raw_write"), ("promote", "raw_read")):
        row = {"bench": "disk-tier", "what": what}
        row["gb_per_s"] = gigabytes / statistics.median(run[f"{what}_s"] for run in runs)
        row["raw_gb_per_s"] = gigabytes / statistics.median(run[f"{raw}_s"] for run in runs)
        row["ratio"] = statistics.median(run[f"{raw}_s"] / run[f"{what}_s"] for run in runs)
        row["cpu_s_per_gb"] = statistics.median(run[f"{what}_cpu_s"] for run in runs) / gigabytes
        rows.append(row)
        print(f"{what}: {row['gb_per_s']:.2f} GB/s, raw {row['raw_gb_per_s']:.2f}, ratio "
              f"{row['ratio']:.2f} (bar {BAR}), {row['cpu_s_per_gb']:.3f} CPU-s/GB "
              f"(bar {CPU_BAR_S})")
    if arguments.json:
        print("\n".join(json.dumps(row) for row in rows))


if __name__ == "__main__":
    main()
