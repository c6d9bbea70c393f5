"""Starts real nodes and runs the real command line. Everything it starts, it ends, by process id."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

CALL_S = 120
SECRET = "an-end-to-end-secret-of-enough-bytes-0123456789"
MIB = 1 << 20
MEMORY_USED = 'store_used_bytes{tier="memory"}'
DISK_USED = 'store_used_bytes{tier="disk"}'


def eventually(condition, what, seconds=60):
    """Waits until `condition()` is true; a fault of the product if it never is."""
    deadline = time.monotonic() + seconds
    late = False
    while not condition():
        if late:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.05)
        late = time.monotonic() > deadline  # then it looks once more: the machine may have stood still


class Node:
    """One bigcastd on loopback, with ports that the system chose unless `listen` says otherwise.

    `within` is a command to start it with, such as `ip netns exec NAME`."""

    def __init__(self, binaries, *flags, env=None, listen="127.0.0.1:0", within=()):
        self.process = subprocess.Popen(
            [*within, binaries / "bigcastd", "--listen", listen, "--http", "127.0.0.1:0", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        line = self.process.stdout.readline()
        if not line.startswith("bigcastd ready"):
            self.process.kill()
            raise AssertionError(f"node did not start: {line!r} {self.process.stderr.read()!r}")
        fields = dict(part.split("=", 1) for part in line.split()[2:])
        self.listen, self.http = fields["listen"], fields["http"]

    def metrics(self):
        """All samples of /metrics: each with its labels, and summed by name without them."""
        samples = {}
        for line in self.get("/metrics")[1].splitlines():
            match = re.match(r"(bigcast_([a-z_]+))(\{[^}]*\})? (\S+)", line)
            if match:
                if match[3]:
                    samples[match[2] + match[3]] = float(match[4])
                samples[match[2]] = samples.get(match[2], 0.0) + float(match[4])
        return samples

    def get(self, path):
        """(status, body) of an HTTP GET."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=CALL_S) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self):
        """SIGTERM; the exit code. `log` is what it wrote; sanitizer reports there fail the caller."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            _, errors = self.process.communicate(timeout=CALL_S)
            self.log = errors
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        if "Sanitizer" in errors or "runtime error:" in errors:
            raise AssertionError(errors)
        return self.process.returncode

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class EndToEnd(unittest.TestCase):
    """A scratch folder, nodes that end with the test, and the command line."""

    binaries = None

    def setUp(self):
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="bigcast-e2e-"))
        self.addCleanup(shutil.rmtree, self.scratch)

    def node(self, *flags, **options):
        node = Node(self.binaries, *flags, **options)
        self.addCleanup(lambda: node.process.poll() is not None or node.stop())
        return node

    def within(self, group):
        """Enters the cgroup until the test ends; skips the test where that is not permitted. What to
        start a node with."""
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(group)
        except OSError as error:
            self.skipTest(f"no cgroup can be made here: {error}")
        self.addCleanup(stack.close)
        return group.command([])

    def is_sanitized(self):
        return b"__asan_init" in (self.binaries / "bigcastd").read_bytes()

    def bigcastd(self, *flags, env=None, within=()):
        """Runs a bigcastd that is expected not to start."""
        return self._run("bigcastd", flags, env, within=within)

    def bigcast(self, node, *arguments, env=None, input=None):
        server = ["--server", node.listen] if node else []
        return self._run("bigcast", [*server, *arguments], env, input)

    def _run(self, program, arguments, env=None, input=None, within=()):
        done = subprocess.run(
            [*within, self.binaries / program, *map(str, arguments)],
            input=input if input is not None else b"",
            capture_output=True,
            timeout=CALL_S,
            env={**os.environ, **(env or {})},
        )
        for sign in (b"Sanitizer", b"runtime error:"):
            self.assertNotIn(sign, done.stderr)
        return done

    def start(self, node, *arguments, within=(), **options):
        """The command line in the background; killed with the test if it is still there."""
        server = ["--server", node.listen] if node else []
        process = subprocess.Popen(
            [*within, self.binaries / "bigcast", *server, *map(str, arguments)], **options
        )

        def clean_up():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                with contextlib.suppress(OSError):
                    pipe.close()

        self.addCleanup(clean_up)
        return process

    def reader(self, node, name_space, name, count):
        """A client that logs in, and then opens and reads a blob so often over one connection."""
        process = subprocess.Popen(
            [self.binaries / "bigcast-bench", "latency", node.listen, name_space, name, "--count",
             str(count)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def p99_us(self, reader):
        """Of its calls, all of which went well."""
        output, errors = reader.communicate(timeout=CALL_S)
        self.assertEqual(0, reader.returncode, errors.decode())
        return json.loads(output)["p99_us"]

    def file(self, name, content, mode=0o644):
        path = self.scratch / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def assert_fails(self, done, code, *words):
        """Exit code `code`, and one line on standard error that has all of `words`."""
        text = done.stderr.decode(errors="replace")
        self.assertEqual(code, done.returncode, text)
        for word in words:
            self.assertIn(str(word), text)
        self.assertNotIn("terminate called", text)

    def assert_ok(self, done):
        self.assertEqual(0, done.returncode, done.stderr.decode())
        return done.stdout

    def assert_nothing_left(self, node):
        """The node holds no blob, no chunk and no promise of one."""

        names = ("blobs", "store_used_bytes", "store_reserved_bytes", "receive_reserve_used_bytes")

        def left():
            metrics = node.metrics()
            return {name: metrics[name] for name in names if metrics[name]}

        try:
            eventually(lambda: not left(), "an empty node")
        except AssertionError as error:
            raise AssertionError(f"{error}: {left()} at {node.listen}") from None

    def json(self, done, code=0):
        self.assertEqual(code, done.returncode, done.stderr.decode())
        return [json.loads(line) for line in done.stdout.splitlines()]


def main():
    EndToEnd.binaries = pathlib.Path(sys.argv.pop())
    unittest.main(verbosity=2)
