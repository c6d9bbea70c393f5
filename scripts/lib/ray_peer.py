"""Ray as a peer of the fan-out bench: ray.put on one host, ray.get on all others.

    RAY_PYTHON ray_peer.py ADDRESS SIZE READER_ADDRESS...    (the driver, started by RayCluster)

RAY_PYTHON is a Python that has PyPI's ray and numpy; all else runs without them.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

PORT = 6379
START_S = 180
STARTED = b"Ray runtime started"
MEBI = 1 << 20


def python():
    """A Python with Ray: $BIGCAST_RAY_PYTHON, or that of the folder 'ray' in the cache."""
    cache = os.environ.get("BIGCAST_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bigcast"
    )
    return os.environ.get("BIGCAST_RAY_PYTHON") or os.path.join(cache, "ray", "bin", "python")


def available():
    """'' if Ray can be run, else why not and what to do."""
    found = os.access(python(), os.X_OK) and subprocess.run(
        [python(), "-c", "import numpy, ray"], stdin=subprocess.DEVNULL, capture_output=True
    ).returncode == 0
    if found:
        return ""
    venv = pathlib.Path(python()).parent.parent
    return (
        f"{python()} has no ray and numpy; python3 -m venv {venv} && "
        f"{venv}/bin/pip install ray numpy"
    )


class RayCluster:
    """A Ray node on each of the hosts, the driver on host 0; hosts ends all of it."""

    def __init__(self, hosts, size, scratch):
        self._logs = [scratch / "ray-driver.log"]
        env = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
        store = max(2 * size, 128 * MEBI)
        head = f"{hosts.address(0)}:{PORT}"
        for host in range(hosts.count):
            argv = [python(), "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
            argv += [f"--node-ip-address={hosts.address(host)}", f"--object-store-memory={store}"]
            if host == 0:
                argv += ["--head", f"--port={PORT}", "--include-dashboard=false"]
                argv += ["--disable-usage-stats", f"--temp-dir={scratch / 'ray'}"]
            else:
                argv += [f"--address={head}"]
            # In turn: on one file system, nodes that start together take the same socket's name.
            self._start_node(hosts, host, argv, env, scratch / f"ray-{host}.log")
        readers = [hosts.address(host) for host in range(1, hosts.count)]
        with open(self._logs[0], "wb") as log:
            self._driver = hosts.start(
                0, [python(), __file__, head, str(size), *readers], env=env,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )
        self._answer()

    def _start_node(self, hosts, host, argv, env, log_path):
        self._logs.append(log_path)
        with open(log_path, "wb") as log:
            process = hosts.start(host, argv, env=env, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while STARTED not in log_path.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                self._fail(f"its node on host {host} did not start")
            time.sleep(0.1)

    def _answer(self):
        line = self._driver.stdout.readline()
        if not line.startswith("{"):
            self._fail(f"its driver said {line!r}")
        return json.loads(line)

    def _fail(self, what):
        for path in self._logs:
            if path.exists():
                sys.stderr.write(path.read_bytes()[-2000:].decode(errors="replace"))
        raise SystemExit(f"ray: {what}")

    def run(self):
        """Puts a new object, and has every reader get it; the seconds until the last one has."""
        self._driver.stdin.write("run\n")
        self._driver.stdin.flush()
        return self._answer()["seconds"]


def drive(address, size, readers):
    """The driver: a run for each line of standard input."""
    import numpy
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address=address, log_to_driver=False)
    deadline = time.monotonic() + START_S
    while True:
        alive = [node for node in ray.nodes() if node["Alive"]]
        nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in alive}
        if all(reader in nodes for reader in readers):
            break
        if time.monotonic() > deadline:
            raise SystemExit("not all Ray nodes came")
        time.sleep(0.2)

    @ray.remote(num_cpus=0)
    class Reader:
        def read(self, references):
            return int(ray.get(references[0]).sum())

        def ready(self, references):
            return len(ray.get(references[0]))

    actors = [
        Reader.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[reader], soft=False)
        ).remote()
        for reader in readers
    ]
    warm = ray.put(numpy.zeros(MEBI, numpy.uint8))
    ray.get([actor.read.remote([warm]) for actor in actors])
    data = numpy.random.default_rng().integers(0, 256, size, numpy.uint8)
    expected = int(data.sum())
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        started = time.monotonic()
        reference = ray.put(data)
        ray.get([actor.ready.remote([reference]) for actor in actors])
        seconds = time.monotonic() - started
        sums = ray.get([actor.read.remote([reference]) for actor in actors])
        if any(found != expected for found in sums):
            raise SystemExit("a Ray reader got other bytes")
        del reference
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    drive(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
