"""What the tests of faults share: nodes that find each other through proxies, gets that a test reads
from at its own pace, and what must hold whatever the fault was."""

import contextlib
import hashlib
import os
import pathlib
import random
import re
import subprocess
import threading
import time

from fault_proxy import FaultProxy
from harness import EndToEnd, eventually

KIB = 1 << 10
CHUNK = 256 * KIB
LIMITS = (pathlib.Path(__file__).resolve().parents[2] / "base/limits.h").read_text(encoding="utf-8")


def limit_s(name):
    """A duration of base/limits.h."""
    return int(re.search(rf" {name}Ms = ([\d']+);", LIMITS)[1].replace("'", "")) / 1000


PROGRESS_S = limit_s("kProgressTimeout")  # who is not told of a shorter deadline gives up after this
ENDED_S = 3 * PROGRESS_S  # by then every call has ended
TYPED = {1, 2, 3, 4, 5}  # exit codes of the command line with an error code behind them
# Short enough for a test, and still longer than the renewals of a command line (5 s).
QUICK = ("--memory", "64m", "--session-timeout", "6s")
PATIENT = ("--session-timeout", "60s")  # after QUICK: where a reader waits, and is to stay


def seed():
    """BIGCAST_SEED repeats a run; it is printed with each."""
    return int(os.environ.get("BIGCAST_SEED") or random.SystemRandom().randrange(1 << 32))


def payload(size, number=1):
    return random.Random(number).randbytes(size)


def digest(content):
    return len(content), hashlib.sha256(content).hexdigest()


class Call:
    """A `bigcast` that runs beside the test; ended and reported as hung after `limit_s`."""

    def __init__(self, test, node, *arguments, limit_s=ENDED_S, **options):
        options.setdefault("stdout", subprocess.PIPE)
        self.process = test.start(node, *arguments, stderr=subprocess.PIPE, **options)
        self.output = b""
        self.errors = ""
        self.hung = False
        self._drain = None
        self._limit_s = limit_s
        self._watchdog = threading.Timer(limit_s, self._give_up)
        self._watchdog.daemon = True
        self._watchdog.start()

    def _give_up(self):
        self.hung = True
        self.process.kill()

    def read(self, size):
        """Exactly so many bytes of its output."""
        piece = self.process.stdout.read(size)
        self.output += piece
        if len(piece) < size:
            self.end()
            raise AssertionError(f"ended after {len(self.output)} bytes: {self.errors}")
        return piece

    def drain(self):
        """Reads the rest beside the test, until end()."""
        self._drain = threading.Thread(target=self._read_rest, daemon=True)
        self._drain.start()
        return self

    def _read_rest(self):
        self.output += self.process.stdout.read()

    def end(self):
        """Reads the rest; the exit code."""
        if not self._drain:
            self.drain()
        self._drain.join()
        self.errors = self.process.stderr.read().decode(errors="replace")
        code = self.process.wait()
        self._watchdog.cancel()
        if self.hung:
            raise AssertionError(f"no end within {self._limit_s} s: {self.errors}")
        for sign in ("Sanitizer", "runtime error:", "terminate called"):
            if sign in self.errors:
                raise AssertionError(self.errors)
        return code


class FaultTest(EndToEnd):
    def setUp(self):
        super().setUp()
        self.seed = seed()
        started = time.monotonic()
        self.addCleanup(lambda: print(f"  {time.monotonic() - started:.1f} s", flush=True))
        print(f"{self.id()}: BIGCAST_SEED={self.seed}", flush=True)
        self.random = random.Random(self.seed)
        self.names = 0

    def proxy(self):
        proxy = FaultProxy(seed=self.random.randrange(1 << 32))
        self.addCleanup(proxy.stop)
        return proxy

    def home(self, *flags, proxy=None, grace="1s"):
        """A node that others reach through the proxy, if there is one."""
        if proxy:
            flags = (*flags, "--advertise", proxy.address)
        node = self.node(*QUICK, "--lease-grace", grace, *flags)
        if proxy:
            proxy.forward_to(node.listen)
        return node

    def relay(self, *flags, **options):
        """The same, with the socket by which clients find it as their local node."""
        self.names += 1
        socket = f"@bigcast-faults-{os.getpid()}-{self.id().rpartition('.')[2][:40]}-{self.names}"
        node = self.home("--socket", f"unix:{socket}", *flags, **options)
        node.local = ("--local", f"unix:{socket}")
        return node

    def put(self, node, key, content, chunk=CHUNK, *flags):
        self.assert_ok(self.bigcast(node, "put", "-", "--key", key, "--chunk-size", chunk, *flags,
                                    input=content))

    def get(self, node, key, *flags, through=None, **options):
        return Call(self, node, *(through.local if through else ()), *flags, "get", key, "-",
                    **options)

    def assert_right(self, call, content):
        code = call.end()
        self.assertEqual((0, digest(content)), (code, digest(call.output)), call.errors)

    def assert_right_or_typed(self, call, content):
        """I1 and I3. True if it was right."""
        code = call.end()
        if code == 0:
            self.assertEqual(digest(content), digest(call.output))
            return True
        self.assert_typed(call, code)
        self.assertEqual(digest(content[: len(call.output)]), digest(call.output))
        return False

    def assert_typed(self, call, code, *codes):
        self.assertIn(code, codes or TYPED, call.errors)
        self.assertRegex(call.errors, r"^bigcast: [A-Z_]+: ")

    @contextlib.contextmanager
    def in_time(self, what):
        """For what has a deadline of a few seconds: the block ends sooner than it would by the usual
        one, which is the only bound of time that a busy machine keeps, too."""
        started = time.monotonic()
        yield
        took = time.monotonic() - started
        print(f"  {what} after {took:.1f} s", flush=True)
        self.assertLess(took, PROGRESS_S, what)

    @contextlib.contextmanager
    def back_to_baseline(self, *nodes, keys=()):
        """I4 and I6 of the nodes that live on: what the block took is given back, and a node that
        is told to stop does so cleanly, without a sanitizer's report."""
        for node in nodes:  # what is opened once, at first use
            self.put(node, "warm/up", b"x" * CHUNK)
            self.assert_ok(self.bigcast(node, "get", "warm/up", "-"))
            self.assert_ok(self.bigcast(node, "rm", "warm/up"))
            eventually(lambda: node.metrics()["sessions"] == 0, "the end of the warm-up")
        before = [node.descriptors() for node in nodes]
        yield
        for key in keys:
            self.bigcast(nodes[0], "rm", key)
        for node, count in zip(nodes, before):
            self.assertIsNone(node.process.poll())
            self.assert_nothing_left(node)
            eventually(lambda: node.metrics()["serve_reserve_used_bytes"] == 0, "idle reserves")
            eventually(lambda: node.descriptors() <= count, f"{count} descriptors again")
            self.assertEqual(0, node.stop())

    def served_directly(self, node):
        """Bytes of chunks that a node sent to whoever is not a node."""
        metrics = node.metrics()
        return metrics['served_bytes_total{path="inline"}'] - metrics["served_peer_bytes_total"]
