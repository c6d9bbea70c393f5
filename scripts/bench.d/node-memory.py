"""What a node's memory grows to with a blob of three times its budget; and when idle.

One bigcastd with a budget and a disk tier. A file of noise of three times the budget is put and read
back twice, and compared. The node's memory is its anonymous pages plus the pages of its memfds,
sampled every 20 ms. It should stay within budget + 32 MiB + 10 %, and idle within 48 MiB.
"""

import argparse
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
from netns import LocalHosts  # noqa: E402

MEBI = 1 << 20
INTERVAL_S = 0.02
IDLE_S = 2
KEPT_S = 25  # a little longer than a node keeps a dead blob's memory for the next
KEY = "bench/noise"


class Sampler:
    """The node's memory over time, from a thread of its own."""

    def __init__(self, pid):
        self._pid = pid
        self._peaks = {}
        self._phase = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def phase(self, name):
        self._phase = name

    def peak(self, phase):
        return self._peaks.get(phase, 0)

    def _run(self):
        while not self._stop.wait(INTERVAL_S):
            node, phase = bigcast_nodes.inspect(self._pid), self._phase
            if node and phase:
                self._peaks[phase] = max(self._peaks.get(phase, 0), node.memory_bytes)


def write_noise(path, size_mib):
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for _ in range(size_mib):
            block = os.urandom(MEBI)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def get(client):
    """Reads the blob; returns its SHA-256."""
    digest = hashlib.sha256()
    with subprocess.Popen(
        [*client, "get", KEY, "-"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        for block in iter(lambda: process.stdout.read(MEBI), b""):
            digest.update(block)
    if process.returncode != 0:
        raise SystemExit(f"node-memory: get failed with exit code {process.returncode}")
    return digest.hexdigest()


def measure(hosts, binaries, budget_mib, scratch):
    """Peaks in bytes by phase, for a node of its own."""
    disk = scratch / "disk"
    disk.mkdir(exist_ok=True)
    noise = scratch / "noise"
    expected = write_noise(noise, 3 * budget_mib)
    flags = ["--listen", "127.0.0.1:0", "--http", "none", "--memory", f"{budget_mib}m"]
    flags += ["--disk", disk, "--disk-size", f"{4 * budget_mib}m"]
    node = bigcast_nodes.RunningNode(hosts, 0, binaries, flags)
    client = [binaries / "bigcast", "--server", node.listen]
    with Sampler(node.pid) as sampler:
        sampler.phase("idle")
        time.sleep(IDLE_S)
        sampler.phase("put")
        subprocess.run(
            [*client, "put", noise, "--key", KEY], check=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2):
            sampler.phase("get")
            if get(client) != expected:
                raise SystemExit("node-memory: what came back is not what was put")
        sampler.phase(None)
        subprocess.run(
            [*client, "rm", KEY], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        sampler.phase(None)
        time.sleep(KEPT_S)
        sampler.phase("after")
        time.sleep(IDLE_S)
        sampler.phase(None)
    node.stop()
    return {phase: sampler.peak(phase) for phase in ("idle", "put", "get", "after")}


def main():
    parser = argparse.ArgumentParser(prog="bench node-memory", description=__doc__)
    parser.add_argument("--budgets", default="64,256,1024", help="in MiB (default 64,256,1024)")
    parser.add_argument("--repeats", type=int, default=3, help="nodes each (default 3)")
    parser.add_argument("--scratch", help="folder for the noise and the disk tier")
    arguments = bigcast_nodes.parse_node_arguments(parser)
    rows = []
    for budget in map(int, arguments.budgets.split(",")):
        runs = []
        for _ in range(arguments.repeats):
            with tempfile.TemporaryDirectory(
                prefix="bigcast-bench-", dir=arguments.scratch
            ) as scratch, LocalHosts(1) as hosts:
                runs.append(measure(hosts, arguments.binaries, budget, pathlib.Path(scratch)))
        row = {"bench": "node-memory", "budget_mib": budget, "blob_mib": 3 * budget}
        row["limit_mib"] = round(budget * 1.1 + 32, 1)
        for phase in runs[0]:
            median = statistics.median(run[phase] for run in runs)
            row[f"{phase}_peak_mib"] = round(median / MEBI, 1)
        rows.append(row)
    print(f"medians of {arguments.repeats} nodes; peaks in MiB\n")
    print("| budget | blob | idle | put | get | after rm | limit (budget + 32 + 10 %) |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    names = "budget blob idle_peak put_peak get_peak after_peak limit".split()
    for row in rows:
        print("| " + " | ".join(str(row[f"{name}_mib"]) for name in names) + " |")
    if arguments.json:
        print("\n".join(json.dumps(row) for row in rows))


if __name__ == "__main__":
    main()
