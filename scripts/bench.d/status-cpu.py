"""What a node spends on being watched: a scraper of /metrics each 5 s and one open page, in a browser.

A node without a disk tier is given few blobs, then many; with each, the CPU time of its threads is read
from /proc for a minute that nobody watches, and for one in which both do. /metrics and the page are
answered by the node's loop thread, so the bar is for that one: at most 1 % of a core, all that it
does in that minute included.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import bigcast_nodes  # noqa: E402
import measure  # noqa: E402
from netns import LocalHosts  # noqa: E402

BAR = 0.01
SCRAPE_S = 5
SETTLE_S = 3
A_TIME = 2_500  # files that one command puts
COLUMNS = (
    ("blobs", "blobs", ",d"),
    ("watched", "watched", ""),
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


class Page:
    """The node's page, open in a browser."""

    def __init__(self, hosts, node):
        self._profile = tempfile.TemporaryDirectory(prefix="bigcast-bench-")
        self._process = hosts.start(
            0,
            [shutil.which("chromium"), "--headless", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--remote-debugging-port=0",
             f"--user-data-dir={self._profile.name}", f"http://{node.http}/"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def __enter__(self):
        time.sleep(SETTLE_S)
        if self._process.poll() is not None:
            raise SystemExit("status-cpu: the browser ended")

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._profile.cleanup()


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


def main():
    parser = argparse.ArgumentParser(prog="bench status-cpu", description=__doc__)
    parser.add_argument("--blobs", type=measure.list_of(measure.positive), default="100,100000",
                        help="default 100,100000")
    parser.add_argument("--seconds", type=measure.positive, default=60, help="default 60")
    parser.add_argument("--quick", action="store_true", help="few blobs, 5 s: does it work?")
    arguments = bigcast_nodes.parse_node_arguments(parser)
    if not shutil.which("chromium"):
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
            with Page(hosts, node):
                loop, others = shares(node, arguments.seconds, True)
            rows.append({**row, "watched": "yes", "loop": loop, "others": others,
                         "ratio": loop / BAR})
        node.stop()
    print(f"{arguments.seconds} s each, {os.cpu_count()} cores\n")
    measure.print_table(COLUMNS, rows)
    if arguments.json:
        measure.print_json(rows)


if __name__ == "__main__":
    measure.run(main)
