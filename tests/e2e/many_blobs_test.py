"""A node with many small blobs: its answers are as large, and its lists as cheap, as with few."""

import json
import os
import resource
import statistics
import subprocess
import time

import browser
import harness
from harness import EndToEnd, eventually

FULL = bool(os.environ.get("BIGCAST_FULL"))
COUNT = 100_000 if FULL else 1_500
FEW = 300
A_TIME = 2_500  # files that one command puts
SCRAPE_S = 0.05
ROWS = 50  # of the page's table
LISTINGS = (), ("--json",)  # flags of `ls`


class ManyBlobs(EndToEnd):
    def put(self, node, first, count):
        names = [f"b{i:06}" for i in range(first, first + count)]
        for name in names:
            (self.scratch / name).write_bytes(name.encode())
        done = self.bigcast(node, "--quiet", "put", *(self.scratch / name for name in names),
                            "--key", "many/")
        self.assertEqual((0, b""), (done.returncode, done.stderr))
        for name in names:
            (self.scratch / name).unlink()

    def list_all(self, node, *flags):
        """Its lines, and the most memory that it took, in bytes."""
        process = self.start(node, *flags, "ls", "many", stdout=subprocess.PIPE)
        lines = sum(1 for _ in process.stdout)
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(0, process.returncode)
        return lines, usage.ru_maxrss * 1024

    def sizes(self, node):
        """Of each answer: how many lines or bytes it may not outgrow, and how long it took."""
        result = {}
        for path in ("/metrics", "/api/node", "/api/blobs"):
            began = time.monotonic()
            status, body = node.get(path)
            took = time.monotonic() - began
            self.assertEqual(200, status)
            result[path] = len(body)
            print(f"  {path}: {len(body)} bytes in {took * 1000:.1f} ms")
        return result

    def test_nothing_grows_with_them(self):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        node = self.node("--memory", "1g")
        self.put(node, 0, FEW)
        few_listed = [self.list_all(node, *how) for how in LISTINGS]
        few = self.sizes(node)
        for first in range(FEW, COUNT, A_TIME):
            self.put(node, first, min(A_TIME, COUNT - first))
        many_listed = [self.list_all(node, *how) for how in LISTINGS]
        many = self.sizes(node)
        for how, (few_lines, few_memory), (many_lines, many_memory) in zip(LISTINGS, few_listed,
                                                                           many_listed):
            print(f"  {COUNT} blobs, {hard} descriptors: {' '.join(['ls', *how])} took "
                  f"{many_memory >> 20} MiB, {few_memory >> 20} MiB for {FEW}")
            self.assertEqual((FEW, COUNT), (few_lines, many_lines))
            if not self.is_sanitized():  # which keeps what was freed
                self.assertLess(many_memory, few_memory + (4 << 20), how)
        for path, size in few.items():  # numbers have more digits
            self.assertLess(many[path], size * 1.2 + 256, path)
        # The page turns: from its first listing to its last.
        after, pages, seen = "", 0, 0
        while True:
            listing = json.loads(node.get(f"/api/blobs?after={after}")[1])
            seen += len(listing["blobs"])
            pages += 1
            if not listing["more"] or (not FULL and pages == 5):
                break
            after = listing["blobs"][-1]["key"]
        self.assertEqual(COUNT if FULL else 500, seen)
        if FULL:  # the bar is of 100,000
            scrape = statistics.median(self.scrape(node) for _ in range(5))
            print(f"  /metrics: {scrape * 1000:.1f} ms, the median of 5")
            self.assertLess(scrape, SCRAPE_S)
        self.assert_the_page_shows_them_by_turns(node)

    @staticmethod
    def scrape(node):
        began = time.monotonic()
        node.get("/metrics")
        return time.monotonic() - began

    def assert_the_page_shows_them_by_turns(self, node):
        if not browser.available():
            self.skipTest("the command 'chromium' is missing: the page was not looked at")
        page = browser.Browser(self.scratch / "browser")
        self.addCleanup(page.end)
        page.open(f"http://{node.http}/")
        shown = ("[...document.querySelectorAll('#blobs tr')].slice(1)"
                 ".map(row => row.cells[0].textContent)")
        for first in (0, ROWS):
            expected = [f"many/b{i:06}" for i in range(first, first + ROWS)]
            eventually(lambda: page.value(shown) == expected, f"rows from {first} on")
            page.value("document.getElementById('next').click()")
        for typed, first in (("many/b000123", 123), ("many/b000123x", 124), ("many/c", COUNT)):
            page.value(f"document.getElementById('from').value = '{typed}';"
                       "document.getElementById('from').dispatchEvent(new Event('change'))")
            expected = [f"many/b{i:06}" for i in range(first, min(first + ROWS, COUNT))]
            eventually(lambda: page.value(shown) == expected, f"rows that start at {typed}")


if __name__ == "__main__":
    harness.main()
