"""Bad networks as the kernel makes them: hosts are network namespaces, packets are dropped by
nftables, links are slowed down by tbf. Skipped where that is not permitted."""

import os
import pathlib
import shutil
import subprocess
import sys
import unittest

import harness
from faults import KIB, Call, FaultTest, digest, payload
from harness import MIB, Node, eventually

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib"))
import netns

SIZE = 4 * MIB
SMALL_CHUNK = 64 * KIB
ATTEMPTS = 6
FULL = bool(os.environ.get("BIGCAST_FULL"))


def why_not():
    """Why these tests can't run here; empty if they can."""
    if not shutil.which("nft"):
        return "the command 'nft' (package nftables) is missing"
    if problem := netns.available():
        return problem
    with netns.Hosts(1) as hosts:
        done = nft(hosts, 0, "add table inet try")
        return done.stderr.strip()


def nft(hosts, host, rules):
    return subprocess.run(hosts.command(host, ["nft", "-f", "-"]), input=rules, text=True,
                          capture_output=True)


class HostNode(Node):
    """A node on a host of its own."""

    def __init__(self, binaries, hosts, host, *flags, env):
        self.hosts, self.host = hosts, host
        super().__init__(binaries, *flags, env=env, listen=f"{hosts.address(host)}:0",
                         within=hosts.command(host, []))

    def get(self, path):
        with self.hosts.inside(self.host):
            return super().get(path)


class NetworkTest(FaultTest):
    """A home on host 0 and a relay on host 1, where the clients are."""

    rate = None
    flags = ("--session-timeout", "6s")  # soon over, for those who are cut off

    def setUp(self):
        super().setUp()
        self.env = {"BIGCAST_SECRET": harness.SECRET}
        self.hosts = netns.Hosts(2, rate=self.rate)
        self.hosts.__enter__()
        self.addCleanup(self.hosts.__exit__)
        self.nodes = [self.host_node(host) for host in (0, 1)]
        self.home, self.relay = self.nodes
        self.through = ("--local", "unix:@bigcast")
        for host in (0, 1):  # or one packet of nftables is many of the wire's
            netns._ip("-n", self.hosts.name(host), "link", "set", "eth0", "gso_max_segs", "1")

    def host_node(self, host):
        node = HostNode(self.binaries, self.hosts, host, "--memory", "64m", "--lease-grace", "1s",
                        "--socket", "unix:@bigcast", *self.flags, env=self.env)
        self.addCleanup(lambda: node.process.poll() is not None or node.stop())
        return node

    def call(self, *arguments, input=b"", through=()):
        """The command line on host 1."""
        command = self.hosts.command(
            1, [self.binaries / "bigcast", "--server", self.home.listen, *through, *arguments])
        return subprocess.run(list(map(str, command)), input=input, capture_output=True,
                              timeout=10 * harness.CALL_S, env={**os.environ, **self.env})

    def until_done(self, sender, *arguments, **options):
        """Repeats it while it ends with UNAVAILABLE or DEADLINE_EXCEEDED: such a network may also drop
        all of a deadline's attempts. Its output, and what the sender's host sent the last time."""
        for _ in range(ATTEMPTS):
            before = self.hosts.traffic(sender).sent
            self.before = self.home.metrics()
            done = self.call(*arguments, **options)
            if done.returncode != 5:
                break
            print(f"  {done.stderr.decode().strip()}")
        return self.assert_ok(done), self.hosts.traffic(sender).sent - before

    def get_beside(self, *flags):
        return Call(self, self.home, *flags, "get", "t/x", "-", env={**os.environ, **self.env},
                    within=self.hosts.command(1, []))

    def end(self):
        self.assert_ok(self.call("rm", "t/x"))
        for node in self.nodes:
            self.assert_nothing_left(node)
            self.assertEqual(0, node.stop())

    def filter(self, host, *rules):
        chain = "\n".join(["type filter hook input priority 0;", *rules])
        done = nft(self.hosts, host, f"table inet bad {{\nchain input {{\n{chain}\n}}\n}}\n")
        self.assertEqual(0, done.returncode, done.stderr)

    def heal(self, host):
        self.assertEqual(0, nft(self.hosts, host, "delete table inet bad").returncode)

    def counted(self, host):
        """Packets that the counter in the host's rules has seen."""
        listing = subprocess.run(self.hosts.command(host, ["nft", "list", "table", "inet", "bad"]),
                                 text=True, capture_output=True, check=True).stdout
        return int(listing.split("counter packets ")[1].split()[0])


class Partition(NetworkTest):
    def run_case(self, *hosts):
        """What the other host sends does not arrive at these."""
        content = payload(SIZE)
        self.assert_ok(self.call("put", "-", "--key", "t/x", "--chunk-size", SMALL_CHUNK,
                                 input=content))
        get = self.get_beside(*self.through)
        get.read(SMALL_CHUNK)
        for host in hosts:
            # The relay's new attempt to connect, or the answer to it: the old one was given up.
            flags = "syn" if host == 0 else "(syn | ack)"
            other = self.hosts.address(1 - host)
            self.filter(host, f"ip saddr {other} tcp flags & (syn | ack) == {flags} counter drop",
                        f"ip saddr {other} drop")
        get.drain()
        eventually(lambda: self.counted(hosts[0]) > 0, "a new connection")
        for host in hosts:
            self.heal(host)
        self.assert_right(get, content)
        self.end()

    def test_neither_hears_the_other(self):
        self.run_case(0, 1)

    def test_the_home_hears_no_more(self):
        self.run_case(0)

    def test_the_relay_hears_no_more(self):
        self.run_case(1)


class SlowTest(NetworkTest):
    flags = ()  # renewals come late, too

    def run_slow(self, content, chunk, times, tries=1):
        """A blob there and back. Nothing is sent that need not be: at most twice what the blob has,
        by the nodes and, where the network loses none of it, on the wire; else `times` as much. So
        in one of `tries`: a network may also silence a connection until it is given up, and then the
        chunks that were under way are rightly sent once more."""
        for _ in range(tries):
            _, sent = self.until_done(1, "put", "-", "--key", "t/x", "--replace", "--chunk-size",
                                      chunk, input=content)
            thrifty = self.is_thrifty("put", "received_bytes_total", sent, len(content), times)
            got, sent = self.until_done(0, "get", "t/x", "-", through=self.through)
            self.assertEqual(digest(content), digest(got))
            if self.is_thrifty("get", "served_bytes_total", sent, len(content), times) and thrifty:
                return
        self.fail(f"more than twice the blob's bytes were sent, {tries} times")

    def is_thrifty(self, what, name, on_wire, size, times):
        by_node = self.home.metrics()[name] - self.before[name]
        print(f"  {what}: {by_node / size:.2f} bytes sent a byte by the node, "
              f"{on_wire / size:.2f} on the wire")
        return by_node <= 2 * size and on_wire <= 2 * size * times


class Loss(SlowTest):
    def test_three_of_ten_packets_are_lost(self):
        for host in (0, 1):
            self.filter(host, "ip saddr 10.0.0.0/8 numgen random mod 100 < 30 drop")
        # TCP sends each packet 1 / 0.7 times.
        self.run_slow(payload(1 * MIB if FULL else 128 * KIB), SMALL_CHUNK, times=1 / 0.7,
                      tries=ATTEMPTS)
        for host in (0, 1):
            self.heal(host)
        self.end()


class SlowLink(SlowTest):
    rate = "1mbit"

    def test_a_megabit_a_second(self):
        self.run_slow(payload(512 * KIB), SMALL_CHUNK, times=1)
        self.end()

    @unittest.skipUnless(FULL, "takes minutes: scripts/test --full")
    def test_chunks_of_half_a_minute(self):
        self.run_slow(payload(12 * MIB), 4 * MIB, times=1)
        self.end()


def setUpModule():
    if problem := why_not():
        raise unittest.SkipTest(problem)


if __name__ == "__main__":
    harness.main()
