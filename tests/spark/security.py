"""Who must not see or change what an application broadcasts: keys in what Spark shows, and a node
that lies."""

import functools
import json
import re
import secrets
import subprocess
import urllib.request

import shared
import spark as sparks
from combinations import Steps, wait_for
from keys import keys_of
from report import counters, nonzero
from watch import Watch, files_left


def encryption(run):
    """Spark authenticates and encrypts all it can, and so do we, with its secret and no other."""
    area = run.area()
    secret = secrets.token_hex(32)
    defaults = area.folder / "spark-defaults.conf"  # a command line would show it
    defaults.touch(mode=0o600)
    defaults.write_text(f"spark.authenticate.secret {secret}\n", encoding="utf-8")
    ui = shared.free_port()
    conf = area.conf(run.jar, {
        "spark.authenticate": "true",
        "spark.network.crypto.enabled": "true",
        "spark.io.encryption.enabled": "true",
        "spark.bigcasttest.executors": "1",
        "spark.bigcasttest.megabytes": "8",
        "spark.ui.enabled": "true",
        "spark.ui.port": str(ui),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{area.events}",
        "spark.eventLog.compress": "false",
    })
    watch = Watch(run.hosts)
    steps = Steps(area, [watch], functools.partial(
        run.hosts.start, 0, area.submit("local-cluster[1,1,1024]", conf, "StepJob")))
    pages = {}
    drive(run, steps, at_read=lambda: pages.update(pages_of(f"http://127.0.0.1:{ui}")))
    run.report.cases(sparks.read(area.out))
    defaults.unlink()
    run.report.check("nothing_left", watch.left() + files_left([area.local, area.tmp]))
    if not run.jar:
        return
    counted = counters(sparks.read(area.out))
    good = counted.get("offloaded") == 1 and counted.get("executors.reads") == 1
    good = good and not counted.get("executors.chunksForged")
    run.report.check("through_bigcast", "" if good else f"{nonzero(counted)}")
    said = [line for line in sparks.own_lines(sparks.read(area.log), "INFO") if "encrypted" in line]
    run.report.check("said", "" if len(said) == 1 else f"{said}")
    shown = ("plugin.io.bigcast" in pages.get("/metrics/json/", "")
             and "spark.authenticate" in pages.get("environment", ""))
    run.report.check("pages", "" if shown else f"{list(pages)}")
    check_unseen(run, area, watch, pages, secret)


def drive(run, steps, at_made=lambda: None, at_read=lambda: None):
    problem = ""
    for step in ("ready", "made", "read", "unpersisted", "destroyed"):
        problem = problem or steps.wait(step)
        if not problem:
            {"made": at_made, "read": at_read}.get(step, lambda: None)()
        steps.go_on()
    code = steps.end()
    run.report.check("exit", problem or (f"code {code}" if code else ""))


def pages_of(url):
    """What Spark's UI shows of the application, and its metrics."""
    def get(path):
        with urllib.request.urlopen(url + path, timeout=30) as answer:
            return answer.read().decode()

    api = "/api/v1/applications"
    application = json.loads(get(api))[0]["id"]
    pages = {name: get(f"{api}/{application}/{name}")
             for name in ("environment", "executors", "allexecutors", "jobs", "stages")}
    return pages | {path: get(path) for path in ("/environment/", "/executors/", "/metrics/json/")}


def check_unseen(run, area, watch, pages, secret):
    """Neither the secret nor what is derived from it is in anything that others may see."""
    keys = keys_of(secret, watch.sockets)
    seen = {str(file): text for file, text in area.text_of_logs().items()} | pages
    seen |= {f"command line {line[:60]}": line for line in watch.command_lines}
    problems = [f"{key} is in {where}" for where, text in seen.items()
                for key, value in keys.items() if value in text]
    if len(keys) != 3:
        problems.append(f"the application's id is not known: {watch.sockets}")
    events = "\n".join(sparks.read(file) for file in area.events.rglob("*") if file.is_file())
    if "SparkListenerEnvironmentUpdate" not in events:
        problems.append("the event log shows no environment")
    run.report.check("keys_are_unseen", problems)


def forged(run):
    """The only node alters what it is asked for and fixes the checksums: not a byte of that is
    deserialised, it is counted, and Spark's own broadcast takes over."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    lying_address = f"{run.hosts.address(0)}:{shared.free_port()}"
    server = shared.Server(run, run.hosts, ["--advertise", lying_address])
    log = run.work / "lying_node.log"
    with open(log, "w", encoding="utf-8") as out:
        liar = run.hosts.start(0, [
            str(run.jar.parent / "bin" / "lying_node"), lying_address, server.address,
            str(server.secret)], stdout=out, stderr=subprocess.STDOUT)
    wait_for(lambda: "is ready" in sparks.read(log) or liar.poll() is not None, lambda: "")
    area = run.area()
    conf = area.conf(run.jar, {
        "spark.bigcast.servers": lying_address,
        "spark.bigcast.secret.file": str(server.secret),
        "spark.bigcasttest.executors": "1",
        "spark.bigcasttest.megabytes": "8",
    })
    watch = Watch(run.hosts)
    drive(run, Steps(area, [watch], functools.partial(
        run.hosts.start, 0, area.submit("local-cluster[1,1,1024]", conf, "StepJob"))))
    output = sparks.read(area.out)
    run.report.cases(output)
    counted = counters(output)
    good = (counted.get("offloaded") == 1 and counted.get("executors.chunksForged", 0) > 0
            and counted.get("replacedByTorrent") == 1)
    run.report.check("refused_and_counted", "" if good else f"{nonzero(counted)}")
    told = [line for file in area.executor_logs()
            for line in sparks.own_lines(sparks.read(file), "WARN")
            if re.search("did not write", line)]
    run.report.check("told_once", "" if len(told) == 1 else f"{told}")
    liar.kill()
    liar.wait()
    run.report.check("server_ends", server.ended_badly())
    run.report.check("nothing_left", watch.left())
