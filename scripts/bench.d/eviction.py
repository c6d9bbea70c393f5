"""Eviction policies: against libCacheSim, on broadcast loads, and what they cost.

Three tables. "Equality" runs policy_sim and libCacheSim (PyPI's libcachesim, in a virtual
environment below the cache folder; left out if that can't be installed) on the same traces and
prints the largest relative difference of their miss ratios over caches of 1, 5 and 20 % of the
trace's objects or bytes. "Broadcasts" is what is fetched again on generated loads. "Cost" is the
median time a read takes with a million resident chunks.
"""

import argparse
import functools
import itertools
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import libcachesim_peer  # noqa: E402
import measure  # noqa: E402
import replays  # noqa: E402
from bigcast_nodes import parse_node_arguments  # noqa: E402

POLICIES = ("fifo", "lru", "clock", "sieve", "s3fifo", "arc", "gdsf")
SHARES = (0.01, 0.05, 0.2)
CAPACITIES_GIB = (4, 8, 16, 24)
CHUNK = 64 * measure.MEBI
BAR_DIFFERENCE = 0.5  # per cent
BAR_FIXED, BAR_RESIDENT_FIRST, BAR_ELSEWHERE = 0.70, 0.62, 1.05


# ---- Traces: lists of (object, size) ----


def zipf(rng, objects, requests, alpha, size):
    sizes = [size() for _ in range(objects)]
    names = [rng.getrandbits(63) for _ in range(objects)]
    weights = [1 / (rank + 1) ** alpha for rank in range(objects)]
    picks = rng.choices(range(objects), weights, k=requests)
    return [(names[i], sizes[i]) for i in picks]


def with_scans(rng, requests):
    """A zipf whose objects are pushed out now and then by a scan that nobody repeats."""
    parts = [zipf(rng, requests // 20, requests, 0.8, lambda: rng.randint(100, 1000))]
    step = max(1, requests // 10)
    mixed = []
    for i in range(0, requests, step):
        mixed += parts[0][i : i + step]
        mixed += [(10**6 + i + j, 500) for j in range(step // 3)]
    return mixed


def loops(rng, requests):
    """A cycle larger than most caches, then a zipf."""
    objects = max(1, requests // 20)
    cycle = [(i % objects, 100) for i in range(requests)]
    return cycle + zipf(rng, objects, requests // 2, 1.0, lambda: 100)


def broadcast(load, requests):
    """The chunks of a broadcast load's reads, each blob's in a row."""
    sizes, chunks = {}, []
    for line in load.splitlines():
        event = json.loads(line)
        if event["op"] == "put":
            sizes[event["blob"]] = event["bytes"]
        elif event["op"] == "read":
            left = sizes[event["blob"]]
            for index in itertools.count():
                chunks.append((event["blob"] << 20 | index, min(left, CHUNK)))
                left -= CHUNK
                if left <= 0:
                    break
        if len(chunks) >= requests:
            break
    return chunks[:requests]


def write_trace(path, requests):
    """oracleGeneral: u32 time, u64 id, u32 size, i64 next access (-1: none)."""
    following, nexts = {}, [-1] * len(requests)
    for at in range(len(requests) - 1, -1, -1):
        name = requests[at][0]
        nexts[at], following[name] = following.get(name, -1), at
    with open(path, "wb") as file:
        for at, (name, size) in enumerate(requests):
            file.write(struct.pack("<IQIq", at, name, size, nexts[at]))


# ---- The tables ----


class Bench:
    def __init__(self, arguments, folder):
        self._arguments = arguments
        self._folder = folder

    def _output(self, program, *argv):
        argv = [str(self._arguments.binaries / program), *map(str, argv)]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout

    def _simulate(self, trace, policy, capacity, *options):
        return replays.simulate(self._arguments.binaries, trace, policy, capacity, *options)

    def _traces(self):
        rng = random.Random(self._arguments.seed)
        requests = self._arguments.requests
        log_uniform = lambda low, high: lambda: int(2 ** rng.uniform(low, high))  # noqa: E731
        load = self._output("policy_sim", "generate", "--seed", self._arguments.seed)
        yield "zipf 0.9, one size", zipf(rng, requests // 20, requests, 0.9, lambda: 1)
        yield "zipf 0.9, 64 B–16 KiB", zipf(rng, requests // 20, requests, 0.9, log_uniform(6, 14))
        yield "zipf 1.2, 512 B–128 KiB", zipf(
            rng, requests // 10, requests, 1.2, log_uniform(9, 17)
        )
        yield "zipf and scans", with_scans(rng, requests)
        yield "loop, then zipf", loops(rng, requests)
        yield "broadcast chunks", broadcast(load, requests)

    def _differences(self, peer, name, path, requests, unit):
        """One row: the largest difference of each policy, in per cent."""
        objects = dict(requests)
        whole = len(objects) if unit else sum(objects.values())
        row = {"trace": name, "sizes": "1 each" if unit else "bytes"}
        for policy in POLICIES:
            worst = 0
            for share in SHARES:
                capacity = max(1, int(whole * share))
                theirs = peer.miss_ratios(path, policy, capacity, unit)
                ours = self._simulate(path, policy, capacity, *["--unit-size"] * unit)
                pair = (ours["object_miss_ratio"], ours["byte_miss_ratio"])
                for our, their in zip(pair, theirs):
                    worst = max(worst, abs(our / their - 1) * 100 if their else our * 100)
            row[policy] = worst
        return row

    def equality(self):
        program = libcachesim_peer.python()
        if program is None:
            print("\nequality: SKIPPED: libcachesim can't be installed from PyPI here")
            return []
        peer = libcachesim_peer.Peer(program)
        rows = []
        path = self._folder / "trace.oracle"
        for name, requests in self._traces():
            write_trace(path, requests)
            rows += [self._differences(peer, name, path, requests, unit) for unit in (False, True)]
        peer.close()
        return rows

    def broadcasts(self):
        rows = []
        for seed in range(self._arguments.seed, self._arguments.seed + self._arguments.seeds):
            path = self._folder / "load.jsonl"
            path.write_text(self._output("policy_sim", "generate", "--seed", seed))
            for gib in CAPACITIES_GIB:
                fetched_again = functools.partial(self._fetched_again, path, gib << 30)
                rows.append({"seed": seed, "gib": gib, **replays.compare(fetched_again)})
        return rows

    def _fetched_again(self, path, capacity, policy, order):
        result = self._simulate(path, policy, capacity, "--order", order)
        return 100 * result["refetched_bytes_ratio"]

    def cost(self):
        rows = []
        for policy in (*POLICIES, "demand"):
            runs = [
                json.loads(
                    self._output("bigcast-bench", "policy-cost", policy)
                )
                for _ in range(self._arguments.repeats)
            ]
            rows.append({"policy": policy, **measure.medians(runs)})
        return rows


EQUALITY = (("trace", "trace", ""), ("sizes", "sizes", "")) + tuple(
    (policy, policy, ".3f") for policy in POLICIES
)
BROADCASTS = (
    ("seed", "seed", "d"),
    ("GiB", "gib", "d"),
    *replays.COLUMNS,
)
COST = (
    ("policy", "policy", ""),
    ("hit", "hit_ns", ".0f"),
    ("hit by a stream", "stream_ns", ".0f"),
    ("miss", "miss_ns", ".0f"),
)


def judge_equality(rows):
    """Of what has a bar: GDSF not on large objects, ARC with --unit-size only."""
    barred = [
        row[policy]
        for row in rows
        for policy in POLICIES
        if not (policy == "arc" and row["sizes"] == "bytes")
        and not (policy == "gdsf" and row["trace"] == "broadcast chunks")
    ]
    if barred:
        print(f"largest of those with a bar ÷ {BAR_DIFFERENCE} %: "
              f"{max(barred) / BAR_DIFFERENCE:.2f}")


def judge_broadcasts(rows):
    at_8 = [row for row in rows if row["gib"] == 8]
    fixed = max(row["ratio fixed"] for row in at_8) / BAR_FIXED
    resident_first = max(row["ratio resident-first"] for row in at_8) / BAR_RESIDENT_FIRST
    ratios = [row[f"ratio {order}"] for row in rows for order in replays.ORDERS]
    print(
        f"8 GiB, fixed ÷ {BAR_FIXED}: {fixed:.2f}; "
        f"resident-first ÷ {BAR_RESIDENT_FIRST}: {resident_first:.2f}; "
        f"anywhere ÷ {BAR_ELSEWHERE}: {max(ratios) / BAR_ELSEWHERE:.2f}"
    )


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench eviction", description=__doc__)
    parser.add_argument(
        "--requests", type=measure.positive, default=200_000, help="a trace, default 200000"
    )
    parser.add_argument("--seed", type=measure.positive, default=1, help="the first, default 1")
    parser.add_argument("--seeds", type=measure.positive, default=3, help="default 3")
    parser.add_argument("--repeats", type=measure.positive, default=3, help="of cost, default 3")
    parser.add_argument("--quick", action="store_true", help="little of each: does it work?")
    arguments = parse_node_arguments(parser)
    if arguments.quick:
        arguments.requests, arguments.seeds, arguments.repeats = 20_000, 1, 1
    return arguments


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, pathlib.Path(folder))
        print("== eviction: miss ratios, difference from libCacheSim in %", flush=True)
        equality = bench.equality()
        if equality:
            measure.print_table(EQUALITY, equality)
            judge_equality(equality)
        print("\n== eviction: broadcast loads, bytes fetched again in % of bytes read", flush=True)
        broadcasts = bench.broadcasts()
        measure.print_table(BROADCASTS, broadcasts)
        judge_broadcasts(broadcasts)
        print("\n== eviction: ns a read, 1,000,000 chunks; a miss is expect + evict + insert",
              flush=True)
        cost = bench.cost()
        measure.print_table(COST, cost)
    if arguments.json:
        measure.print_json({"bench": "eviction", **row} for row in equality + broadcasts + cost)


if __name__ == "__main__":
    measure.run(main)
