"""Looks at the processes of an application while it runs, and at what is left when it has ended."""

import os
import pathlib
import time

import bigcast_nodes

STAYED_S = 1.5
LEFT_DEADLINE_S = 60  # the grace of these tests is 2 s; the rest is for a busy machine


class Watch:
    """Collects what the processes of a host show: command lines, nodes, abstract sockets."""

    def __init__(self, hosts, host=0):
        self.hosts = hosts
        self.host = host
        self.command_lines = set()
        self.sockets = set()
        self._seen = {}  # node -> first and last time

    @property
    def nodes(self):
        """Process ids of the nodes that stayed: a node starts by way of a process that ends."""
        return {pid for pid, (first, last) in self._seen.items() if last - first >= STAYED_S}

    @property
    def any_node(self):
        """Every process that ever looked like a node."""
        return set(self._seen)

    def look(self):
        """Call it every now and then; misses what lives shorter than that."""
        names = None
        for pid in self.hosts.pids(self.host):
            argv = command_line(pid)
            self.command_lines.add(" ".join(argv))
            if argv and is_node(pid, argv):
                now = time.monotonic()
                self._seen[pid] = (self._seen.get(pid, (now, now))[0], now)
                names = names or unix_sockets(pid)
                self.sockets |= {names[inode] for inode in inodes(pid) if inode in names}

    def left(self):
        """Waits until all processes and sockets are gone; returns what did not go."""
        deadline = time.monotonic() + LEFT_DEADLINE_S
        while True:
            left = [f"process {pid}: {' '.join(command_line(pid))[:200]}" for pid in self.living()]
            if not left:
                break
            if time.monotonic() > deadline:
                return left
            time.sleep(0.2)
        return [f"socket {name}" for name in self.sockets & set(unix_sockets("self").values())]

    def living(self):
        return [pid for pid in self.hosts.pids(self.host) if not is_zombie(pid)]


def left_on(watches):
    """What is left on hosts, of each of which there is one watch."""
    return [f"host {watch.host}: {what}" for watch in watches for what in watch.left()]


def command_line(pid):
    try:
        raw = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return raw.decode(errors="replace").rstrip("\0").split("\0") if raw else []


def is_node(pid, argv):
    try:
        name = pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
    except OSError:
        return False
    return name.startswith("bigcastd") or "bigcastd" in os.path.basename(argv[0])


def is_zombie(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def inodes(pid):
    found = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found


def unix_sockets(pid):
    """Names of listening abstract sockets in the process's network namespace, by inode."""
    names = {}
    try:
        lines = pathlib.Path(f"/proc/{pid}/net/unix").read_text(encoding="utf-8",
                                                                errors="replace").splitlines()
    except OSError:
        return names
    for line in lines[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("@") and fields[3] == "00010000":
            names[fields[6]] = fields[7]
    return names


def listening_ports(pid):
    """TCP ports that the process listens on."""
    ports = set()
    own = inodes(pid)
    for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in own:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def figures(pid):
    """Descriptors, threads, and bytes: of a node those in use, of others what is in no file; empty
    if the process is gone."""
    try:
        found = {"descriptors": len(os.listdir(f"/proc/{pid}/fd")),
                 "threads": len(os.listdir(f"/proc/{pid}/task"))}
        if is_node(pid, command_line(pid)):
            found["bytes"] = bigcast_nodes.inspect(pid).memory_bytes
        else:
            found["native"] = bigcast_nodes.anonymous_bytes(pid)
        return found
    except (OSError, AttributeError):
        return {}


def files_left(folders):
    """What Bigcast left in folders that it was given to use."""
    left = []
    for folder in folders:
        for path in pathlib.Path(folder).rglob("*"):
            if "bigcast" in path.name.lower() or path.name in ("CURRENT", "LOCK"):
                left.append(str(path))
    return left
