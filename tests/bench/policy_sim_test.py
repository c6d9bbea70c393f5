"""policy_sim as people and scripts use it: what it prints, and how it refuses bad input."""

import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM = None

# What libCacheSim 0.3.5 misses (objects, bytes) of requests() in a tenth of its bytes, and with sizes of
# 1 in a tenth of its objects (`scripts/bench eviction` runs it beside us). ARC has no sizes.
PEER_BYTES = {
    "fifo": (0.56124, 0.67490), "lru": (0.51253, 0.63757), "clock": (0.50009, 0.62197),
    "sieve": (0.43560, 0.53392), "s3fifo": (0.43636, 0.53539), "gdsf": (0.31747, 0.61239),
}
PEER_OBJECTS = {
    "fifo": 0.42333, "lru": 0.37982, "clock": 0.37142, "sieve": 0.32409, "s3fifo": 0.32640,
    "arc": 0.33196, "gdsf": 0.34187,
}
DIFFERENCE = 0.005  # of the peer's ratio


def requests():
    """A zipf of objects of many sizes, and now and then a scan that nobody repeats."""
    rng = random.Random(7)
    names = range(1_000)
    sizes = [int(2 ** rng.uniform(6, 14)) for _ in names]
    weights = [1 / (rank + 1) ** 0.9 for rank in names]
    mixed = []
    for at, name in enumerate(rng.choices(names, weights, k=20_000)):
        mixed.append((name, sizes[name]))
        if at % 4_000 < 500:
            mixed.append((1_000_000 + at, 500))
    return mixed


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)


class PolicySim(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def ratios(self, *arguments):
        done = run(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.count("\n"), 1)
        return json.loads(done.stdout)

    def refused(self, words, *arguments):
        done = run(*arguments)
        self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
        self.assertIn("INVALID_ARGUMENT: " + words, done.stderr)

    def test_oracle_general_and_csv_agree(self):
        # lru with 30 bytes: 1 misses, 2 misses, 1 hits, 3 misses and pushes 2 out, 2 misses.
        requests = [(1, 10), (2, 10), (1, 10), (3, 20), (2, 10)]
        records = b"".join(struct.pack("<IQIq", t, *r, -1) for t, r in enumerate(requests))
        lines = "".join(f"{t},{r[0]},{r[1]}\n" for t, r in enumerate(requests))
        for trace in (
            self.file("oracle", records),
            self.file("brace", bytes([ord("{")]) + records[1:]),  # the first time's lowest byte
            self.file("plain.csv", lines),
            self.file("header.csv", "time,id,size\r\n" + lines.replace("\n", "\r\n")),
        ):
            result = self.ratios("--policy", "lru", "--capacity-bytes", 30, trace)
            self.assertAlmostEqual(result["object_miss_ratio"], 4 / 5)
            self.assertAlmostEqual(result["byte_miss_ratio"], 50 / 60)
            self.assertNotIn("refetched_bytes_ratio", result)
            result = self.ratios("--policy", "lru", "--capacity-bytes", 2, "--unit-size", trace)
            self.assertAlmostEqual(result["object_miss_ratio"], 4 / 5)
            self.assertAlmostEqual(result["byte_miss_ratio"], 4 / 5)

    def test_misses_are_those_of_libcachesim(self):
        mixed = requests()
        trace = self.file("mixed.csv", "".join(f"{t},{r[0]},{r[1]}\n" for t, r in enumerate(mixed)))
        objects = dict(mixed)
        for policy, peers in PEER_BYTES.items():
            result = self.ratios("--policy", policy, "--capacity-bytes",
                                 int(sum(objects.values()) * 0.1), trace)
            ours = (result["object_miss_ratio"], result["byte_miss_ratio"])
            for our, peer in zip(ours, peers):
                self.assertLess(abs(our / peer - 1), DIFFERENCE, policy)
        for policy, peer in PEER_OBJECTS.items():
            result = self.ratios("--policy", policy, "--capacity-bytes", int(len(objects) * 0.1),
                                 "--unit-size", trace)
            self.assertLess(abs(result["object_miss_ratio"] / peer - 1), DIFFERENCE, policy)

    def test_objects_larger_than_the_cache_only_miss(self):
        trace = self.file("t.csv", "0,1,10\n1,2,99\n2,2,99\n3,1,10\n")
        result = self.ratios("--policy", "fifo", "--capacity-bytes", 20, trace)
        self.assertAlmostEqual(result["object_miss_ratio"], 3 / 4)

    def test_a_generated_load_is_replayed_in_both_orders(self):
        made = run("generate", "--seed", 5)
        self.assertEqual((made.returncode, made.stdout), (0, run("generate", "--seed=5").stdout))
        trace = self.file("load.jsonl", made.stdout)
        results = [
            self.ratios("--policy", "demand", "--capacity-bytes", "4g", *order, trace)
            for order in ((), ("--order", "fixed"), ("--order", "resident-first"))
        ]
        self.assertEqual(results[0], results[1])
        self.assertLess(
            results[2]["refetched_bytes_ratio"], results[1]["refetched_bytes_ratio"]
        )

    def test_bad_input_names_the_argument(self):
        trace = self.file("t.csv", "0,1,10\n")
        good = {"--policy": "lru", "--capacity-bytes": "10"}

        def refused(words, *more, **changes):
            options = good | {"--" + k.replace("_", "-"): v for k, v in changes.items()}
            flat = [word for key, value in options.items() if value for word in (key, value)]
            self.refused(words, *flat, *(more or (trace,)))

        refused("--policy: 'LRU' is none of fifo, lru,", policy="LRU")
        refused("--policy: is required", policy=None)
        refused("--capacity-bytes: is required", capacity_bytes=None)
        for size in ("0", "-1", "ten", "99999999999999999999", "1.5"):
            refused(f"--capacity-bytes: '{size}'", capacity_bytes=size)
        refused("--order: only for a broadcast", order="fixed")
        refused("TRACE: '/no/such' can't be read", "/no/such")
        refused("TRACE: ", self.folder)
        refused("TRACE: ", self.file("empty", ""))
        refused("TRACE: line 2: '1,2' is not time,id,size", self.file("s.csv", "0,1,10\n1,2\n"))
        refused("TRACE: line 1: '0,x,1'", self.file("x.csv", "0,x,1\n"))
        refused("TRACE: record 2: has 3 of 24 bytes", self.file("o", b"\0" * 27))
        load = self.file("l.jsonl", '{"t":0,"op":"put","blob":1,"app":1,"bytes":1}\n')
        refused("--order: 'any' is neither", load, order="any")
        refused("", "--nonsense")
        self.refused("TRACE: is required", *[word for pair in good.items() for word in pair])
        self.refused("Could not convert: --seed = x", "generate", "--seed", "x")


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
