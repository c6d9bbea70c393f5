"""A crowd that connects and does not log in, or is slow to ask: it is closed within its deadline,
and who does log in is served meanwhile."""

import os
import resource
import selectors
import socket
import time

import harness
from faults import CHUNK, FaultTest, digest, payload
from harness import MIB, eventually

FULL = bool(os.environ.get("BIGCAST_FULL"))
CROWD = 10_000 if FULL else 2_000
CLOSED_S = 10  # limits::kLoginTimeoutMs and kHttpTimeoutMs ...
SLACK_S = 5  # ... and what it takes to notice
SLACK_SANITIZED_S = 20
SPARE = 200  # descriptors of the test's own
CALLS = 1000  # of a client that stays connected
P99_FACTOR, P99_SPARE_MS = 2, 20  # what a crowd may make of it, whichever is more
FRAME = b"\x00\x00\x00\x00\x10\x00\x00\x00" + b"\x00" * 128


class Crowd:
    """Connections to one address, a third of them silent and the others sending a byte now and
    then of `begin`, which is the beginning of something that would be answered."""

    def __init__(self, address, size, begin):
        host, port = address.rsplit(":", 1)
        self.begin = begin
        self.selector = selectors.DefaultSelector()
        self.opened_at = time.monotonic()
        self.open = set()
        self.closed_after = []
        for number in range(size):
            peer = socket.create_connection((host, int(port)), timeout=harness.CALL_S)
            peer.setblocking(False)
            self.open.add(peer)
            self.selector.register(peer, selectors.EVENT_READ, [number % 3, 0, time.monotonic()])
            if number % 64 == 0:
                self.turn(0)

    def turn(self, wait_s=0.1):
        """Notices who was closed, and sends a byte of those that are slow."""
        for key, _ in self.selector.select(wait_s):
            try:
                if key.fileobj.recv(4096):
                    continue  # an HTTP answer: refused for being slow
            except ConnectionResetError:
                pass
            except BlockingIOError:
                continue
            self.close(key.fileobj)
        for key in list(self.selector.get_map().values()):
            kind, sent, _ = key.data
            if kind and sent < len(self.begin):
                try:
                    key.data[1] += key.fileobj.send(self.begin[sent : sent + 1])
                except OSError:
                    self.close(key.fileobj)

    def close(self, peer):
        self.closed_after.append(time.monotonic() - self.selector.get_key(peer).data[2])
        self.selector.unregister(peer)
        self.open.remove(peer)
        peer.close()

    def close_all(self):
        for peer in list(self.open):
            self.close(peer)
        self.selector.close()


class CrowdTest(FaultTest):
    def setUp(self):
        super().setUp()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.size = CROWD if hard == resource.RLIM_INFINITY else min(CROWD, hard - SPARE)
        soft = self.size + SPARE
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limits[0]), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        print(f"  {self.size} connections")

    def crowd(self, address, begin):
        crowd = Crowd(address, self.size, begin)
        self.addCleanup(crowd.close_all)
        return crowd

    def run_case(self, node, address, begin, call):
        """`call` goes well while the crowd is there, as does a client that stays; the crowd goes in
        time."""
        slack = SLACK_SANITIZED_S if self.is_sanitized() else SLACK_S
        calm = self.p99_us(self.reader(node, "t", "x", CALLS)) / 1000
        served = node.metrics()["chunks_served_total"]
        client = self.reader(node, "t", "x", CALLS)
        # Until all its connections are logged in it is one of the crowd, of whom some are turned away.
        eventually(lambda: node.metrics()["chunks_served_total"] > served, "its first chunk")
        crowd = self.crowd(address, begin)
        calls = peak = 0
        deadline = crowd.opened_at + CLOSED_S + SLACK_SANITIZED_S
        while crowd.open:
            self.assertLess(time.monotonic(), deadline, f"{len(crowd.open)} are still open")
            crowd.turn()
            # What else costs time would disturb it where it is measured.
            if client.poll() is not None or self.is_sanitized():
                call()
                calls += 1
            peak = max(peak, node.descriptors())
        pressed = self.p99_us(client) / 1000
        print(f"  all closed after {max(crowd.closed_after):.1f} s; p99 of a client's calls: "
              f"{calm:.1f} ms alone, {pressed:.1f} ms in the crowd; {calls} others; "
              f"{peak} descriptors at most")
        self.assertGreater(calls, 1)
        self.assertLess(max(crowd.closed_after), CLOSED_S + slack)
        self.assertLess(peak, 1000)  # whatever the crowd's size
        if FULL and not self.is_sanitized():
            self.assertLess(pressed, max(P99_FACTOR * calm, calm + P99_SPARE_MS))

    def test_those_who_do_not_log_in_keep_nobody_out(self):
        node = self.home()
        content = payload(CHUNK)
        with self.back_to_baseline(node, keys=["t/x"]):
            self.put(node, "t/x", content)

            def good():
                got = self.assert_ok(self.bigcast(node, "get", "t/x", "-"))
                self.assertEqual(digest(content), digest(got))
                self.assertEqual(200, node.get("/metrics")[0])

            self.run_case(node, node.listen, FRAME, good)
            self.assertGreater(node.metrics()["connections_shed_total"], self.size // 2)
            eventually(lambda: node.metrics()["connections"] == 0, "the end of all connections")

    def test_a_transfer_goes_on_in_a_crowd(self):
        node = self.home()
        content = payload(16 * MIB)
        with self.back_to_baseline(node, keys=["t/x"]):
            self.put(node, "t/x", content)
            get = self.get(node, "t/x")
            get.read(CHUNK)
            crowd = self.crowd(node.listen, FRAME)
            get.read(8 * MIB)
            self.assertTrue(crowd.open)
            self.assert_right(get, content)
            crowd.close_all()

    def test_slow_requests_keep_metrics_answering(self):
        node = self.home()
        with self.back_to_baseline(node, keys=["t/x"]):
            self.put(node, "t/x", payload(CHUNK))
            begin = b"GET /metrics HTTP/1.1\r\nX-Slow: " + b"x" * 200
            self.run_case(node, node.http, begin,
                          lambda: self.assertEqual(200, node.get("/metrics")[0]))


if __name__ == "__main__":
    harness.main()
