"""The PySpark combinations, one function each: Python's cases, and the Python package."""

import dataclasses
import os
import re
import secrets

import spark as sparks
from combinations import KRYO, check_encrypted
from keys import applications_of, keys_of, leaks
from report import counters
from running import (CASES_TIMEOUT_S, SMALL_TIMEOUT_S, check_end, execute, unpacked_package,
                     write_secret)

EXAMPLE = sparks.HERE.parents[1] / "examples" / "embedding_lookup.py"
EXAMPLE_SIZE = ["--rows", "4096", "--pairs", "20000", "--workers", "4"]


def min0(run):
    cases(run, {"spark.bigcast.minSize": "0"})


def kryo_defaults(run):
    """With nodes that have no room to lend all of it: then executors write files."""
    area = cases(run, {"spark.serializer": KRYO}
                   | ({"spark.bigcast.node.memory": "16m"} if run.jar else {}))
    counted = counters(sparks.read(area.out))
    if run.jar and not run.case_filter:
        good = counted.get("pythonFilesShared") and counted.get("pythonFilesWritten")
        run.report.check("both_ways", "" if good else f"{counted}")


def encrypted(run):
    """Spark encrypts what is on its disks and in its messages, and so the file of a pickle, too."""
    pattern = run.case_filter or "dict$|large_closure|join|one_copy"
    area = cases(dataclasses.replace(run, case_filter=pattern), {
        "spark.bigcast.minSize": "0",
        "spark.authenticate": "true",
        "spark.authenticate.secret": secrets.token_hex(32),
        "spark.network.crypto.enabled": "true",
        "spark.io.encryption.enabled": "true",
    })
    check_encrypted(run, area)


def network_crypto(run):
    """Spark encrypts its messages alone, and its file of a pickle is plain: it leaves no plain byte to
    nodes all the same."""
    area = cases(dataclasses.replace(run, case_filter=run.case_filter or "nodes_have|dict$"), {
        "spark.bigcast.minSize": "0",
        "spark.authenticate": "true",
        "spark.authenticate.secret": secrets.token_hex(32),
        "spark.network.crypto.enabled": "true",
    })
    check_encrypted(run, area)


def cases(run, conf):
    """Returns the area in which it ran."""
    area = run.area()
    conf = area.conf(run.jar, {"spark.bigcasttest.filter": run.case_filter} | conf)
    argv = area.submit("local-cluster[2,1,1024]", conf, sparks.HERE / "python" / "cases.py",
                       jars=[run.spark.jobs_jar])
    watch = execute(run, area, argv, CASES_TIMEOUT_S)
    run.report.cases(sparks.read(area.out))
    check_end(run, area, watch)
    return area


def execute_with_package(run, area, jar, master, conf, program, timeout_s=CASES_TIMEOUT_S):
    """Runs a program, given with its arguments, that imports the Python package; its Watch."""
    package = unpacked_package(run, area)
    conf = area.conf(jar, {"spark.executorEnv.PYTHONPATH": str(package)} | conf)
    file, *arguments = program
    argv = ["env", f"PYTHONPATH={package}", *area.submit(master, conf, file), *arguments]
    return execute(run, area, argv, timeout_s)


def arrays(run):
    """The Python package: its broadcasts in four workers."""
    if not run.jar:
        run.report.skip("all", "the package needs the plugin")
        return
    area = run.area()
    secret = area.authenticate()
    watch = execute_with_package(run, area, run.jar, "local-cluster[2,2,1024]", {
        "spark.bigcasttest.filter": run.case_filter,
        "spark.bigcast.node.memory": "256m",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",  # until all are there
    } | area.event_log(), [sparks.HERE / "python" / "arrays.py"])
    run.report.cases(sparks.read(area.out))
    # One case kills the node, maybe before it was seen, and is told of two broadcasts.
    warnings = 2 if re.search(run.case_filter, "py_home_dies") else 0
    good = 1 <= len(watch.nodes) <= 2
    run.report.check("one_node_at_a_time", "" if good else f"nodes {watch.nodes}")
    run.report.check("keys_are_unseen",
                     leaks(area, watch, keys_of(secret, applications_of(watch))))
    check_end(run, area, watch, warnings, saying="broadcast of Python's")


def example(run):
    """The example as users submit it: four workers with the plugin, and without it in local mode."""
    if not run.jar:
        run.report.skip("all", "the package needs the plugin")
        return
    said = {}
    for name, master, jar in (("plugin", "local-cluster[1,4,1024]", run.jar),
                              ("without", "local[2]", None)):
        with run.report.under(name):
            said[name] = example_in(run, run.area(name), master, jar)
    run.report.check("same_answer", "" if said["plugin"] == said["without"] else f"{said}")


def example_in(run, area, master, jar):
    """What it printed."""
    watch = execute_with_package(run, area, jar, master,
                                 {"spark.bigcast.node.memory": "64m"} if jar else {},
                                 [EXAMPLE, *EXAMPLE_SIZE], SMALL_TIMEOUT_S)
    output = sparks.read(area.out)
    good = re.fullmatch(r"rows \d+ and \d+ have a cosine of 0\.\d{4}\n", output)
    run.report.check("answer", "" if good else f"printed {output[-500:]!r}")
    sent = [line for line in sparks.own_lines(sparks.read(area.log), "INFO")
            if "of Python's: 4.0 MiB to Bigcast" in line]
    run.report.check("path", "" if len(sent) == (1 if jar else 0) else f"{sent}")
    check_end(run, area, watch)
    return output


def fallback(run):
    """bigcast.broadcast where it is sc.broadcast: in local mode, where Spark encrypts, where nobody
    answers, and beyond a node's room; and in all other such contexts."""
    if not run.jar:
        run.report.skip("all", "the package needs the plugin")
        return
    area = run.area()
    watch = execute_with_package(run, area, run.jar, "local[2]", {}, [
        sparks.HERE / "python" / "fallback.py", str(write_secret(run.work / "secret")),
        run.case_filter or ".", "py_", *(["more_"] if os.environ.get("BIGCAST_FULL") else [])])
    run.report.cases(sparks.read(area.out))
    due = [("py_unreachable", r"TorrentBroadcast: .*127\.0\.0\.1:1\b"),
           ("py_too_full", "goes by sc.broadcast, .*RESOURCE_EXHAUSTED"),
           ("py_too_full", "a broadcast goes through Spark's TorrentBroadcast: RESOURCE_EXHAUSTED")]
    due = [says for name, says in due if re.search(run.case_filter, name)]
    check_end(run, area, watch, warnings=len(due), saying="|".join(due))
