"""A browser without a window, told what to do over a pipe by the protocol of its developer tools."""

import fcntl
import json
import os
import shutil
import subprocess
import time

ANSWER_S = 120
FREE_FROM = 10  # descriptors that the shell below can still move to where the browser wants them


def available():
    return shutil.which("chromium") is not None


class Browser:
    """One page at a time. End it with `end`."""

    def __init__(self, folder):
        ours_out, theirs_in, ours_in, theirs_out = _pipes()
        self._out, self._in = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb", 0)
        self._said = b""
        self._asked = 0
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-',
             "bash", shutil.which("chromium"), "--headless", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
             f"--user-data-dir={folder}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out))
        os.close(theirs_in)
        os.close(theirs_out)
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._ask("Target.attachToTarget",
                                  {"targetId": target, "flatten": True})["sessionId"]

    def _ask(self, method, parameters, session=None):
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._out.write(json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            while b"\0" not in self._said:
                piece = self._in.read(1 << 16)
                if not piece:
                    raise AssertionError("the browser has ended")
                self._said += piece
            line, _, self._said = self._said.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._asked:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
        raise AssertionError(f"{method}: no answer")

    def call(self, method, **parameters):
        """A method of the protocol, for the page."""
        return self._ask(method, parameters, self._session)

    def look(self, width, height=900, scheme="light"):
        """What the window is like, and which colours its user prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url):
        self.call("Page.navigate", url=url)

    def value(self, expression):
        """A JavaScript expression's value on the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def end(self):
        self._out.close()  # which ends it
        try:
            self._process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._in.close()


def _pipes():
    """Two pipes: where we write and they read, and where we read and they write."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    moved = []
    for fd in (ours_out, theirs_in, ours_in, theirs_out):
        moved.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FREE_FROM))
        os.close(fd)
    return moved
