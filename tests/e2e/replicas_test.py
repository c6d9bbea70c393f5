"""Blobs that several nodes keep, by the command line: homes are killed, stopped and replaced."""

import os
import signal
import subprocess

import harness
from harness import MEMORY_USED, MIB, EndToEnd, eventually
from stripes_test import random_bytes

USAGE, NOT_FOUND, UNAVAILABLE = 2, 3, 5
SIZE = 8 * MIB
CHUNKS = ("--chunk-size", "256k")


class Replicas(EndToEnd):
    def setUp(self):
        super().setUp()
        self.nodes = [self.node("--memory", "64m") for _ in range(3)]
        self.first, self.second, self.third = self.nodes

    def flags(self):
        return [flag for node in self.nodes[1:] for flag in ("--server", node.listen)]

    def all(self, *arguments, **kwargs):
        """The command line with all nodes as servers."""
        return self.bigcast(self.first, *self.flags(), *arguments, **kwargs)

    def put(self, key, data, *more):
        return self.all("put", "-", "--key", key, "--replicas", 2, *CHUNKS, *more, input=data)

    def get(self, node, key="t/x"):
        return self.assert_ok(self.bigcast(node, "get", key, "-"))

    def homes(self, size=SIZE, nodes=None):
        """Those that live and whose memory has so many bytes or more."""
        return [
            node
            for node in nodes or self.nodes
            if node.process.poll() is None and node.metrics()[MEMORY_USED] >= size
        ]

    def assert_enough(self, *nodes):
        eventually(lambda: self.homes() == [*nodes], "copies at these nodes")
        for node in nodes:
            eventually(lambda: node.metrics()["blobs_under_replicated"] == 0, "enough homes")

    def writer(self):
        """A put that has written some of its chunks, and has not ended."""
        put = ("put", "-", "--key", "t/x", "--replicas", 2, *CHUNKS)
        writer = self.start(
            self.first, *self.flags(), *put, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        writer.stdin.write(random_bytes(SIZE)[: SIZE // 2])
        writer.stdin.flush()
        eventually(lambda: len(self.homes(SIZE // 4)) == 2, "chunks at both")
        return writer

    def test_a_killed_home_costs_a_reread_and_is_replaced(self):
        data = random_bytes(SIZE + 5)
        self.assert_ok(self.put("t/x", data))
        self.assertEqual([self.first, self.second], self.homes())
        blob = self.json(self.all("--json", "stat", "t/x"))[0]
        self.assertEqual([self.first.listen, self.second.listen], blob["homes"])
        self.assertEqual(2, blob["replicas"])
        self.first.kill()
        self.assertEqual(data, self.assert_ok(self.all("get", "t/x", "-")))
        self.assert_enough(self.second, self.third)
        self.second.kill()
        self.assertEqual(data, self.get(self.third))
        # There is nobody to copy it to.
        eventually(lambda: self.third.metrics()["blobs_under_replicated"] == 1, "a lost home")
        self.assert_ok(self.bigcast(self.third, "rm", "t/x"))
        self.assert_nothing_left(self.third)
        self.assertEqual(0, self.third.metrics()["blobs_under_replicated"])

    def test_removal_and_replacement_at_one_home_are_that_at_all(self):
        self.assert_ok(self.put("t/x", random_bytes(SIZE)))
        data = random_bytes(MIB, 2)
        self.assert_fails(self.put("t/x", data), 1, "t/x exists")
        self.assert_ok(self.put("t/x", data, "--replace"))
        for node in (self.first, self.second):
            eventually(lambda: node.metrics()[MEMORY_USED] == MIB, "the old one's end")
            self.assertEqual(data, self.get(node))
        self.assert_ok(self.bigcast(self.second, "rm", "t/x"))
        for node in self.nodes:
            self.assert_nothing_left(node)

    def test_a_first_home_that_is_killed_during_a_put_leaves_nothing(self):
        writer = self.writer()
        self.first.kill()
        writer.stdin.close()
        self.assertEqual(UNAVAILABLE, writer.wait(harness.CALL_S))
        for node in (self.second, self.third):
            self.assert_nothing_left(node)

    def test_a_replica_that_is_killed_during_a_put_is_replaced_before_it_is_done(self):
        writer = self.writer()
        self.second.kill()
        writer.stdin.write(random_bytes(SIZE)[SIZE // 2 :])
        writer.stdin.close()
        self.assertEqual(0, writer.wait(harness.CALL_S), writer.stderr.read())
        self.assertEqual([self.first, self.third], self.homes())
        self.assertEqual(random_bytes(SIZE), self.get(self.third))

    def test_a_stopped_home_that_wakes_does_not_bring_back_what_was_removed(self):
        self.assert_ok(self.put("t/x", random_bytes(SIZE)))
        self.first.process.send_signal(signal.SIGSTOP)
        try:
            read = self.assert_ok(self.all("--timeout", "2s", "get", "t/x", "-"))
            self.assertEqual(random_bytes(SIZE), read)
            if os.environ.get("BIGCAST_FULL"):  # until it counts as lost
                eventually(lambda: self.homes(nodes=[self.third]), "a copy at the third")
            self.assert_ok(self.bigcast(self.second, "rm", "t/x"))
        finally:
            self.first.process.send_signal(signal.SIGCONT)
        for node in self.nodes:
            self.assert_nothing_left(node)

    def test_a_home_that_is_restarted_gets_it_again(self):
        self.assert_ok(self.put("t/x", random_bytes(SIZE)))
        self.third.kill()
        self.second.kill()
        self.nodes[1] = self.node("--memory", "64m", listen=self.second.listen)
        self.assert_enough(self.first, self.nodes[1])
        self.assertEqual(random_bytes(SIZE), self.get(self.nodes[1]))

    def durable_nodes(self, *listen):
        """Two nodes that keep what is durable; the same again if they are told where to listen."""
        self.nodes = [
            self.node("--memory", "64m", "--disk", self.scratch / f"disk-{i}", "--disk-size", "256m",
                      "--scrub-rate", "1g", listen=listen[i] if listen else "127.0.0.1:0")
            for i in range(2)
        ]
        self.first, self.second = self.nodes

    def kill_all(self):
        for node in self.nodes:
            node.kill()
        return [node.listen for node in self.nodes]

    def test_durable_replicas_outlive_all_nodes_and_repair_each_other(self):
        self.durable_nodes()
        data = random_bytes(SIZE + 5)
        self.assert_ok(self.put("t/x", data, "--durability", "disk"))
        homes = self.kill_all()
        extent = self.scratch / "disk-0/bigcast/extent-000001"
        with open(extent, "r+b") as file:
            file.seek(MIB)
            file.write(bytes(100))
        self.durable_nodes(*homes)
        eventually(lambda: self.first.metrics()["chunks_mended_total"] == 1, "a repair")
        for node in self.nodes:
            self.assertEqual(data, self.get(node))
            eventually(lambda: node.metrics()["blobs_under_replicated"] == 0, "enough homes")
            blob = self.json(self.bigcast(node, "--json", "stat", "t/x"))[0]
            self.assertEqual(set(homes), set(blob["homes"]))
            self.assertEqual(0, node.metrics()["chunks_damaged"])
        self.first.kill()
        self.assert_ok(self.bigcast(self.second, "rm", "t/x"))
        self.first = self.node("--memory", "64m", "--disk", self.scratch / "disk-0", "--disk-size",
                               "256m", listen=homes[0])
        self.assert_nothing_left(self.first)

    def test_durable_stripes_outlive_all_nodes(self):
        self.durable_nodes()
        data = random_bytes(SIZE + 5)
        put = ("put", "-", "--key", "t/x", "--homes", 2, *CHUNKS, "--durability", "disk")
        self.assert_ok(self.all(*put, input=data))
        self.durable_nodes(*self.kill_all())
        self.assertEqual(data, self.get(self.first))
        self.assert_ok(self.all("rm", "t/x"))
        for node in self.nodes:
            self.assert_nothing_left(node)

    def test_what_can_not_be_is_refused(self):
        for replicas in ("0", "4", "two"):
            with self.subTest(replicas=replicas):
                done = self.all("put", "-", "--key", "t/x", "--replicas", replicas, input=b"x")
                self.assert_fails(done, USAGE, "--replicas")
        self.assert_fails(self.put("t/x", b"x", "--durability", "disk"), USAGE, "durability")
        for node in (self.second, self.third):
            node.kill()
        self.assert_fails(self.put("t/x", b"x"), UNAVAILABLE, "replicas", self.second.listen)
        self.assert_nothing_left(self.first)


if __name__ == "__main__":
    harness.main()
