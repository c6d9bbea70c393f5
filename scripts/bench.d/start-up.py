"""How long a node takes to be ready with many durable chunks on its disk.

A tool writes the rows of a million chunks in a thousand blobs, as a killed node leaves them; then
bigcastd starts on them, is asked for one blob, and is stopped, five times.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
import measure  # noqa: E402
from netns import LocalHosts  # noqa: E402

BAR_S = 3


def start(hosts, binaries, disk):
    """Seconds until ready, the node's CPU-seconds and its memory by then."""
    flags = ["--listen", "127.0.0.1:0", "--http", "none", "--memory", "256m"]
    flags += ["--disk", disk, "--disk-size", "64g", "--log-level", "warn"]
    started = time.monotonic()
    node = bigcast_nodes.RunningNode(hosts, 0, binaries, flags)
    seconds = time.monotonic() - started
    run = {"ready_s": seconds, "cpu_s": measure.cpu_seconds(node.pid)}
    run["memory_mib"] = bigcast_nodes.inspect(node.pid).memory_bytes / measure.MEBI
    subprocess.run(
        [binaries / "bigcast", "--server", node.listen, "stat", "bench/blob-1"],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )
    node.stop()
    return run


def main():
    parser = argparse.ArgumentParser(prog="bench start-up", description=__doc__)
    parser.add_argument("--rows", type=measure.positive, default=1_000_000)
    parser.add_argument("--repeats", type=measure.positive, default=5)
    parser.add_argument("--quick", action="store_true", help="1,000 rows, one run: does it work?")
    parser.add_argument("--scratch", help="folder for the disk tier")
    arguments = bigcast_nodes.parse_node_arguments(parser)
    if arguments.quick:
        arguments.rows, arguments.repeats = 1000, 1
    runs = []
    with tempfile.TemporaryDirectory(
        prefix="bigcast-bench-", dir=arguments.scratch
    ) as disk, LocalHosts(1) as hosts:
        subprocess.run(
            [arguments.binaries / "bigcast-bench", "index-rows", disk, str(arguments.rows)],
            check=True,
        )
        for _ in range(arguments.repeats):
            runs.append(start(hosts, arguments.binaries, disk))
    row = {"bench": "start-up", "rows": arguments.rows}
    row |= {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    row["ratio"] = row["ready_s"] / BAR_S
    print(f"medians of {arguments.repeats} starts with {arguments.rows} rows: ready after "
          f"{row['ready_s']:.2f} s ({row['cpu_s']:.2f} CPU-s), {row['memory_mib']:.0f} MiB; "
          f"÷ {BAR_S} s: {row['ratio']:.2f}")
    if arguments.json:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
