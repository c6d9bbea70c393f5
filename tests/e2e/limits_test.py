"""What a node does where it may have few descriptors, and when it is told to go while it is busy."""

import os
import pathlib
import signal
import socket
import sys
import threading
import time

import harness
from harness import MIB, EndToEnd, eventually

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib"))
from measure import cpu_seconds

FEW = 64
TOO_FEW = 24
CROWD = 100
IDLE_S = 3
GRACE_S = 2


class FewDescriptors(EndToEnd):
    def setUp(self):
        super().setUp()
        if self.is_sanitized():
            self.skipTest("the sanitizer itself needs descriptors")

    @staticmethod
    def at_most(count):
        return ["prlimit", f"--nofile={count}:{count}"]

    def test_it_waits_for_some_without_turning_in_circles(self):
        node = self.node("--memory", "64m", within=self.at_most(FEW))
        told = self.json(self.bigcast(node, "--json", "doctor"), code=1)
        self.assertEqual(["descriptors"], [finding["check"] for finding in told])
        self.assertRegex(told[0]["problem"], f"^[0-9]+ of {FEW} descriptors are open")
        for word in ("LimitNOFILE", "above 1 MiB, of several chunks or mappable"):
            self.assertIn(word, told[0]["advice"])
        crowd = []
        self.addCleanup(lambda: [peer.close() for peer in crowd])
        host, port = node.listen.rsplit(":", 1)
        for _ in range(CROWD):
            peer = socket.socket()
            crowd.append(peer)
            peer.setblocking(False)
            peer.connect_ex((host, int(port)))
        eventually(lambda: node.descriptors() >= FEW - 1, "all descriptors in use")
        before = cpu_seconds(node.process.pid)
        threading.Event().wait(IDLE_S)
        used = cpu_seconds(node.process.pid) - before
        print(f"  {used / IDLE_S:.1%} of a core at {node.descriptors()} of {FEW} descriptors")
        self.assertLess(used / IDLE_S, 0.05)
        for peer in crowd:
            peer.close()
        crowd.clear()
        done = self.bigcast(node, "put", "-", "--key", "t/x", input=b"x" * MIB)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(b"x" * MIB, self.bigcast(node, "get", "t/x", "-").stdout)
        self.assertEqual(0, node.stop())

    def test_half_of_them_are_for_blobs_that_are_not_small(self):
        node = self.node("--memory", "64m", within=self.at_most(2 * FEW))

        def put(*arguments, **options):
            return self.bigcast(node, "put", *arguments, **options)
        small = [self.file(f"small-{i}", b"x" * 100) for i in range(2 * FEW)]
        self.assert_ok(put(*small, "--key", "t/"))
        self.assertEqual(0, node.metrics()["store_descriptors"])
        self.assert_ok(put("-", "--key", "t/large", input=os.urandom(MIB + 1)))
        self.assert_ok(put(small[0], "--key", "t/mappable", "--mappable"))
        several = [self.file(f"several-{i}", b"x" * 70_000) for i in range(FEW - 2)]
        self.assert_ok(put(*several, "--key", "t/", "--chunk-size", "64k"))
        self.assertEqual(FEW, node.metrics()["store_descriptors"])
        self.assert_fails(put(several[0], "--key", "t/more", "--chunk-size", "64k"), 1,
                          "RESOURCE_EXHAUSTED", f"{FEW} are open, half of")

    def test_it_does_not_start_where_there_are_too_few_for_anybody(self):
        done = self.bigcastd("--listen", "127.0.0.1:0", "--http", "none",
                             within=self.at_most(TOO_FEW))
        self.assert_fails(done, 1, "descriptors", f"its limit is {TOO_FEW}", "LimitNOFILE",
                          "above 1 MiB, of several chunks or mappable")


class ToldToGo(EndToEnd):
    def test_running_puts_and_gets_finish_new_ones_are_refused(self):
        node = self.node("--memory", "256m")
        content = os.urandom(8 * MIB)
        self.bigcast(node, "put", "-", "--key", "t/old", input=content)
        puts = [self.start(node, "--quiet", "put", "-", "--key", f"t/new{i}", "--chunk-size", "64k",
                           stdin=-1, stderr=-1) for i in range(3)]
        for put in puts:
            put.stdin.write(content[:MIB])
            put.stdin.flush()
        eventually(lambda: node.metrics()["chunks_received_total"] > 3 * 8, "puts under way")
        gets = [self.start(node, "--quiet", "get", "t/old", "-", stdout=-1, stderr=-1)
                for _ in range(3)]
        for get in gets:
            self.assertEqual(content[:1], get.stdout.read(1))  # surely under way
        node.process.send_signal(signal.SIGTERM)
        eventually(lambda: node.get("/readyz") == (503, "draining\n"), "/readyz says that it goes",
                   seconds=5)
        self.assertEqual(200, node.get("/livez")[0])
        late = self.bigcast(node, "put", "-", "--key", "t/late", "--timeout", "5s", input=b"x")
        self.assertEqual(5, late.returncode, late.stderr)
        for get in gets:
            self.assertEqual(content[1:], get.stdout.read())
            self.assertEqual(0, get.wait(harness.CALL_S), get.stderr.read())
        for put in puts:
            _, errors = put.communicate(content[MIB:])
            self.assertEqual((0, b""), (put.returncode, errors))
        eventually(lambda: node.process.poll() is not None, "the node's end")  # told but once
        self.assertEqual(0, node.stop())

    def test_a_put_that_stalls_holds_it_up_no_longer_than_its_grace(self):
        node = self.node("--memory", "64m", "--drain-timeout", f"{GRACE_S}s")
        put = self.start(node, "--quiet", "put", "-", "--key", "t/stalled", "--chunk-size", "64k",
                         stdin=-1, stderr=-1)
        put.stdin.write(b"x" * MIB)
        put.stdin.flush()
        eventually(lambda: node.metrics()["chunks_received_total"] > 0, "a put under way")
        told = time.monotonic()
        node.process.send_signal(signal.SIGTERM)
        node.process.wait(harness.CALL_S)
        took = time.monotonic() - told
        self.assertEqual(0, node.stop())
        print(f"  ended {took:.1f} s after it was told to")
        self.assertGreaterEqual(took, GRACE_S)
        self.assertLess(took, GRACE_S + 10)  # its preset is 30 s
        _, errors = put.communicate(b"x" * MIB)
        self.assertEqual(5, put.returncode)
        self.assertRegex(errors.decode(), r"^bigcast: UNAVAILABLE: ")


if __name__ == "__main__":
    harness.main()
