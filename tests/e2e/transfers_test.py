"""What goes in comes out: every size, every way in and out, tiers, restarts of readers."""

import os
import random
import signal
import socket
import subprocess
import time
import unittest

import harness
from harness import DISK_USED, MEMORY_USED, MIB, EndToEnd, eventually

CHUNK = 4 * MIB


def random_bytes(size, seed=1):
    return random.Random(seed).randbytes(size)


class Transfers(EndToEnd):
    def test_every_size_around_a_chunk_comes_back_equal(self):
        node = self.node("--memory", "64m")
        for size in (0, 1, 4095, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17):
            with self.subTest(size=size):
                data = random_bytes(size, size)
                source, target = self.file("in", data), self.scratch / "out"
                self.assert_ok(self.bigcast(node, "put", source, "--key", f"t/{size}"))
                self.assert_ok(self.bigcast(node, "get", f"t/{size}", target))
                self.assertEqual(data, target.read_bytes())
                self.assertEqual(data, self.assert_ok(self.bigcast(node, "get", f"t/{size}", "-")))
                self.assert_ok(self.bigcast(node, "rm", f"t/{size}"))
        self.assert_nothing_left(node)
        self.assertEqual(0, node.stop())

    def test_text_is_compressed_and_noise_is_not(self):
        node = self.node("--memory", "64m")
        text = b"the quick brown fox jumps over the lazy dog. " * 200_000
        self.assert_ok(self.bigcast(node, "put", "-", "--key", "t/text", input=text))
        noise = random_bytes(len(text))
        self.assert_ok(self.bigcast(node, "put", "-", "--key", "t/noise", input=noise))
        stored = {
            name: self.json(self.bigcast(node, "--json", "stat", f"t/{name}"))[0]["stored_size"]
            for name in ("text", "noise")
        }
        self.assertLess(stored["text"], len(text) / 5)
        self.assertEqual(len(noise), stored["noise"])
        self.assertEqual(text, self.assert_ok(self.bigcast(node, "get", "t/text", "-")))
        self.assertEqual(noise, self.assert_ok(self.bigcast(node, "get", "t/noise", "-")))

    def test_a_blob_of_three_times_the_memory_goes_through_the_disk(self):
        disk = self.scratch / "disk"
        disk.mkdir()
        node = self.node("--memory", "32m", "--disk", disk, "--disk-size", "512m")
        data = random_bytes(96 * MIB)
        source = self.file("in", data)
        self.assert_ok(self.bigcast(node, "put", source, "--key", "t/big"))
        metrics = node.metrics()
        self.assertLessEqual(metrics[MEMORY_USED], 32 * MIB)
        self.assertGreaterEqual(metrics[DISK_USED], 64 * MIB)
        self.assertEqual(data, self.assert_ok(self.bigcast(node, "get", "t/big", "-")))
        self.assert_ok(self.bigcast(node, "rm", "t/big"))
        self.assert_nothing_left(node)

    @unittest.skipUnless(os.environ.get("BIGCAST_FULL"), "takes minutes: scripts/test --full")
    def test_ten_gigabytes_stream_through_a_small_memory(self):
        disk = self.scratch / "disk"
        disk.mkdir()
        node = self.node("--memory", "256m", "--disk", disk, "--disk-size", "12g")
        noise = "head -c 10737418240 /dev/zero | openssl enc -aes-128-ctr -nosalt -K 00 -iv 00"
        put = f"{self.binaries}/bigcast --server {node.listen} put - --key t/ten"
        get = f"{self.binaries}/bigcast --server {node.listen} get t/ten -"
        self.shell(f"{noise} | {put}")
        self.assertEqual(self.shell(f"{noise} | sha256sum"), self.shell(f"{get} | sha256sum"))
        self.assertLessEqual(node.metrics()[MEMORY_USED], 256 * MIB)
        self.assert_ok(self.bigcast(node, "rm", "t/ten"))
        self.assert_nothing_left(node)

    def shell(self, command):
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True,
                              text=True, timeout=1200, stdin=subprocess.DEVNULL)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout.split()[0]

    def test_a_reader_follows_a_writer(self):
        node = self.node("--memory", "64m")
        data = random_bytes(5 * CHUNK)
        writer = self.start(
            node, "put", "-", "--key", "t/live",
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )
        writer.stdin.write(data[: 2 * CHUNK])
        writer.stdin.flush()
        eventually(lambda: self.bigcast(node, "stat", "t/live").returncode == 0, "a visible blob")
        reader = self.start(node, "get", "t/live", "-", stdout=subprocess.PIPE)
        # The first chunk arrives while the writer still has three to go.
        head = reader.stdout.read(CHUNK)
        self.assertIsNone(writer.poll())
        writer.stdin.write(data[2 * CHUNK :])
        writer.stdin.close()
        self.assertEqual(data, head + reader.stdout.read())
        self.assertEqual(0, reader.wait(harness.CALL_S))
        self.assertEqual(0, writer.wait(harness.CALL_S))

    def test_readers_on_a_host_share_the_local_node(self):
        secret = self.file("secret", harness.SECRET, 0o600)
        name = f"unix:@bigcast-e2e-{os.getpid()}"
        home = self.node("--memory", "64m", "--secret-file", secret)
        relay = self.node("--memory", "64m", "--secret-file", secret, "--socket", name,
                          "--lease-grace", "1s")
        data = random_bytes(5 * CHUNK + 5)
        flags = ("--secret-file", secret)
        self.assert_ok(self.bigcast(home, *flags, "put", "-", "--key", "t/shared", input=data))
        readers = [
            self.start(home, *flags, "--local", name, "get", "t/shared", "-",
                       stdout=subprocess.PIPE)
            for _ in range(4)
        ]
        for reader in readers:
            self.assertEqual(data, reader.communicate(timeout=harness.CALL_S)[0])
            self.assertEqual(0, reader.returncode)
        self.assertEqual(6, relay.metrics()["chunks_fetched_total"])
        self.assert_ok(self.bigcast(home, *flags, "rm", "t/shared"))
        self.assert_nothing_left(home)
        self.assert_nothing_left(relay)  # nobody is attached: the copies go after the grace

    def test_a_silent_node_does_not_end_the_sessions_at_others(self):
        name = f"unix:@bigcast-e2e-silent-{os.getpid()}"
        home = self.node("--memory", "64m", "--session-timeout", "12s")
        relay = self.node("--memory", "64m", "--socket", name)
        writer = self.start(home, "--local", name, "put", "-", "--key", "t/x",
                            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        writer.stdin.write(random_bytes(CHUNK))
        writer.stdin.flush()
        eventually(lambda: home.metrics()["blobs"] == 1, "a blob")
        relay.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(25)  # twice the session's timeout: without renewals it is over
            writer.stdin.write(random_bytes(CHUNK))
            writer.stdin.close()
            self.assertEqual(0, writer.wait(harness.CALL_S))
        finally:
            relay.process.send_signal(signal.SIGCONT)

    def test_a_listing_is_in_order_and_whole(self):
        node = self.node("--memory", "64m")
        names = [f"n/{i:03}" for i in range(25)]
        for name in reversed(names):
            self.assert_ok(self.bigcast(node, "put", "-", "--key", name, input=name.encode()))
        listed = [row["key"] for row in self.json(self.bigcast(node, "--json", "ls", "n"))]
        self.assertEqual(names, listed)
        one = self.json(self.bigcast(node, "--json", "ls", "n/01"))
        self.assertEqual(10, len(one))

    def test_a_node_answers_health_checks_and_drains(self):
        node = self.node("--memory", "64m")
        self.assertEqual(200, node.get("/livez")[0])
        self.assertEqual(200, node.get("/readyz")[0])
        self.assertEqual(404, node.get("/nothing")[0])
        self.assertEqual(0, self.bigcast(node, "ping").returncode)
        self.assertEqual(0, node.stop())
        host, port = node.listen.rsplit(":", 1)
        with self.assertRaises(OSError):
            socket.create_connection((host, int(port)), timeout=5)


if __name__ == "__main__":
    harness.main()
