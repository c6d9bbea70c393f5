"""Hosts of their own: driver and master on one, two workers with two executors each on two more."""

import functools

import cluster
import netns
import spark as sparks
from combinations import Others, Steps
from report import counters
from watch import Watch, files_left

WORKERS = 2
EXECUTORS = 4
MEGABYTES = 64


def one_pull_a_host(run):
    """However many executors of a host read a broadcast, it crosses the host's link once."""
    why_not = netns.available()
    if why_not:
        run.report.skip("all", f"no network namespaces: {why_not}")
        return
    with netns.Hosts(1 + WORKERS) as hosts:
        area = run.area(address=hosts.address(0))
        daemons = cluster.Cluster(hosts, str(area.home), area.folder / "cluster", worker_cores=2,
                                  worker_memory="2g")
        numbers = range(hosts.count)
        staying = [pid for host in numbers for pid in hosts.pids(host)]
        watches = [Watch(Others(hosts, staying), host) for host in numbers]
        conf = area.conf(run.jar, {
            "spark.bigcasttest.executors": str(EXECUTORS),
            "spark.bigcasttest.megabytes": str(MEGABYTES),
            "spark.executor.cores": "1",
            "spark.executor.memory": "900m",
            "spark.local.dir": None,  # the workers have their own
        })
        argv = ["--jars", str(run.spark.user_jar), "--class", "io.bigcast.sparktest.StepJob",
                str(run.spark.jobs_jar)]
        steps = Steps(area, watches, functools.partial(daemons.submit, argv, conf))
        received = drive(run, hosts, steps)
        check(run, area, watches, received)


def drive(run, hosts, steps):
    """Takes the job to its end; returns the bytes that each worker's host received for it."""
    problem = steps.wait("ready")
    before = [hosts.traffic(host).received for host in range(hosts.count)]
    for step in ("made", "read"):
        steps.go_on()
        problem = problem or steps.wait(step)
    after = [hosts.traffic(host).received for host in range(hosts.count)]
    steps.go_on()
    problem = problem or steps.wait("destroyed")
    steps.go_on()
    code = steps.end()
    run.report.check("exit", problem or (f"code {code}" if code else ""))
    return [is_ - was for was, is_ in zip(before, after)][1:]


def check(run, area, watches, received):
    output = sparks.read(area.out)
    run.report.cases(output)
    left = [f"host {host}: {what}" for host, watch in enumerate(watches) for what in watch.left()]
    folders = [*area.folder.glob("cluster/local-*"), area.local, area.tmp]
    run.report.check("nothing_left", left + files_left(folders))
    if not run.jar:
        print(f"plain Spark: bytes into each worker's host {received}")
        return
    counted = counters(output)
    size = counted.get("uploadedStoredBytes", 0)
    run.report.check("offloaded", "" if size >= MEGABYTES << 20 else f"stored bytes {size}")
    run.report.check("one_pull_a_host",
                     [f"host {host} received {count} bytes for {size}"
                      for host, count in enumerate(received, 1) if not size < count <= 1.1 * size])
    run.report.check("one_node_a_host",
                     [f"host {host} has had nodes {sorted(watch.nodes)}"
                      for host, watch in enumerate(watches) if len(watch.nodes) != 1])
    started = counted.get("nodesStarted", 0) + counted.get("executors.nodesStarted", 0)
    run.report.check("nodes_started", "" if started == 1 + WORKERS else f"{started} nodes")
    expected = {"executors.reads": EXECUTORS, "executors.localNodeReads": EXECUTORS,
                "executors.chunksReread": 0, "executors.readFailures": 0}
    run.report.check("through_local_nodes",
                     [f"{name}: expected {count}, got {counted.get(name)}"
                      for name, count in expected.items() if counted.get(name) != count])
    located, chunks = (counted.get(f"executors.{name}", 0) for name in ("chunksLocated",
                                                                       "chunksRead"))
    run.report.check("by_descriptor", "" if located and located == chunks
                     else f"{located} of {chunks} chunks came by descriptor")
    problems = []
    for log in (area.log, *area.folder.glob("cluster/work-*/*/*/stderr")):
        for level in ("ERROR", "WARN"):
            problems += sparks.own_lines(sparks.read(log), level)
    run.report.check("log", problems)
