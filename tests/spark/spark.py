"""A Spark: where it is, the test jobs compiled for it, and applications started on it."""

import glob
import os
import pathlib
import re
import secrets
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
PLUGIN = "io.bigcast.spark.BigcastPlugin"
COMPILE_TIMEOUT_S = 240
# For this a JVM loads what all applications do.
USUAL_CASE = "^rdd_strings$"


class Spark:
    """An installed Spark and the two jars of test code made for it. Immutable."""

    def __init__(self, line, cache, work):
        self.line = line
        place = "lib/python3*/site-packages/pyspark"
        found = sorted(each for folder in (f"spark-{line}", f"spark-{line}.*")
                       for each in glob.glob(f"{cache}/{folder}/{place}"))
        if not found:
            raise SystemExit(f"no Spark {line} in {cache}: run `scripts/test`, which installs it")
        self.home = pathlib.Path(found[-1])
        # By its own folder, where the packages are: that of Maven's Spark links to another's.
        self.python = (self.home.parents[3] / "bin").resolve() / "python3"
        self.java_home = java_home()
        self.jobs_jar = work / "jobs.jar"
        self.user_jar = work / "user.jar"
        self.archive = work / "classes.jsa"

    def compile(self, work, plugin):
        """Makes the jars: user.jar is what a user gives by --jars, jobs.jar the application.

        Without the plugin's jar (None) the jobs that call it are left out."""
        jobs = HERE / "jobs"
        sources = [*jobs.glob("*.java"), *(jobs.glob("plugin/*.java") if plugin else []),
                   *(jobs.glob("mllib/*.java") if list(self.home.glob("jars/spark-mllib_*")) else [])]
        self._jar(work / "user", self.user_jar, jobs.glob("ext/*.java"), "")
        self._jar(work / "jobs", self.jobs_jar, sources,
                  f"{self.home}/jars/*:{self.user_jar}:{plugin or ''}", jobs.glob("scala/*.scala"))

    def share_classes(self, work, plugin):
        """Has a small application's JVM write what it loaded into an archive (JEP 350) that the
        JVMs of the others map: a third less of the processors for a small one. A JVM that has another
        class path does without."""
        area = Area(self, work / "classes")
        conf = area.conf(plugin, {"spark.bigcasttest.executors": "1",
                                  "spark.bigcasttest.filter": USUAL_CASE},
                         java=f"-Xlog:disable -XX:ArchiveClassesAtExit={self.archive}")
        said = run(area.submit("local[1]", conf, "Main"), area.environment())
        if not self.archive.exists():
            raise SystemExit(f"no archive of classes was made:\n{said}")

    def _jar(self, classes, jar, sources, class_path, scala=()):
        """The Scala sources may use the Java ones. Spark has Scala's compiler for its shell."""
        classes.mkdir()
        java = self.java_home / "bin"
        run([java / "javac", "--release", "17", "-nowarn", "-cp", class_path, "-d", classes,
             *sorted(sources)])
        if scala:
            run([java / "java", "-XX:TieredStopAtLevel=1", "-cp", f"{self.home}/jars/*",
                 "scala.tools.nsc.Main", "-deprecation", "-Xfatal-warnings", "-classpath",
                 f"{class_path}:{classes}", "-d", classes, *sorted(scala)])
        run([java / "jar", "--create", "--file", jar, "-C", classes, "."])
        shutil.rmtree(classes)

    def private_home(self, folder):
        """A SPARK_HOME of links, because local clusters write their logs into SPARK_HOME/work."""
        folder.mkdir()
        for entry in self.home.iterdir():
            if entry.name not in ("work", "conf"):
                (folder / entry.name).symlink_to(entry)
        (folder / "work").mkdir()
        return folder


def java_home():
    """The JDK whose javac is on the path."""
    javac = shutil.which("javac")
    if not javac:
        raise SystemExit("javac is not on the path: install a JDK 17")
    return pathlib.Path(os.path.realpath(javac)).parents[1]


def run(argv, environment=None):
    """What it printed."""
    done = subprocess.run([str(part) for part in argv], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          timeout=COMPILE_TIMEOUT_S, env=environment)
    if done.returncode:
        raise SystemExit(f"{argv[0]} failed:\n{done.stdout}")
    return done.stdout


class Area:
    """The folder of one application: its home, local directories, temporary files and logs."""

    def __init__(self, spark, folder, address="127.0.0.1"):
        self.spark = spark
        self.folder = folder
        self.address = address
        folder.mkdir(mode=0o700)
        self.home = spark.private_home(folder / "home")
        self.local, self.tmp, self.events = folder / "local", folder / "tmp", folder / "events"
        for each in (self.local, self.tmp, self.events):
            each.mkdir()
        self.out, self.log = folder / "stdout", folder / "driver.log"
        self.node_log = folder / "node.log"
        self.settings = folder / "settings"
        # On the class path: without a file in it, it is not there, as JVMs that share classes want.
        self.settings_folder = folder / "conf"

    def environment(self):
        return {
            "SPARK_HOME": str(self.home), "JAVA_HOME": str(self.spark.java_home),
            "PYSPARK_PYTHON": str(self.spark.python), "SPARK_LOCAL_IP": self.address,
            "SPARK_LOCAL_HOSTNAME": self.address, "SPARK_CONF_DIR": str(self.settings_folder),
            "TMPDIR": str(self.tmp), "SPARK_LOCAL_DIRS": str(self.local),
        }

    def conf(self, jar, extra, java=""):
        """Settings that all contexts share, and `extra` over them; jar None is plain Spark.

        `java` are more options for each JVM."""
        shared = (f"-Xlog:disable -Xlog:all=error:stderr -XX:SharedArchiveFile={self.spark.archive} "
                  if self.spark.archive.exists() else "")
        java = (f"-XX:TieredStopAtLevel=1 -XX:-UsePerfData -Djava.io.tmpdir={self.tmp} "
                f"{shared}{java}")
        conf = {
            "spark.ui.enabled": "false",
            "spark.driver.host": self.address,
            "spark.driver.extraJavaOptions": java,
            "spark.executor.extraJavaOptions": java,
            "spark.local.dir": str(self.local),
            "spark.sql.shuffle.partitions": "4",
            "spark.sql.warehouse.dir": str(self.tmp / "warehouse"),
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.scheduler.maxRegisteredResourcesWaitingTime": "60s",
        }
        if jar:
            conf |= {
                "spark.plugins": PLUGIN,
                "spark.driver.extraClassPath": str(jar),
                "spark.executor.extraClassPath": str(jar),
                "spark.bigcast.lease.grace": "2s",
                "spark.bigcast.node.log": str(self.node_log),
            }
        conf |= extra
        return {key: value for key, value in conf.items() if value is not None}

    def authenticate(self):
        """Has Spark authenticate; returns its secret, which is in a file: a command line would show
        it."""
        secret = secrets.token_hex(32)
        self.settings_folder.mkdir()
        defaults = self.settings_folder / "spark-defaults.conf"
        defaults.touch(mode=0o600)
        defaults.write_text(f"spark.authenticate true\nspark.authenticate.secret {secret}\n",
                            encoding="utf-8")
        return secret

    def event_log(self):
        """Settings for an event log in `events`."""
        return {
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": f"file://{self.events}",
            "spark.eventLog.compress": "false",
        }

    def submit(self, master, conf, program, jars=()):
        """The command that runs `program` (a Java class's name, or a Python file)."""
        argv = self.launcher(master, conf, jars)
        if str(program).endswith(".py"):
            return argv + [str(program)]
        return argv + ["--class", f"io.bigcast.sparktest.{program}", str(self.spark.jobs_jar)]

    def launcher(self, master, conf, jars=(), command="spark-submit"):
        """That command without the program.

        `jars` are given by --jars, beside the one of user classes."""
        argv = [str(self.home / "bin" / command), "--master", master]
        for key, value in conf.items():
            argv += ["--conf", f"{key}={value}"]
        return argv + ["--jars", ",".join(map(str, [self.spark.user_jar, *jars]))]

    def executor_logs(self):
        return sorted(self.home.glob("work/*/*/stderr"))

    def text_of_logs(self):
        """Everything that anything wrote: for searches that must find nothing."""
        files = [self.out, self.log, self.node_log, *self.folder.glob("*.log")]
        files += [*self.home.glob("work/**/*"), *self.events.glob("**/*")]
        return {file: read(file) for file in sorted(set(files)) if file.is_file()}


def read(file):
    try:
        return pathlib.Path(file).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def own_lines(text, level):
    """The plugin's lines of a level in a driver's or executor's log."""
    return re.findall(rf"^.* {level} (?:\S+\.)?Bigcast\w*: .*$", text, re.MULTILINE)
