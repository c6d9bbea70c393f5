"""Scala as it is typed into spark-shell."""

import re

import spark as sparks
from combinations import JAVA, KRYO
from report import counters, nonzero
from running import CASES_TIMEOUT_S, check_end, execute

SCRIPT = sparks.HERE / "jobs" / "shell.scala"
PROMPTS = re.compile(r"^(scala> |     \| )+", re.MULTILINE)


def java_defaults(run):
    shell(run, {"spark.serializer": JAVA})


def kryo_min0(run):
    shell(run, {"spark.serializer": KRYO, "spark.bigcast.minSize": "0"})


def shell(run, conf):
    area = run.area()
    if run.jar:
        conf = conf | {"spark.bigcast.driver.keepValue": "never"}
    conf = area.conf(run.jar, {"spark.bigcasttest.filter": run.case_filter} | conf)
    argv = area.launcher("local-cluster[1,2,1024]", conf, [run.spark.jobs_jar], "spark-shell")
    with open(SCRIPT, encoding="utf-8") as typed:  # Spark 4.0's shell ignores -I
        watch = execute(run, area, argv, CASES_TIMEOUT_S, stdin=typed)
    output = PROMPTS.sub("", sparks.read(area.out))
    run.report.cases(output)
    run.report.check("compiles", re.findall(r"^.*\berror: .*$", output, re.MULTILINE))
    if run.jar:
        check_path(run, counters(output))
    check_end(run, area, watch)


def check_path(run, counted):
    """All that the script broadcasts is large enough for Bigcast."""
    expected = SCRIPT.read_text(encoding="utf-8").count("sc.broadcast(")
    good = counted.get("offloaded", 0) >= expected
    if not run.case_filter:
        good = good and counted["executors.reads"] >= expected
    run.report.check("path", "" if good else f"{expected} broadcasts, {nonzero(counted)}")
