"""What a node spends on being watched: a scraper of /metrics each 5 s and one open page, in a browser.

A node without a disk tier is given few blobs, then many; with each, the CPU time of its threads is read
from /proc for a minute that nobody watches, and for one in which both do, the browser counting how
often the page was answered. /metrics and the page are answered by the node's loop thread, so the bar is
for that one: at most 1 % of a core, all that it does in that minute included. Above it, or if the page
is hardly answered, this ends with an error.
"""

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "scripts/lib"), str(ROOT / "tests/e2e")]

import bigcast_nodes  # noqa: E402
import browser  # noqa: E402
import measure  # noqa: E402
from netns import LocalHosts  # noqa: E402

BAR = 0.01
SCRAPE_S = 5
POLL_S = 2  # of the page
SETTLE_S = 3
A_TIME = 2_500  # files that one command puts
COLUMNS = (
    ("blobs", "blobs", ",d"),
    ("watched", "watched", ""),
    ("answers to the page", "polls", ",d"),
    ("loop thread, of a core", "loop", ".2%"),
    ("other threads", "others", ".2%"),
    ("÷ bar", "ratio", ".2f"),
)


def thread_seconds(pid):
    """CPU-seconds of the loop thread, which is the process's first, and of all others together."""
    loop = others = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        seconds = int((task / "schedstat").read_text().split()[0]) / 1e9
        if task.name == str(pid):
            loop = seconds
        else:
            others += seconds
    return loop, others


def put(node, binaries, first, count):
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as folder:
        for begin in range(first, first + count, A_TIME):
            names = [f"b{i:06}" for i in range(begin, min(begin + A_TIME, first + count))]
            for name in names:
                pathlib.Path(folder, name).write_bytes(name.encode())
            subprocess.run(
                [binaries / "bigcast", "--server", node.listen, "--quiet", "put", *names,
                 "--key", "bench/"],
                check=True, cwd=folder, stdin=subprocess.DEVNULL,
            )


@contextlib.contextmanager
def open_page(node):
    """The node's page in a browser: gives how often it was answered so far."""
    with tempfile.TemporaryDirectory(prefix="bigcast-bench-") as profile:
        page = browser.Browser(profile)
        try:
            page.open(f"http://{node.http}/")
            time.sleep(SETTLE_S)
            page.value("performance.setResourceTimingBufferSize(1e6)")
            yield lambda: page.value(
                "performance.getEntriesByType('resource').filter("
                "e => e.name.endsWith('/api/node') && e.responseStatus === 200).length")
        finally:
            page.end()


def shares(node, seconds, watched):
    """Of a core, while it is watched or not: the loop thread's and the others'."""
    started = time.monotonic()
    before = thread_seconds(node.pid)
    next_scrape = started
    while (left := started + seconds - time.monotonic()) > 0:
        if watched and time.monotonic() >= next_scrape:
            node.metrics()
            next_scrape += SCRAPE_S
        time.sleep(min(left, 0.1))
    after = thread_seconds(node.pid)
    passed = time.monotonic() - started
    return [(is_ - was) / passed for was, is_ in zip(before, after)]


def watched_shares(node, seconds):
    """The same while both watch, and how often the page was answered meanwhile."""
    with open_page(node) as answers:
        before = answers()
        loop, others = shares(node, seconds, True)
        polls = answers() - before
    if polls < seconds / POLL_S / 2:
        raise SystemExit(f"status-cpu: the page was answered {polls} times in {seconds} s")
    return loop, others, polls


def main():
    parser = argparse.ArgumentParser(prog="bench status-cpu", description=__doc__)
    parser.add_argument("--blobs", type=measure.list_of(measure.positive), default="100,100000",
                        help="default 100,100000")
    parser.add_argument("--seconds", type=measure.positive, default=60, help="default 60")
    parser.add_argument("--quick", action="store_true", help="few blobs, 5 s: does it work?")
    arguments = bigcast_nodes.parse_node_arguments(parser)
    if not browser.available():
        measure.cannot_run("the command 'chromium' is missing")
    if arguments.quick:
        arguments.blobs, arguments.seconds = [10, 300], 5
    rows, there = [], 0
    with LocalHosts(1) as hosts:
        flags = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--memory", "1g"]
        node = bigcast_nodes.RunningNode(hosts, 0, arguments.binaries, flags)
        for count in sorted(arguments.blobs):
            put(node, arguments.binaries, there, count - there)
            there = count
            row = {"bench": "status-cpu", "blobs": count}
            time.sleep(SETTLE_S)
            loop, others = shares(node, arguments.seconds, False)
            rows.append({**row, "watched": "no", "loop": loop, "others": others})
            loop, others, polls = watched_shares(node, arguments.seconds)
            rows.append({**row, "watched": "yes", "polls": polls, "loop": loop, "others": others,
                         "ratio": loop / BAR})
        node.stop()
    print(f"{arguments.seconds} s each, {os.cpu_count()} cores\n")
    measure.print_table(COLUMNS, rows)
    if arguments.json:
        measure.print_json(rows)
    worst = max(row.get("ratio", 0) for row in rows)
    if worst > 1:
        raise SystemExit(f"status-cpu: the loop thread used {worst * BAR:.2%} of a core")


if __name__ == "__main__":
    measure.run(main)
