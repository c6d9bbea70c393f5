"""A node under pressure: a slow disk, a small cgroup, a quota; and the trace of what readers do."""

import concurrent.futures
import json
import os
import pathlib
import random
import subprocess
import sys

import harness
from harness import DISK_USED, MEMORY_USED, MIB, EndToEnd, eventually

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib"))
import bigcast_nodes
import cgroup

FULL = bool(os.environ.get("BIGCAST_FULL"))
SLOW_BYTES_PER_S = 2 * 10**6
RESERVES = 64 * MIB
CHURNERS = 3


class Pressure(EndToEnd):
    def sparse(self, name, size):
        path = self.file(name, b"")
        os.truncate(path, size)
        return path

    def put(self, node, path, key, *flags):
        return self.bigcast(node, "put", path, "--key", key, "--no-compress", *flags)

    def same(self, node, key, path):
        got = self.scratch / "got"
        self.assert_ok(self.bigcast(node, "get", key, got))
        subprocess.run(["cmp", got, path], check=True)

    def test_a_slow_disk_holds_back_puts_and_not_reads_of_memory(self):
        enter = self.within(cgroup.DiskCgroup(self.scratch, SLOW_BYTES_PER_S))
        memory = 16 * MIB
        node = self.node("--memory", str(memory), "--disk", self.scratch / "disk", "--disk-size", "256m",
                         within=enter)
        hot = random.Random(1).randbytes(2 * MIB)
        self.assert_ok(self.bigcast(node, "put", "-", "--key", "t/hot", input=hot))
        reads = 300 if FULL else 20
        alone = self.p99_us(self.reader(node, "t", "hot", reads))
        put = self.start(node, "put", self.sparse("cold", memory + (60 if FULL else 6) * MIB),
                         "--key", "t/cold", "--no-compress", stderr=subprocess.PIPE)
        gets, beside = 0, []
        while put.poll() is None:
            self.assertEqual(hot, self.assert_ok(self.bigcast(node, "get", "t/hot", "-")))
            beside.append(self.p99_us(self.reader(node, "t", "hot", reads)))
            gets += 1
            now = node.metrics()
            if not self.is_sanitized():
                self.assertLessEqual(bigcast_nodes.inspect(node.process.pid).memory_bytes,
                                     memory + RESERVES)
            self.assertLessEqual(now[MEMORY_USED], memory)
            # What was taken in is in one of the tiers, or in the reserve for what arrives.
            held = now[MEMORY_USED] + now[DISK_USED] + 16 * MIB
            self.assertLessEqual(now["received_bytes_total"], held)
        self.assertEqual(0, put.returncode, put.stderr.read())
        self.assertGreater(gets, 0 if self.is_sanitized() else 1)
        print(f"p99 {alone:.0f} µs, beside the put {[round(p99) for p99 in beside]}", flush=True)
        if FULL:  # else too few, and others may be at work on this machine
            self.assertLessEqual(sorted(beside)[len(beside) // 2], 2 * alone + 1000)
        self.assertGreater(node.metrics()[DISK_USED], 0)
        self.same(node, "t/cold", self.scratch / "cold")

    def test_puts_far_above_a_cgroup_are_refused_or_kept_and_nothing_is_killed(self):
        limit, memory, size = (512, 384, 10 << 10) if FULL else (160, 64, 512)
        limit *= 2 if self.is_sanitized() else 1  # which takes memory of its own
        group = cgroup.MemoryCgroup(limit * MIB)
        enter = self.within(group)
        without_disk = self.node("--memory", f"{memory}m", within=enter)
        large = self.sparse("large", size * MIB)
        refused = self.put(without_disk, large, "t/large")
        self.assert_fails(refused, 1, "RESOURCE_EXHAUSTED")
        with open(large, "rb") as file:  # of unknown size: taken until there is no room
            refused = subprocess.run(
                [self.binaries / "bigcast", "--server", without_disk.listen, "put", "-", "--key",
                 "t/stream", "--no-compress"], stdin=file, capture_output=True, check=False)
        self.assert_fails(refused, 1, "RESOURCE_EXHAUSTED")
        self.assert_nothing_left(without_disk)
        self.assertEqual(0, without_disk.stop())

        node = self.node("--memory", f"{memory}m", "--disk", self.scratch / "disk", "--disk-size",
                         f"{size}m", within=enter)
        self.assert_ok(self.put(node, large, "t/large"))
        self.same(node, "t/large", large)
        self.assertIsNone(node.process.poll())
        if not self.is_sanitized():
            self.assertLessEqual(group.peak(), memory * MIB + RESERVES)

    def test_churn_leaves_memory_within_the_budget_and_a_reserve(self):
        memory, sanitized = 64 * MIB, self.is_sanitized()
        total = (256 if sanitized else 100 << 10 if FULL else 10 << 10) * MIB
        group = cgroup.MemoryCgroup((2 * memory + RESERVES) * (2 if sanitized else 1))
        node = self.node("--memory", str(memory), "--disk", self.scratch / "disk", "--disk-size",
                         "1g", "--scrub-rate", "256m", within=self.within(group))
        sources = [self.sparse(f"source-{size}", size)
                   for size in (1, 70_000, 3 * MIB, 30 * MIB, 120 * MIB)]
        seed = int(os.environ.get("BIGCAST_SEED") or random.randrange(1 << 32))
        print(f"seed {seed}", flush=True)

        def churn(number):
            """Replaces one of a few blobs again and again, of any size and durability, and reads."""
            chance, key, done = random.Random(f"{seed}/{number}"), f"t/{number}", 0
            while done < total / CHURNERS:
                source = chance.choice(sources)
                level = chance.choice(("memory", "disk"))
                self.assert_ok(self.put(node, source, key, "--replace", "--durability", level))
                done += source.stat().st_size
                if chance.random() < 0.2:
                    self.assert_ok(self.bigcast(node, "get", key, "/dev/null"))
                if chance.random() < 0.2:
                    self.assert_ok(self.bigcast(node, "rm", key))
            self.bigcast(node, "rm", key)

        with concurrent.futures.ThreadPoolExecutor(CHURNERS) as pool:
            list(pool.map(churn, range(CHURNERS)))
        self.assert_nothing_left(node)
        received = node.metrics()["received_bytes_total"]
        self.assertGreaterEqual(received, total)
        print(f"{received / MIB:.0f} MiB: {(group.peak() - memory) / MIB:.1f} MiB above the budget")
        if not sanitized:  # which takes memory of its own
            self.assertLessEqual(group.peak(), memory + RESERVES)

    def test_a_quota_refuses_its_namespace_only_and_is_in_the_metrics(self):
        node = self.node("--memory", "64m", "--quota", "team=8m", "--default-quota", "16m")
        six = self.sparse("six", 6 * MIB)
        self.assert_ok(self.put(node, six, "team/a"))
        self.assert_fails(self.put(node, six, "team/b"), 1, "RESOURCE_EXHAUSTED", "'team'",
                          "quota of 8388608")
        self.assert_ok(self.put(node, six, "other/a"))
        self.assert_ok(self.put(node, six, "another/a"))
        self.assert_fails(self.put(node, self.sparse("x", 17 * MIB), "other/b"), 1, "'other'")
        metrics = node.metrics()
        self.assertEqual(8 * MIB, metrics['namespace_quota_bytes{namespace="team"}'])
        self.assertEqual(6 * MIB, metrics['namespace_used_bytes{namespace="team"}'])
        self.assertEqual(12 * MIB, metrics['namespace_used_bytes{namespace="(others)"}'])
        self.assert_ok(self.bigcast(node, "rm", "team/a"))
        eventually(lambda: self.put(node, six, "team/b").returncode == 0, "room in the quota")
        bad = self.bigcastd("--quota", "team")
        self.assert_fails(bad, 2, "--quota", "NAMESPACE=SIZE")

    def test_what_a_node_records_the_simulator_replays(self):
        trace = self.scratch / "trace.jsonl"
        node = self.node("--memory", "64m", "--policy", "s3fifo", "--record-trace", trace)
        path = self.file("data", random.Random(2).randbytes(5 * MIB))
        for key in ("t/a", "t/b"):
            self.assert_ok(self.put(node, path, key, "--chunk-size", "1m"))
            self.same(node, key, path)
        self.same(node, "t/a", path)
        self.assert_ok(self.bigcast(node, "get", "t/a", "-"))
        self.assert_ok(self.bigcast(node, "rm", "t/a"))
        self.assertEqual(0, node.stop())
        lines = [json.loads(line) for line in trace.read_text().splitlines()]
        count = lambda op: sum(line["op"] == op for line in lines)
        self.assertEqual((2, 4, 20, 4, 1),
                         tuple(map(count, ("put", "open", "chunk", "close", "release"))))
        # Into a file in any order, into a pipe from front to back.
        self.assertEqual(["fixed", "resident-first"],
                         sorted({line["order"] for line in lines if line["op"] == "open"}))
        for policy in ("lru", "demand"):
            done = subprocess.run(
                [self.binaries / "policy_sim", "--policy", policy, "--capacity-bytes", "64m",
                 "--order", "fixed", trace], capture_output=True, check=False)
            replayed = json.loads(self.assert_ok(done))
            # Ten chunks are read for the first time, ten again.
            self.assertEqual(0.5, replayed["object_miss_ratio"])
            self.assertEqual(0, replayed["refetched_bytes_ratio"])
        self.assert_fails(self.bigcastd("--record-trace", self.scratch / "no/where"), 1,
                          "record_trace")
        self.assert_fails(self.bigcastd("--policy", "mru"), 2, "--policy", "'mru'", "demand")


if __name__ == "__main__":
    harness.main()
