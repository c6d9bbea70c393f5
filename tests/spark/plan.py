"""Which combinations a Spark line runs."""

import combinations
import connect
import faults
import hosts
import pyspark_runs
import security
import shared
import shell

# In this order: what takes longest starts first.
ALL = {
    "java-min0": combinations.java_min0,
    "kryo-defaults": combinations.kryo_defaults,
    "pyspark-min0": pyspark_runs.min0,
    "pyspark-kryo-defaults": pyspark_runs.kryo_defaults,
    "shell": shell.java_defaults,
    "shell-kryo-min0": shell.kryo_min0,
    "pyspark-arrays": pyspark_runs.arrays,
    "pyspark-example": pyspark_runs.example,
    "pyspark-fallback": pyspark_runs.fallback,
    "pyspark-encrypted": pyspark_runs.encrypted,
    "pyspark-network-crypto": pyspark_runs.network_crypto,
    "hosts": hosts.on_hosts,
    "faults": faults.on_hosts,
    "shared": shared.contexts_on_one_node,
    "shared-two-homes": shared.two_homes,
    "shared-server-killed": shared.server_killed,
    "shared-executor-without-secret": shared.executor_without_secret,
    "shared-replicas": shared.replica_reads_on,
    "shared-rolling-restart": shared.rolling_restart,
    "driver-killed": shared.driver_killed,
    "many": combinations.many,
    "connect": connect.server_min0,
    "connect-defaults": connect.server_defaults,
    "local-mode": combinations.local_mode,
    "ssl-rpc": combinations.ssl_rpc,
    "upload-fails": combinations.upload_fails,
    "disk-full": combinations.disk_full,
    "unreachable": combinations.unreachable,
    "no-native-directory": combinations.no_native_directory,
    "native-directory-noexec": combinations.native_directory_noexec,
    "vendors-fork": combinations.vendors_fork,
    "foreign-native-library": combinations.foreign_native_library,
    "another-architecture": combinations.another_architecture,
    "node-cannot-run": combinations.node_cannot_run,
    "encryption": security.encryption,
    "own-secret": security.own_secret,
    "forged": security.forged,
    "secret-world-readable": combinations.secret_world_readable,
    "short-secret": combinations.short_secret,
    "switched-off": combinations.switched_off,
    "dry-run": combinations.dry_run,
    "bad-setting": combinations.bad_setting,
    "by-jars": combinations.by_jars,
    "two-contexts": combinations.two_contexts,
    "defaults": combinations.defaults,
}
SHELL = ["shell", "shell-kryo-min0"]
LINES = {
    "3.4": SHELL, "3.5": SHELL,
    "3.5-scala2.13": [],  # what of it Maven has: no MLlib, no GraphX, no shell
    **dict.fromkeys(["4.0", "4.1", "4.2", "4"], [*SHELL, "connect", "ssl-rpc"]),
}
# The suite of jobs, by each serializer and from Python.
JOBS = ["java-min0", "kryo-defaults", "pyspark-min0"]
DEFAULT = {
    "3.5": [name for name in ALL
            if name not in ("connect", "connect-defaults", "local-mode", "shell-kryo-min0",
                            "ssl-rpc", "pyspark-kryo-defaults")],
    "4": ["java-min0", "pyspark-min0", "connect", "ssl-rpc", "upload-fails"],
}
QUICK = {"3.5": ["java-min0", "pyspark-min0", "hosts", "unreachable"]}


def names(line, part="default", plain=False):
    """What a line runs. Part "matrix": what all lines must, by the plugin or on plain Spark."""
    if part == "quick":
        return QUICK[line]
    if part == "default" and line in DEFAULT:
        return DEFAULT[line]
    suite = [*JOBS, *LINES[line]]
    if plain:
        return suite
    more = ["connect-defaults"] if "connect" in suite else []
    if line == "4":
        more += ["pyspark-arrays", "unreachable"]
    return [*suite, "pyspark-kryo-defaults", *more, "local-mode"]
