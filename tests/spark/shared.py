"""The shared mode: nodes that somebody else runs, here the test."""

import contextlib
import dataclasses
import functools
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
import zipfile

import spark as sparks
from combinations import check_start, small
from keys import namespace_key
from report import counters, nonzero
from running import Commands, Others, Steps, unpacked_package, wait_for, write_secret
from watch import Watch, files_left


class Server:
    """A bigcastd on host 0 that a test started for the shared mode."""

    def __init__(self, run, hosts, more=(), secret=None, grace="2s"):
        self.secret = secret or write_secret(run.work / "server-secret")
        self.http = free_port()
        self.address = f"{hosts.address(0)}:{free_port()}"
        self.socket = str(run.work / "node.sock")
        self.log = run.work / "bigcastd.log"
        self.start = functools.partial(self.start_on, hosts, [
            str(program(run)), "--listen", self.address, "--http", f"127.0.0.1:{self.http}",
            "--socket", f"unix:{self.socket}", "--memory", "256m",
            "--secret-file", str(self.secret), "--lease-grace", grace, *more])
        self.start()

    def start_on(self, hosts, argv):
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = hosts.start(0, argv, stdout=log, stderr=log)
        until_ready(self.log, self.process, "bigcastd")

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def metric(self, name):
        """The sum over a metric's labels; None if there is no such metric."""
        found = re.findall(rf"^bigcast_{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", self.metrics(),
                           re.MULTILINE)
        return sum(map(float, found)) if found else None

    def holds(self):
        """What must all be 0 when no application uses the node any more."""
        return {name: self.metric(name) for name in ("blobs", "leases", "sessions",
                                                     "store_used_bytes", "store_reserved_bytes")}

    def still_held(self):
        """Waits until no application uses the node; what it has then, or nothing."""
        return wait_for(lambda: not any(self.holds().values()),
                        lambda: f"the node still has {self.holds()}")

    def ended_badly(self):
        """Ends it, and says how if not well."""
        return "" if (code := self.stop()) == 0 else f"exit code {code}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Ends it as an operator would; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "none within 60 s"


@contextlib.contextmanager
def lying_node(run, address, server, *more):
    """A node that lies, in front of a server; yields its process."""
    log = run.work / "lying_node.log"
    with open(log, "w", encoding="utf-8") as out:
        liar = run.hosts.start(0, [
            str(run.jar.parent / "bin" / "lying_node"), address, server.address,
            str(server.secret), *more], stdout=out, stderr=subprocess.STDOUT)
    try:
        until_ready(log, liar, "lying_node")
        yield liar
    finally:
        liar.kill()
        liar.wait()


def until_ready(log, process, what):
    """Waits for the line that says so; RuntimeError if it does not come, or the process ends."""
    wait_for(lambda: "is ready" in sparks.read(log) or process.poll() is not None, lambda: "")
    said = sparks.read(log)
    if "is ready" not in said or process.poll() is not None:
        raise RuntimeError(f"{what} is not ready: {said[-2000:]}")


def free_port():
    """One that nobody listens on now, and that the system gives to nobody who asks it for any."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def program(run):
    """The bigcastd that is in the jar."""
    target = run.work / "bigcastd"
    if not target.exists():
        with zipfile.ZipFile(run.jar) as jar:
            name = next(name for name in jar.namelist() if name.endswith("/bigcastd"))
            target.write_bytes(jar.read(name))
        target.chmod(0o700)
    return target


def contexts_on_one_node(run):
    """Contexts on one running node: over TCP, as the second of two of which the first is down; by its
    socket too, with the key of the namespace; with a wrong secret; and with a node of another
    version."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    server = Server(run, run.hosts)
    wrong = write_secret(run.work / "wrong-secret")
    context(run, server, "tcp", server.secret,
            {"spark.bigcast.servers": f"127.0.0.1:1, {server.address}"}, located=False, expected=2)
    key = write_key(run.work / "key", server.secret)
    context(run, server, "socket", key, {"spark.bigcast.socket": server.socket}, expected=2)
    run.report.check("freed", server.still_held())
    sealed = server.metric('uploads_total{event="sealed"}')
    run.report.check("was_used", "" if sealed == 4 else f"{sealed} uploads sealed")
    context(run, server, "wrong", wrong, {}, stayed="UNAVAILABLE", warnings=1,
                   saying=re.escape(server.address))
    address = f"{run.hosts.address(0)}:{free_port()}"
    with lying_node(run, address, server, "--next-version") as liar:
        others = dataclasses.replace(run, hosts=Others(run.hosts, [liar.pid]))
        context(others, server, "version", server.secret, {"spark.bigcast.servers": address},
                stayed="UNAVAILABLE", warnings=1,
                saying=r"UNSUPPORTED: .+: protocol version: the client speaks \d+, the node \d+")
    run.report.check("refusals_counted",
                     "" if server.metric("login_failures_total") else "no login failure counted")
    run.report.check("server_ends", server.ended_badly())
    text = sparks.read(server.log)
    leaks = [file.name for file in (server.secret, key, wrong) if sparks.read(file) in text]
    run.report.check("server_log_has_no_secret", leaks)


def write_key(file, secret, name_space="spark"):
    """A client's secret that opens one namespace only."""
    file.touch(mode=0o600)
    file.write_text(namespace_key(sparks.read(secret), name_space), encoding="utf-8")
    return file


def start_servers(run, count, with_disks=False):
    """Nodes that have one secret. Those with disks say in their logs who logs in, and give clients
    longer to come back."""
    nodes = []
    for i in range(count):
        folder = run.work / f"server-{i}"
        folder.mkdir()
        disk = {"more": ("--disk", str(folder), "--disk-size", "256m", "--log-level", "debug"),
                "grace": "5s"} if with_disks else {}
        nodes.append(Server(dataclasses.replace(run, work=folder), run.hosts,
                            secret=nodes[0].secret if nodes else None, **disk))
    return nodes


def two_homes(run):
    """A broadcast's chunks are spread over two nodes, and read from both."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    first, second = start_servers(run, 2)
    both = dataclasses.replace(run, hosts=Others(run.hosts, [second.process.pid]))
    context(both, first, "homes", first.secret,
            {"spark.bigcast.servers": f"{first.address}, {second.address}",
             "spark.bigcast.homes": "2", "spark.bigcast.chunkSize": "1m"},
            located=False, expected=2)
    for name, server in (("first", first), ("second", second)):
        sealed = server.metric('uploads_total{event="sealed"}')
        run.report.check(f"{name}_was_used", "" if sealed == 2 else f"{sealed} uploads sealed")
        run.report.check(f"{name}_is_freed", server.still_held())
        run.report.check(f"{name}_ends", server.ended_badly())


def server_killed(run):
    """The only node dies after an upload and before it is read: Spark's own broadcast takes over, if
    the driver has the value, and what then can't be freed holds up nobody."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    with strike(run, "auto", 1, {}) as job:
        job.do("make", "kept", 8)
        job.do("relation", "dropped", 8)
        job.do("forget", "dropped", "gone")
        job.kill(0)
        job.check("kept", "equal")
        job.check("dropped", r"java\.io\.IOException|BigcastException: .*driver\.keepValue")
        job.replaced = {"replacedByTorrent": 1}
        for name in ("kept", "dropped"):
            job.do("unpersist", name)
            job.do("destroy", name)
    with strike(run, "always", 1, {"spark.bigcast.driver.keepValue": "always"}) as job:
        job.do("relation", "relation", 8)
        job.do("forget", "relation", "kept")
        job.kill(0)
        job.check("relation", "equal")
        job.check("relation", "equal", "value")
        job.replaced = {"replacedByTorrent": 1}


def executor_without_secret(run):
    """An executor's host has no secret any more, so that it reaches no node; the driver does, and
    uploads again for nothing. One read comes to Spark's own broadcast all the same: a task that fails
    would fail the job."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    with strike(run, "missing", 1, {"spark.bigcast.prefetch": "lazy",
                                    "spark.task.maxFailures": "1"}) as job:
        job.do("make", "value", 8)
        job.servers[0].secret.unlink()
        job.check("value", "equal")
        job.replaced = {"replacedByUpload": 2, "replacedByTorrent": 1}
        job.do("destroy", "value")
        job.kill(0)


def replica_reads_on(run):
    """The first of two homes dies after an upload and before it is read: the other is read, though the
    driver could not upload again: it has kept no value, or dropped it, or it has changed since. What
    is on their disks is waited for when the other dies, too, and read when it is back; and the driver
    comes back to it of its own accord, and frees what was destroyed meanwhile."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    replicas = {"spark.bigcast.replicas": "2"}
    never = {"spark.bigcast.durability": "disk", "spark.bigcast.driver.keepValue": "never"}
    with strike(run, "never", 2, replicas | never, with_disks=True) as job:
        job.do("make", "value", 8)
        job.do("make", "late", 8)
        job.do("join", "join")
        job.do("forget", "late", "gone")
        job.do("forget", "value", "gone")  # and the join's relation with it
        job.check("value", "equal", "value")
        job.kill(0)
        job.check("value", "equal")
        job.check("join", "equal")
        job.kill(1)
        job.do("read", "late")
        job.await_line("broadcast .* is on its home's disk alone")
        job.begin("value", "late")
        job.await_line("the driver waits for the home of broadcast")
        job.restart(1)
        job.finish()
        job.check("late", "equal", "result")
        job.check("late", "equal", "value")
        job.rereads = 3  # these two, and by Spark when it plans the join anew
        held = job.servers[1].metric("blobs")
        job.kill(1)
        job.do("destroy", "value")
        job.restart(1)
        run.report.check("driver_attaches_again", wait_for(
            lambda: "session of spark-driver" in sparks.read(job.servers[1].log),
            lambda: "no session of the driver's"))
        # It had that on its disk. The driver and its lease live on, so nobody but the driver frees it.
        run.report.check("destroyed_in_an_outage", wait_for(
            lambda: job.servers[1].metric("blobs") < held,
            lambda: f"{held} blobs, then {job.servers[1].metric('blobs')}"))
    with strike(run, "auto", 2, replicas) as job:
        job.do("make", "changed", 8)
        job.do("change", "changed")
        job.do("relation", "dropped", 8)
        job.do("forget", "dropped", "gone")
        job.kill(0)
        job.check("changed", "equal")
        job.check("dropped", "equal")


class Strike:
    """A FaultsJob on running nodes, the first of which is killed."""

    def __init__(self, run, servers, commands, staying):
        self.report, self.servers, self.commands = run.report, servers, commands
        self.do, self.begin, self.finish = commands.do, commands.begin, commands.finish
        self.staying = staying
        self.replaced = {}
        self.rereads = 0

    def kill(self, which):
        self.servers[which].kill()

    def restart(self, which):
        self.servers[which].start()
        self.staying.add(self.servers[which].process.pid)

    def await_line(self, pattern):
        """Waits until the driver has logged it."""
        log = self.commands.area.log
        if problem := wait_for(lambda: re.search(pattern, sparks.read(log)),
                               lambda: f"the driver did not log {pattern!r}"):
            raise RuntimeError(problem)

    def check(self, name, good, command="read"):
        """The result of a job that reads it, or (command "value") of the driver, matches."""
        commands = self.commands
        found = commands.read(name) if command == "read" else commands.result(name, command)
        self.report.check(f"{name}_{command}", "" if re.search(good, found) else found)


@contextlib.contextmanager
def strike(run, name, count, more, with_disks=False):
    """Starts so many nodes and a job on them; looks at the end what it counted and left."""
    with run.report.under(name):
        work = run.work / name
        work.mkdir()
        run = dataclasses.replace(run, work=work)
        servers = start_servers(run, count, with_disks)
        area = run.area()
        # Soft references go with the next collection.
        conf = area.conf(run.jar, {
            "spark.bigcast.servers": ", ".join(server.address for server in servers),
            "spark.bigcast.secret.file": str(servers[0].secret),
            "spark.bigcasttest.executors": "1",
        } | more, java="-XX:SoftRefLRUPolicyMSPerMB=0")
        argv = area.submit("local-cluster[1,1,1024]", conf, "FaultsJob")
        staying = {server.process.pid for server in servers[1:]}
        watch = Watch(Others(run.hosts, staying))
        commands = Commands(area, [watch], functools.partial(run.hosts.start, 0, argv))
        job = Strike(run, servers, commands, staying)
        yield job
        counted = nonzero(job.commands.since())
        run.report.check("replaced", "" if job.replaced == {
            each: many for each, many in counted.items() if each.startswith("replacedBy")}
            else f"{counted}")
        rereads = counted.get("driverRereads", 0)
        good = rereads >= job.rereads if job.rereads else not rereads
        run.report.check("rereads_counted", "" if good else f"{counted}")
        run.report.check("exit", job.commands.ended_badly())
        run.report.check("nothing_left", watch.left())
        for server in servers[1:]:
            started = server.metric('uploads_total{event="started"}')
            run.report.check("one_upload", "" if not started else f"{started} at the second home")
            run.report.check("freed", server.still_held())
            run.report.check("ends", server.ended_badly())


def driver_killed(run):
    """SIGKILL for a driver that has a broadcast at a node and is in the middle of sending another: both
    go after the grace, and what another application has there stays."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    server = Server(run, run.hosts)
    area = run.area()
    sys.path.insert(0, str(unpacked_package(run, area)))
    import bigcast

    theirs = os.urandom(3 << 20)
    other = bigcast.connect(server.address, secret_file=str(server.secret), namespace="other",
                            lease=secrets.token_hex(16))
    ref = other.put("theirs", theirs, compress=False)
    wait_for(lambda: server.metric("leases") == 1, lambda: "")
    alone = server.holds()
    conf = area.conf(run.jar, {
        "spark.bigcast.servers": server.address,
        "spark.bigcast.secret.file": str(server.secret),
        "spark.bigcasttest.executors": "1",
        "spark.bigcasttest.megabytes": "8",
        "spark.bigcasttest.halting": "true",
    })
    argv = area.submit("local-cluster[1,1,1024]", conf, "StepJob")
    watch = Watch(Others(run.hosts, [server.process.pid]))
    steps = Steps(area, [watch], functools.partial(run.hosts.start, 0, argv))
    problem = ""
    for step in ("ready", "made"):
        problem = problem or steps.wait(step)
        steps.go_on()
    problem = problem or steps.wait("half")
    both = alone["store_used_bytes"] + (9 << 20)
    problem = problem or wait_for(lambda: server.metric("store_used_bytes") > both,
                                  lambda: f"{alone}, then {server.holds()}")
    os.kill(steps.process.pid, signal.SIGKILL)
    steps.end()
    run.report.check("had_both", problem)
    run.report.check("nothing_left", watch.left() + files_left([area.local, area.tmp]))
    run.report.check("freed", wait_for(lambda: server.holds() == alone,
                                       lambda: f"{alone} became {server.holds()}"))
    run.report.check("others_stay", "" if other.get(ref) == theirs else "their bytes are others")
    other.close()
    run.report.check("all_freed", server.still_held())
    run.report.check("server_ends", server.ended_badly())


def rolling_restart(run):
    """Three nodes are restarted one after the other, as an upgrade does, under a job that goes on
    broadcasting and reading: no task fails, and no broadcast is left to Spark."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    nodes = start_servers(run, 3)
    area = run.area()
    stop = area.folder / "stop"
    conf = area.conf(run.jar, {
        "spark.bigcast.servers": ", ".join(node.address for node in nodes),
        "spark.bigcast.secret.file": str(nodes[0].secret),
        "spark.bigcasttest.executors": "1",
        "spark.bigcasttest.stop": str(stop),
        "spark.task.maxFailures": "1",  # one would fail the job
    })
    argv = area.submit("local-cluster[1,1,1024]", conf, "RollingJob")
    watch = Watch(run.hosts)
    job = Steps(area, [watch], functools.partial(run.hosts.start, 0, argv))

    def rounds():
        return sparks.read(area.out).count("STEP round-")

    def more(count):
        """Waits for so many rounds that begin after now."""
        return job.wait(f"round-{rounds() + 1 + count}")

    problem = more(1)
    for i, node in enumerate(nodes):
        run.report.check(f"node_{i}_ends", node.ended_badly())
        problem = problem or more(1)
        node.start()
        problem = problem or more(1)
    stop.touch()
    run.report.check("exit", job.ended_badly(problem))
    output = sparks.read(area.out)
    run.report.cases(output)
    counted = counters(output)
    good = (counted.get("offloaded") == rounds() + 1 and counted.get("replacedByUpload", 0) >= 2
            and not counted.get("replacedByTorrent"))
    run.report.check("all_through_bigcast", "" if good else f"{rounds()} rounds, {nonzero(counted)}")
    held = [held for node in nodes if (held := node.still_held() or node.ended_badly())]
    run.report.check("nothing_left", held + watch.left())


def context(run, server, name, secret, conf, **expectations):
    work = run.work / name
    work.mkdir()
    with run.report.under(name):
        inner = dataclasses.replace(run, work=work, hosts=Others(run.hosts, [server.process.pid]))
        done = small(inner, {"spark.bigcast.servers": server.address,
                             "spark.bigcast.secret.file": str(secret)} | conf, **expectations)
        if expectations.get("expected"):
            check_start(run, done[0],
                        "shared mode: broadcasts of 1048576 bytes and more leave the driver, encrypted")
        logs = done[0].text_of_logs()
        run.report.check("secret_is_secret", [str(file) for file, text in logs.items()
                                              if sparks.read(secret) in text])
