"""The bigcastd processes of a host: starting them, and what they hold and count.

What they hold is read from /proc, so that needs no access to the nodes.
"""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import urllib.request

BINARIES = pathlib.Path(__file__).resolve().parent.parent.parent / "build/release/bin"
METRICS_TIMEOUT_S = 30
SAMPLE = re.compile(r"^bigcast_(\w+)(\{[^}]*\})? (\S+)", re.MULTILINE)


def parse_node_arguments(parser):
    """Parses what a bench on nodes was given: its own options, and those that all of them have: json
    and binaries."""
    parser.add_argument("--json", action="store_true", help="also print JSON lines")
    parser.add_argument("--binaries", type=pathlib.Path, default=BINARIES)
    return parser.parse_args()


@dataclasses.dataclass(frozen=True)
class Node:
    """One bigcastd. Bytes are pages in use: a memfd is sparse."""

    pid: int
    anonymous_bytes: int
    stored_bytes: int  # in memfds

    @property
    def memory_bytes(self):
        return self.anonymous_bytes + self.stored_bytes


def anonymous_bytes(pid):
    """Bytes of a process that are in memory and in no file."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def memfds(pid):
    """The bytes in use of a process's memory files, mapped or not, by a path to each."""
    found = {}  # by inode: a file may have more descriptors than one
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{descriptor}"
        try:
            if os.readlink(path).startswith("/memfd:"):
                status = os.stat(path)
                found[status.st_ino] = path, status.st_blocks * 512
        except FileNotFoundError:
            continue  # closed meanwhile
    return dict(found.values())


def inspect(pid):
    """The node with this process id; None if it is gone or no bigcastd."""
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
            if file.read().strip() != "bigcastd":
                return None
        return Node(pid, anonymous_bytes(pid), sum(memfds(pid).values()))
    except (FileNotFoundError, ProcessLookupError):
        return None


def on_host(hosts, host):
    """The nodes on a host of netns.Hosts, by process id."""
    found = (inspect(pid) for pid in hosts.pids(host))
    return sorted((node for node in found if node), key=lambda node: node.pid)


def end_all(hosts, number=signal.SIGKILL):
    """Ends the nodes that applications left on the hosts for their grace period, by this signal."""
    for host in range(hosts.count):
        for node in on_host(hosts, host):
            os.kill(node.pid, number)


class RunningNode:
    """A bigcastd of our own on a host of netns.Hosts, which ends it; ready once made.

    listen and http are the addresses that it says it has."""

    def __init__(self, hosts, host, binaries, flags, **kwargs):
        self._hosts = hosts
        self.host = host
        self.process = hosts.start(
            host, [binaries / "bigcastd", *map(str, flags)], stdout=subprocess.PIPE, text=True,
            **kwargs
        )
        line = self.process.stdout.readline()
        if not line.startswith("bigcastd ready"):
            raise SystemExit(f"bigcastd on host {host} did not start: {line!r}")
        fields = dict(part.split("=", 1) for part in line.split()[2:])
        self.listen, self.http = fields.get("listen"), fields.get("http")
        self.pid = self.process.pid

    def metrics(self):
        """All samples of /metrics: each with its labels, and summed by name without them."""
        with self._hosts.inside(self.host):
            url = f"http://{self.http}/metrics"
            with urllib.request.urlopen(url, timeout=METRICS_TIMEOUT_S) as reply:
                text = reply.read().decode()
        samples = {}
        for name, labels, value in SAMPLE.findall(text):
            if labels:
                samples[name + labels] = float(value)
            samples[name] = samples.get(name, 0.0) + float(value)
        return samples

    def stop(self):
        """SIGTERM; waits for the end."""
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
