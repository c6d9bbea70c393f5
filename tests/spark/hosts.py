"""Hosts of their own: driver and master on one, two workers with one, two or four executors each on
two more."""

import functools
import json
import re
import subprocess

import bigcast_nodes
import cluster
import netns
import shared
import spark as sparks
from combinations import REFUSED_NODE, check_path, jar_of_a_newer_glibc
from keys import keys_of, setting, told
from report import counters, nonzero
from running import SMALL_TIMEOUT_S, Others, Steps, check_end, observe, wait_for
from watch import Watch, files_left, left_on, listening_ports

WORKER_CORES = [4, 2]
WORKERS = len(WORKER_CORES)
FEW, MANY = (2, 1), (4, 2)  # executors on each worker's host: Spark spreads them one by one
EXECUTORS = sum(FEW)
MEGABYTES = 64
PORT = 17077
WORKER_CONF = {
    "spark.executor.cores": "1",
    "spark.executor.memory": "900m",
    "spark.local.dir": None,  # the workers have their own
}


def on_hosts(run):
    """An application in embedded mode, and one in shared mode, on one cluster."""
    why_not = netns.available()
    if why_not:
        run.report.skip("all", f"no network namespaces: {why_not}")
        return
    with netns.Hosts(1 + WORKERS) as hosts:
        area = run.area(address=hosts.address(0))
        daemons = cluster.Cluster(hosts, str(area.home), area.folder / "cluster",
                                  worker_cores=WORKER_CORES, worker_memory="4g")
        staying = [pid for host in range(hosts.count) for pid in hosts.pids(host)]
        one_pull_a_host(run, area, Others(hosts, staying), daemons)
        if run.jar:
            with run.report.under("eager"):
                before_the_read(run, Others(hosts, staying), daemons)
            with run.report.under("shared"):
                executor_elsewhere(run, Others(hosts, staying), daemons)
            with run.report.under("old-glibc"):
                executor_without_a_node(run, area, Others(hosts, staying), daemons)


def submit(run, daemons, program, conf):
    argv = ["--jars", str(run.spark.user_jar), "--class", f"io.bigcast.sparktest.{program}",
            str(run.spark.jobs_jar)]
    return functools.partial(daemons.submit, argv, conf)


def step_job(run, area, hosts, daemons, executors, conf):
    """A StepJob with so many executors on each worker's host; and the folder of its gate."""
    gate = area.folder / "gate"
    gate.mkdir()
    conf = area.conf(run.jar, {
        "spark.bigcasttest.executors": str(sum(executors)),
        "spark.bigcasttest.megabytes": str(MEGABYTES),
        "spark.bigcasttest.gate": str(gate),
        "spark.bigcasttest.settings": str(area.settings),
        "spark.cores.max": str(sum(executors)),
    } | WORKER_CONF | conf)
    watches = [Watch(hosts, host) for host in range(hosts.count)]
    return Steps(area, watches, submit(run, daemons, "StepJob", conf)), gate


def one_pull_a_host(run, area, hosts, daemons):
    """However many executors of a host read a broadcast, it crosses the host's link once."""
    steps, gate = step_job(run, area, hosts, daemons, FEW, {
        "spark.bigcast.port": str(PORT), "spark.bigcast.chunkSize": "256k",
        "spark.bigcast.prefetch": "lazy",
        "spark.bigcast.node.recordTrace": str(area.folder / "traces")} if run.jar else {})
    pulled = drive(run, hosts, steps, gate)
    check(run, area, steps, pulled)


def received(hosts):
    """Bytes that the links of the workers' hosts have brought."""
    return [hosts.traffic(host).received for host in range(1, hosts.count)]


def fetched(run, hosts, steps):
    """Bytes of chunks that the workers' nodes have fetched, as they count them: they tell it to who
    has the application's secret."""
    settings = told(steps.area)
    application = setting(settings, "app.id")
    secret = keys_of(setting(settings, "app.secret"), [application])["bigcast node 1"]

    def counted(host):
        [name] = {name for name in steps.watches[host].sockets if name.endswith(application)}
        asked = hosts.start(host, [
            str(run.jar.parent / "bin" / "bigcast"), "--server", f"unix:{name}", "--json", "info",
        ], env={"BIGCAST_SECRET": secret}, stdout=subprocess.PIPE)
        node = json.loads(asked.communicate()[0])
        return node["fetched_home_bytes"] + node["fetched_peer_bytes"]

    return [counted(host) for host in range(1, hosts.count)]


def pulled_since(before, run, hosts, steps, problem):
    """What came to the workers' hosts: by their links, and as their nodes count it."""
    by_link = [now - then for now, then in zip(received(hosts), before)]
    return by_link, fetched(run, hosts, steps) if run.jar and not problem else None


def replayed_badly(run, folder, chunks_read):
    """The nodes' traces are replayed, and have what executors read and what relays took."""
    files = list(folder.glob("*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    chunks = [line for line in lines if line["op"] == "chunk"]
    by_streams = sum("stream" in line for line in chunks)
    problems = [] if len(files) == 1 + WORKERS else [f"{len(files)} files"]
    if by_streams != chunks_read or len(chunks) == by_streams:
        problems.append(f"{by_streams} of {len(chunks)} reads are streams', who read {chunks_read}")
    replayed = 0
    for file in files:
        done = subprocess.run(
            [run.jar.parent / "bin" / "policy_sim", "--policy", "demand", "--capacity-bytes", "16m",
             file], capture_output=True, text=True, check=False)
        problems += [done.stderr] if done.returncode else []
        replayed += 0 if done.returncode else json.loads(done.stdout)["requests"]
    return problems or ("" if replayed == len(chunks) else f"{replayed} reads were replayed")


def stored(hosts, host):
    """Bytes that the nodes of a host have in memory."""
    return sum(node.stored_bytes for node in bigcast_nodes.on_host(hosts, host))


def drive(run, hosts, steps, gate):
    """Takes the job to its end; returns the bytes that each worker's host received for it, and those
    that its node fetched."""
    problem = steps.wait("ready")
    before = received(hosts)
    steps.go_on()
    problem = problem or steps.wait("made")
    if run.jar:
        ports = set().union(*(listening_ports(node.pid)
                              for node in bigcast_nodes.on_host(hosts, 0)))
        run.report.check("port", "" if ports == {PORT} else f"the home listens on {ports}")
    steps.go_on()
    problem = problem or at_the_gate(run, hosts, gate)
    (gate / "go").touch()
    problem = problem or steps.wait("read")
    pulled = pulled_since(before, run, hosts, steps, problem)
    steps.go_on()
    problem = problem or steps.wait("unpersisted")
    if run.jar:
        run.report.check("unpersist_frees_relays", problem or wait_for(
            lambda: not any(stored(hosts, host) for host in range(1, hosts.count)),
            lambda: f"they still have {[stored(hosts, host) for host in range(1, hosts.count)]}"))
        at_home = stored(hosts, 0)
        run.report.check("home_keeps_all",
                         "" if at_home >= MEGABYTES << 20 else f"the home has {at_home} bytes")
    steps.go_on()
    problem = problem or steps.wait("destroyed")
    steps.go_on()
    run.report.check("exit", steps.ended_badly(problem))
    return pulled


def at_the_gate(run, hosts, gate):
    """All executors have the first object out of the value's stream, and wait with it."""
    def reading():
        return len(list(gate.glob("reading-*")))

    problem = wait_for(lambda: reading() == EXECUTORS,
                       lambda: f"{reading()} of {EXECUTORS} executors began to deserialise")
    if run.jar:
        had = [stored(hosts, host) for host in range(1, hosts.count)]
        run.report.check("deserialises_while_fetching", problem or [
            f"a host had {each} bytes before its executors had one object"
            for each in had if not 0 < each <= MEGABYTES << 19])
    return problem


def before_the_read(run, hosts, daemons):
    """With the default, hosts have a broadcast before anybody reads it."""
    area = run.area("eager", hosts.address(0))
    steps, gate = step_job(run, area, hosts, daemons, MANY, {})
    (gate / "go").touch()
    problem = steps.wait("ready")
    before = received(hosts)
    steps.go_on()
    problem = problem or steps.wait("made") or wait_for(
        lambda: all(stored(hosts, host) >= MEGABYTES << 20 for host in range(1, hosts.count)),
        lambda: f"they have {[stored(hosts, host) for host in range(1, hosts.count)]}")
    run.report.check("fetched_before_the_read", problem)
    steps.go_on()
    problem = problem or steps.wait("read")
    pulled = pulled_since(before, run, hosts, steps, problem)
    for step in ("unpersisted", "destroyed"):
        steps.go_on()
        problem = problem or steps.wait(step)
    steps.go_on()
    run.report.check("exit", steps.ended_badly(problem))
    check_one_pull(run, steps, MANY, pulled)
    run.report.check("nothing_left", left_on(steps.watches) + files_left([area.local, area.tmp]))


def small_on_hosts(run, area, hosts, daemons, conf):
    """A SmallJob whose one executor reads from a node of another host; what it counted."""
    conf = area.conf(run.jar, {"spark.bigcasttest.executors": "1", "spark.cores.max": "1"}
                     | WORKER_CONF | conf)
    watch = Watch(hosts)
    observe(run, area, submit(run, daemons, "SmallJob", conf), watch, SMALL_TIMEOUT_S)
    output = sparks.read(area.out)
    run.report.cases(output)
    counted = counters(output)
    check_path(run.report, counted, None, expected=2, located=False)
    check_end(run, area, watch)
    return counted


def executor_elsewhere(run, hosts, daemons):
    """Shared mode: the node is on the driver's host, the executor on another, which has none."""
    server = shared.Server(run, hosts)
    area = run.area("shared", hosts.address(0))
    small_on_hosts(run, area, Others(hosts, [server.process.pid]), daemons, {
        "spark.bigcast.servers": server.address,
        "spark.bigcast.secret.file": str(server.secret),
    })
    nodes = [node for host in range(1, hosts.count) for node in bigcast_nodes.on_host(hosts, host)]
    run.report.check("no_other_node", f"{nodes}" if nodes else "")
    run.report.check("server_ends", server.ended_badly())


def executor_without_a_node(run, first, hosts, daemons):
    """The executor's host can't run bigcastd: it reads from the home on the driver's, and says so."""
    def logs():
        return set(first.folder.glob("cluster/work-*/*/*/stderr"))

    before = logs()
    area = run.area("old-glibc", hosts.address(0))
    counted = small_on_hosts(run, area, hosts, daemons, {
        "spark.executor.extraClassPath": str(jar_of_a_newer_glibc(run))})
    strange = {name: count for name, count in nonzero(counted).items()
               if name == "executors.localNodeReads" or "eplaced" in name}
    run.report.check("read_from_the_home", f"{strange}" if strange else "")
    warned = [line for log in logs() - before for line in sparks.own_lines(sparks.read(log), "WARN")]
    good = len(warned) == 1 and re.search(f"this host has no node.*{REFUSED_NODE}", warned[0])
    run.report.check("one_warning", "" if good else f"{warned}")


def check_one_pull(run, steps, executors, pulled):
    """Each worker's host got what it read once, however many executors it has."""
    size = counters(sparks.read(steps.area.out)).get("uploadedStoredBytes", 0)
    by_link, by_node = pulled
    run.report.check("one_pull_a_host", [
        f"host {host} received {count} bytes for {size}"
        for host, count in enumerate(by_link, 1) if not size < count <= 1.1 * size])
    run.report.check("fetched_once_a_host", "it ended before" if by_node is None else [
        f"the node of host {host} fetched {count} bytes of {size}"
        for host, count in enumerate(by_node, 1) if not size <= count <= 1.02 * size])
    had = tuple(len(executors_of(watch)) for watch in steps.watches[1:])
    run.report.check("executors", "" if had == executors else f"{had} executors, not {executors}")


def executors_of(watch):
    return {number for line in watch.command_lines
            for number in re.findall(r"ExecutorBackend .*--executor-id (\d+)", line)}


def check(run, area, steps, pulled):
    output = sparks.read(area.out)
    run.report.cases(output)
    folders = [*area.folder.glob("cluster/local-*"), area.local, area.tmp]
    run.report.check("nothing_left", left_on(steps.watches) + files_left(folders))
    if not run.jar:
        print(f"plain Spark: bytes into each worker's host {pulled[0]}")
        return
    counted = counters(output)
    size = counted.get("uploadedStoredBytes", 0)
    run.report.check("offloaded", "" if size >= MEGABYTES << 20 else f"stored bytes {size}")
    check_one_pull(run, steps, FEW, pulled)
    run.report.check("one_node_a_host",
                     [f"host {host} has had nodes {sorted(watch.nodes)}"
                      for host, watch in enumerate(steps.watches) if len(watch.nodes) != 1])
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
    run.report.check("traces", replayed_badly(run, area.folder / "traces", chunks))
    problems = []
    for log in (area.log, *area.folder.glob("cluster/work-*/*/*/stderr")):
        for level in ("ERROR", "WARN"):
            problems += sparks.own_lines(sparks.read(log), level)
    run.report.check("log", problems)
