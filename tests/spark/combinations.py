"""The Spark contexts that the tests run in, one function each; those of PySpark are in pyspark_runs."""

import dataclasses
import functools
import os
import pathlib
import re
import secrets
import signal
import subprocess
import zipfile

import bigcast_nodes
import spark as sparks
from keys import applications_of, events, keys_of, leaks, told
from report import counters, nonzero
from running import (CASES_TIMEOUT_S, SMALL_TIMEOUT_S, Steps, check_end, execute, wait_for,
                     write_secret)
from watch import Watch, command_line, figures, files_left

JAVA = "org.apache.spark.serializer.JavaSerializer"
KRYO = "org.apache.spark.serializer.KryoSerializer"


def full(run, conf, cores=1):
    """All RDD, SQL and life-cycle cases in one local cluster of two executors."""
    area = run.area()
    settings = {
        "spark.bigcasttest.executors": "2",
        "spark.bigcasttest.cores": str(cores),
        "spark.bigcasttest.filter": run.case_filter,
        "spark.bigcasttest.settings": str(area.settings),
        "spark.driver.memory": "1g",
    } | area.event_log()
    if run.jar:
        settings["spark.bigcast.node.memory"] = "64m"
    # The driver's soft references go with the next collection, so that it has to read values back.
    conf = area.conf(run.jar, settings | conf, java="-XX:SoftRefLRUPolicyMSPerMB=0")
    argv = area.submit(f"local-cluster[2,{cores},1024]", conf, "Main")
    watch = execute(run, area, argv, CASES_TIMEOUT_S)
    run.report.cases(sparks.read(area.out))
    check_end(run, area, watch)
    if run.jar:
        run.report.check("one_node", "" if len(watch.nodes) == 1 else f"nodes {watch.nodes}")
        check_secret(run, area, watch)


def check_secret(run, area, watch):
    """The application's secret is in no log, event log or command line."""
    settings = told(area)
    found = {key: value for key, value in settings.items() if "secret" in key.lower() and value}
    problems = [] if found else [f"executors were told no secret, only {sorted(settings)}"]
    problems += leaks(area, watch, {
        f"{key}, {what}": value for key, secret in found.items()
        for what, value in keys_of(secret, applications_of(watch)).items()})
    for key in found:
        shown = re.search(rf'"{re.escape(key)}":"([^"]*)"', events(area))
        if shown and "redacted" not in shown.group(1):
            problems.append(f"{key} is not redacted in the event log")
    run.report.check("secret_is_secret", problems)


def java_min0(run):
    full(run, {"spark.serializer": JAVA, "spark.bigcast.minSize": "0",
               "spark.shuffle.mapOutput.minSizeForBroadcast": "0"})


def kryo_defaults(run):
    """By executors that run two tasks at a time."""
    full(run, {"spark.serializer": KRYO, "spark.kryoserializer.buffer.max": "256m"}, cores=2)


# Cases that make sense where tasks get the driver's own object.
SERIALISES_NOTHING = ("^(?!rdd_one_read|rdd_nested|life_(read_when_used|driver_rereads|serialised_once"
                      "|user_exception|not_serializable))")


def local_mode(run):
    """Nothing goes to Bigcast, whatever its size, and no node is started."""
    area = run.area()
    # Where all is one process, what tasks read is the driver's value: nothing is serialised.
    conf = area.conf(run.jar, {
        "spark.bigcasttest.filter": run.case_filter or SERIALISES_NOTHING,
        "spark.bigcasttest.executors": "1",
        "spark.driver.memory": "1g",
    } | ({"spark.bigcast.minSize": "0"} if run.jar else {}), java="-XX:SoftRefLRUPolicyMSPerMB=0")
    watch = execute(run, area, area.submit("local[2]", conf, "Main"), CASES_TIMEOUT_S)
    output = sparks.read(area.out)
    run.report.cases(output)
    check_end(run, area, watch)
    check_start(run, area, "local mode: broadcasts stay with Spark", NOT_LOADED)
    if run.jar:
        counted = counters(output)
        good = counted.get("offloaded") == 0 and counted.get("delegated.LOCAL", 0) > 0
        run.report.check("stayed", "" if good else f"{nonzero(counted)}")
        no_node(run, (area, watch))


def check_encrypted(run, area):
    if run.jar:
        said = [line for line in sparks.own_lines(sparks.read(area.log), "INFO")
                if "leave the driver, encrypted" in line]
        run.report.check("said", "" if len(said) == 1 else f"{said}")


def ssl_rpc(run):
    """Spark's own RPC by TLS: then chunks are encrypted, too."""
    store, password = run.work / "keys", secrets.token_hex(16)
    subprocess.run([
        str(run.spark.java_home / "bin" / "keytool"), "-genkeypair", "-keystore", str(store),
        "-storepass", password, "-alias", "spark", "-keyalg", "EC", "-dname", "CN=spark"],
        capture_output=True, check=True)
    area, _ = small(run, {
        "spark.ssl.rpc.enabled": "true",
        "spark.ssl.rpc.protocol": "TLSv1.3",
        "spark.ssl.rpc.keyStore": str(store),
        "spark.ssl.rpc.keyStorePassword": password,
        "spark.ssl.rpc.keyPassword": password,
        "spark.ssl.rpc.trustStore": str(store),
        "spark.ssl.rpc.trustStorePassword": password,
    }, expected=2)
    check_encrypted(run, area)


def small(run, conf, warnings=0, saying="", stayed=None, expected=0, wrapper=(), jars=(),
          java="", located=True):
    """A small job under special settings.

    `expected` broadcasts must go to Bigcast; if none, `stayed` is why they are with Torrent. The
    driver must give this number of warnings, each `saying` that. `wrapper` is a command to run
    the job by; `jars` go to --jars; `java` are options for each JVM. `located`:
    executors read by descriptor of their host's node."""
    area = run.area()
    conf = area.conf(run.jar, {"spark.bigcasttest.executors": "1"} | conf, java)
    argv = [*wrapper, *area.submit("local-cluster[1,1,1024]", conf, "SmallJob", jars)]
    watch = execute(run, area, argv, SMALL_TIMEOUT_S)
    output = sparks.read(area.out)
    run.report.cases(output)
    if not run.jar:
        check_end(run, area, watch)
        return area, watch
    check_path(run.report, counters(output), stayed, expected, located)
    check_end(run, area, watch, warnings, saying)
    return area, watch


def check_path(report, counted, stayed, expected, located):
    problems = []
    if counted.get("offloaded") != expected:
        problems.append(f"offloaded: expected {expected}, got {counted.get('offloaded')}")
    if counted.get("executors.reads") != expected:
        problems.append(f"executors' reads: expected {expected}, got {nonzero(counted)}")
    if counted.get("removed") != expected:
        problems.append(f"removed: expected {expected}, got {counted.get('removed')}")
    if expected and bool(counted.get("executors.chunksLocated")) != located:
        problems.append(f"by descriptor: expected {located}, got {nonzero(counted)}")
    if stayed and counted.get(f"delegated.{stayed}", 0) < 2:
        problems.append(f"{stayed} expected as the reason, got {nonzero(counted)}")
    report.check("path", problems)


def defaults(run):
    """Two large ones go to Bigcast, the tiny one stays; a misspelt setting is told."""
    done = small(run, {"spark.bigcast.nodeMemory": "1g"}, expected=2, warnings=1,
                 saying=r"spark\.bigcast\.nodeMemory.*spark\.bigcast\.node\.memory",
                 java="-Xcheck:jni")
    check_told(run, done[0], r"3\.0 MiB to Bigcast in 2 chunks", r"read 3\.0 MiB")
    check_start(run, done[0], "embedded mode: broadcasts of 1048576 bytes and more leave the driver")


def dry_run(run):
    """Nothing goes to Bigcast, and the log tells what would have."""
    done = small(run, {"spark.bigcast.dryRun": "true"}, stayed="DRY_RUN")
    no_node(run, done)
    check_told(run, done[0], r"3\.0 MiB stays with Spark, but for spark\.bigcast\.dryRun")
    check_start(run, done[0], "embedded mode, dry run: broadcasts stay with Spark")


def check_told(run, area, *expected):
    """Each line about a broadcast is in the log twice: SmallJob makes two."""
    if not run.jar:
        return
    text = "\n".join(line for log in (area.log, *area.executor_logs())
                     for line in sparks.own_lines(sparks.read(log), "INFO"))
    run.report.check("told", [f"{count} lines say {what!r}" for what in expected
                              if (count := len(re.findall(what, text))) != 2])


NOT_LOADED = "not loaded"


def check_start(run, area, expected, native=r"\1"):
    """One line with the versions, which are the same if there are two, and the mode."""
    if not run.jar:
        return
    said = [line for line in sparks.own_lines(sparks.read(area.log), "INFO")
            if re.search(r"Bigcast \S+ \(native", line)]
    good = len(said) == 1 and re.search(
        rf": Bigcast (\d+\.\d+\S*) \(native {native}\), {re.escape(expected)}$", said[0])
    run.report.check("start_is_told", "" if good else f"{said}")


def two_contexts(run):
    """One after the other in one driver: Spark's broadcast ids start again, nothing else does.
    Without descriptors here."""
    small(run, {"spark.bigcasttest.contexts": "2", "spark.bigcast.localReads": "false"}, expected=4,
          located=False)


def switched_off(run):
    done = small(run, {"spark.bigcast.enabled": "false"})
    no_node(run, done)
    check_start(run, done[0], "off: broadcasts stay with Spark", NOT_LOADED)


def no_node(run, done):
    if done:
        nodes = done[1].any_node
        run.report.check("no_node", f"processes {nodes}" if nodes else "")


def bad_setting(run):
    done = small(run, {"spark.bigcast.port": "lots"}, warnings=1,
                 saying=r"spark\.bigcast\.port.*lots")
    no_node(run, done)
    check_start(run, done[0], "off: broadcasts stay with Spark", NOT_LOADED)


def by_jars(run):
    """The plugin only in --jars, which parts of Spark don't look into: works, and is told."""
    small(run, {"spark.driver.extraClassPath": None, "spark.executor.extraClassPath": None},
          jars=[run.jar] if run.jar else [], warnings=1, saying="class path", expected=2)


def no_native_directory(run):
    done = small(run, {"spark.bigcast.native.dir": "/proc/nope"}, stayed="UNAVAILABLE",
                 warnings=1, saying="/proc/nope")
    no_node(run, done)
    check_start(run, done[0], "embedded mode: broadcasts stay with Spark", NOT_LOADED)
    check_told(run, done[0], r"3\.0 MiB stays with Spark, Bigcast can't be used now")


def with_tmpfs(run, folder, options):
    """A command to run others by: in a mount namespace of its own, where the folder is a tmpfs.
    None where that is not permitted, which is reported."""
    folder.mkdir()
    wrapper = ["unshare", "--mount", "sh", "-c",
               f"mount -t tmpfs -o {options} none {folder} && exec \"$@\"", "sh"]
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        run.report.skip("all", "mount namespaces are not permitted")
        return None
    return wrapper


def native_directory_noexec(run):
    folder = run.work / "noexec"
    if wrapper := with_tmpfs(run, folder, "noexec"):
        no_node(run, small(run, {"spark.bigcast.native.dir": str(folder)}, stayed="UNAVAILABLE",
                           warnings=1, saying=r"spark\.bigcast\.native\.dir", wrapper=wrapper))


def vendors_fork(run):
    """A Spark whose broadcast manager has no field broadcastFactory: told once, all with Torrent."""
    if run.jar:
        name = "org/apache/spark/broadcast/BroadcastManager.class"
        core = next(run.spark.home.glob("jars/spark-core_*.jar"))
        fork = run.work / "fork.jar"
        with zipfile.ZipFile(core) as spark, zipfile.ZipFile(fork, "w") as out:
            out.writestr(name, renamed(spark.read(name), b"broadcastFactory", b"vendorsFactory"))
        conf = {"spark.driver.extraClassPath": f"{fork}:{run.jar}"}
    else:
        conf = {}
    no_node(run, small(run, conf, warnings=1, saying="broadcastFactory"))


def renamed(class_file, old, new):
    """A class file in which a name is another one, by its entry in the constant pool."""
    entries = [b"\1" + len(name).to_bytes(2, "big") + name for name in (old, new)]
    if class_file.count(entries[0]) != 1:
        raise RuntimeError(f"{old} is not in the class file's constant pool")
    return class_file.replace(*entries)


def with_files(jar, into, replaced):
    """A copy of the jar, in which a file whose name ends so has other content."""
    with zipfile.ZipFile(jar) as good, zipfile.ZipFile(into, "w") as bad:
        for item in good.infolist():
            other = [content for end, content in replaced.items() if item.filename.endswith(end)]
            bad.writestr(item, *other or [good.read(item)])
    return into


def jar_of_a_newer_glibc(run):
    """A jar whose bigcastd is refused, in the loader's words, as if it needed a newer glibc."""
    refuses = ("#!/bin/sh\n"
               "echo \"$0: libc.so.6: version GLIBC_2.28 not found (required by $0)\" >&2\n"
               "exit 1\n")
    return with_files(run.jar, run.work / "newer-glibc.jar", {"/bigcastd": refuses})


REFUSED_NODE = r"GLIBC_2\.28 not found \(required by bigcastd\)"


def node_cannot_run(run):
    """The library loads, and the driver's host can't run bigcastd."""
    if run.jar:
        run = dataclasses.replace(run, jar=jar_of_a_newer_glibc(run))
    small(run, {}, stayed="UNAVAILABLE", warnings=1, saying=REFUSED_NODE)


def foreign_native_library(run):
    """A library of another machine's architecture in the jar."""
    if run.jar:
        header = b"\x7fELF\2\1\1" + bytes(9) + b"\3\0" + b"\xb7\0" + b"\1" + bytes(43)  # aarch64
        foreign = with_files(run.jar, run.work / "foreign.jar", {"_jni.so": header})
        run = dataclasses.replace(run, jar=foreign)
    no_node(run, small(run, {}, stayed="UNAVAILABLE", warnings=1, saying="native library"))


def another_architecture(run):
    no_node(run, small(run, {}, stayed="UNAVAILABLE", warnings=1, java="-Dos.arch=aarch64",
                       saying=r"Linux aarch64, .*glibc 2\.28 or newer"))


def unreachable(run):
    secret = write_secret(run.work / "secret")
    small(run, {"spark.bigcast.servers": "127.0.0.1:1", "spark.bigcast.secret.file": str(secret)},
          stayed="UNAVAILABLE", warnings=1, saying=r"127\.0\.0\.1:1\b")


def secret_world_readable(run):
    """Told at the start, though nothing would be sent to any server yet."""
    secret = write_secret(run.work / "secret", 0o644)
    conf = {"spark.bigcast.servers": "127.0.0.1:1", "spark.bigcast.secret.file": str(secret)}
    said = r"spark\.bigcast\.secret\.file: .*" + re.escape(str(secret))
    no_node(run, small(run, conf, stayed="UNAVAILABLE", warnings=1, saying=said))
    if run.jar:
        ends_at_start(run, conf, said)


def short_secret(run):
    """Spark's own, from which ours are made."""
    small(run, {"spark.authenticate": "true", "spark.authenticate.secret": "a-few-characters"},
          expected=2, warnings=1, saying=r"spark\.authenticate.*fewer than 32 characters")


def ends_at_start(run, conf, saying):
    """With spark.bigcast.failOnError the application does not get to its first line."""
    area = run.area("strict")
    conf = area.conf(run.jar, conf | {"spark.bigcast.failOnError": "true"})
    watch = Watch(run.hosts)
    steps = Steps(area, [watch], functools.partial(
        run.hosts.start, 0, area.submit("local-cluster[1,1,1024]", conf, "SmallJob")))
    code = steps.end()
    good = code == 1 and re.search(saying, sparks.read(area.log)) and not sparks.read(area.out)
    run.report.check("strict_ends", "" if good else f"exit code {code}, {sparks.read(area.out)}")
    run.report.check("strict_leaves_nothing", watch.left() + files_left([area.local, area.tmp]))


def many(run):
    """Broadcasts by the thousand leave every process as it was: descriptors, threads, memory, files."""
    count = 10_000 if os.environ.get("BIGCAST_FULL") else 1_000
    area = run.area()
    # Heaps that are all there from the start: what a JVM's memory grows by is not its heap then.
    conf = area.conf(run.jar, {"spark.bigcasttest.executors": "1",
                               "spark.bigcasttest.count": str(count)}
                     | ({"spark.bigcast.minSize": "0"} if run.jar else {}),
                     java="-Xms1g -XX:+AlwaysPreTouch")
    argv = area.submit("local-cluster[1,1,1024]", conf, "ManyJob")
    watch = Watch(run.hosts)
    steps = Steps(area, [watch], functools.partial(run.hosts.start, 0, argv))
    problem = steps.wait("before", CASES_TIMEOUT_S)
    before = {pid: figures(pid) for pid in run.hosts.pids(0)}
    files = files_of(area)
    steps.go_on()
    problem = problem or steps.wait("after", CASES_TIMEOUT_S)

    def grown():
        """What is more than before, beyond what Spark's own pools may do, however many there were."""
        slack = {"descriptors": 20, "threads": 20, "bytes": 8 << 20, "native": 48 << 20}
        return [f"{' '.join(command_line(pid))[:60]}: {before[pid][name]} {name} became {value}"
                for pid in before for name, value in figures(pid).items()
                if name in before[pid] and value > before[pid][name] + slack[name]]

    run.report.check("descriptors_threads_memory",
                     problem or wait_for(lambda: not grown(), lambda: "; ".join(grown())))
    print(f"{count} broadcasts: " + "; ".join(
        f"{' '.join(command_line(pid))[-40:]} {name} {value - before[pid][name]:+}"
        for pid in before for name, value in figures(pid).items() if name in before[pid]))
    run.report.check("files", wait_for(lambda: not files_of(area) - files, lambda: " ".join(
        map(str, sorted(files_of(area) - files)[:10]))))
    steps.go_on()
    run.report.check("exit", steps.ended_badly())
    output = sparks.read(area.out)
    run.report.cases(output)
    counted = counters(output)
    heaps = {name.rpartition(".")[2]: value for name, value in counted.items()
             if name.startswith("heap.after.")}
    run.report.check("heaps", [
        f"{who}: {was} bytes became {value}" for who, value in heaps.items()
        if value > (was := counted[f"heap.before.{who}"]) + (16 << 20)])
    if run.jar:
        good = counted.get("offloaded") == counted.get("removed") == count + count // 10
        run.report.check("offloaded_and_removed", "" if good else f"{nonzero(counted)}")
    check_end(run, area, watch)


def files_of(area):
    """The files of an application, and what Bigcast may have put where all put their files."""
    files = {path for folder in (area.local, area.tmp) for path in folder.rglob("*")
             if path.is_file()}
    return files | {path for folder in ("/tmp", "/dev/shm") for path in pathlib.Path(folder).iterdir()
                    if re.match(r"bigcast-(native|python|[0-9a-f]{32})", path.name)}


def upload_fails(run):
    """Uploads that end half-way: one does not fit into its node, the other one's node dies."""
    failing_uploads(run, {"spark.bigcast.node.disk": "none"})


def disk_full(run):
    """As above, but the first one's node believes to have a disk until that is full."""
    folder = run.work / "disk"
    if wrapper := with_tmpfs(run, folder, "size=8m"):
        failing_uploads(run, {"spark.bigcast.node.disk": str(folder),
                              "spark.bigcast.node.diskSize": "1g"}, wrapper)


def failing_uploads(run, conf, wrapper=()):
    area = run.area()
    conf = area.conf(run.jar, {"spark.bigcasttest.executors": "1"} | (
        {"spark.bigcast.node.memory": "16m"} | conf if run.jar else {}))
    argv = [*wrapper, *area.submit("local-cluster[1,1,1024]", conf, "UploadFailsJob")]
    watch = Watch(run.hosts)
    steps = Steps(area, [watch], functools.partial(run.hosts.start, 0, argv))

    def stored():
        return [node.stored_bytes for node in bigcast_nodes.on_host(run.hosts, 0)]

    problem = steps.wait("refused")
    if run.jar:
        run.report.check("refused_is_freed", problem or wait_for(
            lambda: stored() == [0], lambda: f"the node still has {stored()} bytes"))
    steps.go_on()
    problem = problem or steps.wait("half")
    if run.jar:
        # The serialiser waits in the middle: sending does not wait for its end.
        run.report.check("sends_while_serialising", problem or wait_for(
            lambda: sum(stored()) >= 4 << 20, lambda: f"the node has {stored()} bytes"))
        for node in bigcast_nodes.on_host(run.hosts, 0):
            os.kill(node.pid, signal.SIGKILL)
    steps.go_on()
    run.report.check("exit", steps.ended_badly(problem))
    output = sparks.read(area.out)
    run.report.cases(output)
    if run.jar:
        counted = counters(output)
        good = counted.get("delegated.UPLOAD_FAILED") == 3 and counted.get("offloaded") == 0
        run.report.check("counted", "" if good else f"{nonzero(counted)}")
        check_end(run, area, watch, warnings=3, saying="through Spark's TorrentBroadcast")
