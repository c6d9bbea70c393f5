"""Replays of traces by policy_sim, and how the policies compare."""

import itertools
import json
import subprocess

POLICIES = ("lru", "s3fifo", "demand")
ORDERS = ("fixed", "resident-first")
# Of rows that `compare` made.
COLUMNS = (
    ("lru, fixed", "lru fixed", ".2f"),
    ("s3fifo, fixed", "s3fifo fixed", ".2f"),
    ("demand, fixed", "demand fixed", ".2f"),
    ("÷ lru", "ratio fixed", ".2f"),
    ("lru, resident-first", "lru resident-first", ".2f"),
    ("s3fifo, resident-first", "s3fifo resident-first", ".2f"),
    ("demand, resident-first", "demand resident-first", ".2f"),
    ("÷ lru, fixed", "ratio resident-first", ".2f"),
)


def simulate(binaries, trace, policy, capacity, *options):
    """What policy_sim says of the trace, the capacity being in bytes."""
    argv = [binaries / "policy_sim", "--policy", policy, "--capacity-bytes", capacity, *options, trace]
    done = subprocess.run([*map(str, argv)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def compare(fetched_again, least=0):
    """What each policy fetches again with each order of readers, by fetched_again(policy, order) in
    per cent; and demand's as a multiple of lru's in fixed order, if that is more than `least`."""
    row = {f"{policy} {order}": fetched_again(policy, order)
           for policy, order in itertools.product(POLICIES, ORDERS)}
    base = row["lru fixed"]
    for order in ORDERS:
        row[f"ratio {order}"] = row[f"demand {order}"] / base if base > least else None
    return row
