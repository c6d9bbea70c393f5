"""Nodes, homes, executors and the driver die or stop while broadcasts are read, and no job fails."""

import errno
import functools
import os
import pathlib
import re
import signal
import subprocess
import time

import bigcast_nodes
import cluster
import netns
import spark as sparks
from hosts import stored, submit
from report import counters, nonzero
from running import Commands, Others, Steps, unpacked_package, wait_for
from watch import Watch, command_line, figures, files_left, left_on

WORKERS = 2
MEGABYTES = 24
MEGABYTES_MORE = 72  # than a node's memory
DISK_BYTES = 64 << 20  # of each worker's host
NODE_DISK_BYTES = 40 << 20  # of that, in one file that is made when it is needed
FREED_S = 5
SILENT_S = 35
WAITED_FOR_EVER = 60  # seconds: what should have ended
# A command to start workers by: each worker's local directory is a small file system of its own.
SMALL_DISKS = (f"for each in $1/local-*; do mount -t tmpfs -o size={DISK_BYTES} none $each || exit; "
               'done; shift; exec "$@"')
CONF = {
    "spark.bigcasttest.executors": str(WORKERS),
    "spark.executor.cores": "1",
    "spark.executor.memory": "700m",
    "spark.driver.memory": "700m",
    "spark.local.dir": None,  # the workers have their own
    "spark.bigcast.chunkSize": "256k",
    "spark.bigcast.progressTimeout": "5s",
    "spark.bigcast.node.memory": "64m",
    "spark.bigcast.prefetch": "lazy",  # so that hosts do not have the value before it is read
}


def executor_of(hosts, host):
    return next(executors_of(hosts, [host]))


def executors_of(hosts, which):
    return (pid for host in which for pid in hosts.pids(host)
            if "CoarseGrainedExecutorBackend" in " ".join(command_line(pid)))


class Faults:
    """A FaultsJob on a cluster: the driver's host is 0, each other one has an executor."""

    def __init__(self, run, hosts, daemons, area, conf):
        self.report = run.report
        self.area = area
        self.hosts = hosts
        self.daemons = daemons
        self.watches = [Watch(self.hosts, host) for host in range(hosts.count)]
        conf = area.conf(run.jar, CONF | conf, java="-Xcheck:jni")
        self.job = Commands(area, self.watches, submit(run, daemons, "FaultsJob", conf))
        self.tell, self.read = self.job.do, self.job.read
        self.result, self.since = self.job.result, self.job.since
        self.gate = None
        self.made = []
        self.number = 0

    def local(self, host):
        """Spark's local directory of a worker's host, which is a file system of its own."""
        return pathlib.Path(f"/proc/{self.daemons.pid(f'worker-{host}')}/root",
                            *(self.daemons.folder / f"local-{host}").parts[1:])

    def make(self, name, gated=False, megabytes=MEGABYTES):
        """Broadcasts a value. Gated: who reads it stops in the middle until `open_gate`."""
        self.gate = self.area.folder / f"gate-{name}"
        self.gate.mkdir()
        self.made.append(name)
        self.tell("make", name, megabytes, *([self.gate] if gated else []))

    def join(self, name):
        self.made.append(name)
        self.tell("join", name)

    def publish(self, name):
        """Publishes a file, to be mapped."""
        self.made.append(name)
        self.tell("publish", name, MEGABYTES)

    def destroy_all(self):
        while self.made:
            self.tell("destroy", self.made.pop())

    def at_gate(self):
        problem = wait_for(lambda: len(list(self.gate.glob("reading-*"))) == WORKERS,
                           lambda: "not all executors began to read")
        if problem:
            raise RuntimeError(problem)

    def stop_in_a_read(self, name):
        """Broadcasts a value and has it read: all executors are in the middle until `open_gate`."""
        self.make(name, gated=True)
        self.tell("read", name)
        self.at_gate()

    def open_gate(self):
        (self.gate / "go").touch()

    def nodes(self, *where):
        return [node.pid for host in where or range(self.hosts.count)
                for node in bigcast_nodes.on_host(self.hosts, host)]

    def executor(self, host):
        return executor_of(self.hosts, host)

    def signal(self, number, pids):
        if not pids:
            raise RuntimeError("there is nothing to strike")
        for pid in pids:
            os.kill(pid, number)

    def check(self, name, good=("equal",), repaired=(0, 0), failures=False):
        """The job's result, and how often the driver had to upload again, and to use Torrent; returns
        what was counted since the last check."""
        result = self.result(name)
        problems = [] if result in good else [f"the job's result: {result}"]
        counted = self.since()
        uploads, torrents = (counted.get(f"replacedBy{how}", 0) for how in ("Upload", "Torrent"))
        if (uploads, torrents) != repaired:
            problems.append(f"replaced {uploads} times by an upload and {torrents} by Torrent, "
                            f"expected {repaired}: {nonzero(counted)}")
        if not failures and counted.get("executors.readFailures", 0) > 0:
            problems.append(f"reads failed: {nonzero(counted)}")
        if counted.get("offloaded") != 1:
            problems.append(f"{counted.get('offloaded')} broadcasts went to Bigcast")
        self.report.check(name, problems)
        return counted


def node_killed_in_a_read(faults):
    """The node of one executor's host."""
    name = "node_killed_in_a_read"
    faults.stop_in_a_read(name)
    faults.signal(signal.SIGKILL, faults.nodes(1))
    faults.open_gate()
    faults.check(name)


def node_stopped_in_a_read(faults):
    name = "node_stopped_in_a_read"
    faults.stop_in_a_read(name)
    stopped = faults.nodes(2)
    faults.signal(signal.SIGSTOP, stopped)
    faults.open_gate()
    faults.check(name)
    faults.signal(signal.SIGCONT, stopped)


def reads_after_the_home_was_killed(faults, name):
    """The driver uploads it again; what was counted."""
    faults.signal(signal.SIGKILL, faults.nodes(0))
    faults.tell("read", name)
    return faults.check(name, repaired=(1, 0))


def home_killed_before_a_read(faults):
    name = "home_killed_before_a_read"
    faults.make(name)
    reads_after_the_home_was_killed(faults, name)


def home_killed_before_a_published_read(faults):
    """The file is uploaded again, and mapped on the executors' hosts."""
    name = "home_killed_before_a_published_read"
    faults.publish(name)
    mapped = reads_after_the_home_was_killed(faults, name).get("executors.mappedReads", 0)
    faults.report.check(f"{name}_and_mapped",
                        "" if mapped == WORKERS else f"{mapped} executors have mapped it")


def home_killed_before_a_join(faults):
    """SQL has broadcast a table, and tasks have not read it."""
    name = "home_killed_before_a_join"
    faults.join(name)
    reads_after_the_home_was_killed(faults, name)


def home_killed_before_an_upload(faults):
    """The driver starts another one at once."""
    name = "home_killed_before_an_upload"
    faults.signal(signal.SIGKILL, faults.nodes(0))
    faults.make(name)
    faults.tell("read", name)
    faults.check(name)


def home_killed_in_a_read(faults):
    name = "home_killed_in_a_read"
    faults.stop_in_a_read(name)
    faults.signal(signal.SIGKILL, faults.nodes(0))
    faults.open_gate()
    faults.check(name, repaired=(1, 0))


def all_nodes_killed_in_a_read(faults):
    name = "all_nodes_killed_in_a_read"
    faults.stop_in_a_read(name)
    faults.signal(signal.SIGKILL, faults.nodes())
    faults.open_gate()
    faults.check(name, repaired=(1, 0))


def executor_killed_in_a_read(faults):
    """What its node held for it is free within seconds: its connection with all reads and
    descriptors, and what it had mapped."""
    name = "executor_killed_in_a_read"
    faults.publish(f"{name}-mapped")
    mapped = faults.read(f"{name}-mapped")
    [node] = faults.nodes(1)
    idle = figures(node)
    faults.stop_in_a_read(name)
    in_read = figures(node)
    given_back = mappings_given_back(faults)
    faults.signal(signal.SIGKILL, [faults.executor(1)])
    # Without the connection it is less than while the executor was idle.
    freed = wait_for(lambda: figures(node)["descriptors"] < idle["descriptors"]
                     and mappings_given_back(faults) == given_back + 1,
                     lambda: f"the node had {idle}, in the read {in_read}, and has {figures(node)}; "
                     f"{mappings_given_back(faults) - given_back} readers' mappings ended", FREED_S)
    faults.report.check(f"{name}_and_nothing_is_held", freed or (
        "" if mapped == "equal" else f"what was to be mapped: {mapped}"))
    faults.open_gate()
    result = faults.result(name)
    faults.tell("executors", WORKERS)
    faults.since()
    good = result in ("equal", "equal repeated")
    faults.report.check(name, "" if good else f"the job's result: {result}")
    # Its successor reads by now, as it did.
    faults.report.check(f"{name}_and_no_thread_is_left", wait_for(
        lambda: figures(node)["threads"] <= in_read["threads"],
        lambda: f"the node had {in_read} and has {figures(node)}"))


def mappings_given_back(faults):
    """How often a node noticed that a process had ended with something mapped."""
    return len(re.findall(r"a reader ended with \d+ mappings", sparks.read(faults.area.node_log)))


def reader_stopped_in_a_read(faults):
    """What it has not copied yet goes from its node without it, and it reads that again when it wakes."""
    name = "reader_stopped_in_a_read"
    faults.stop_in_a_read(name)
    stopped = [faults.executor(1)]
    faults.signal(signal.SIGSTOP, stopped)
    faults.open_gate()
    had = stored(faults.hosts, 1)
    faults.tell("unpersist", name)
    freed = wait_for(lambda: not stored(faults.hosts, 1),
                     lambda: f"its node still has {stored(faults.hosts, 1)} bytes")
    faults.report.check(f"{name}_and_does_not_hold_up", freed if had else "its node had nothing")
    faults.signal(signal.SIGCONT, stopped)
    faults.check(name)


def every_holder_removed(faults):
    """As dynamic allocation does: all executors go, their nodes after them, and others come."""
    name = "every_holder_removed"
    faults.make(name)
    faults.tell("read", name)
    faults.check(name)
    faults.tell("kill")
    gone = wait_for(lambda: not faults.nodes(*range(1, 1 + WORKERS)),
                    lambda: f"nodes stay: {faults.nodes(*range(1, 1 + WORKERS))}", WAITED_FOR_EVER)
    faults.tell("executors", WORKERS)
    result = faults.read(name)
    counted = faults.since()
    problems = [gone] if gone else []
    if result != "equal" or counted.get("replacedByUpload") or counted.get("replacedByTorrent"):
        problems.append(f"{result}, {nonzero(counted)}")
    faults.report.check(f"{name}_and_read_again", problems)


def disk_full_at_an_executor(faults):
    """For a broadcast that is larger than its node's memory: the other executor's node has on its
    disk what this one's finds no room for."""
    name = "disk_full_at_an_executor"
    faults.make(f"{name}-before")
    before = faults.read(f"{name}-before")  # so that the node has opened its disk
    faults.destroy_all()
    faults.since()
    nodes = faults.nodes(1)
    used_before = wait_for(lambda: not extents(faults, 1), lambda: f"{extents(faults, 1)}")
    filler = faults.local(1) / "filler"
    room = fill(filler)
    faults.make(name, megabytes=MEGABYTES_MORE)
    faults.tell("read", name)
    faults.check(name)
    used, others = extents(faults, 1), extents(faults, 2)
    filler.unlink()
    good = (before == "equal" and not used_before and NODE_DISK_BYTES < room < DISK_BYTES
            and len(nodes) == 1 and faults.nodes(1) == nodes and not used and others)
    faults.report.check(f"{name}_and_was", "" if good else (
        f"before: {before}, {used_before or 'nothing on disk'}, {room} bytes free; nodes {nodes}, "
        f"then {faults.nodes(1)}; on its disk {used}, on the other's {others}"))


def extents(faults, host):
    """The files that a worker's node has chunks on disk in."""
    return sorted(file.name for file in faults.local(host).rglob("extent-*"))


def fill(file):
    """Writes until there is no room; how much there was."""
    piece = bytes(1 << 16)
    with open(file, "wb", buffering=0) as out:
        try:
            while out.tell() < DISK_BYTES * 2:
                out.write(piece)
        except OSError as failure:
            if failure.errno != errno.ENOSPC:
                raise
        return out.tell()


def task_killed_in_native_code(faults):
    """Its reads wait for a home that is stopped; what they held is freed, and the value can be read
    afterwards."""
    name = "task_killed_in_native_code"
    faults.stop_in_a_read(name)
    home = faults.nodes(0)
    faults.signal(signal.SIGSTOP, home)
    faults.open_gate()
    # One after the other: a look takes seconds on a busy machine, and a read waits some ten.
    inside = comes_into_native_code(faults, 1) or comes_into_native_code(faults, 2)
    faults.tell("cancel", name)
    result = faults.result(name)
    faults.signal(signal.SIGCONT, home)
    problems = [inside] if inside else []
    if "cancelled" not in result:
        problems.append(f"the job's result: {result}")
    problems += filter(None, [wait_for(lambda: not held(faults), lambda: f"{held(faults)}")])
    faults.report.check(name, problems)
    result = faults.read(name)
    counted = faults.since()
    faults.report.check(f"{name}_and_read_again",
                        "" if result == "equal" else f"{result}, {nonzero(counted)}")


def held(faults):
    """What executors hold of running reads now."""
    faults.since()
    return {name: faults.job.counted[name] for name in (
        "executors.openDownloads", "executors.nativeBufferBytes") if faults.job.counted[name]}


def comes_into_native_code(faults, host):
    return wait_for(lambda: in_native_code(faults, host),
                    lambda: f"no task came to wait in native code on host {host}")


def in_native_code(faults, host):
    return method_runs(faults.area.spark, faults.executor(host), "NativeDownload.next")


def method_runs(spark, pid, method):
    jstack = spark.java_home / "bin" / "jstack"
    done = subprocess.run([str(jstack), str(pid)], capture_output=True, text=True, check=False,
                          timeout=30)
    return f"io.bigcast.spark.{method}(Native Method)" in done.stdout


def value_changed_since(faults):
    """A changed value can't stand in for the one that others have read: an error, no other value."""
    name = "value_changed_since"
    faults.make(name)
    faults.tell("change", name)
    faults.signal(signal.SIGKILL, faults.nodes(0))
    result = faults.read(name)
    counted = faults.since()
    good = "BigcastException: " in result and "has changed the value" in result
    faults.report.check(name, "" if good and counted.get("replacementsRefused")
                        else f"{result}, {nonzero(counted)}")


def home_stopped_before_a_read(faults):
    """Nobody can start another node in its place: Torrent."""
    name = "home_stopped_before_a_read"
    faults.make(name)
    home = faults.nodes(0)
    had = stored(faults.hosts, 0)
    faults.signal(signal.SIGSTOP, home)
    stopped = time.monotonic()
    faults.tell("read", name)
    faults.check(name, repaired=(0, 1))
    # Past its session timeout of 30 s and the lease's grace of 2 s.
    time.sleep(max(0, SILENT_S - (time.monotonic() - stopped)))
    faults.signal(signal.SIGCONT, home)
    # It wakes with a lease that has ended: what it had for that is gone, often with the node, and
    # nobody is given it.
    stale = wait_for(lambda: stored(faults.hosts, 0) < MEGABYTES << 20,
                     lambda: f"it had {had} bytes and still has {stored(faults.hosts, 0)}")
    first = faults.result(name, "first")
    faults.tell("unpersist", name)  # or the read would be of what executors have
    result = faults.read(name)
    good = had and first in ("NOT_FOUND", "UNAVAILABLE") and result == "equal"
    faults.report.check(f"{name}_and_what_it_had_is_gone", stale or (
        "" if good else f"{had} bytes, by its ref {first}, {result}"))
    faults.since()
    back = wait_for(lambda: offloads_again(faults), lambda: "uploads still go to Torrent")
    faults.report.check(f"{name}_and_is_back", back)


def offloads_again(faults):
    """Uploads rest for a while after a failure."""
    faults.destroy_all()
    faults.number += 1
    faults.make(f"again-{faults.number}")
    return faults.since().get("offloaded") == 1


CASES = [node_killed_in_a_read, node_stopped_in_a_read, home_killed_before_a_read,
         home_killed_before_a_published_read, home_killed_before_a_join, home_killed_before_an_upload,
         home_killed_in_a_read, all_nodes_killed_in_a_read, executor_killed_in_a_read,
         every_holder_removed, disk_full_at_an_executor, task_killed_in_native_code,
         value_changed_since]
FULL = [home_stopped_before_a_read, reader_stopped_in_a_read]  # half a minute each


def on_hosts(run):
    why_not = netns.available()
    if why_not:
        run.report.skip("all", f"no network namespaces: {why_not}")
        return
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    with netns.Hosts(1 + WORKERS) as hosts:
        area = run.area(address=hosts.address(0))
        daemons = cluster.Cluster(
            hosts, str(area.home), area.folder / "cluster", worker_cores=1, worker_memory="1g",
            worker_wrapper=["unshare", "--mount", "sh", "-c", SMALL_DISKS, "sh",
                            str(area.folder / "cluster")])
        staying = [pid for host in range(hosts.count) for pid in hosts.pids(host)]
        others = Others(hosts, staying)
        faults = Faults(run, others, daemons, area,
                        {"spark.bigcast.node.diskSize": str(NODE_DISK_BYTES)})
        faults.tell("executors", WORKERS)
        faults.since()
        for case in CASES + (FULL if os.environ.get("BIGCAST_FULL") else []):
            if re.search(run.case_filter, case.__name__):
                case(faults)
                faults.destroy_all()
        jni_is_used_well(faults)
        driver_killed(run, faults)
        if os.environ.get("BIGCAST_FULL"):
            with run.report.under("python"):
                python_home_killed(run, others, daemons)
            dynamic_allocation(run, others, daemons)


def python_home_killed(run, hosts, daemons):
    """An application of PySpark's, on the same cluster: its home dies before a read, and in one."""
    area = run.area("python", hosts.address(0))
    gate = area.folder / "gate"
    gate.mkdir()
    package = unpacked_package(run, area)
    conf = area.conf(run.jar, CONF | {
        "spark.bigcasttest.gate": str(gate),
        "spark.bigcast.node.memory": "128m",
        "spark.executorEnv.PYTHONPATH": str(package),
    })
    start = functools.partial(daemons.submit, [str(sparks.HERE / "python" / "homes_die.py")], conf)
    watches = [Watch(hosts, host) for host in range(hosts.count)]
    steps = Steps(area, watches, lambda env, **rest: start(
        env=env | {"PYTHONPATH": str(package)}, **rest))

    def home():
        return [node.pid for node in bigcast_nodes.on_host(hosts, 0)]

    def strike(step, number):
        problem = steps.wait(step)
        for pid in home():
            os.kill(pid, number)
        (gate / step).touch()
        return problem

    problem = strike("made", signal.SIGKILL) or strike("stopped", signal.SIGSTOP) or wait_for(
        lambda: all(method_runs(run.spark, executor_of(hosts, host), "NativeClient.lend")
                    for host in range(1, hosts.count)), lambda: "no executor came to wait")
    problem = strike("killed", signal.SIGKILL) or problem
    run.report.check("exit", steps.ended_badly(problem))
    output = sparks.read(area.out)
    run.report.cases(output)
    counted = counters(output)
    good = counted.get("replacedByUpload") == counted.get("replacedForPython") == 2
    run.report.check("replaced", "" if good else f"{nonzero(counted)}")
    run.report.check("nothing_left", left_on(watches) + files_left([area.local, area.tmp]))


def dynamic_allocation(run, hosts, daemons):
    """Spark ends every executor that is idle, nodes follow, and others come with the next job."""
    area = run.area("allocation", hosts.address(0))
    faults = Faults(run, hosts, daemons, area, {
        "spark.bigcasttest.executors": "0",
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.minExecutors": "0",
        "spark.dynamicAllocation.maxExecutors": str(WORKERS),
        "spark.dynamicAllocation.executorIdleTimeout": "2s",
    })
    name = "dynamic_allocation"
    workers = range(1, 1 + WORKERS)
    faults.make(name)
    problems = []
    for _ in range(2):
        result = faults.read(name)
        holders = [host for host in workers if faults.nodes(host)]
        problems += [] if result == "equal" and holders else [f"{result}, nodes at {holders}"]
        problems += filter(None, [wait_for(
            lambda: not faults.nodes(*workers) and not list(executors_of(hosts, workers)),
            lambda: f"nodes {faults.nodes(*workers)} and executors stay", WAITED_FOR_EVER)])
    counted = faults.since()
    if counted.get("offloaded") != 1 or any("eplaced" in each for each in nonzero(counted)):
        problems.append(f"{nonzero(counted)}")
    run.report.check(f"{name}_removes_every_holder", problems)
    faults.destroy_all()
    run.report.check(f"{name}_ends", faults.job.ended_badly())


def jni_is_used_well(faults):
    """What -Xcheck:jni complains about, with a method of ours in the stack below it."""
    checked = any("-Xcheck:jni" in line for line in faults.watches[1].command_lines)
    problems = [] if checked else ["no executor ran with -Xcheck:jni"]
    for out in [faults.area.out, *faults.area.folder.glob("cluster/work-*/*/*/stdout")]:
        for complaint in re.findall(r"^(?:WARNING|FATAL ERROR).*(?:\n\s+at .*)+", sparks.read(out),
                                    re.MULTILINE):
            problems += [complaint] if "io.bigcast" in complaint else []
    faults.report.check("jni_is_used_well", problems)


def driver_killed(run, faults):
    """The last case: SIGKILL for a driver that has a broadcast at its node, which executors are in the
    middle of reading, and is in the middle of sending another one."""
    name = "driver_killed_in_a_read_and_an_upload"
    faults.stop_in_a_read(name)
    had = stored(faults.hosts, 0)
    faults.tell("half")
    sent = wait_for(lambda: stored(faults.hosts, 0) >= had + (4 << 20),
                    lambda: f"of another broadcast the home got {stored(faults.hosts, 0) - had} bytes")
    run.report.check(f"{name}_had_both", sent or ("" if had >= MEGABYTES << 20 else f"{had} bytes"))
    java = next(pid for pid in faults.hosts.pids(0)
                if "FaultsJob" in " ".join(command_line(pid)))
    faults.signal(signal.SIGKILL, [java])
    faults.open_gate()
    faults.job.end()
    folders = [*map(faults.local, range(1, 1 + WORKERS)), *faults.daemons.folder.glob("local-0"),
               *faults.daemons.folder.glob("tmp-*"), faults.area.local, faults.area.tmp]
    run.report.check(f"{name}_and_nothing_is_left", left_on(faults.watches) + files_left(folders))
