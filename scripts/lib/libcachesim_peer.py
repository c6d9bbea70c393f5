"""libCacheSim as an oracle for the eviction bench: what its policies miss on a trace.

    PEER_PYTHON libcachesim_peer.py    (jobs as JSON lines on standard input, answers likewise)

PEER_PYTHON is that of a virtual environment with PyPI's libcachesim (GPLv3: run, never linked,
copied or shipped); all else runs without it.
"""

import json
import os
import pathlib
import subprocess
import sys

VERSION = "0.3.5"


def python():
    """A Python with libcachesim, made below the cache folder if need be; None if that fails."""
    cache = os.environ.get("BIGCAST_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bigcast"
    )
    venv = pathlib.Path(cache) / f"libcachesim-{VERSION}"
    program = venv / "bin" / "python"
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True}
    for argv in (
        [program, "-c", "import libcachesim"],
        [sys.executable, "-m", "venv", venv],
        [program, "-m", "pip", "install", "--quiet", f"libcachesim=={VERSION}"],
        [program, "-c", "import libcachesim"],
    ):
        try:
            works = subprocess.run(argv, timeout=300, check=False, **quiet).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            works = False
        if argv[1] == "-c" and works:
            return program
        if argv[1] == "-m" and not works:
            return None
    return None


class Peer:
    """Runs jobs in one process of the Python above."""

    def __init__(self, program):
        self._process = subprocess.Popen(
            [program, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def miss_ratios(self, trace, policy, capacity, unit_size):
        """(object, byte) of a trace in oracleGeneral form."""
        job = {"trace": str(trace), "policy": policy, "capacity": capacity, "unit": unit_size}
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return tuple(json.loads(self._process.stdout.readline()))

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the library's log is no answer
    import libcachesim as lib

    policies = {
        "fifo": lib.FIFO,
        "lru": lib.LRU,
        "clock": lib.Clock,
        "sieve": lib.Sieve,
        "s3fifo": lib.S3FIFO,
        "arc": lib.ARC,
        "gdsf": lib.GDSF,
    }
    for line in sys.stdin:
        job = json.loads(line)
        reader = lib.TraceReader(
            job["trace"],
            lib.TraceType.ORACLE_GENERAL_TRACE,
            lib.ReaderInitParam(ignore_obj_size=job["unit"]),
        )
        ratios = policies[job["policy"]](job["capacity"]).process_trace(reader)
        print(json.dumps(ratios), file=answers, flush=True)


if __name__ == "__main__":
    main()
