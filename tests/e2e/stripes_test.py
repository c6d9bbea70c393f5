"""Blobs that are spread over several nodes, by the command line."""

import random
import signal

import harness
from harness import MEMORY_USED, MIB, EndToEnd, eventually

USAGE, NOT_FOUND, UNAVAILABLE = 2, 3, 5
STRIPED = ("--homes", 2, "--chunk-size", "256k")


def random_bytes(size, seed=1):
    return random.Random(seed).randbytes(size)


class Stripes(EndToEnd):
    def setUp(self):
        super().setUp()
        self.first, self.second = self.node("--memory", "64m"), self.node("--memory", "64m")

    def both(self, *arguments, **kwargs):
        """The command line with both nodes as servers."""
        return self.bigcast(self.first, "--server", self.second.listen, *arguments, **kwargs)

    def put(self, key, data, *more):
        return self.both("put", "-", "--key", key, *STRIPED, *more, input=data)

    def assert_nothing_at_both(self):
        for node in (self.first, self.second):
            self.assert_nothing_left(node)

    def test_each_node_keeps_half_of_it_and_whoever_reads_gets_all(self):
        data = random_bytes(8 * MIB + 5)
        self.assert_ok(self.put("t/x", data))
        for node in (self.first, self.second):
            self.assertAlmostEqual(4 * MIB, node.metrics()[MEMORY_USED], delta=300_000)
        self.assertEqual(data, self.assert_ok(self.both("get", "t/x", "-")))
        # The first has the name, and says where the rest is.
        self.assertEqual(data, self.assert_ok(self.bigcast(self.first, "get", "t/x", "-")))
        self.assert_fails(self.bigcast(self.second, "get", "t/x", "-"), NOT_FOUND, "t/x")
        self.assertEqual([], self.json(self.bigcast(self.second, "--json", "ls", "t")))
        blob = self.json(self.both("--json", "stat", "t/x"))[0]
        self.assertEqual([self.first.listen, self.second.listen], blob["homes"])
        self.assertEqual(len(data), blob["size"])

    def test_a_node_of_the_reader_s_own_host_gets_it_from_both(self):
        data = random_bytes(8 * MIB)
        self.assert_ok(self.put("t/x", data))
        socket = self.scratch / "socket"
        local = self.node("--memory", "64m", "--socket", f"unix:{socket}")
        reading = ("--local", f"unix:{socket}", "get", "t/x", "-")
        self.assertEqual(data, self.assert_ok(self.both(*reading)))
        self.assertEqual(data, self.assert_ok(self.both(*reading)))
        self.assertEqual(len(data), local.metrics()["fetched_bytes_total"])

    def test_removal_and_replacement_free_it_on_both(self):
        self.assert_ok(self.put("t/x", random_bytes(8 * MIB)))
        data = random_bytes(4 * MIB, 2)
        self.assert_ok(self.put("t/x", data, "--replace"))
        for node in (self.first, self.second):
            eventually(lambda: node.metrics()[MEMORY_USED] == 2 * MIB, "the old one's end")
        self.assertEqual(data, self.assert_ok(self.both("get", "t/x", "-")))
        self.assert_ok(self.bigcast(self.first, "rm", "t/x"))
        self.assert_nothing_at_both()

    def test_a_writer_that_is_killed_leaves_nothing_on_either(self):
        writer = self.start(
            self.first, "--server", self.second.listen, "put", "-", "--key", "t/x", *STRIPED,
            stdin=harness.subprocess.PIPE,
        )
        writer.stdin.write(random_bytes(4 * MIB))
        writer.stdin.flush()
        for node in (self.first, self.second):
            eventually(lambda: node.metrics()[MEMORY_USED] >= MIB, "chunks at both")
        writer.send_signal(signal.SIGKILL)
        self.assert_nothing_at_both()

    def test_a_lost_node_is_an_error_that_names_it(self):
        self.assert_ok(self.put("t/x", random_bytes(8 * MIB)))
        self.second.kill()
        lost = self.second.listen
        self.assert_fails(self.bigcast(self.first, "get", "t/x", "-"), UNAVAILABLE, lost)
        self.assert_fails(self.put("t/y", b"x"), UNAVAILABLE, "homes", lost)
        self.assert_ok(self.bigcast(self.first, "rm", "t/x"))
        self.assert_nothing_left(self.first)

    def test_wrong_numbers_of_homes_are_refused(self):
        for homes in ("0", "3", "two", ""):
            with self.subTest(homes=homes):
                done = self.both("put", "-", "--key", "t/x", "--homes", homes, input=b"x")
                self.assert_fails(done, USAGE, "--homes")
        same = ("--server", self.first.listen, "put", "-", "--key", "t/x", "--homes", 2)
        done = self.bigcast(self.first, *same, input=b"x")
        self.assert_fails(done, UNAVAILABLE, "homes", self.first.listen)
        self.assert_nothing_at_both()


if __name__ == "__main__":
    harness.main()
