"""The Spark contexts that the tests run in, one function each, and what must hold around them."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
import zipfile

import spark as sparks
from report import counters, nonzero
from watch import Watch, files_left

JAVA = "org.apache.spark.serializer.JavaSerializer"
KRYO = "org.apache.spark.serializer.KryoSerializer"
CASES_TIMEOUT_S = 420
SMALL_TIMEOUT_S = 150


@dataclasses.dataclass
class Run:
    """What a combination gets: where to run, what to report to, which cases."""

    spark: sparks.Spark
    hosts: object
    report: object
    work: pathlib.Path
    jar: pathlib.Path  # None: plain Spark, to check the tests themselves
    case_filter: str

    def area(self, name="app", address="127.0.0.1"):
        return sparks.Area(self.spark, self.work / name, address)


def execute(run, area, argv, timeout_s):
    """Runs an application to its end; returns its Watch. Reports what its end was like."""
    watch = Watch(run.hosts)
    with open(area.out, "w", encoding="utf-8") as out, open(area.log, "w", encoding="utf-8") as log:
        process = run.hosts.start(0, argv, env=area.environment(), stdout=out, stderr=log)
        deadline = time.monotonic() + timeout_s
        looked = 0
        while process.poll() is None and time.monotonic() < deadline:
            if time.monotonic() - looked > 1:
                watch.look()
                looked = time.monotonic()
            time.sleep(0.1)
    if process.poll() is None:
        process.kill()
        run.report.check("exit", f"not ended after {timeout_s} s")
    else:
        run.report.check("exit", f"code {process.returncode}" if process.returncode else "")
    return watch


def check_end(run, area, watch, warnings=0, saying="", where="driver"):
    """No process, socket or file is left; the plugin logged no error and only what it should."""
    left = watch.left()
    run.report.check("nothing_left", left + files_left([area.local, area.tmp]))
    problems = []
    given = []
    for log in (area.log, *area.executor_logs()):
        text = sparks.read(log)
        problems += sparks.own_lines(text, "ERROR")
        found = sparks.own_lines(text, "WARN")
        if log == area.log:
            given = found
        else:
            problems += found
    if len(given) != warnings or not all(re.search(saying, line) for line in given):
        expected = f"{warnings} warnings" + (f" that say {saying!r}" if saying else "")
        problems.append(f"{expected} on the driver expected, got {given}")
    run.report.check("log", problems)


def full(run, conf):
    """All RDD, SQL and life-cycle cases in one local cluster of two executors."""
    area = run.area()
    settings = {
        "spark.bigcasttest.executors": "2",
        "spark.bigcasttest.filter": run.case_filter,
        "spark.bigcasttest.settings": str(area.settings),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{area.events}",
        "spark.eventLog.compress": "false",
        "spark.driver.memory": "1g",
    }
    if run.jar:
        settings["spark.bigcast.node.memory"] = "64m"
    argv = area.submit("local-cluster[2,1,1024]", area.conf(run.jar, settings | conf), "Main")
    watch = execute(run, area, argv, CASES_TIMEOUT_S)
    run.report.cases(sparks.read(area.out))
    check_end(run, area, watch)
    if run.jar:
        run.report.check("one_node", "" if len(watch.nodes) == 1 else f"nodes {watch.nodes}")
        check_secret(run, area, watch)


def check_secret(run, area, watch):
    """The application's secret is in no log, event log or command line."""
    settings = dict(line.partition("=")[::2] for line in sparks.read(area.settings).splitlines())
    area.settings.unlink(missing_ok=True)
    found = {key: value for key, value in settings.items() if "secret" in key.lower() and value}
    problems = [] if found else [f"executors were told no secret, only {sorted(settings)}"]
    events = "\n".join(sparks.read(file) for file in area.events.rglob("*") if file.is_file())
    for key, secret in found.items():
        problems += [f"in {file}" for file, text in area.text_of_logs().items() if secret in text]
        problems += [f"in the command line {line[:80]}" for line in watch.command_lines
                     if secret in line]
        shown = re.search(rf'"{re.escape(key)}":"([^"]*)"', events)
        if shown and "redacted" not in shown.group(1):
            problems.append(f"{key} is not redacted in the event log")
    if "SparkListenerEnvironmentUpdate" not in events:
        problems.append("the event log shows no environment")
    run.report.check("secret_is_secret", problems)


def java_min0(run):
    full(run, {"spark.serializer": JAVA, "spark.bigcast.minSize": "0",
               "spark.shuffle.mapOutput.minSizeForBroadcast": "0"})


def kryo_defaults(run):
    full(run, {"spark.serializer": KRYO, "spark.kryoserializer.buffer.max": "256m"})


def pyspark_min0(run):
    area = run.area()
    conf = area.conf(run.jar, {"spark.bigcast.minSize": "0", "spark.bigcasttest.filter":
                               run.case_filter})
    argv = area.submit("local-cluster[2,1,1024]", conf, sparks.HERE / "python" / "cases.py")
    watch = execute(run, area, argv, CASES_TIMEOUT_S)
    run.report.cases(sparks.read(area.out))
    check_end(run, area, watch)


def small(run, conf, warnings=0, saying="", stayed=None, expected=0, wrapper=(), jars=(),
          java=""):
    """A small job under special settings.

    `expected` broadcasts must go to Bigcast; if none, `stayed` is why they are with Torrent. The
    driver must give this number of warnings, each `saying` that. `wrapper` is a command to run
    the job by; `jars` go to --jars; `java` are options for each JVM."""
    area = run.area()
    conf = area.conf(run.jar, {"spark.bigcasttest.executors": "1"} | conf, java)
    argv = [*wrapper, *area.submit("local-cluster[1,1,1024]", conf, "SmallJob", jars)]
    watch = execute(run, area, argv, SMALL_TIMEOUT_S)
    output = sparks.read(area.out)
    run.report.cases(output)
    if not run.jar:
        check_end(run, area, watch)
        return area, watch
    counted = counters(output)
    problems = []
    if counted.get("offloaded") != expected:
        problems.append(f"offloaded: expected {expected}, got {counted.get('offloaded')}")
    if counted.get("executors.reads") != expected:
        problems.append(f"executors' reads: expected {expected}, got {nonzero(counted)}")
    if counted.get("removed") != expected:
        problems.append(f"removed: expected {expected}, got {counted.get('removed')}")
    if stayed and counted.get(f"delegated.{stayed}", 0) < 2:
        problems.append(f"{stayed} expected as the reason, got {nonzero(counted)}")
    run.report.check("path", problems)
    check_end(run, area, watch, warnings, saying)
    return area, watch


def defaults(run):
    """Two large ones go to Bigcast, the tiny one stays; a misspelt setting is told."""
    small(run, {"spark.bigcast.nodeMemory": "1g"}, expected=2, warnings=1,
          saying=r"spark\.bigcast\.nodeMemory", java="-Xcheck:jni")


def two_contexts(run):
    """One after the other in one driver: Spark's broadcast ids start again, nothing else does."""
    small(run, {"spark.bigcasttest.contexts": "2"}, expected=4)


def switched_off(run):
    no_node(run, small(run, {"spark.bigcast.enabled": "false"}))


def no_node(run, done):
    if done:
        nodes = done[1].any_node
        run.report.check("no_node", f"processes {nodes}" if nodes else "")


def encryption(run):
    """Spark's own encryption is on: nothing may leave it. Said once."""
    no_node(run, small(run, {"spark.io.encryption.enabled": "true"}, stayed="ENCRYPTED",
                       warnings=1, saying=r"spark\.io\.encryption\.enabled"))


def bad_setting(run):
    no_node(run, small(run, {"spark.bigcast.port": "lots"}, warnings=1,
                       saying=r"spark\.bigcast\.port.*lots"))


def by_jars(run):
    """The plugin only in --jars, which parts of Spark don't look into: works, and is told."""
    small(run, {"spark.driver.extraClassPath": None, "spark.executor.extraClassPath": None},
          jars=[run.jar] if run.jar else [], warnings=1, saying="class path", expected=2)


def no_native_directory(run):
    no_node(run, small(run, {"spark.bigcast.native.dir": "/proc/nope"}, stayed="UNAVAILABLE",
                       warnings=1, saying="/proc/nope"))


def native_directory_noexec(run):
    """In a mount namespace of its own, where the directory is on a file system without exec."""
    folder = run.work / "noexec"
    folder.mkdir()
    wrapper = ["unshare", "--mount", "sh", "-c",
               f"mount -t tmpfs -o noexec none {folder} && exec \"$@\"", "sh"]
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        run.report.skip("all", "mount namespaces are not permitted")
        return
    no_node(run, small(run, {"spark.bigcast.native.dir": str(folder)}, stayed="UNAVAILABLE",
                       warnings=1, saying=r"spark\.bigcast\.native\.dir", wrapper=wrapper))


def foreign_native_library(run):
    """A library of another machine's architecture in the jar."""
    if run.jar:
        header = b"\x7fELF\2\1\1" + bytes(9) + b"\3\0" + b"\xb7\0" + b"\1" + bytes(43)  # aarch64
        foreign = run.work / "foreign.jar"
        with zipfile.ZipFile(run.jar) as good, zipfile.ZipFile(foreign, "w") as bad:
            for item in good.infolist():
                content = header if item.filename.endswith("_jni.so") else good.read(item)
                bad.writestr(item, content)
        run = dataclasses.replace(run, jar=foreign)
    no_node(run, small(run, {}, stayed="UNAVAILABLE", warnings=1, saying="native library"))


def write_secret(file, mode=0o600):
    file.write_text(secrets.token_hex(32), encoding="utf-8")
    file.chmod(mode)
    return file


def unreachable(run):
    secret = write_secret(run.work / "secret")
    small(run, {"spark.bigcast.servers": "127.0.0.1:1", "spark.bigcast.secret.file": str(secret)},
          stayed="UNAVAILABLE", warnings=1, saying=r"127\.0\.0\.1:1\b")


def secret_world_readable(run):
    secret = write_secret(run.work / "secret", 0o644)
    small(run, {"spark.bigcast.servers": "127.0.0.1:1", "spark.bigcast.secret.file": str(secret)},
          stayed="UNAVAILABLE", warnings=1, saying=re.escape(str(secret)))


class Server:
    """A bigcastd that a test started for the shared mode."""

    def __init__(self, run):
        self.secret = write_secret(run.work / "server-secret")
        self.port, self.http = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = run.work / "bigcastd.log"
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = run.hosts.start(0, [
                str(program(run)), "--listen", self.address, "--http", f"127.0.0.1:{self.http}",
                "--memory", "256m", "--secret-file", str(self.secret), "--lease-grace", "2s",
            ], stdout=log, stderr=log)
        self.wait_until_ready()

    def wait_until_ready(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=5):
                    return
            time.sleep(0.1)
        raise RuntimeError(f"bigcastd is not ready: {sparks.read(self.log)[-2000:]}")

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def blobs(self):
        """How many blobs the node holds."""
        found = re.search(r"^bigcast_\w*blobs(?:{[^}]*})? (\S+)$", self.metrics(), re.MULTILINE)
        return float(found.group(1)) if found else None

    def stop(self):
        """Ends it as an operator would; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "none within 60 s"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(run):
    """The bigcastd that is in the jar."""
    target = run.work / "bigcastd"
    if not target.exists():
        with zipfile.ZipFile(run.jar) as jar:
            name = next(name for name in jar.namelist() if name.endswith("/bigcastd"))
            target.write_bytes(jar.read(name))
        target.chmod(0o700)
    return target


def shared(run):
    """Two contexts on one running node: with its secret, and with a wrong one."""
    if not run.jar:
        run.report.skip("all", "means nothing on plain Spark")
        return
    server = Server(run)
    wrong = write_secret(run.work / "wrong-secret")
    shared_context(run, server, "right", server.secret, expected=2)
    run.report.check("freed", wait_for(lambda: server.blobs() == 0,
                                       lambda: f"blobs {server.blobs()}"))
    shared_context(run, server, "wrong", wrong, stayed="UNAVAILABLE", warnings=1,
                   saying=re.escape(server.address))
    run.report.check("server_ends", "" if (code := server.stop()) == 0 else f"exit code {code}")
    text = sparks.read(server.log)
    leaks = [file.name for file in (server.secret, wrong) if sparks.read(file) in text]
    run.report.check("server_log_has_no_secret", leaks)


def shared_context(run, server, name, secret, **expectations):
    report = run.report
    prefix = report.prefix
    work = run.work / name
    work.mkdir()
    report.prefix = f"{prefix}/{name}"
    try:
        inner = dataclasses.replace(run, work=work, hosts=Others(run.hosts, [server.process.pid]))
        done = small(inner, {"spark.bigcast.servers": server.address,
                             "spark.bigcast.secret.file": str(secret)}, **expectations)
        logs = done[0].text_of_logs()
        report.check("secret_is_secret", [str(file) for file, text in logs.items()
                                          if sparks.read(secret) in text])
    finally:
        report.prefix = prefix


class Others:
    """Hosts without the processes that are expected to stay."""

    def __init__(self, hosts, staying):
        self._hosts, self._staying = hosts, frozenset(staying)

    def __getattr__(self, name):
        return getattr(self._hosts, name)

    def pids(self, host):
        return [pid for pid in self._hosts.pids(host) if pid not in self._staying]


def wait_for(condition, why_not, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return why_not()
        time.sleep(0.2)
    return ""


class Steps:
    """A StepJob that runs, whose steps the caller waits for and lets go on. `start` starts it."""

    def __init__(self, area, watches, start):
        self.area = area
        self.watches = watches
        with open(area.out, "w", encoding="utf-8") as out, \
                open(area.log, "w", encoding="utf-8") as log:
            self.process = start(env=area.environment(), stdout=out, stderr=log,
                                 stdin=subprocess.PIPE)

    def wait(self, step, timeout_s=SMALL_TIMEOUT_S):
        """Waits for the step; '' or why it did not come."""
        line = f"STEP {step}"

        def there():
            for watch in self.watches:
                watch.look()
            return line in sparks.read(self.area.out).splitlines() or self.process.poll() is not None

        wait_for(there, lambda: "", timeout_s)
        return "" if line in sparks.read(self.area.out).splitlines() else f"no {line!r}"

    def go_on(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()

    def end(self, timeout_s=SMALL_TIMEOUT_S):
        """Waits for the exit and returns its code."""
        self.process.stdin.close()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return f"none within {timeout_s} s"


def driver_killed(run):
    """SIGKILL for the driver while its broadcast is in use: its node goes after the grace."""
    area = run.area()
    conf = area.conf(run.jar, {"spark.bigcasttest.executors": "1",
                               "spark.bigcasttest.megabytes": "32"})
    argv = area.submit("local-cluster[1,1,1024]", conf, "StepJob")
    watch = Watch(run.hosts)
    steps = Steps(area, [watch], functools.partial(run.hosts.start, 0, argv))
    problem = steps.wait("ready")
    steps.go_on()
    problem = problem or steps.wait("made")
    run.report.check("runs", problem)
    if run.jar:
        run.report.check("has_a_node", "" if watch.nodes else "no bigcastd seen")
    os.kill(steps.process.pid, signal.SIGKILL)
    steps.end()
    run.report.check("nothing_left", watch.left() + files_left([area.local]))
