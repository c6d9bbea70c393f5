"""How long reads of resident blobs take while the same node writes chunks to its disk tier.

One reader over and over opens a blob that stays in memory and reads its first chunk, verified: with
nobody else; beside puts whose room is made by removals; and beside the same puts where all that
they push out of memory goes to disk. The last two differ by the disk tier alone, and the bar is on
their 99th percentiles.

A virtual machine whose processors and disk are all busy may be stopped by its host for a while, again
and again; the 99th percentile is then what its host does. So each is told twice: as it is, and without
the time in which the machine stood still ("running"), which real-time threads on all processors find
(tests/bench/stalls.h). And a fourth row shows what such a machine does to puts that push nothing out
while somebody else, who has nothing to do with the node, writes to a raw O_DIRECT file as many bytes a
second as the demotions did.
"""

import argparse
import contextlib
import json
import mmap
import os
import pathlib
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import measure  # noqa: E402
from bigcast_nodes import RunningNode, parse_node_arguments  # noqa: E402
from measure import GIGA, MEBI  # noqa: E402
from netns import LocalHosts  # noqa: E402

BAR = 2.0
NAMESPACE = "bench"
CHUNK = 4 * MEBI
SIZES = (64 << 10, CHUNK)
PUT_MIB = 128
MEMORY_MIB = 512
DISK_MIB = 4096
RAW_BYTES = 1024 * MEBI  # of the raw file, over and over
KEPT_ON_DISK = 16  # blobs that are pushed out, before they are removed


class Puts:
    """One writer that puts blob after blob in a thread of its own, and removes old ones.

    Once a call of its own fails it ends; leaving the block says so."""

    def __init__(self, hosts, client, source, kept):
        self._hosts, self._client, self._source, self._kept = hosts, client, source, kept
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failure = None
        self.count = 0

    def __enter__(self):
        self._thread.start()
        while self.count <= self._kept and self._thread.is_alive():  # until it is in its stride
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        if self._failure:
            raise self._failure

    def _run(self):
        try:
            while not self._stop.is_set():
                self._call("put", self._source, "--key", f"{NAMESPACE}/put-{self.count}")
                if self.count >= self._kept:
                    self._call("rm", f"{NAMESPACE}/put-{self.count - self._kept}")
                self.count += 1
        except SystemExit as failure:  # which would end nothing but this thread
            self._failure = failure

    def _call(self, *argv):
        self._hosts.output(0, [*self._client, *argv])


class RawWrites:
    """Writes 4 MiB after 4 MiB to an O_DIRECT file in a thread of its own, so many bytes a second."""

    def __init__(self, path, bytes_per_s):
        self._path, self._pause = path, CHUNK / bytes_per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600)
        os.posix_fallocate(self._file, 0, RAW_BYTES)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        os.close(self._file)
        os.unlink(self._path)

    def _run(self):
        chunk, offset, due = mmap.mmap(-1, CHUNK), 0, time.monotonic()
        while not self._stop.wait(max(0, due - time.monotonic())):
            os.pwrite(self._file, chunk, offset)
            offset = (offset + CHUNK) % RAW_BYTES
            due += self._pause


class Bench:
    def __init__(self, arguments, hosts, scratch):
        self._hosts = hosts
        self._binaries = arguments.binaries
        self._calls = arguments.calls
        socket = f"unix:@bigcast-bench-{os.getpid()}"
        flags = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--socket", socket]
        flags += ["--memory", f"{MEMORY_MIB}m", "--log-level", "warn"]
        flags += ["--disk", str(scratch / "disk"), "--disk-size", f"{DISK_MIB}m"]
        self._node = RunningNode(hosts, 0, arguments.binaries, flags)
        self._server = socket
        self._client = [arguments.binaries / "bigcast", "--quiet", "--server", socket]
        self._scratch = scratch
        self._source = scratch / "source"
        self._source.write_bytes(os.urandom(PUT_MIB * MEBI))
        for size in SIZES:
            put = [*self._client, "put", "-", "--key", f"{NAMESPACE}/{size}"]
            hosts.output(0, put, os.urandom(size))

    def _read(self, size):
        before, started = self._node.metrics(), time.monotonic()
        argv = [self._binaries / "bigcast-bench", "latency", self._server, NAMESPACE, str(size)]
        output = self._hosts.output(0, [*argv, "--stalls", "--count", str(self._calls)])
        seconds, after = time.monotonic() - started, self._node.metrics()
        demoted = after["chunks_demoted_total"] - before["chunks_demoted_total"]
        return {**json.loads(output), "demoted_gb_per_s": demoted * CHUNK / GIGA / seconds}

    def rows(self, size):
        rows = {"nothing": self._row(size), "puts": self._row(size, 1),
                "demotions": self._row(size, KEPT_ON_DISK)}
        demoted = max(rows["demotions"]["demoted_gb_per_s"] * GIGA, CHUNK)
        rows["puts, raw file"] = self._row(size, 1, RawWrites(self._scratch / "raw", demoted))
        return rows

    def _row(self, size, kept=None, beside=contextlib.nullcontext()):
        """Kept: so many blobs that were put meanwhile are, if it is not None."""
        with beside, contextlib.ExitStack() as stack:
            if kept is not None:
                stack.enter_context(Puts(self._hosts, self._client, self._source, kept))
            row = self._read(size)
        for key in self._keys_left():
            self._hosts.output(0, [*self._client, "rm", key])
        return row

    def _keys_left(self):
        listed = self._hosts.output(0, [*self._client, "ls", "--json", f"{NAMESPACE}/put-*"])
        return [json.loads(line)["key"] for line in listed.splitlines()]


COLUMNS = (
    ("blob", lambda row: measure.size_text(row["size_bytes"]), ""),
    ("beside", "beside", ""),
    ("demoted GB/s", "demoted_gb_per_s", ".2f"),
    ("p50 µs", "p50_us", ".0f"),
    ("p99", "p99_us", ".0f"),
    ("p99 ÷ puts'", "ratio", ".2f"),
    ("stood still", "stood_still", ".3f"),
    ("running p50", "running_p50_us", ".0f"),
    ("running p99", "running_p99_us", ".0f"),
    ("÷ puts'", "running_ratio", ".2f"),
)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench reads-while-demoting", description=__doc__)
    parser.add_argument("--calls", type=measure.positive, default=4000, help="default 4000")
    parser.add_argument("--repeats", type=measure.positive, default=3, help="default 3")
    parser.add_argument("--quick", action="store_true", help="64 calls, one run: does it work?")
    parser.add_argument("--scratch", help="folder on the disk to measure")
    arguments = parse_node_arguments(parser)
    if arguments.quick:
        arguments.calls, arguments.repeats = 64, 1
    return arguments


def main():
    arguments = parse_arguments()
    rows = []
    with LocalHosts(1) as hosts, tempfile.TemporaryDirectory(
        prefix="bigcast-bench-", dir=arguments.scratch
    ) as scratch:
        bench = Bench(arguments, hosts, pathlib.Path(scratch))
        for size in SIZES:
            runs = [bench.rows(size) for _ in range(arguments.repeats)]
            of_size = {
                way: {"bench": "reads-while-demoting", "size_bytes": size, "beside": way,
                      **measure.medians([run[way] for run in runs])}
                for way in ("nothing", "puts", "puts, raw file", "demotions")
            }
            for way in ("puts, raw file", "demotions"):
                for name in ("", "running_"):
                    p99 = name + "p99_us"
                    of_size[way][name + "ratio"] = of_size[way][p99] / of_size["puts"][p99]
            rows += of_size.values()
    print(f"\nmedians of {arguments.repeats}")
    measure.print_table(COLUMNS, rows)
    print(f"the bar: p99 at most {BAR} of that beside puts alone")
    if arguments.json:
        measure.print_json(rows)


if __name__ == "__main__":
    measure.run(main)
