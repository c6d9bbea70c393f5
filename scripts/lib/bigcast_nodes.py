"""What the bigcastd processes of a host hold, read from /proc: no access to the nodes is needed."""

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class Node:
    """One bigcastd. Bytes are pages in use: a memfd is sparse."""

    pid: int
    anonymous_bytes: int
    stored_bytes: int  # in memfds

    @property
    def memory_bytes(self):
        return self.anonymous_bytes + self.stored_bytes


def _anonymous_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _memfd_bytes(pid):
    inodes = {}
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{descriptor}"
        try:
            if os.readlink(path).startswith("/memfd:"):
                status = os.stat(path)
                inodes[status.st_ino] = status.st_blocks * 512
        except FileNotFoundError:
            continue  # closed meanwhile
    return sum(inodes.values())


def inspect(pid):
    """The node with this process id; None if it is gone or no bigcastd."""
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
            if file.read().strip() != "bigcastd":
                return None
        return Node(pid, _anonymous_bytes(pid), _memfd_bytes(pid))
    except (FileNotFoundError, ProcessLookupError):
        return None


def on_host(hosts, host):
    """The nodes on a host of netns.Hosts, by process id."""
    found = (inspect(pid) for pid in hosts.pids(host))
    return sorted((node for node in found if node), key=lambda node: node.pid)
