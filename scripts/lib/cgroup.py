"""Cgroups of our own, version 1 or 2: what all processes in one are charged, and limits for them."""

import contextlib
import os
import pathlib
import signal
import threading
import time

INTERVAL_S = 0.02
END_TIMEOUT_S = 60
PREFIX = "bigcast-bench-"
_V2 = {"blkio": "io"}  # controllers that have another name there


def _mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            yield before.split()[4], kind, options.split(",")


def _parent(controller):
    """The folder to make the cgroup in, and its version; None without the controller."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = {c: path for _, c, path in (line.rstrip().split(":", 2) for line in file)}
    for mount, kind, options in _mounts():
        if kind == "cgroup" and controller in options:
            path = next((p for c, p in own.items() if controller in c.split(",")), "/")
        elif kind == "cgroup2" and _V2.get(controller, controller) in _read(
            f"{mount}/cgroup.controllers"
        ).split():
            path = own.get("", "/")
        else:
            continue
        folder = pathlib.Path(mount + path)
        return (folder if folder.is_dir() else pathlib.Path(mount)), 1 if kind == "cgroup" else 2
    return None


def _read(path):
    try:
        return pathlib.Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


def _remove_leftovers(folder):
    """Removes the cgroups of runs that were killed before they could; one in use stays."""
    for path in folder.glob(f"{PREFIX}*"):
        if not pathlib.Path("/proc", path.name[len(PREFIX) :]).exists():
            with contextlib.suppress(OSError):
                path.rmdir()


class _Cgroup:
    """Use as a context manager, and run command(argv) in it.

    Leaving the block ends what is still running in it. A process can have one of a kind at a time.
    PermissionError or OSError from entering says that cgroups can't be made here."""

    controller = ""
    probe = ("", "")  # a file that each version has for the controller

    def __enter__(self):
        parent = _parent(self.controller)
        if parent is None:
            raise PermissionError(f"no {self.controller} cgroup controller is mounted")
        folder, self._version = parent
        _remove_leftovers(folder)
        self.path = folder / f"{PREFIX}{os.getpid()}"
        self.path.mkdir()
        try:
            if not (self.path / self.probe[self._version - 1]).exists():
                raise PermissionError(f"{folder} has no {self.controller} controller for children")
            self._begin()
        except OSError:
            self.path.rmdir()
            raise
        return self

    def _begin(self):
        pass

    def __exit__(self, *_):
        deadline = time.monotonic() + END_TIMEOUT_S
        while True:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                self.path.rmdir()
                return
            except OSError:  # EBUSY: a process that was killed takes a moment to be gone
                if time.monotonic() > deadline:
                    raise
            time.sleep(INTERVAL_S)

    def pids(self):
        return [int(pid) for pid in _read(self.path / "cgroup.procs").split()]

    def command(self, argv):
        enter = 'echo $$ >"$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.path / "cgroup.procs"), *argv]


class DiskCgroup(_Cgroup):
    """Whose processes write at most so many bytes a second to the disk that `path` is on.

    OSError, too, where that is no disk, as with an overlay."""

    controller = "blkio"
    probe = ("blkio.throttle.write_bps_device", "io.max")

    def __init__(self, path, bytes_per_s):
        device = os.stat(path).st_dev
        self._limit = f"{os.major(device)}:{os.minor(device)}", bytes_per_s

    def _begin(self):
        device, bytes_per_s = self._limit
        rate = f"wbps={bytes_per_s}" if self._version == 2 else bytes_per_s
        (self.path / self.probe[self._version - 1]).write_text(f"{device} {rate}", "ascii")


class MemoryCgroup(_Cgroup):
    """With a limit in bytes, if one is given; peak() is sampled every 20 ms."""

    controller = "memory"
    probe = ("memory.stat", "memory.stat")

    def __init__(self, limit=None):
        self._limit = limit
        self._peak = 0
        self._stop = threading.Event()

    def _begin(self):
        if self._limit is not None:
            name = "memory.limit_in_bytes" if self._version == 1 else "memory.max"
            (self.path / name).write_text(str(self._limit), "ascii")
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        super().__exit__(*error)

    def _charged(self):
        """Bytes charged, less page cache; pages of memfds are no cache."""
        stat = dict(line.split() for line in _read(self.path / "memory.stat").splitlines())
        if self._version == 1:
            used, cache, shmem = "memory.usage_in_bytes", "total_cache", "total_shmem"
        else:
            used, cache, shmem = "memory.current", "file", "shmem"
        usage = int(_read(self.path / used) or 0)
        return usage - int(stat.get(cache, 0)) + int(stat.get(shmem, 0))

    def _sample(self):
        while not self._stop.wait(INTERVAL_S):
            self._peak = max(self._peak, self._charged())

    def peak(self):
        return self._peak
