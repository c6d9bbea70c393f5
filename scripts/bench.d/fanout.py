"""How long a blob takes from one writer to every host, as a multiple of one link's transfer time.

Host 0 has the writer and, if there is one home, that too. Several homes have hosts of their own,
which do not read: the blob is striped over them, and the writer's upload is not counted in what is
sent. Each reader host has a node and one reader, which reads through it. Hosts are network namespaces whose links are limited to the rate, both ways. The readers
are started when the blob exists and before its first byte is fed; the clock runs from that first
byte until the last reader has all, verified. That time is divided by S/B: S the blob's size, B what
one raw TCP connection brings from host 0 to host 1, measured before each run.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import measure  # noqa: E402
import ray_peer  # noqa: E402
from bigcast_nodes import RunningNode, parse_node_arguments  # noqa: E402
from measure import GIGA, MEBI, Ending  # noqa: E402
from netns import Hosts, available  # noqa: E402

PORT = 7420
LOCAL = "unix:@bigcast-bench"  # abstract: each host has its own
WAIT_S = 60
PIPE_BYTES = MEBI


def eventually(condition, what):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"fanout: waited {WAIT_S} s for {what}")
        time.sleep(0.01)


class Bench:
    """Hosts, the bytes to move, and runs with them."""

    def __init__(self, arguments, hosts, scratch):
        self._hosts = hosts
        self._homes = home_hosts(arguments)
        self._readers = range(max(self._homes) + 1, hosts.count)
        self._binaries = arguments.binaries
        self._chunk_size = arguments.chunk_size
        self._data = os.urandom(arguments.size)
        self._digest = hashlib.sha256(self._data).digest()
        self._secret = scratch / "secret"
        self._secret.touch(mode=0o600)
        self._secret.write_text(os.urandom(32).hex(), encoding="ascii")
        self._log = open(scratch / "log", "w+b")
        self._budget_mib = arguments.size // MEBI * 5 // 4 + 64

    def _start_node(self, host):
        flags = ["--listen", f"{self._hosts.address(host)}:{PORT}", "--http", "127.0.0.1:7421"]
        flags += ["--socket", LOCAL, "--secret-file", self._secret, "--log-level", "warn"]
        flags += ["--memory", f"{self._budget_mib}m"]
        return RunningNode(self._hosts, host, self._binaries, flags, stderr=self._log)

    def _client(self, host, *arguments, **kwargs):
        command = [self._binaries / "bigcast", "--quiet", "--secret-file", self._secret]
        for home in self._homes:
            command += ["--server", f"{self._hosts.address(home)}:{PORT}"]
        if host in self._readers:
            command += ["--local", LOCAL]
        command += arguments
        kwargs.setdefault("stdout", subprocess.DEVNULL)
        return self._hosts.start(host, command, stderr=self._log, **kwargs)

    def _fail(self, what):
        self._log.seek(0)
        sys.stderr.write(self._log.read()[-4000:].decode(errors="replace"))
        raise SystemExit(f"fanout: {what}")

    def _exists(self, key):
        stat = self._client(0, "--json", "stat", key, stdout=subprocess.PIPE)
        return stat.communicate()[0].strip() and stat.returncode == 0

    def run(self, number):
        """One upload read by all, on nodes of its own; traffic is in multiples of the size."""
        raw = measure.raw_seconds(self._hosts, 0, 1, self._data)
        self._nodes = [self._start_node(host) for host in (*self._homes, *self._readers)]
        key = f"bench/fanout-{number}"
        put = ["put", "-", "--key", key, "--homes", str(len(self._homes))]
        put += ["--chunk-size", self._chunk_size] if self._chunk_size else []
        writer = self._client(0, *put, stdin=subprocess.PIPE)
        writing = Ending(writer)
        eventually(lambda: writing.ended() or self._exists(key), "the blob")
        readers = [Ending(self._client(host, "get", key, "/dev/null")) for host in self._readers]
        relays = self._nodes[len(self._homes) :]
        eventually(  # a stripe is a blob to them
            lambda: all(n.metrics()["relayed_blobs"] == len(self._homes) for n in relays),
            "every reader to have opened the blob",
        )
        before = self._counters()
        started = time.monotonic()
        feed(writer, self._data)
        for reader in readers:
            reader.join()
        seconds = max(reader.at for reader in readers) - started
        clients = [writing.join(), *readers]
        after = self._counters()
        if any(client.exit_code != 0 for client in clients):
            self._fail(f"a client failed: exit codes {[client.exit_code for client in clients]}")
        self._check(key, self._readers[number % len(self._readers)])
        for node in self._nodes:
            node.stop()
        row = {"run": number + 1, "seconds": seconds, "raw_seconds": raw, "ratio": seconds / raw}
        row["seconds_by_host"] = [round(reader.at - started, 3) for reader in readers]
        client_cpu = sum(client.cpu_seconds for client in clients)
        return {**row, **self._differences(before, after, client_cpu)}

    def _counters(self):
        return {
            "at": time.monotonic(),
            "traffic": [self._hosts.traffic(host) for host in range(self._hosts.count)],
            "metrics": [node.metrics() for node in self._nodes],
            "cpu": [measure.cpu_seconds(node.pid) for node in self._nodes],
            "busy": measure.machine_busy_seconds(),
        }

    def _differences(self, before, after, client_cpu):
        size = len(self._data)
        pairs = list(zip(before["traffic"], after["traffic"]))
        sent = [(b.sent - a.sent) / size for a, b in pairs]
        received = [(b.received - a.received) / size for a, b in pairs]
        fetched = [
            (b["fetched_bytes_total"] - a["fetched_bytes_total"]) / size
            for a, b in zip(before["metrics"], after["metrics"])
        ]
        copies = len(self._readers)
        upload = 0 if 0 in self._homes else sent[0]
        node_cpu = sum(after["cpu"]) - sum(before["cpu"])
        elapsed = after["at"] - before["at"]
        return {
            "payload_sent": sum(fetched) / copies,
            "interfaces_sent": (sum(sent) - upload) / copies,
            "payload_into_host_max": max(fetched),
            "interface_into_host_max": max(received[host] for host in self._readers),
            "home_sent": max(sent[home] for home in self._homes),
            "payload_into_hosts": [round(share, 3) for share in fetched],
            "interface_into_hosts": [round(share, 3) for share in received],
            "interface_out_of_hosts": [round(share, 3) for share in sent],
            "node_cpu_s_per_gb": node_cpu / (copies * size / GIGA),
            "client_cpu_s_per_gb": client_cpu / (copies * size / GIGA),
            "machine_busy": (after["busy"] - before["busy"]) / elapsed / os.cpu_count(),
        }

    def _check(self, key, host):
        """Compares what a host now has with what was written; not timed."""
        digest = hashlib.sha256()
        reader = self._client(host, "get", key, "-", stdout=subprocess.PIPE)
        with reader.stdout:
            for block in iter(lambda: reader.stdout.read(MEBI), b""):
                digest.update(block)
        if reader.wait() != 0 or digest.digest() != self._digest:
            self._fail(f"host {host} did not read what was written")


def home_hosts(arguments):
    return [0] if arguments.homes == 1 else list(range(1, 1 + arguments.homes))


class RayBench:
    """The same with Ray, whose nodes stay for all runs; only the interfaces count."""

    def __init__(self, arguments, hosts, scratch):
        self._hosts = hosts
        self._data = os.urandom(arguments.size)
        self._cluster = ray_peer.RayCluster(hosts, arguments.size, scratch)

    def run(self, number):
        raw = measure.raw_seconds(self._hosts, 0, 1, self._data)
        before = [self._hosts.traffic(host) for host in range(self._hosts.count)]
        seconds = self._cluster.run()
        after = [self._hosts.traffic(host) for host in range(self._hosts.count)]
        size, copies = len(self._data), self._hosts.count - 1
        sent = [(b.sent - a.sent) / size for a, b in zip(before, after)]
        received = [(b.received - a.received) / size for a, b in zip(before, after)]
        row = {"run": number + 1, "seconds": seconds, "raw_seconds": raw, "ratio": seconds / raw}
        row.update(interfaces_sent=sum(sent) / copies, home_sent=sent[0])
        return {**row, "interface_into_host_max": max(received[1:])}


def feed(process, data):
    """Writes the data to the process's standard input and closes it; a broken pipe ends it."""
    view = memoryview(data)
    try:
        for begin in range(0, len(view), PIPE_BYTES):
            process.stdin.write(view[begin : begin + PIPE_BYTES])
        process.stdin.close()
    except BrokenPipeError:
        pass


COLUMNS = (
    ("system", "system", ""),
    ("raw socket, S/B", "raw_seconds", ".2f"),
    ("last host has all", "seconds", ".2f"),
    ("÷ (S/B)", "ratio", ".2f"),
    ("sent in all ÷ N×S", "payload_sent", ".3f"),
    ("(interfaces)", "interfaces_sent", ".3f"),
    ("into a host ÷ S", "payload_into_host_max", ".3f"),
    ("(interface)", "interface_into_host_max", ".3f"),
    ("home sent ÷ S", "home_sent", ".2f"),
    ("CPU-s/GB nodes", "node_cpu_s_per_gb", ".2f"),
    ("clients", "client_cpu_s_per_gb", ".2f"),
    ("CPU busy", "machine_busy", ".0%"),
)


def print_run(arguments, system, row):
    share = arguments.size * 8 / row["raw_seconds"] / measure.bits_per_second(arguments.rate)
    print(
        f"   {system}, run {row['run']}: {row['seconds']:.2f} s ÷ {row['raw_seconds']:.2f} s = "
        f"{row['ratio']:.2f}; the raw socket got {share:.0%} of {arguments.rate}; "
        f"hosts had all after {row.get('seconds_by_host', 'unknown')} s",
        flush=True,
    )


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench fanout", description=__doc__)
    parser.add_argument("--hosts", type=measure.positive, default=2, help="that read (default 2)")
    parser.add_argument("--homes", type=measure.positive, default=1,
                        help="1: the writer's host; more: hosts of their own (default 1)")
    parser.add_argument("--rate", type=measure.parse_rate, default="1gbit", help="default 1gbit")
    parser.add_argument("--size", type=measure.parse_size, default=512 * MEBI, help="default 512m")
    parser.add_argument("--chunk-size", help="default: that of bigcast put")
    parser.add_argument("--repeats", type=measure.positive, default=3, help="default 3")
    parser.add_argument("--peer", choices=["ray"], help="measured in the same run")
    parser.add_argument("--quick", action="store_true", help="2 hosts, 16m, one run: does it work?")
    arguments = parse_node_arguments(parser)
    if arguments.homes > 16:
        parser.error("--homes: must be 1 to 16")
    if arguments.homes > 1 and arguments.peer:
        parser.error("--peer: has one home, the writer's host: leave out --homes")
    if arguments.hosts > 64:
        parser.error("--hosts: must be 1 to 64")
    if arguments.quick:
        arguments.hosts, arguments.size, arguments.repeats = 2, 16 * MEBI, 1
    return arguments


def run_all(arguments, system, make):
    """A line for each run, and one with their medians."""
    head = {"bench": "fanout", "system": system, "hosts": arguments.hosts}
    head.update(homes=arguments.homes, rate=arguments.rate, size_bytes=arguments.size)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bc-bench-") as scratch:
        with Hosts(1 + max(home_hosts(arguments)) + arguments.hosts, rate=arguments.rate) as hosts:
            bench = make(arguments, hosts, pathlib.Path(scratch))
            for number in range(arguments.repeats):
                rows.append(bench.run(number))
                print_run(arguments, system, rows[-1])
    medians = measure.medians(rows)
    del medians["run"]
    return [*({**head, **row} for row in rows), {**head, "repeats": len(rows), **medians}]


def main():
    arguments = parse_arguments()
    if why_not := available():
        measure.cannot_run(f"no network namespaces: {why_not}")
    if arguments.peer == "ray" and (why_not := ray_peer.available()):
        measure.cannot_run(f"no Ray: {why_not}")
    homes = "the writer's host is the home"
    if arguments.homes > 1:
        homes = f"{arguments.homes} homes and the writer on hosts of their own"
    print(
        f"== fanout: {arguments.hosts} reader hosts, {homes}, "
        f"{arguments.rate} a host, {measure.size_text(arguments.size)} of random bytes",
        flush=True,
    )
    lines = [] if arguments.peer is None else run_all(arguments, arguments.peer, RayBench)
    lines += run_all(arguments, "bigcast", Bench)
    results = [line for line in lines if "run" not in line]
    print(f"\nmedians of {arguments.repeats}; times in seconds")
    measure.print_table(COLUMNS, results)
    if arguments.json:
        measure.print_json(lines)


if __name__ == "__main__":
    measure.run(main)
