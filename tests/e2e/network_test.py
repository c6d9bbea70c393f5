"""Bad networks as the kernel makes them: hosts are network namespaces, packets are dropped by
nftables, links are slowed down by tbf. Skipped where that is not permitted."""

import concurrent.futures
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

NOT_FOUND, UNAVAILABLE = 3, 5
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
    """A node on each host: the first is the home, and clients are on the last."""

    count = 2
    rate = None
    flags = ("--session-timeout", "6s")  # soon over, for those who are cut off

    def setUp(self):
        super().setUp()
        self.env = {"BIGCAST_SECRET": harness.SECRET}
        self.hosts = netns.Hosts(self.count, rate=self.rate)
        self.hosts.__enter__()
        self.addCleanup(self.hosts.__exit__)
        self.nodes = [self.host_node(host) for host in range(self.count)]
        self.home = self.nodes[0]
        self.through = ("--local", "unix:@bigcast")  # the node on the clients' host
        for host in range(self.count):  # or one packet of nftables is many of the wire's
            netns._ip("-n", self.hosts.name(host), "link", "set", "eth0", "gso_max_segs", "1")

    def host_node(self, host):
        node = HostNode(self.binaries, self.hosts, host, "--memory", "64m", "--lease-grace", "1s",
                        "--socket", "unix:@bigcast", *self.flags, env=self.env)
        self.addCleanup(lambda: node.process.poll() is not None or node.stop())
        return node

    def call(self, *arguments, input=b"", through=(), servers=None):
        """A client's command line, by default with the home as its only server."""
        at = [word for node in servers or [self.home] for word in ("--server", node.listen)]
        command = self.hosts.command(
            self.count - 1, [self.binaries / "bigcast", *at, *through, *arguments])
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
                    within=self.hosts.command(self.count - 1, []))

    def end(self, *keys):
        """Of the test, and of what it put: no node has anything left, and all stop cleanly."""
        for key in keys or ["t/x"]:
            self.assert_ok(self.call("rm", key))
        for node in self.nodes:  # homes tell each other
            self.assert_nothing_left(node)
        for node in self.nodes:
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


class HomesPartition(NetworkTest):
    """Two homes of which one does not hear the other, and a third node that hears both."""

    count = 3
    TWO, THREE = slice(2), slice(3)

    def put(self, key, content, servers, *flags):
        return self.call("put", "-", "--key", key, "--replicas", "2", "--chunk-size", SMALL_CHUNK,
                         *flags, input=content, servers=self.nodes[servers])

    def assert_at(self, nodes, key, content):
        """Each of these gives it, with the same id and digest."""
        self.assertEqual([digest(content)] * len(nodes), [
            digest(self.assert_ok(self.call("get", key, "-", servers=[node]))) for node in nodes])
        blobs = [self.json(self.call("--json", "stat", key, servers=[node]))[0] for node in nodes]
        self.assertEqual(1, len({(blob["id"], blob["root_digest"]) for blob in blobs}), blobs)

    def lacking(self):
        """Blobs with too few homes, as each node counts them."""
        return [node.metrics()["blobs_under_replicated"] for node in self.nodes]

    def break_connections(self):
        """Of the first two: what is new is then silent at once, and the old is not waited for."""
        for host in (0, 1):
            other = self.hosts.address(1 - host)
            subprocess.run(self.hosts.command(host, ["ss", "-K", "dst", other]), check=True,
                           capture_output=True)  # a kernel that can't do it leaves all as it is

    def test_what_two_homes_have_stays_the_same(self):
        kept, old, new = (payload(SIZE, number) for number in (1, 2, 3))
        self.assert_ok(self.put("t/kept", kept, self.TWO))
        self.assert_ok(self.put("t/x", old, self.TWO))
        self.assertEqual([0, 0, 0], self.lacking())

        self.filter(1, f"ip saddr {self.hosts.address(0)} counter drop")
        if not FULL:
            self.break_connections()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            # Two homes are promised: without a third there is no such blob, ...
            refused = pool.submit(self.put, "t/new", new, self.TWO)
            # ... and with one the key names another blob at those who hear each other.
            replaced = pool.submit(self.put, "t/x", new, self.THREE, "--replace")
            eventually(lambda: self.lacking()[1] == 2, "a home that is missed")
        self.assert_fails(refused.result(), UNAVAILABLE, "UNAVAILABLE")
        self.assert_ok(replaced.result())
        eventually(lambda: self.lacking() == [1, 2, 0], "homes that are missed")
        self.assertGreater(self.counted(1), 0)
        first, second, third = self.nodes
        self.assert_at([first, third], "t/x", new)
        self.assert_at([second], "t/x", old)
        self.assert_at([first, second], "t/kept", kept)

        self.heal(1)
        eventually(lambda: self.lacking() == [0, 0, 0], "enough homes")
        self.assert_at([first, second], "t/kept", kept)
        self.assert_at([first, third], "t/x", new)
        self.assert_fails(self.call("get", "t/x", "-", servers=[second]), NOT_FOUND, "NOT_FOUND")
        self.assert_ok(self.put("t/new", new, self.TWO))
        self.assert_at([first, second], "t/new", new)
        self.end("t/kept", "t/x", "t/new")


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
