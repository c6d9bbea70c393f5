"""How long the demo takes on Bigcast, as a share of plain Spark's time.

Runs the demo several times (plain Spark and Bigcast in turn, on the same cluster) and prints the
median of each figure, and the median of the ratios of the whole jobs.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FIGURES = (
    "total_seconds",
    "job_seconds",
    "broadcast_seconds",
    "read_seconds",
    "driver_heap_above_value_bytes",
    "copies_per_host",
)


def one_run(arguments, path):
    """The figures of the demo: {heading: {name: value}}."""
    command = [ROOT / "scripts" / "demo", "--spark", arguments.spark, "--jar", arguments.jar]
    command += ["--scale", str(arguments.scale), "--json", path]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return json.loads(path.read_text(encoding="utf-8"))


def main():
    parser = argparse.ArgumentParser(prog="bench demo-ratio", description=__doc__)
    parser.add_argument(
        "--spark", default=os.environ.get("spark_line", "3.5"), help="3.5 or 4 (default 3.5)"
    )
    parser.add_argument("--jar", default=os.environ.get("plugin_jar"), help="(set by bench)")
    parser.add_argument("--scale", type=int, default=4, help="as the demo's (default 4)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the demo (default 3)")
    parser.add_argument("--json", action="store_true", help="also print a JSON line for each row")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as scratch:
        path = pathlib.Path(scratch) / "figures.json"
        runs = [one_run(arguments, path) for _ in range(arguments.repeats)]
    rows = []
    for name in FIGURES:
        row = {"bench": "demo-ratio", "figure": name}
        for heading in runs[0]:
            values = [run[heading][name] for run in runs]
            row[heading] = None if None in values else round(statistics.median(values), 3)
        rows.append(row)
    ratios = [run["Bigcast"]["total_seconds"] / run["plain Spark"]["total_seconds"] for run in runs]
    ratio = round(statistics.median(ratios), 3)
    print(f"\nmedians of {arguments.repeats} runs\n\n| figure | plain Spark | Bigcast |")
    print("|---|---:|---:|")
    for row in rows:
        print(f"| {row['figure']} | {row['plain Spark']} | {row['Bigcast']} |")
    print(f"\nBigcast / plain Spark, whole job: {ratio} (each run: {[round(r, 3) for r in ratios]})")
    if arguments.json:
        rows.append({"bench": "demo-ratio", "figure": "total_ratio", "ratio": ratio})
        print("\n".join(json.dumps(row) for row in rows))


if __name__ == "__main__":
    main()
