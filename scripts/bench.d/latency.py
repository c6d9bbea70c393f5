"""How long it takes to open a resident blob and to ask where its first chunk is, or to have it.

One node in memory; 1, 8 and 64 clients at once, each with a connection of its own, over the Unix
socket and over TCP. "open + locate" is two calls: open by name, and where the first chunk is (not
over TCP, where bytes come back instead). "first chunk" is what a
reader waits for: open, the first chunk read and verified; of blobs of 4 KiB, 64 KiB and 4 MiB.

The bound beside each row comes from the same run: two processes and as many raw connections of the
same kind, two round trips one after the other, the second of which brings as many bytes as ours (none
where the chunk is read from the memory file), and nothing is done with them. What the local path adds
to its two trips, a copy out of memory and the digest, is in no bound.
"""

import argparse
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import measure  # noqa: E402
from bigcast_nodes import RunningNode, parse_node_arguments  # noqa: E402
from measure import MEBI  # noqa: E402
from netns import LocalHosts  # noqa: E402

NAMESPACE = "bench"
SIZES = (4 << 10, 64 << 10, 4 * MEBI)
LARGE_DIVISOR = 16  # of the number of calls, where each brings a whole chunk of 4 MiB
BAR_US = 200
INLINE_MAX = MEBI  # up to this a blob's chunks come in the message on the local path, too
REQUEST_BYTES, ANSWER_BYTES = 128, 512  # of a call without a chunk, about


class Bench:
    """A node that holds a blob of each size, named after it."""

    def __init__(self, arguments, hosts):
        self._hosts = hosts
        self._binaries = arguments.binaries
        self._calls = arguments.calls
        socket = f"unix:@bigcast-bench-{os.getpid()}"
        flags = ["--listen", "127.0.0.1:0", "--http", "none", "--socket", socket]
        self._node = RunningNode(hosts, 0, arguments.binaries, [*flags, "--log-level", "warn"])
        self._servers = {"local": socket, "TCP": self._node.listen}
        for size in SIZES:
            put = [arguments.binaries / "bigcast", "--quiet", "--server", socket]
            put += ["put", "-", "--key", f"{NAMESPACE}/{size}"]
            hosts.output(0, put, os.urandom(size))

    def run(self, way, size, clients, locate):
        whole_chunks = size == SIZES[-1] and not locate
        each = max(1, self._calls // (LARGE_DIVISOR if whole_chunks else 1) // clients)
        argv = [self._binaries / "bigcast-bench", "latency", self._servers[way], NAMESPACE]
        argv += [str(size), "--clients", str(clients)]
        argv += ["--count", str(each)] + ["--locate"] * locate
        before = measure.cpu_seconds(self._node.pid)
        row = json.loads(self._hosts.output(0, argv))
        server = measure.cpu_seconds(self._node.pid) - before
        calls = clients * (each + each // 10 + 1)  # with those that warm up
        row["server_cpu_us_per_call"] = server * 1e6 / calls
        row["bound_p50_us"] = self._bound(way, size, clients, each, locate)["p50_us"]
        return row

    def _bound(self, way, size, clients, each, locate):
        brings_chunk = not locate and (way == "TCP" or size <= INLINE_MAX)
        argv = [self._binaries / "bigcast-bench", "round-trips", "--clients", str(clients)]
        argv += ["--count", str(each), "--request", str(REQUEST_BYTES)]
        argv += ["--answer", str(ANSWER_BYTES), str(size if brings_chunk else ANSWER_BYTES)]
        argv += ["--tcp"] * (way == "TCP")
        return json.loads(self._hosts.output(0, argv))


def plan(clients):
    """(what, way, size, clients, locate) of all rows; the one with the bar comes last."""
    rows = []
    for count in reversed(clients):
        for way in ("TCP", "local"):
            rows += [("first chunk", way, size, count, False) for size in SIZES]
        rows.append(("open + locate", "local", SIZES[-1], count, True))
    return rows


COLUMNS = (
    ("what", "what", ""),
    ("way", "way", ""),
    ("blob", lambda row: measure.size_text(row["size_bytes"]), ""),
    ("clients", "clients", "d"),
    ("p50 µs", "p50_us", ".0f"),
    ("bound", "bound_p50_us", ".0f"),
    ("÷ bound", "of_bound", ".1f"),
    ("p99", "p99_us", ".0f"),
    ("p99.9", "p999_us", ".0f"),
    ("calls/s", "calls_per_s", ".0f"),
    ("node's CPU-µs a call", "server_cpu_us_per_call", ".0f"),
)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench latency", description=__doc__)
    parser.add_argument(
        "--calls", type=measure.positive, default=6400,
        help=f"a row, default 6400; 1/{LARGE_DIVISOR} of it where 4 MiB are read",
    )
    parser.add_argument("--clients", type=measure.list_of(measure.positive), default="1,8,64",
                        help="at once, default 1,8,64")
    parser.add_argument("--repeats", type=measure.positive, default=3, help="default 3")
    parser.add_argument("--quick", action="store_true", help="64 calls, one run: does it work?")
    arguments = parse_node_arguments(parser)
    if arguments.quick:
        arguments.calls, arguments.repeats = 64, 1
    return arguments


def main():
    arguments = parse_arguments()
    rows = []
    print(f"== latency: {arguments.calls} calls a row", flush=True)
    with LocalHosts(1) as hosts:
        bench = Bench(arguments, hosts)
        for what, way, size, clients, locate in plan(arguments.clients):
            runs = [bench.run(way, size, clients, locate) for _ in range(arguments.repeats)]
            row = {"bench": "latency", "what": what, "way": way, "size_bytes": size}
            row = {**row, "clients": clients, **measure.medians(runs)}
            rows.append({**row, "of_bound": row["p50_us"] / row["bound_p50_us"]})
    rows[-1]["ratio"] = rows[-1]["p50_us"] / BAR_US
    print(f"\nmedians of {arguments.repeats}")
    measure.print_table(COLUMNS, sorted(rows, key=lambda row: row["clients"]))
    print(f"open + locate, 1 client, p50 ÷ {BAR_US} µs: {rows[-1]['ratio']:.2f}")
    if arguments.json:
        measure.print_json(rows)


if __name__ == "__main__":
    measure.run(main)
