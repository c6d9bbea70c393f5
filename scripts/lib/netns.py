"""Hosts on one machine: network namespaces joined by a bridge, and an end for what runs in them.

    with Hosts(3, rate="1gbit") as hosts:
        process = hosts.start(0, ["sleep", "1"])
        hosts.traffic(0).received

Host i is the namespace bc-<pid>-<i>, with an address of its own on a bridge that lives in one more
namespace, so the machine's own network is not touched. Where namespaces are not permitted
(available() says so), LocalHosts gives the same calls on 127.0.0.1. Either one ends every process
that it started, and their descendants, when its block is left, also by SIGINT or SIGTERM.

Standard library only. A Hosts object belongs to the thread that made it, but for inside().
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNET = 0x40000000


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes that have crossed a host's network interface since it was made."""

    received: int
    sent: int


def _ip(*args, **kwargs):
    return subprocess.run(
        ["ip", *args], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, **kwargs
    ).stdout


def available():
    """Whether this process may make namespaces and join them: '' if so, else why not.

    BIGCAST_NO_NAMESPACES in the environment forbids them, to try what happens without."""
    if os.environ.get("BIGCAST_NO_NAMESPACES"):
        return "BIGCAST_NO_NAMESPACES is set"
    if not shutil.which("ip"):
        return "the command 'ip' (package iproute2) is missing"
    name = f"bc-{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
            _ip("-n", name, "link", "add", "b0", "type", "bridge")
            _ip("netns", "exec", name, "true")
        finally:
            _ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return (error.stderr.strip().splitlines() or ["'ip netns add' failed"])[-1]
    return ""


def _descendants():
    """Ids of all living descendants of this process, parents before children."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _enter(namespace):
    """Moves the calling thread, and no other, into the network namespace that the file is."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns {namespace.name}: {os.strerror(number)}")


def _signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class LocalHosts:
    """Every host is this machine; traffic is not known (None)."""

    separate = False

    def __init__(self, count, rate=None):
        del rate  # loopback is not shaped
        self.count = count
        self._processes = []
        self._handlers = {}

    def __enter__(self):
        # Orphans, such as a daemon that an executor left behind, become our children, so that
        # leaving the block can find and end them.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._interrupted)
        try:
            self._set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # A second signal must not cut the clean-up short.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            self.end_processes()
            self._tear_down()
        finally:
            signal.signal(signal.SIGINT, interrupt)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    @staticmethod
    def _interrupted(number, _frame):
        raise SystemExit(128 + number)

    def _set_up(self):
        pass

    def _tear_down(self):
        pass

    def address(self, host):
        """The address that other hosts reach this one by."""
        del host
        return "127.0.0.1"

    def command(self, host, argv):
        """What to run so that argv runs on the host."""
        del host
        return list(argv)

    def inside(self, host):
        """A context manager: sockets that this thread makes in it are the host's, also later."""
        del host
        return contextlib.nullcontext()

    def traffic(self, host):
        del host
        return None

    def pids(self, host):
        """Ids of the processes on the host that descend from this one."""
        del host
        return _descendants()

    def start(self, host, argv, env=None, wrapper=(), **kwargs):
        """Starts argv on the host, in a session of its own; returns its Popen.

        env is added to this process's environment. wrapper is a command to start all that with,
        outside of the host's namespace. Standard input is empty unless given."""
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(
            [*wrapper, *self.command(host, argv)],
            env={**os.environ, **(env or {})},
            start_new_session=True,
            **kwargs,
        )
        self._processes.append(process)
        return process

    def output(self, host, argv, data=None):
        """Runs argv on the host, with data (bytes) as its input, to its end; what it printed.

        Raises SystemExit if it fails."""
        argv = [str(word) for word in argv]
        stdin = subprocess.DEVNULL if data is None else subprocess.PIPE
        process = self.start(host, argv, stdin=stdin, stdout=subprocess.PIPE)
        printed = process.communicate(data)[0]
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(argv)} failed: exit code {process.returncode}")
        return printed

    def end_processes(self, grace_s=10):
        """Ends every descendant: by SIGTERM, then after the grace by SIGKILL."""
        _signal_all(_descendants(), signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self._living() and time.monotonic() < deadline:
            time.sleep(0.05)
        while self._living():
            _signal_all(_descendants(), signal.SIGKILL)
            time.sleep(0.05)

    def _living(self):
        for process in self._processes:
            process.poll()
        living = _descendants()
        if not living:  # only adopted zombies can be left; collect them
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
        return living


class Hosts(LocalHosts):
    """Every host is a network namespace; rate (as tc writes it, '1gbit') limits both directions."""

    separate = True

    def __init__(self, count, rate=None):
        super().__init__(count, rate)
        self._rate = rate
        self._prefix = f"bc-{os.getpid()}"
        self._bridge = f"{self._prefix}-net"
        self._made = []

    def name(self, host):
        return f"{self._prefix}-{host}"

    def address(self, host):
        return f"10.203.77.{host + 10}"

    def command(self, host, argv):
        return ["ip", "netns", "exec", self.name(host), *argv]

    @contextlib.contextmanager
    def inside(self, host):
        with open("/proc/thread-self/ns/net", "rb") as home:
            with open(f"/run/netns/{self.name(host)}", "rb") as there:
                _enter(there)
            try:
                yield
            finally:
                _enter(home)

    def pids(self, host):
        return [int(pid) for pid in _ip("netns", "pids", self.name(host)).split()]

    def traffic(self, host):
        link = json.loads(_ip("-n", self.name(host), "-s", "-j", "link", "show", "dev", "eth0"))[0]
        stats = link["stats64"]
        return Traffic(received=stats["rx"]["bytes"], sent=stats["tx"]["bytes"])

    def _add(self, name):
        _ip("netns", "add", name)
        self._made.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def _set_up(self):
        net = self._bridge
        self._add(net)
        _ip("-n", net, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", net, "link", "set", "bridge0", "up")
        for host in range(self.count):
            name, port = self.name(host), f"port{host}"
            self._add(name)
            veth = ["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name]
            _ip("-n", net, *veth)
            _ip("-n", net, "link", "set", port, "master", "bridge0", "up")
            _ip("-n", name, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            if self._rate:
                for where, device in ((net, port), (name, "eth0")):
                    self._shape(where, device)

    def _shape(self, namespace, device):
        limit = ["tbf", "rate", self._rate, "burst", "256kb", "latency", "50ms"]
        subprocess.run(
            ["tc", "-n", namespace, "qdisc", "add", "dev", device, "root", *limit],
            check=True,
            stdin=subprocess.DEVNULL,
        )

    def _tear_down(self):
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "del", name], check=False, stdin=subprocess.DEVNULL)
        self._made.clear()


def make_hosts(count, rate=None):
    """Namespaces where they are permitted, else this machine; says which on standard output."""
    why_not = available()
    if why_not:
        print(f"== no network namespaces ({why_not}): every host is 127.0.0.1", flush=True)
        return LocalHosts(count, rate)
    return Hosts(count, rate)
