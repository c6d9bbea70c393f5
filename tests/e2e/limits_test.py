"""What a node does where it may have few descriptors, and when it is told to go while it is busy."""

import os
import pathlib
import resource
import signal
import socket
import sys
import threading

import harness
from harness import MIB, EndToEnd, eventually

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib"))
from measure import cpu_seconds

FEW = 64
CROWD = 100
IDLE_S = 2


class FewDescriptors(EndToEnd):
    def test_it_waits_for_some_without_turning_in_circles(self):
        if self.is_sanitized():
            self.skipTest("the sanitizer itself needs descriptors")
        node = self.node("--memory", "64m")
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
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
        self.assertLess(used / IDLE_S, 0.5)  # 5 % on a quiet machine; a loop that spins takes all
        for peer in crowd:
            peer.close()
        crowd.clear()
        done = self.bigcast(node, "put", "-", "--key", "t/x", input=b"x" * MIB)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(b"x" * MIB, self.bigcast(node, "get", "t/x", "-").stdout)
        self.assertEqual(0, node.stop())


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
        eventually(lambda: node.get("/readyz")[0] == 503, "/readyz says that it goes")
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


if __name__ == "__main__":
    harness.main()
