"""Blobs that several nodes keep, by the command line: homes are killed, stopped and cut off."""

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

    def all(self, *arguments, **kwargs):
        """The command line with all nodes as servers."""
        rest = [flag for node in self.nodes[1:] for flag in ("--server", node.listen)]
        return self.bigcast(self.first, *rest, *arguments, **kwargs)

    def put(self, key, data, *more, copies=2):
        return self.all(
            "put", "-", "--key", key, "--replicas", copies, *CHUNKS, *more, input=data
        )

    def get(self, node, key="t/x"):
        return self.assert_ok(self.bigcast(node, "get", key, "-"))

    def homes(self):
        """Those whose memory has all of a blob of SIZE."""
        return [node for node in self.nodes if node.process.poll() is None
                and node.metrics()[MEMORY_USED] >= SIZE]

    def lacking(self, *nodes):
        return sum(node.metrics()["blobs_under_replicated"] for node in nodes)

    def test_a_killed_home_costs_a_reread_and_is_replaced(self):
        data = random_bytes(SIZE + 5)
        self.assert_ok(self.put("t/x", data))
        self.assertEqual([self.first, self.second], self.homes())
        blob = self.json(self.all("--json", "stat", "t/x"))[0]
        self.assertEqual([self.first.listen, self.second.listen], blob["homes"])
        self.assertEqual(2, blob["replicas"])
        self.first.kill()
        self.assertEqual(data, self.assert_ok(self.all("get", "t/x", "-")))
        eventually(lambda: self.homes() == [self.second, self.third], "a copy at the third")
        eventually(lambda: self.lacking(self.second, self.third) == 0, "enough homes")
        self.second.kill()
        self.assertEqual(data, self.get(self.third))
        self.assert_ok(self.bigcast(self.third, "rm", "t/x"))
        self.assert_nothing_left(self.third)


if __name__ == "__main__":
    harness.main()
