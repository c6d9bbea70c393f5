"""A real Spark standalone cluster on Hosts: a master and the drivers on host 0, a worker on each other.

    with make_hosts(3) as hosts:
        cluster = Cluster(hosts, spark_home, work_dir, worker_cores=2, worker_memory="4g")
        process = cluster.submit(["--class", "Main", "app.jar"], {"spark.executor.memory": "1g"})

Leaving the block of the hosts ends the cluster. Standard library only.
"""

import os
import pathlib
import re
import socket
import subprocess
import time

START_TIMEOUT_S = 120


def _free_port(address):
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def compile_job(spark_home, source, work_dir, *others):
    """Compiles a Java source and others against this Spark's jars; returns the path of its jar.

    Jars among the others are only compiled against. JAVA_HOME must be set."""
    classes = pathlib.Path(work_dir) / "classes"
    classes.mkdir(parents=True, exist_ok=True)
    tools = os.path.join(os.environ["JAVA_HOME"], "bin")
    jars = [os.path.join(spark_home, "jars", "*")]
    jars += [str(other) for other in others if str(other).endswith(".jar")]
    sources = [source, *(other for other in others if not str(other).endswith(".jar"))]
    subprocess.run(
        [os.path.join(tools, "javac"), "-nowarn", "-cp", ":".join(jars), "-d", classes, *sources],
        check=True,
    )
    jar = classes.parent / f"{pathlib.Path(source).stem}.jar"
    subprocess.run([os.path.join(tools, "jar"), "cf", jar, "-C", classes, "."], check=True)
    return jar


def bigcast_conf(jar):
    """The settings that put a job's broadcasts into Bigcast, embedded mode, defaults."""
    return {
        "spark.plugins": "io.bigcast.spark.BigcastPlugin",
        "spark.driver.extraClassPath": str(jar),
        "spark.executor.extraClassPath": str(jar),
    }


def parse_spark_arguments(parser):
    """Parses what a bench on Spark was given: its own options, and those that all of them have and
    scripts/bench presets: spark, spark_home, jar, conf (a dict) and json."""
    parser.add_argument("--spark", choices=["3.5", "4"],
                        default=os.environ.get("spark_line", "3.5"), help="default 3.5")
    parser.add_argument("--spark-home", default=os.environ.get("SPARK_HOME"), help="(set by bench)")
    parser.add_argument("--jar", type=pathlib.Path, default=os.environ.get("plugin_jar"))
    parser.add_argument("--conf", action="append", default=[], help="NAME=VALUE for both")
    parser.add_argument("--json", action="store_true", help="also print JSON lines")
    arguments = parser.parse_args()
    if not arguments.spark_home or not arguments.jar:
        parser.error(f"--spark-home and --jar: run it as scripts/{parser.prog}")
    arguments.conf = dict(pair.split("=", 1) for pair in arguments.conf)
    return arguments


class Cluster:
    """Master and workers, ready for applications once made. worker_cores: of each, or a list."""

    def __init__(self, hosts, spark_home, work_dir, worker_cores=2, worker_memory="4g",
                 worker_wrapper=()):
        self._hosts = hosts
        self._spark_home = spark_home
        self._work_dir = pathlib.Path(work_dir)
        self._work_dir.mkdir(parents=True, exist_ok=True)
        self._daemons = {}
        address = hosts.address(0)
        port = 7077 if hosts.separate else _free_port(address)
        self.master_url = f"spark://{address}:{port}"
        self._daemon(
            0,
            "master",
            ["org.apache.spark.deploy.master.Master"]
            + ["--host", address, "--port", str(port), "--webui-port", "0"],
        )
        self._wait("master", re.compile("I have been elected leader"))
        if isinstance(worker_cores, int):
            worker_cores = [worker_cores] * (hosts.count - 1)
        for host, cores in enumerate(worker_cores, 1):
            self._daemon(
                host,
                f"worker-{host}",
                ["org.apache.spark.deploy.worker.Worker", self.master_url]
                + ["--cores", str(cores), "--memory", worker_memory]
                + ["--host", hosts.address(host), "--webui-port", "0"]
                + ["-d", str(self._work_dir / f"work-{host}")],
                worker_wrapper,
            )
        for host in range(1, hosts.count):
            self._wait(f"worker-{host}", re.compile("Successfully registered with master"))

    def _environment(self, host, heap="256m"):
        local_dir, temporary = (self._work_dir / f"{kind}-{host}" for kind in ("local", "tmp"))
        local_dir.mkdir(exist_ok=True)
        temporary.mkdir(exist_ok=True)
        return {
            # A killed JVM leaves what it unpacked; executors inherit this from their worker.
            "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={temporary}",
            "SPARK_HOME": self._spark_home,
            "SPARK_LOCAL_IP": self._hosts.address(host),
            "SPARK_LOCAL_DIRS": str(local_dir),
            "SPARK_DAEMON_MEMORY": heap,
            "SPARK_NO_DAEMONIZE": "1",
        }

    def _daemon(self, host, name, arguments, wrapper=()):
        with open(self._work_dir / f"{name}.log", "wb") as log:
            self._daemons[name] = self._hosts.start(
                host,
                [os.path.join(self._spark_home, "bin", "spark-class"), *arguments],
                env=self._environment(host),
                wrapper=wrapper,
                stdout=log,
                stderr=log,
                cwd=self._work_dir,
            )

    def _wait(self, name, pattern):
        log = self._work_dir / f"{name}.log"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not pattern.search(log.read_text(encoding="utf-8", errors="replace")):
            if self._daemons[name].poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise RuntimeError(f"Spark's {name} did not start:\n{tail}")
            time.sleep(0.1)

    @property
    def folder(self):
        return self._work_dir

    def pid(self, name):
        """Of "master" or "worker-1" and so on."""
        return self._daemons[name].pid

    def submit(self, arguments, conf, **kwargs):
        """Starts spark-submit on host 0 with the conf and returns its Popen.

        env is added to the environment; the rest of kwargs goes to Hosts.start."""
        settings = {
            "spark.master": self.master_url,
            "spark.driver.host": self._hosts.address(0),
            "spark.driver.bindAddress": self._hosts.address(0),
            "spark.ui.enabled": "false",
            **conf,
        }
        argv = [os.path.join(self._spark_home, "bin", "spark-submit")]
        for name, value in settings.items():
            argv += ["--conf", f"{name}={value}"]
        env = {**self._environment(0), **kwargs.pop("env", {})}
        kwargs.setdefault("cwd", self._work_dir)
        return self._hosts.start(0, [*argv, *arguments], env=env, **kwargs)
