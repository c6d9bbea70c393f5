"""What survives a node: kill -9 at any moment, damaged and missing files, a full disk, a clock that jumps."""

import fcntl
import os
import pathlib
import random
import struct
import subprocess
import time
import unittest

import harness
from harness import DISK_USED, MIB, EndToEnd, eventually

CHUNK = 64 << 10
EXIT_DAMAGED = 6


def noise(seed, size):
    return random.Random(seed).randbytes(size)


class Durability(EndToEnd):
    def setUp(self):
        super().setUp()
        self.disk = self.scratch / "disk"

    def durable_node(self, *flags, env=None):
        return self.node("--memory", "32m", "--disk", self.disk, "--disk-size", "512m", *flags,
                         env=env)

    def put(self, node, key, data, *flags, durability="disk"):
        return self.bigcast(node, "put", "-", "--key", key, "--durability", durability,
                            "--chunk-size", "64k", *flags, input=data)

    def get(self, node, key):
        return self.assert_ok(self.bigcast(node, "get", key, "-"))

    def keys(self, node):
        return {row["key"] for row in self.json(self.bigcast(node, "--json", "ls", "t"))}

    def extents(self):
        return sorted((self.disk / "bigcast").glob("extent-*"))

    def test_durable_blobs_outlive_their_node_and_others_do_not(self):
        data = noise(1, 3 * MIB + 17)
        node = self.durable_node()
        self.assert_ok(self.put(node, "t/durable", data))
        self.assert_ok(self.put(node, "t/memory", data, durability="memory"))
        stat = self.json(self.bigcast(node, "--json", "stat", "t/durable"))[0]
        self.assertEqual("disk", stat["durability"])
        self.assertGreaterEqual(stat["disk_bytes"], len(data))
        self.assertGreaterEqual(stat["memory_bytes"], len(data))
        for end in (harness.Node.kill, harness.Node.stop):
            end(node)
            node = self.durable_node()
            self.assertEqual({"t/durable"}, self.keys(node))
            self.assertEqual(data, self.get(node, "t/durable"))
            again = self.json(self.bigcast(node, "--json", "stat", "t/durable"))[0]
            self.assertEqual(stat["root_digest"], again["root_digest"])
            self.assertEqual(stat["id"], again["id"])
            self.assertEqual(1, node.metrics()["blobs_recovered"])
        self.assert_fails(self.put(node, "t/durable", data), 1, "ALREADY_EXISTS")
        self.assert_ok(self.bigcast(node, "rm", "t/durable"))
        node.kill()
        node = self.durable_node()
        self.assert_nothing_left(node)
        node.stop()
        self.assertFalse((self.disk / "bigcast").exists())

    def test_a_node_without_a_disk_that_stays_refuses_durable_blobs(self):
        self.assert_fails(self.put(self.node("--memory", "64m"), "t/x", b"x"), 2, "durability")
        servers = [self.durable_node(), self.node("--memory", "64m")]
        several = ["--server", servers[1].listen, "put", "-", "--key", "t/x", "--homes", "2"]
        self.assert_fails(self.bigcast(servers[0], *several, "--durability", "disk", input=b"x"),
                          2, "durability")
        servers[0].stop()
        own = self.durable_node("--exit-when-idle", "60s")
        self.assert_fails(self.put(own, "t/x", b"x"), 2, "durability")

    def test_an_upload_that_a_crash_cuts_short_is_nowhere(self):
        for durability in ("disk", "memory"):
            with self.subTest(durability):
                node = self.durable_node()
                writer = self.start(node, "put", "-", "--key", "t/cut", "--chunk-size", "64k",
                                    "--durability", durability, stdin=subprocess.PIPE,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                writer.stdin.write(noise(2, 40 * MIB))
                writer.stdin.flush()
                eventually(lambda: node.metrics()[DISK_USED] >= 4 * MIB, "bytes on disk")
                node.kill()
                writer.communicate(timeout=harness.CALL_S)
                self.assertEqual(5, writer.returncode)
                node = self.durable_node()
                self.assert_nothing_left(node)
                self.assertLessEqual(len(self.extents()), 1)
                node.stop()

    def test_every_acknowledged_blob_survives_kill_9_at_any_moment(self):
        cycles = int(os.environ.get("BIGCAST_CYCLES") or
                     (1000 if os.environ.get("BIGCAST_FULL") else 5))
        seed = int(os.environ.get("BIGCAST_SEED") or random.randrange(1 << 32))
        print(f"seed {seed}, {cycles} cycles", flush=True)
        chance = random.Random(seed)
        acknowledged, unsure, next_blob, checked = {}, {}, 0, 0
        node = self.durable_node()
        before = time.monotonic()
        self.assert_ok(self.put(node, "t/usual", noise(seed, MIB)))
        usual_s = time.monotonic() - before
        self.assert_ok(self.bigcast(node, "rm", "t/usual"))
        for cycle in range(cycles):
            running = []
            for _ in range(3):
                key, next_blob = f"t/{next_blob}", next_blob + 1
                data = noise(f"{seed}/{key}", chance.choice((1, 3000, CHUNK, 700_000, 3 * MIB)))
                running.append((key, data, self.start_put(node, key, data)))
            removed = [key for key in acknowledged if chance.random() < 0.3]
            remover = self.start(node, "rm", *removed, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL) if removed else None
            # At any moment, but in two of three cycles after one or two of the three puts are
            # acknowledged: so some are, however slow the machine is.
            wanted = (cycle + 1) % 3
            eventually(lambda: sum(writer.poll() == 0 for _, _, writer in running) >= wanted,
                       "acknowledged puts")
            time.sleep(chance.random() * (3 - wanted) * usual_s)
            node.kill()
            for key, data, writer in running:
                target = acknowledged if writer.wait(harness.CALL_S) == 0 else unsure
                target[key] = data
            if remover:
                all_gone = remover.wait(harness.CALL_S) == 0
                for key in removed:
                    data = acknowledged.pop(key)
                    if not all_gone:
                        unsure[key] = data
            node = self.durable_node()
            there = self.keys(node)
            self.assertLessEqual(set(acknowledged), there, f"cycle {cycle}: lost")
            self.assertLessEqual(there, set(acknowledged) | set(unsure), f"cycle {cycle}: revived")
            for key in there:
                data = acknowledged.get(key) or unsure[key]
                self.assertEqual(data, self.get(node, key), f"cycle {cycle}: {key}")
                acknowledged[key] = data
                checked += 1
            unsure = {}
            self.assertEqual(0, node.metrics()["blobs_lost"])
        print(f"{cycles} cycles: {next_blob} puts, {checked} reads after a start", flush=True)
        self.assertGreater(checked, 0)

    def start_put(self, node, key, data):
        source = self.file(key.replace("/", "-"), data)
        return self.start(node, "put", source, "--key", key, "--durability", "disk",
                          "--chunk-size", "64k", stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL)

    def test_missing_and_short_files_cost_only_their_blobs(self):
        data = {f"t/{i}": noise(i, 100 * MIB) for i in range(4)}
        node = self.durable_node()
        for key, value in data.items():
            self.assert_ok(self.bigcast(node, "put", "-", "--key", key, "--durability", "disk",
                                        input=value))
        node.kill()
        first, second = self.extents()
        os.truncate(first, 150 * MIB)
        node = self.durable_node()
        there = self.keys(node)
        self.assertIn("t/0", there)
        self.assertNotIn("t/1", there)
        lost = set(data) - there
        self.assertEqual(len(lost), node.metrics()["blobs_lost"])
        for key in there:
            self.assertEqual(data[key], self.get(node, key))
        node.stop()
        for key in lost:
            self.assertIn(f"lost blob {key}", node.log)
        second.unlink()
        node = self.durable_node()
        self.assertEqual({"t/0"}, self.keys(node))
        self.assertEqual(data["t/0"], self.get(node, "t/0"))
        os.truncate(first, 4096)  # under a running node
        self.assert_fails(self.bigcast(node, "get", "t/0", "-"), 1, "CORRUPT")
        self.assert_ok(self.put(node, "t/new", b"still works"))
        self.assertEqual(b"still works", self.get(node, "t/new"))

    def told_of_damage(self, node):
        """By `info`: how many chunks; by `doctor`: whether it is serious, and what it is."""
        [info] = self.json(self.bigcast(node, "--json", "info"))
        found = self.json(self.bigcast(node, "--json", "doctor"), code=1)
        [damage] = [each for each in found if each["check"] == "damage"]
        return info["chunks_quarantined"], damage["serious"], damage["problem"]

    def test_a_changed_bit_on_disk_is_never_given(self):
        data = noise(3, 3 * MIB)
        node = self.durable_node()
        self.assert_ok(self.put(node, "t/damaged", data))
        self.assert_ok(self.put(node, "t/sound", data))
        node.kill()
        with open(self.extents()[0], "r+b") as extent:
            extent.seek(MIB + 5)
            byte = extent.read(1)[0]
            extent.seek(MIB + 5)
            extent.write(bytes([byte ^ 1]))
        node = self.durable_node("--scrub-rate", "1g")
        eventually(lambda: node.metrics()["chunks_damaged"] == 1, "found before it is read")
        for _ in range(2):
            self.assert_fails(self.bigcast(node, "get", "t/damaged", "-"), 1, "CORRUPT")
        self.assertEqual(data, self.get(node, "t/sound"))
        self.assertEqual(1, node.metrics()["chunks_quarantined_total"])
        self.assertEqual((1, True, "1 chunks on its disk are damaged"), self.told_of_damage(node))
        self.assert_ok(self.put(node, "t/damaged", data, "--replace"))
        self.assertEqual(data, self.get(node, "t/damaged"))
        self.assertEqual(0, node.metrics()["chunks_damaged"])
        quarantined, is_serious, problem = self.told_of_damage(node)
        self.assertEqual((0, False), (quarantined, is_serious))
        self.assertIn("failed their checksum since its start", problem)

    def test_a_damaged_index_is_a_start_error_that_says_what_to_do(self):
        node = self.durable_node()
        self.assert_ok(self.put(node, "t/x", noise(4, MIB)))
        node.kill()
        manifest = next((self.disk / "bigcast/index").glob("MANIFEST-*"))
        content = bytearray(manifest.read_bytes())
        content[len(content) // 2] ^= 8
        manifest.write_bytes(content)
        refused = self.bigcastd("--listen", "127.0.0.1:0", "--http", "none", "--memory", "32m",
                                "--disk", self.disk, "--disk-size", "512m")
        self.assert_fails(refused, EXIT_DAMAGED, self.disk / "bigcast", "damaged", "move")
        content[len(content) // 2] ^= 8
        manifest.write_bytes(content)
        self.assertEqual({"t/x"}, self.keys(self.durable_node()))

    def test_readers_see_a_whole_blob_or_none_while_it_is_removed_and_put(self):
        node = self.durable_node()
        data = {key: noise(key, 8 * MIB) for key in ("old", "new")}
        for name, durability in (("t/a", "disk"), ("t/b", "memory")):
            self.assert_ok(self.put(node, name, data["old"], durability=durability))
            readers = [self.start(node, "get", name, "-", stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE) for _ in range(4)]
            self.assert_ok(self.bigcast(node, "rm", name))
            self.assert_ok(self.put(node, name, data["new"], durability=durability))
            for reader in readers:
                output, errors = reader.communicate(timeout=harness.CALL_S)
                if reader.returncode == 0:
                    self.assertIn(output, data.values())
                else:
                    self.assertEqual(3, reader.returncode, errors)
            self.assertEqual(data["new"], self.get(node, name))

    @unittest.skipUnless(os.geteuid() == 0, "mounts a small file system")
    def test_a_full_disk_refuses_and_recovers(self):
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "bigcast-test", self.disk],
                       check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=True)
        node = self.durable_node("--disk-size", "2g")
        first, second = noise(5, 100 * MIB), noise(6, 200 * MIB)
        self.assert_ok(self.put(node, "t/first", first))
        filler = self.disk / "filler"
        left = os.statvfs(self.disk)
        filler.write_bytes(bytes(left.f_bavail * left.f_bsize))
        self.assert_fails(self.put(node, "t/second", second), 1, "RESOURCE_EXHAUSTED")
        self.assertEqual(first, self.get(node, "t/first"))
        self.assertEqual(200, node.get("/readyz")[0])
        filler.unlink()
        self.assert_ok(self.put(node, "t/third", second))
        node.kill()
        node = self.durable_node("--disk-size", "2g")
        self.assertEqual({"t/first", "t/third"}, self.keys(node))
        self.assertEqual(first, self.get(node, "t/first"))
        self.assertEqual(second, self.get(node, "t/third"))
        node.stop()

    def mount(self, image):
        """Makes the disk a file system of its own; skips the test where that can't be."""
        done = subprocess.run(["mount", "-o", "loop", image, self.disk], capture_output=True,
                              check=False)
        if done.returncode != 0:
            self.skipTest(f"no loop device: {done.stderr}")

    def fail_disk(self):
        """From now on it answers EIO to all that it is asked, until it is mounted again."""
        shutdown, without_flush = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN
        descriptor = os.open(self.disk, os.O_RDONLY)
        fcntl.ioctl(descriptor, shutdown, struct.pack("I", without_flush))
        os.close(descriptor)

    @unittest.skipUnless(os.geteuid() == 0, "mounts a file system that fails")
    def test_a_disk_that_fails_takes_no_more_and_the_node_says_why(self):
        self.disk.mkdir()
        image = self.file("image", b"")
        os.truncate(image, 400 * MIB)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        self.mount(image)
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=True)
        node = self.durable_node("--disk-size", "300m")
        data = noise(5, 3 * MIB)
        self.assert_ok(self.put(node, "t/first", data))
        self.fail_disk()
        self.assert_fails(self.put(node, "t/second", data), 1, "IO:")
        status, why = node.get("/readyz")
        self.assertEqual(503, status)
        self.assertIn("disk read-only: ", why)
        self.assertIn(str(self.disk), why)
        self.assertEqual(1, node.metrics()["disk_read_only"])
        self.assertEqual({"t/first"}, self.keys(node))
        self.assertEqual(data, self.get(node, "t/first"))
        self.assert_ok(self.put(node, "t/memory", data, durability="memory"))
        self.assertEqual(data, self.get(node, "t/memory"))
        node.kill()
        subprocess.run(["umount", self.disk], check=True)
        self.mount(image)
        node = self.durable_node("--disk-size", "300m")
        self.assertEqual({"t/first"}, self.keys(node))
        self.assertEqual(data, self.get(node, "t/first"))
        self.assert_ok(self.put(node, "t/second", data))
        self.assertEqual(200, node.get("/readyz")[0])
        node.stop()


class WallClock(EndToEnd):
    def faketime(self, offset_file):
        """The variables that make the wall clock, and no other, what the file says."""
        found = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        self.assertTrue(found, "the package faketime is missing")
        return {"LD_PRELOAD": str(found[0]), "FAKETIME_TIMESTAMP_FILE": str(offset_file),
                "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def test_leases_and_sessions_do_not_follow_the_wall_clock(self):
        if "asan" in str(self.binaries):
            self.skipTest("the sanitizer must be loaded before libfaketime")
        offset = self.file("offset", "+0d")
        env = self.faketime(offset)
        name = f"unix:@bigcast-e2e-clock-{os.getpid()}"
        home = self.node("--memory", "64m", "--session-timeout", "12s", env=env)
        relay = self.node("--memory", "64m", "--socket", name, "--lease-grace", "2s",
                          "--session-timeout", "12s", env=env)
        writer = self.start(home, "put", "-", "--key", "t/live", stdin=subprocess.PIPE,
                            stdout=subprocess.DEVNULL)
        data = noise(8, 9 * MIB)
        for part, jump in ((data[: 4 * MIB], "+1d"), (data[4 * MIB : 8 * MIB], "-1d")):
            writer.stdin.write(part)
            writer.stdin.flush()
            offset.write_text(jump)
            # Long enough for several ticks of the nodes.
            self.assertEqual(200, home.get("/livez")[0])
            time.sleep(1.5)
            self.assertIsNone(writer.poll())
        writer.stdin.write(data[8 * MIB :])
        writer.stdin.close()
        self.assertEqual(0, writer.wait(harness.CALL_S))
        self.assertEqual(data, self.assert_ok(self.bigcast(home, "--local", name, "get", "t/live",
                                                           "-")))
        self.assertEqual(0, home.metrics()["leases_expired_total"])
        self.assert_nothing_left(relay)  # in 2 s, not in a day


if __name__ == "__main__":
    harness.main()
