#!/usr/bin/env python3
"""End-to-end tests on a real Spark, in which every result is what plain Spark gives.

    tests/spark/run.py --spark LINE --jar build/release/bigcast-spark-plugin.jar [--quick]

Prints a line for each test: `PASS name`, `FAIL name: why` or `SKIP name: why`. Exit code 1 if any
failed. Each combination of settings runs in a process of its own, which ends all that it started.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts" / "lib"))
import netns  # noqa: E402
import plan  # noqa: E402
import running  # noqa: E402
from report import Report  # noqa: E402
from spark import Spark  # noqa: E402

SHARING_PAYS = 4  # combinations, from which on
COMBINATION_TIMEOUT_S = 900  # more than all deadlines inside one


def main():
    args = parse()
    if args.one:
        return run_one(args)
    part = "quick" if args.quick else "matrix" if args.matrix else "default"
    names = [name for name in plan.names(args.spark, part, args.plain) if selected(args, name)]
    if not names:
        raise SystemExit(f"--filter: no combination matches {args.filter!r}")
    work = pathlib.Path(tempfile.mkdtemp(prefix="sparktest-"))
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    failed = True
    try:
        spark = Spark(args.spark, args.cache, work)
        spark.compile(work, args.jar)
        if len(names) >= SHARING_PAYS:
            spark.share_classes(work, args.jar)
        failed = not run_all(args, names, work)
    finally:
        if failed:
            print(f"the logs are kept in {work}", flush=True)
        else:
            shutil.rmtree(work)
    return 1 if failed else 0


def parse():
    default_cache = os.environ.get("BIGCAST_CACHE") or pathlib.Path(
        os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"), "bigcast")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spark", required=True, choices=sorted(plan.LINES))
    parser.add_argument("--jar", type=pathlib.Path, help="the plugin")
    parser.add_argument("--plain", action="store_true",
                        help="no plugin: do the tests themselves agree with plain Spark?")
    parser.add_argument("--quick", action="store_true", help="a part that takes two minutes")
    parser.add_argument("--matrix", action="store_true", help="what every Spark line runs")
    parser.add_argument("--cache", type=pathlib.Path, default=default_cache,
                        help="where Spark is installed")
    parser.add_argument("--filter", default="", metavar="RE[:RE]",
                        help="only combinations, and after a colon their cases, that match")
    parser.add_argument("--parallel", type=int, default=2, help="combinations at a time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain == bool(args.jar):
        parser.error("give one of --jar and --plain")
    if args.quick and args.spark not in plan.QUICK:
        parser.error(f"--quick: Spark {args.spark} has no such part")
    try:
        for part in args.filter.partition(":")[::2]:
            re.compile(part)
    except re.error as error:
        parser.error(f"--filter: {part!r} is no regular expression: {error}")
    if args.jar:
        args.jar = args.jar.resolve()
        if not args.jar.is_file():
            parser.error(f"--jar: {args.jar} is not there")
    return args


def selected(args, name):
    return re.search(args.filter.partition(":")[0], name)


def run_all(args, names, work):
    """Runs the combinations, a few at a time; prints each one's output when it has ended."""
    with concurrent.futures.ThreadPoolExecutor(args.parallel) as pool:
        processes = []
        runs = [pool.submit(run_apart, args, name, work, processes) for name in names]
        good = True
        try:
            for run in concurrent.futures.as_completed(runs):
                ok, output = run.result()
                print(output, end="", flush=True)
                good &= ok
        except BaseException:  # an interrupt: each process ends what it started
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise
    return good


def run_apart(args, name, work, processes):
    folder = work / name
    folder.mkdir()
    argv = [sys.executable, __file__, "--spark", args.spark, "--cache", str(args.cache),
            "--filter", args.filter, "--one", name, "--work", str(folder)]
    argv += ["--jar", str(args.jar)] if args.jar else ["--plain"]
    started = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    processes.append(process)
    try:
        output, _ = process.communicate(timeout=COMBINATION_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.terminate()  # it ends its own processes
        output, _ = process.communicate()
        output += f"FAIL spark-{args.spark}/{name}/time: over {COMBINATION_TIMEOUT_S} s\n"
        return False, output
    took = f"   spark-{args.spark}/{name}: {time.monotonic() - started:.0f} s\n"
    return process.returncode == 0, output + took


def run_one(args):
    """One combination, in this process, under which all its processes are."""
    report = Report(f"spark-{args.spark}{'' if args.jar else '-plain'}/{args.one}")
    spark = Spark(args.spark, args.cache, args.work.parent)
    with netns.LocalHosts(1) as hosts:
        run = running.Run(spark, hosts, report, args.work, args.jar,
                          args.filter.partition(":")[2])
        try:
            plan.ALL[args.one](run)
        except Exception as failure:  # whatever it is, the other combinations go on
            report.check("runs_at_all", f"{type(failure).__name__}: {failure}")
            raise
        finally:
            if report.failed:
                for area in sorted(args.work.glob("**/driver.log")):
                    print(tail(area.parent))
    return 1 if report.failed else 0


def tail(folder, lines=40):
    """The ends of an application's logs, without what Spark tells about its every step."""
    files = [folder / "stdout", folder / "driver.log", *folder.glob("home/work/*/*/stderr"),
             *folder.glob("cluster/work-*/*/*/stderr"), folder / "node.log"]
    dull = re.compile(r" INFO (?!(\S+\.)?Bigcast)|^\s+(at |\.\.\. \d+ more)"
                      r"|^CASE .* ok|^COUNTER .* 0$|^Spark Executor Command|^=+$")
    parts = []
    for file in filter(pathlib.Path.is_file, files):
        text = file.read_text(encoding="utf-8", errors="replace").splitlines()
        text = [f"    {line[:400]}" for line in text if not dull.search(line)]
        parts += [f"--- {file}", *text[-lines:]]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
