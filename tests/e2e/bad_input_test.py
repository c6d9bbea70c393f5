"""Every kind of bad input: a typed error that names the thing, its exit code, nothing left."""

import os
import random
import signal
import socket
import subprocess

import harness
from harness import MEMORY_USED, MIB, EndToEnd, eventually

OK, ERROR, USAGE, NOT_FOUND, DENIED, UNAVAILABLE = 0, 1, 2, 3, 4, 5
# bigcastd's own: another process has it
PORT_IN_USE, DISK_IN_USE = 4, 5


class Arguments(EndToEnd):
    def test_an_unknown_flag_is_named(self):
        self.assert_fails(self.bigcast(None, "put", "--colour", "x"), USAGE, "--colour")
        self.assert_fails(self.bigcast(None, "frobnicate"), USAGE, "frobnicate")
        self.assert_fails(self.bigcastd("--colour"), USAGE, "--colour")

    def test_an_unknown_configuration_key_is_named_with_its_nearest(self):
        config = self.file("node.toml", 'memroy = "1g"\n')
        self.assert_fails(self.bigcastd("--config", config), USAGE, "memroy", "memory", config)

    def test_a_wrong_value_names_its_setting(self):
        self.assert_fails(self.bigcastd("--memory", "lots"), USAGE, "memory", "lots")
        self.assert_fails(self.bigcastd("--listen", "nowhere"), USAGE, "listen", "nowhere")
        self.assert_fails(self.bigcastd(env={"BIGCAST_MEMORY": "-3"}), USAGE, "BIGCAST_MEMORY")
        config = self.file("node.toml", "memory = [1]\n")
        self.assert_fails(self.bigcastd("--config", config), USAGE, "memory")
        config = self.file("broken.toml", "memory = \n")
        self.assert_fails(self.bigcastd("--config", config), USAGE, config)

    def test_standard_input_needs_a_key(self):
        self.assert_fails(self.bigcast(None, "put", "-"), USAGE, "--key")

    def test_bad_keys_never_reach_a_node(self):
        node = self.node("--memory", "64m")
        for key in ("", "x", "a/", "/a", "a/../b", "a//b", "a/\n", "a/" + "x" * 4096, "ü/x",
                    b"a/\xff"):
            with self.subTest(key=key):
                done = self.bigcast(node, "put", "-", "--key", os.fsdecode(key), input=b"x")
                self.assert_fails(done, USAGE)
                self.assertRegex(done.stderr.decode(errors="replace"), "key|name")
        self.assert_nothing_left(node)

    def test_a_missing_file_is_named(self):
        node = self.node("--memory", "64m")
        missing = self.scratch / "missing"
        self.assert_fails(self.bigcast(node, "put", missing), ERROR, missing)
        self.assert_nothing_left(node)


class Secrets(EndToEnd):
    def bad_secrets(self):
        yield self.scratch / "missing", "No such file"
        yield self.file("short", "short", 0o600), "32"
        yield self.file("readable", harness.SECRET, 0o644), "0644"

    def test_a_bad_secret_file_stops_both_programs(self):
        for path, why in self.bad_secrets():
            with self.subTest(why=why):
                self.assert_fails(self.bigcastd("--secret-file", path), USAGE, path, why)
                self.assert_fails(self.bigcast(None, "--secret-file", path, "ping"), USAGE, path,
                                  why)

    def test_an_open_address_needs_a_secret(self):
        self.assert_fails(self.bigcastd("--listen", "0.0.0.0:0"), USAGE, "listen", "secret_file")

    def test_no_secret_or_a_wrong_one_is_denied_and_learns_nothing(self):
        secret = self.file("secret", harness.SECRET, 0o600)
        other = self.file("other", harness.SECRET[::-1], 0o600)
        node = self.node("--memory", "64m", "--secret-file", secret)
        self.assert_ok(
            self.bigcast(node, "--secret-file", secret, "put", "-", "--key", "t/x", input=b"x"))
        texts = set()
        for flags in ((), ("--secret-file", other)):
            for key in ("t/x", "t/absent"):
                done = self.bigcast(node, *flags, "get", key, "-")
                self.assert_fails(done, DENIED, "UNAUTHENTICATED")
                self.assertEqual(b"", done.stdout)
                texts.add(done.stderr)
        self.assertEqual(1, len(texts), texts)
        eventually(lambda: node.metrics()["login_failures_total"] >= 4, "all counted")

    def test_a_namespaces_key_opens_that_one_only(self):
        secret = self.file("secret", harness.SECRET, 0o600)
        node = self.node("--memory", "64m", "--secret-file", secret)
        flags = ("--secret-file", secret)
        key = self.file("key", self.assert_ok(
            self.bigcast(None, *flags, "key", "team")).decode(), 0o600)
        put = ("put", "-", "--key")
        self.assert_ok(self.bigcast(node, *flags, *put, "other/x", input=b"theirs"))
        self.assert_ok(self.bigcast(node, "--secret-file", key, *put, "team/x", input=b"x"))
        self.assertEqual(b"x", self.assert_ok(self.bigcast(node, *flags, "get", "team/x", "-")))
        self.assert_ok(self.bigcast(node, "--secret-file", key, "ping"))
        self.assert_ok(self.bigcast(node, "--secret-file", key, "doctor"))
        for command in (("get", "other/x", "-"), ("rm", "other/x"), ("ls", "other")):
            self.assert_fails(self.bigcast(node, "--secret-file", key, *command), DENIED,
                              "PERMISSION_DENIED", "team")
        self.assert_fails(self.bigcast(None, "--secret-file", key, "key", "other"), USAGE, "team")
        self.assert_fails(self.bigcastd("--secret-file", key), USAGE, "secret_file", "team")

    def test_a_secret_is_never_shown(self):
        env = {"BIGCAST_SECRET": harness.SECRET}
        node = self.node("--memory", "64m", "--log-level", "debug", env=env)
        self.assert_ok(self.bigcast(node, "put", "-", "--key", "t/x", input=b"x", env=env))
        with open(f"/proc/{node.process.pid}/cmdline", "rb") as file:
            self.assertNotIn(harness.SECRET.encode(), file.read())
        self.assertNotIn(harness.SECRET, node.get("/metrics")[1])
        node.process.send_signal(signal.SIGTERM)
        out, errors = node.process.communicate(timeout=harness.CALL_S)
        self.assertNotIn(harness.SECRET, out + errors)


class Nodes(EndToEnd):
    def test_an_unreachable_server_is_named(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses
            address = "127.0.0.1:%d" % unused.getsockname()[1]
            self.assert_fails(self.bigcast(None, "--server", address, "ping"), UNAVAILABLE, address)

    def test_a_server_that_never_answers_is_left_by_a_deadline(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            address = "127.0.0.1:%d" % silent.getsockname()[1]
            self.assert_fails(self.bigcast(None, "--server", address, "ping"), UNAVAILABLE, address)

    def test_an_unwritable_disk_path_is_named(self):
        file = self.file("file", "not a directory")
        disk = self.scratch / "disk"
        disk.mkdir()
        (disk / "bigcast").write_text("in the way")
        socket_path = self.scratch / "socket"
        for path in (file, file / "below", disk, "/proc/self/task"):
            with self.subTest(path=path):
                done = self.bigcastd("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--socket",
                                     f"unix:{socket_path}", "--disk", path, "--disk-size", "1g")
                self.assert_fails(done, ERROR, "disk", path)
                self.assertEqual(["disk", "disk/bigcast", "file"], sorted(
                    str(p.relative_to(self.scratch)) for p in self.scratch.rglob("*")))
        self.assertEqual("not a directory", file.read_text())
        self.assertEqual("in the way", (disk / "bigcast").read_text())

    def test_a_second_node_on_the_same_directory_names_the_lock(self):
        disk = self.scratch / "disk"
        disk.mkdir()
        node = self.node("--memory", "64m", "--disk", disk, "--disk-size", "256m")
        self.assert_ok(self.bigcast(node, "put", "-", "--key", "t/x", input=b"x"))
        second = self.bigcastd("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--disk", disk,
                               "--disk-size", "256m")
        self.assert_fails(second, DISK_IN_USE, "disk", disk)
        self.assertIn("lock", second.stderr.decode().lower())
        self.assertEqual(b"x", self.assert_ok(self.bigcast(node, "get", "t/x", "-")))

    def test_a_second_node_on_the_same_port_names_it(self):
        node = self.node("--memory", "64m")
        second = self.bigcastd("--listen", node.listen, "--http", "none")
        self.assert_fails(second, PORT_IN_USE, "listen", node.listen)

    def test_hostile_first_bytes_close_the_connection_and_nothing_else(self):
        node = self.node("--memory", "64m")
        host, port = node.listen.rsplit(":", 1)
        frames = (
            b"\xff\xff\xff\xff",                                   # segment count wraps to 0
            b"\xfe\xff\xff\xff" + b"\x00" * 60,                    # 2^32 - 1 segments
            b"\x00\x00\x00\x00\xff\xff\xff\x7f",                   # one segment of 16 GiB
            b"\x00\x00\x00\x00\x00\x10\x00\x00",                   # 32 KiB before login
            b"\x3f\x00\x00\x00" + b"\xff" * 256,                   # 64 huge segments
            b"\x00\x00\x00\x00\x01\x00\x00\x00" + b"\xff" * 8,     # a wild pointer
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 4096,
        )
        for frame in frames:
            with self.subTest(frame=frame[:8]):
                with socket.create_connection((host, int(port)), timeout=60) as peer:
                    peer.sendall(frame)
                    try:
                        while peer.recv(4096):
                            pass
                    except ConnectionResetError:
                        pass  # closed with our bytes unread: as good as closed
        self.assert_ok(self.bigcast(node, "ping"))
        self.assertEqual(0, node.stop())


    def test_bad_http_requests_get_an_answer_that_says_so(self):
        node = self.node("--memory", "64m")
        host, port = node.http.rsplit(":", 1)
        for request, answer in (
            (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
            (b"GET /metrics\r\n\r\n", b"HTTP/1.1 400 "),
            (b"\x16\x03\x01\x00\xff\r\n\r\n", b"HTTP/1.1 400 "),
            (b"GET /%2e%2e/metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 "),
            (b"GET /livez?x=y HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 "),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000, b"HTTP/1.1 431 "),
        ):
            with self.subTest(request=request[:20]):
                with socket.create_connection((host, int(port)), timeout=60) as peer:
                    peer.sendall(request)
                    got = b""
                    while piece := peer.recv(4096):
                        got += piece
                    self.assertTrue(got.startswith(answer), got)
        with socket.create_connection((host, int(port)), timeout=60) as peer:
            peer.sendall(b"HEAD /metrics HTTP/1.1\r\n\r\n")
            self.assertRegex(peer.makefile("rb").read(), rb"(?s)^HTTP/1.1 200 OK\r\n.*\r\n\r\n$")
        self.assertEqual(0, node.stop())


class Blobs(EndToEnd):
    def test_an_absent_blob_is_not_found_and_no_file_appears(self):
        node = self.node("--memory", "64m")
        target = self.scratch / "out"
        self.assert_fails(self.bigcast(node, "get", "t/absent", target), NOT_FOUND, "absent")
        self.assert_fails(self.bigcast(node, "stat", "t/absent"), NOT_FOUND, "absent")
        self.assert_fails(self.bigcast(node, "rm", "t/absent"), NOT_FOUND, "absent")
        self.assertEqual([], list(self.scratch.iterdir()))

    def test_a_taken_key_is_kept_unless_replaced(self):
        node = self.node("--memory", "64m")
        put = ("put", "-", "--key", "t/x")
        self.assert_ok(self.bigcast(node, *put, input=b"one"))
        self.assert_fails(self.bigcast(node, *put, input=b"two"), ERROR, "ALREADY_EXISTS", "x")
        self.assertEqual(b"one", self.assert_ok(self.bigcast(node, "get", "t/x", "-")))
        self.assert_ok(self.bigcast(node, *put, "--replace", input=b"two"))
        self.assertEqual(b"two", self.assert_ok(self.bigcast(node, "get", "t/x", "-")))

    def test_what_fits_nowhere_is_refused(self):
        node = self.node("--memory", "32m")
        big = self.scratch / "big"
        with open(big, "wb") as file:
            file.truncate(40 * MIB)
        refused = self.bigcast(node, "put", big, "--key", "t/known")
        self.assert_fails(refused, ERROR, "RESOURCE_EXHAUSTED", "memory")
        noise = random.Random(1).randbytes(40 * MIB)
        refused = self.bigcast(node, "put", "-", "--key", "t/unknown", input=noise)
        self.assert_fails(refused, ERROR, "RESOURCE_EXHAUSTED")
        self.assert_nothing_left(node)

    def test_over_the_largest_size_is_refused_before_a_byte_is_sent(self):
        node = self.node("--memory", "64m")
        huge = self.scratch / "huge"
        with open(huge, "wb") as file:
            file.truncate(300 << 30)  # sparse
        self.assert_fails(self.bigcast(node, "put", huge, "--key", "t/huge"), USAGE,
                          "INVALID_ARGUMENT", "size")
        self.assertEqual(0, node.metrics()["chunks_received_total"])
        self.assert_nothing_left(node)

    def interrupted_put(self, node, key, signum):
        writer = self.start(node, "put", "-", "--key", key, stdin=subprocess.PIPE,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        writer.stdin.write(random.Random(2).randbytes(12 * MIB))
        writer.stdin.flush()
        eventually(lambda: node.metrics()[MEMORY_USED] >= 4 * MIB, "a stored chunk")
        reader = self.start(node, "get", key, self.scratch / "out", stderr=subprocess.PIPE)
        eventually(lambda: node.metrics()["chunks_served_total"] >= 1, "a reading reader")
        writer.send_signal(signum)
        code = writer.wait(harness.CALL_S)
        return code, reader

    def test_an_interrupted_put_leaves_nothing_and_its_reader_is_told(self):
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with self.subTest(signal=signum.name):
                node = self.node("--memory", "64m")
                code, reader = self.interrupted_put(node, "t/half", signum)
                self.assertEqual(-9 if signum == signal.SIGKILL else 128 + signum, code)
                _, errors = reader.communicate(timeout=harness.CALL_S)
                self.assertIn(reader.returncode, (ERROR, NOT_FOUND), errors)
                self.assertRegex(errors.decode(), "ABORTED|NOT_FOUND")
                self.assertEqual([], [p.name for p in self.scratch.iterdir()])
                self.assert_fails(self.bigcast(node, "get", "t/half", "-"), NOT_FOUND, "half")
                self.assert_nothing_left(node)

    def test_an_interrupted_get_leaves_no_file(self):
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if signum == signal.SIGKILL and not has_nameless_files(self.scratch):
                continue  # its leftover is named in docs/OPERATIONS.md
            with self.subTest(signal=signum.name):
                self.interrupted_get(signum)

    def interrupted_get(self, signum):
        node = self.node("--memory", "64m")
        writer = self.start(node, "put", "-", "--key", "t/slow", stdin=subprocess.PIPE,
                            stdout=subprocess.DEVNULL)
        writer.stdin.write(random.Random(3).randbytes(12 * MIB))
        writer.stdin.flush()
        eventually(lambda: node.metrics()[MEMORY_USED] >= 4 * MIB, "a stored chunk")
        reader = self.start(node, "get", "t/slow", self.scratch / "out", stderr=subprocess.DEVNULL)
        eventually(lambda: node.metrics()["chunks_served_total"] >= 1, "a reading reader")
        reader.send_signal(signum)
        code = -9 if signum == signal.SIGKILL else 128 + signum
        self.assertEqual(code, reader.wait(harness.CALL_S))
        self.assertEqual([], [p.name for p in self.scratch.iterdir()])
        writer.kill()
        writer.communicate()

    def test_a_chunk_damaged_on_disk_is_never_delivered(self):
        disk = self.scratch / "disk"
        disk.mkdir()
        node = self.node("--memory", "8m", "--disk", disk, "--disk-size", "512m")
        data = random.Random(4).randbytes(64 * MIB)
        source = self.file("in", data)
        self.assert_ok(self.bigcast(node, "put", source, "--key", "t/x"))
        extents = sorted(disk.rglob("extent-*"))
        self.assertTrue(extents)
        for extent in extents:
            damage(extent)
        target = self.scratch / "out"
        self.assert_fails(self.bigcast(node, "get", "t/x", target), ERROR, "CORRUPT")
        self.assertFalse(target.exists())
        self.assertGreaterEqual(node.metrics()["checksum_failures_total"], 1)
        self.assertEqual(0, node.stop())

    def test_a_file_that_shrinks_while_it_is_put_is_refused(self):
        node = self.node("--memory", "64m")
        fifo_like = self.file("shrinking", b"x" * (8 * MIB))
        writer = self.start(node, "put", fifo_like, "--key", "t/x", stderr=subprocess.PIPE,
                            stdout=subprocess.DEVNULL)
        os.truncate(fifo_like, 0)
        _, errors = writer.communicate(timeout=harness.CALL_S)
        if writer.returncode != OK:  # it may have been done reading already
            self.assertEqual(ERROR, writer.returncode)
            self.assertIn(str(fifo_like), errors.decode())
            self.assert_nothing_left(node)


def has_nameless_files(folder):
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
    except OSError:
        return False
    return True


def damage(path):
    """Flips a byte in every MiB of a file, past any cache: the file is O_DIRECT to the node."""
    with open(path, "r+b") as file:
        for offset in range(0, path.stat().st_size, MIB):
            file.seek(offset)
            byte = file.read(1)
            if byte:
                file.seek(offset)
                file.write(bytes([byte[0] ^ 0xFF]))
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    harness.main()
