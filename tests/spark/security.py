"""Who must not see or change what an application broadcasts: keys in what Spark shows, and a node
that lies."""

import dataclasses
import functools
import json
import pathlib
import re
import urllib.request

import bigcast_nodes
import shared
import spark as sparks
from keys import applications_of, keys_of, leaks, setting, told
from report import counters, nonzero
from running import Steps
from watch import Watch, files_left


def encryption(run):
    """Spark authenticates and encrypts all it can, and so do we, with its secret and no other: none is
    in any configuration. What is published is encrypted like broadcasts."""
    area = run.area()
    secret = area.authenticate()
    watch, pages, found = looked_at(run, area, {
        "spark.bigcasttest.settings": str(area.settings),
        "spark.network.crypto.enabled": "true",
        "spark.io.encryption.enabled": "true",
        "spark.bigcasttest.publish": "true",
        "spark.bigcasttest.filter": run.case_filter,
    })
    if run.jar:
        settings = told(area)
        run.report.check("no_secret_is_told", "" if set(settings) == {
            f"spark.plugins.internal.conf.{sparks.PLUGIN}.app.id"} else f"{sorted(settings)}")
        said = [line for line in sparks.own_lines(sparks.read(area.log), "INFO")
                if "encrypted" in line]
        run.report.check("said", "" if len(said) == 1 else f"{said}")
        run.report.check("nodes_have_no_plain_byte", [
            f"{where}: {found[where]}" for where in ("memory", "disk")
            if found[where].marks or found[where].size < 4 << 20])
        published = found["published"]
        run.report.check("nor_of_what_is_published", "" if not published.marks
                         and published.size >= 4 << 20 else f"{published}")
        check_unseen(run, area, watch, pages, keys_of(secret, applications_of(watch)), 3)


def own_secret(run):
    """Spark neither authenticates nor encrypts: the secret is ours, and chunks are plain."""
    area = run.area()
    watch, pages, found = looked_at(run, area, {"spark.bigcasttest.settings": str(area.settings)})
    if run.jar:
        run.report.check("nodes_have_plain_bytes", [
            f"{where}: {found[where]}" for where in ("memory", "disk", "published")
            if not found[where].marks])
        secret = setting(told(area), "app.secret")
        check_unseen(run, area, watch, pages, keys_of(secret, applications_of(watch)), 3)


def shown(area):
    """Settings for an application that shows all that Spark can show, and where its UI is."""
    ui = shared.free_port()
    return {
        "spark.ui.enabled": "true",
        "spark.ui.port": str(ui),
    } | area.event_log(), f"http://127.0.0.1:{ui}"


def looked_at(run, area, conf):
    """A job whose node keeps a part of its broadcast in memory and the rest on disk; its Watch, what
    Spark showed of it, and what the node had."""
    more, ui = shown(area)
    conf = area.conf(run.jar, conf | more | {
        "spark.bigcasttest.executors": "1",
        "spark.bigcasttest.megabytes": "40",
    } | ({"spark.bigcast.node.memory": "16m", "spark.bigcasttest.hold": "true"} if run.jar else {}))
    watch = Watch(run.hosts)
    steps = Steps(area, [watch], functools.partial(
        run.hosts.start, 0, area.submit("local-cluster[1,1,1024]", conf, "StepJob")))
    pages, found = {}, {}
    drive(run, steps, at_made=lambda: found.update(found_in(run, area)),
          at_read=lambda: pages.update(pages_of(ui)),
          at_published=(lambda: found.update(published=published_in(run, area))) if run.jar else None)
    run.report.cases(sparks.read(area.out))
    run.report.check("nothing_left", watch.left() + files_left([area.local, area.tmp]))
    if run.jar:
        counted = counters(sparks.read(area.out))
        good = counted.get("offloaded") == 1 and counted.get("executors.reads") == 1
        good = good and not counted.get("executors.chunksForged")
        run.report.check("through_bigcast", "" if good else f"{nonzero(counted)}")
    return watch, pages, found


@dataclasses.dataclass
class Found:
    """How many bytes but zeros there are, and how many of the value's marks among them."""

    size: int
    marks: int


def found_in(run, area, marked="MARK"):
    """What the nodes of host 0 have in their memory files and on disk."""
    marks = [bytes.fromhex(mark) for mark in
             re.findall(rf"^{marked} ([0-9a-f]+)$", sparks.read(area.out), re.MULTILINE)]
    memory = [pathlib.Path(path) for node in bigcast_nodes.on_host(run.hosts, 0)
              for path in bigcast_nodes.memfds(node.pid)]

    def look(files):
        found = Found(0, 0)
        for file in files:
            content = file.read_bytes()
            found.size += len(content) - content.count(0)
            found.marks += sum(mark in content for mark in marks)
        return found

    return {"memory": look(memory), "disk": look(area.local.rglob("extent-*"))}


def published_in(run, area):
    """As found_in, wherever it is, of the file that is published."""
    found = found_in(run, area, "PUBLISHED").values()
    return Found(sum(each.size for each in found), sum(each.marks for each in found))


def drive(run, steps, at_made=lambda: None, at_read=lambda: None, at_published=None):
    """at_published: there is such a step, and what is to be done then."""
    problem = ""
    more = ["published"] if at_published else []
    for step in ("ready", "made", "read", "unpersisted", "destroyed", *more):
        problem = problem or steps.wait(step)
        if not problem:
            {"made": at_made, "read": at_read, "published": at_published}.get(step, lambda: None)()
        steps.go_on()
    run.report.check("exit", steps.ended_badly(problem))


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


def check_unseen(run, area, watch, pages, keys, count, more=None):
    """None of the so many keys is in anything that others may see."""
    problems = leaks(area, watch, keys, pages | (more or {}))
    if len(keys) != count or not all(keys.values()):
        problems.append(f"not all keys are known: {list(keys)} of {watch.sockets}")
    if not ("plugin.io.bigcast" in pages.get("/metrics/json/", "")
            and "spark.bigcast" in pages.get("environment", "")):
        problems.append(f"the UI shows nothing of Bigcast: {list(pages)}")
    run.report.check("keys_are_unseen", problems)


def forged(run):
    """The only node alters what it is asked for and fixes the checksums: not a byte of that is
    deserialised, it is counted, and Spark's own broadcast takes over."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    lying_address = f"{run.hosts.address(0)}:{shared.free_port()}"
    server = shared.Server(run, run.hosts, ["--advertise", lying_address])
    with shared.lying_node(run, lying_address, server):
        watch = forged_by(run, lying_address, server)
    run.report.check("server_ends", server.ended_badly())
    run.report.check("nothing_left", watch.left())


def forged_by(run, lying_address, server):
    """A job by way of that node; what watched it."""
    area = run.area()
    key = shared.write_key(run.work / "key", server.secret)
    more, ui = shown(area)
    conf = area.conf(run.jar, more | {
        "spark.bigcast.servers": lying_address,
        "spark.bigcast.secret.file": str(key),
        "spark.bigcasttest.executors": "1",
        "spark.bigcasttest.megabytes": "8",
        "spark.bigcasttest.settings": str(area.settings),
    })
    watch = Watch(run.hosts)
    pages = {}
    drive(run, Steps(area, [watch], functools.partial(
        run.hosts.start, 0, area.submit("local-cluster[1,1,1024]", conf, "StepJob"))),
        at_read=lambda: pages.update(pages_of(ui)))
    output = sparks.read(area.out)
    run.report.cases(output)
    counted = counters(output)
    good = (counted.get("offloaded") == 1 and counted.get("executors.chunksForged", 0) > 0
            and counted.get("replacedByTorrent") == 1)
    run.report.check("refused_and_counted", "" if good else f"{nonzero(counted)}")
    said = [line for file in area.executor_logs()
            for line in sparks.own_lines(sparks.read(file), "WARN")
            if re.search("did not write", line)]
    run.report.check("told_once", "" if len(said) == 1 else f"{said}")
    settings = told(area)
    keys = keys_of(setting(settings, "app.secret"), [setting(settings, "app.id")]) | {
        "the nodes' secret": sparks.read(server.secret),
        "the namespace's key": sparks.read(key).rpartition(":")[2]}
    check_unseen(run, area, watch, pages, keys, 5, {
        "the nodes' metrics": server.metrics(), "the node's log": sparks.read(server.log),
        "the liar's log": sparks.read(run.work / "lying_node.log")})
    return watch
