"""How fast a mapped blob is read, beside a mapping of a memfd of the reader's own.

A node and a reader on one host, a mappable blob in the node's memory. First pass: the reader asks
the node, maps the blob and takes the XXH3 of all of it, as map_ref does; beside it, a fresh mapping
of a resident memfd with the same bytes, and its XXH3. Second pass: the XXH3 again, beside that of a
mapping that is retained. The bars are 0.9 of those.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import measure  # noqa: E402
from bigcast_nodes import RunningNode, parse_node_arguments  # noqa: E402
from measure import GIGA, MEBI  # noqa: E402
from netns import LocalHosts  # noqa: E402

BAR = 0.9
NAMESPACE = "bench"


def put(arguments, hosts, socket):
    process = hosts.start(
        0,
        [arguments.binaries / "bigcast", "--quiet", "--server", socket]
        + ["put", "-", "--mappable", "--key", f"{NAMESPACE}/blob"],
        stdin=subprocess.PIPE,
    )
    block = os.urandom(MEBI)
    for _ in range(arguments.size // MEBI):
        process.stdin.write(block)
    process.stdin.close()
    if process.wait() != 0:
        raise SystemExit("mapped-read: put failed")


def run(arguments, hosts, socket):
    argv = [arguments.binaries / "bigcast-bench", "mapped-read", socket, NAMESPACE, "blob"]
    return json.loads(hosts.output(0, argv))


COLUMNS = (
    ("pass", "pass", ""),
    ("mapped GB/s", "gb_per_s", ".2f"),
    ("own memfd GB/s", "bound_gb_per_s", ".2f"),
    ("ratio", "ratio", ".2f"),
    ("bar", "bar", ".2f"),
)


def main():
    parser = argparse.ArgumentParser(prog="bench mapped-read", description=__doc__)
    parser.add_argument("--size", type=measure.parse_size, default=1024 * MEBI, help="default 1g")
    parser.add_argument("--repeats", type=measure.positive, default=5, help="default 5")
    parser.add_argument("--quick", action="store_true", help="16 MiB, one run: does it work?")
    arguments = parse_node_arguments(parser)
    if arguments.quick:
        arguments.size, arguments.repeats = 16 * MEBI, 1
    print(f"== mapped-read: {measure.size_text(arguments.size)}", flush=True)
    socket = f"unix:@bigcast-bench-{os.getpid()}"
    with LocalHosts(1) as hosts:
        flags = ["--listen", "127.0.0.1:0", "--http", "none", "--socket", socket]
        flags += ["--memory", str(2 * arguments.size + 64 * MEBI), "--log-level", "warn"]
        RunningNode(hosts, 0, arguments.binaries, flags)
        put(arguments, hosts, socket)
        figures = measure.medians([run(arguments, hosts, socket) for _ in range(arguments.repeats)])
    rows = []
    for name, ours, bound in (("first", "first_s", "fresh_s"), ("second", "second_s", "retained_s")):
        row = {"bench": "mapped-read", "pass": name, "size_bytes": arguments.size}
        row["gb_per_s"] = arguments.size / GIGA / figures[ours]
        row["bound_gb_per_s"] = arguments.size / GIGA / figures[bound]
        row["ratio"] = figures[bound] / figures[ours]
        row["bar"] = BAR
        rows.append(row)
    measure.print_table(COLUMNS, rows)
    if arguments.json:
        measure.print_json(rows)


if __name__ == "__main__":
    measure.run(main)
