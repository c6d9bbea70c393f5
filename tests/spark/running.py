"""What combinations are made of: what each gets, applications that run to their end or step by step,
and what must hold at the end."""

import contextlib
import dataclasses
import functools
import pathlib
import re
import secrets
import subprocess
import time
import zipfile

import spark as sparks
from report import counters
from watch import Watch, files_left

CASES_TIMEOUT_S = 420
SMALL_TIMEOUT_S = 150
COMMAND_TIMEOUT_S = 120


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


def execute(run, area, argv, timeout_s, stdin=subprocess.DEVNULL):
    """Runs an application to its end; returns its Watch. Reports what its end was like."""
    watch = Watch(run.hosts)
    start = functools.partial(run.hosts.start, 0, argv, stdin=stdin)
    observe(run, area, start, watch, timeout_s)
    return watch


def observe(run, area, start, watch, timeout_s):
    """Starts an application by `start`, and watches it to its end."""
    with open(area.out, "w", encoding="utf-8") as out, open(area.log, "w", encoding="utf-8") as log:
        process = start(env=area.environment(), stdout=out, stderr=log)
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


def check_end(run, area, watch, warnings=0, saying=""):
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


class Others:
    """Hosts without the processes that are expected to stay, now and if more are added to them."""

    def __init__(self, hosts, staying):
        self._hosts, self._staying = hosts, staying

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
            there = line in sparks.read(self.area.out).splitlines()
            return there or self.process.poll() is not None

        wait_for(there, lambda: "", timeout_s)
        return "" if line in sparks.read(self.area.out).splitlines() else f"no {line!r}"

    def go_on(self):
        self.tell("go")

    def tell(self, command):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{command}\n".encode())
            self.process.stdin.flush()

    def end(self, timeout_s=SMALL_TIMEOUT_S):
        """Waits for the exit and returns its code."""
        self.process.stdin.close()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return f"none within {timeout_s} s"

    def ended_badly(self, problem=""):
        """Waits for the exit; the problem that there was before, or how it ended if not well."""
        code = self.end()
        return problem or (f"code {code}" if code else "")


class Commands(Steps):
    """A FaultsJob, which does as it is told."""

    def __init__(self, area, watches, start):
        super().__init__(area, watches, start)
        self.told = 0
        self.last = ""
        self.counted = {}

    def do(self, *command):
        """Gives a command and waits until it is done."""
        self.begin(*command)
        self.finish()

    def begin(self, *command):
        self.last = " ".join(map(str, command))
        self.tell(self.last)
        self.told += 1

    def finish(self):
        problem = wait_for(lambda: self.done() >= self.told or self.process.poll() is not None,
                           lambda: f"{self.last!r} is not done", COMMAND_TIMEOUT_S)
        if problem or self.done() < self.told:
            raise RuntimeError(problem or f"{self.last!r} ended the driver")

    def done(self):
        for watch in self.watches:
            watch.look()
        return len(re.findall("^STEP ", sparks.read(self.area.out), re.MULTILINE))

    def result(self, name, command="result"):
        self.do(command, name)
        return re.findall(rf"^RESULT {name} (.*)$", sparks.read(self.area.out), re.MULTILINE)[-1]

    def read(self, name):
        """What every executor makes of it."""
        self.do("read", name)
        return self.result(name)

    def since(self):
        """The counters' changes since the last call."""
        before = self.counted
        seen = len(sparks.read(self.area.out))
        self.do("counters")
        self.counted = counters(sparks.read(self.area.out)[seen:])
        return {name: count - before.get(name, 0) for name, count in self.counted.items()}


def write_secret(file, mode=0o600):
    file.write_text(secrets.token_hex(32), encoding="utf-8")
    file.chmod(mode)
    return file


def unpacked_package(run, area):
    """The Python package's folder."""
    [wheel] = run.jar.parent.glob("bigcast-*.whl")
    package = area.folder / "package"
    zipfile.ZipFile(wheel).extractall(package)
    return package
