"""What put and get reach on one host, and what they cost, beside what bounds them.

One node in memory, and the command line: put from a file in /dev/shm, get to /dev/null, verified;
over TCP with the local path off, and over the Unix socket, where gets read a memory file. A put is
measured into a node that holds nothing (all pages are fresh) and after a blob of the same namespace
was removed (its pages are kept for the next).

Beside them, in turn and in the same run, each just before or after what it bounds:
- a raw TCP connection: one thread sends 4 MiB at a time from a mapped memory file, one receives them
  into as many buffers as a download has, and does not look at them: the kernel's copy in and its copy
  out, which a get makes as well; a get also computes XXH3 of what came. With the extra copy of a sender
  that reads its memory file into a buffer, beside it;
- pread of a memory file and XXH3: one copy and a pass, on one thread;
- cat FILE > /dev/shm/x: a copy into a buffer and one into fresh pages. A put makes a copy into a
  buffer, two through the socket, one into the store, and two passes for XXH3;
- Redis with values of 4 MiB.
What came back is compared, not timed. Fresh memory costs up to five times as much at one time as at
another on a virtual machine: take the medians of at least 5 runs.
"""

import argparse
import hashlib
import json
import mmap
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import large_pages  # noqa: E402
import measure  # noqa: E402
import redis  # noqa: E402
from bigcast_nodes import RunningNode, parse_node_arguments  # noqa: E402
from measure import GIGA, MEBI, Ending  # noqa: E402
from netns import LocalHosts  # noqa: E402

KEY = "bench/loopback"
SHARED_MEMORY = "/dev/shm"
VALUE_BYTES = 4 * MEBI
NAMES = {
    "raw_socket": "raw socket, memory to memory",
    "raw_socket_via_buffer": "raw socket, sender reads a memfd",
    "tcp_get": "Bigcast get, TCP",
    "redis_get": "Redis get, TCP",
    "pread_digest": "pread of a memfd + XXH3",
    "local_get": "Bigcast get, local path",
    "cat": "cat FILE > /dev/shm/x",
    "tcp_put": "Bigcast put, TCP",
    "tcp_put_fresh": "Bigcast put, TCP, fresh pages",
    "local_put": "Bigcast put, local path",
    "local_put_fresh": "Bigcast put, local path, fresh pages",
    "redis_set": "Redis set, TCP",
    "tcp_get_compressible": "Bigcast get, TCP",
    "local_get_compressible": "Bigcast get, local path",
    "tcp_put_compressible": "Bigcast put, TCP",
    "local_put_compressible": "Bigcast put, local path",
}
# Ours, what bounds it, and the least share of it that we want.
BARS = {
    "tcp_get": ("raw_socket", 0.8),
    "local_get": ("pread_digest", 0.8),
    "tcp_put": ("cat", 0.7),
    "tcp_put_fresh": ("cat", 0.7),
    "local_put": ("cat", 0.7),
    "local_put_fresh": ("cat", 0.7),
}


def noise():
    return os.urandom(MEBI)


def words():
    """A MiB of text that LZ4 makes about half as long."""
    vocabulary = [os.urandom(6).hex()[: random.randint(3, 12)] for _ in range(4096)]
    return " ".join(random.choices(vocabulary, k=MEBI // 5)).encode()[:MEBI]


def write_file(path, size, make, distinct):
    """Fills the file from so many distinct blocks of a MiB; returns its SHA-256."""
    blocks = []
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for number in range(size // MEBI):
            if number < distinct:
                blocks.append(make())
            block = blocks[number % distinct]
            digest.update(block)
            file.write(block)
    return digest.digest()


class Bench:
    def __init__(self, arguments, hosts, scratch):
        self._hosts = hosts
        self._scratch = scratch
        self._size = arguments.size
        self._binaries = arguments.binaries

    def start_node(self):
        self._socket = f"unix:@bigcast-bench-{os.getpid()}"
        flags = ["--listen", "127.0.0.1:0", "--http", "none", "--socket", self._socket]
        flags += ["--memory", f"{self._size // MEBI * 9 // 8 + 64}m", "--log-level", "warn"]
        self._node = RunningNode(self._hosts, 0, self._binaries, flags)

    def stop_node(self):
        self._node.stop()

    def _client(self, local, *arguments):
        server = self._socket if local else self._node.listen
        return [self._binaries / "bigcast", "--json", "--server", server, *arguments]

    def _run(self, argv, server_pid=None, **kwargs):
        """Runs a command to its end; its figures, and what it printed."""
        before = measure.cpu_seconds(server_pid) if server_pid else 0
        kwargs.setdefault("stdout", subprocess.PIPE)
        started = time.monotonic()
        process = self._hosts.start(0, [str(word) for word in argv], **kwargs)
        ending = Ending(process)
        output = process.stdout.read() if process.stdout else b""
        ending.join()
        if ending.exit_code != 0:
            raise SystemExit(f"loopback: {argv[0]} ended with exit code {ending.exit_code}")
        server = measure.cpu_seconds(server_pid) - before if server_pid else 0
        return self._figures(ending.at - started, ending.cpu_seconds, server), output

    def _figures(self, seconds, client_cpu, server_cpu):
        gb = self._size / GIGA
        return {
            "gb_per_s": gb / seconds,
            "client_cpu_s_per_gb": client_cpu / gb,
            "server_cpu_s_per_gb": server_cpu / gb,
        }

    def bound(self, what, *options):
        _, output = self._run([self._binaries / "bigcast-bench", what, self._size, *options])
        copied = json.loads(output)
        return self._figures(copied["seconds"], copied["receiver_cpu_s"], copied["sender_cpu_s"])

    def cat(self, path):
        target = self._scratch / "x"
        with open(target, "wb") as file:
            figures, _ = self._run(["cat", path], stdout=file)
        target.unlink()
        return figures

    def put(self, path, local):
        """The whole process, as of cat."""
        argv = self._client(local, "put", path, "--key", KEY)
        return self._run(argv, self._node.pid)[0]

    def get(self, local):
        """The transfer alone, as of the raw socket: by the command's own clock."""
        argv = self._client(local, "get", KEY, "/dev/null")
        figures, output = self._run(argv, self._node.pid)
        return {**figures, "gb_per_s": self._size / GIGA / json.loads(output)["seconds"]}

    def remove(self):
        self._run(self._client(True, "rm", KEY))

    def check(self, digest):
        """Compares what comes back, on both ways, with what was put."""
        for local in (False, True):
            got = hashlib.sha256()
            reader = self._hosts.start(
                0, self._client(local, "get", KEY, "-"), stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            with reader.stdout:
                for block in iter(lambda: reader.stdout.read(MEBI), b""):
                    got.update(block)
            if reader.wait() != 0 or got.digest() != digest:
                raise SystemExit("loopback: what came back is not what was put")

    def redis(self, path):
        """Figures of set and get; the client's CPU time is that of this process."""
        server = redis.Redis(self._hosts, self._scratch)
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            with memoryview(data) as view:
                setting = self._timed(server.pid, lambda: server.set_all(view, VALUE_BYTES))
            count = -(-self._size // VALUE_BYTES)
            getting = self._timed(
                server.pid, lambda: server.get_all(count, VALUE_BYTES, lambda value: None)
            )
            digest = hashlib.sha256()
            server.get_all(count, VALUE_BYTES, digest.update)
            if digest.digest() != hashlib.sha256(data).digest():
                raise SystemExit("loopback: what came back from Redis is not what was set")
        server.stop()
        return setting, getting

    def _timed(self, server_pid, act):
        server, client = measure.cpu_seconds(server_pid), time.process_time()
        started = time.monotonic()
        act()
        seconds = time.monotonic() - started
        client = time.process_time() - client
        return self._figures(seconds, client, measure.cpu_seconds(server_pid) - server)


def run_once(bench, path, digest, with_redis):
    """{what: figures} of one pass over all, incompressible; a bound's are medians over the pass."""
    bounds = {"raw_socket": [], "cat": []}

    def bound_again(what):
        bounds[what].append(bench.cat(path) if what == "cat" else bench.bound("raw-socket"))

    found = {}
    for way, local in (("tcp", False), ("local", True)):
        bench.start_node()
        bound_again("cat")
        found[f"{way}_put_fresh"] = bench.put(path, local)
        bound_again("raw_socket")
        found[f"{way}_get"] = bench.get(local)
        bench.check(digest)
        bench.remove()
        bound_again("cat")
        found[f"{way}_put"] = bench.put(path, local)
        bench.stop_node()
    found["raw_socket_via_buffer"] = bench.bound("raw-socket", "--via-buffer")
    found["pread_digest"] = bench.bound("pread-digest")
    found.update({what: measure.medians(figures) for what, figures in bounds.items()})
    if with_redis:
        found["redis_set"], found["redis_get"] = bench.redis(path)
    return found


def run_compressible(bench, path, digest):
    bench.start_node()
    found = {"tcp_put_compressible": bench.put(path, local=False)}
    found["tcp_get_compressible"] = bench.get(local=False)
    found["local_get_compressible"] = bench.get(local=True)
    bench.check(digest)
    bench.remove()
    found["local_put_compressible"] = bench.put(path, local=True)
    bench.stop_node()
    return found


def rows_of(arguments, runs):
    rows = []
    for what, heading in NAMES.items():
        if what not in runs[0]:
            continue
        row = {"bench": "loopback", "what": what, "heading": heading}
        row["data"] = "compressible" if what.endswith("_compressible") else "random"
        row["size_bytes"] = arguments.size
        row["large_pages"] = arguments.large_pages
        row.update(measure.medians([run[what] for run in runs]))
        if what in BARS:
            bound, bar = BARS[what]
            row.update(bound=bound, bar=bar)
            row.update(measure.medians([
                {"ratio": run[what]["gb_per_s"] / run[bound]["gb_per_s"]} for run in runs
            ]))
        rows.append(row)
    return rows


COLUMNS = (
    ("data", "data", ""),
    ("path", "heading", ""),
    ("GB/s", "gb_per_s", ".2f"),
    ("CPU-s/GB, client", "client_cpu_s_per_gb", ".2f"),
    ("server", "server_cpu_s_per_gb", ".2f"),
    ("share", "ratio", ".2f"),
    ("of", lambda row: NAMES.get(row.get("bound")), ""),
    ("bar", "bar", ".1f"),
)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench loopback", description=__doc__)
    parser.add_argument("--size", type=measure.parse_size, default=2 << 30, help="default 2g")
    parser.add_argument("--repeats", type=measure.positive, default=5, help="default 5")
    parser.add_argument("--no-redis", action="store_true", help="leave Redis out")
    parser.add_argument("--quick", action="store_true", help="16m, one run: does it work?")
    large_pages.add_argument(parser)
    arguments = parse_node_arguments(parser)
    if arguments.quick:
        arguments.size, arguments.repeats = 16 * MEBI, 1
    if arguments.size % MEBI:
        parser.error("--size: must be whole MiB")
    return arguments


def main():
    arguments = parse_arguments()
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < 3 * arguments.size:
        measure.cannot_run(f"{SHARED_MEMORY} has {free // MEBI} MiB free: too little for the files")
    why_no_redis = "--no-redis" if arguments.no_redis else redis.available()
    print(f"== loopback: {measure.size_text(arguments.size)}", flush=True)
    if why_no_redis:
        print(f"   without Redis: {why_no_redis}", flush=True)
    runs = []
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-", dir=SHARED_MEMORY) as directory:
        scratch = pathlib.Path(directory)
        path, text = scratch / "noise", scratch / "words"
        digest = write_file(path, arguments.size, noise, arguments.size // MEBI)
        text_digest = write_file(text, arguments.size, words, distinct=16)
        with LocalHosts(1) as hosts, large_pages.given(arguments.large_pages):
            bench = Bench(arguments, hosts, scratch)
            for number in range(arguments.repeats):
                runs.append(run_once(bench, path, digest, not why_no_redis))
                runs[-1].update(run_compressible(bench, text, text_digest))
                print(f"   run {number + 1} of {arguments.repeats}", flush=True)
    rows = rows_of(arguments, runs)
    print(f"\nmedians of {arguments.repeats}; CPU-seconds per GB of raw bytes, both ends")
    measure.print_table(COLUMNS, rows)
    if arguments.json:
        last = next(row for row in rows if row["what"] == "tcp_get")
        measure.print_json([*(row for row in rows if row is not last), last])


if __name__ == "__main__":
    measure.run(main)
