"""A Spark Connect server that runs the plugin, and a client of it that knows nothing of Bigcast."""

import re
import signal
import subprocess

import shared
import spark as sparks
from running import SMALL_TIMEOUT_S, check_end, wait_for
from watch import Watch

SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
JOINS_MIN0 = 6  # that broadcast something, at least
JOINS_DEFAULTS = 2  # ... of a size worth it on all lines


def end(process):
    """By SIGTERM; says if that did not end it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(SMALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"SIGTERM did not end it within {SMALL_TIMEOUT_S} s"
    return ""


def server_min0(run):
    server(run, {"spark.bigcast.minSize": "0"}, JOINS_MIN0)


def server_defaults(run):
    server(run, {}, JOINS_DEFAULTS)


def server(run, settings, joins):
    """Its DataFrames' broadcasts go through Bigcast, and their results are as without."""
    have = subprocess.run([str(run.spark.python), "-c", "import grpc_status, pandas, pyarrow"],
                          capture_output=True, check=False)
    if have.returncode:
        run.report.skip("all", "the client's packages are not installed (need_connect)")
        return
    area = run.area()
    port = shared.free_port()
    conf = area.conf(run.jar, {
        "spark.connect.grpc.binding.address": area.address,
        "spark.connect.grpc.binding.port": str(port),
    } | (settings if run.jar else {}))
    argv = [*area.launcher("local-cluster[1,2,1024]", conf), "--class", SERVER, "spark-internal"]
    watch = Watch(run.hosts)
    with open(area.log, "w", encoding="utf-8") as log:
        process = run.hosts.start(0, argv, env=area.environment(), stdout=log, stderr=log)
    try:
        wait_for(lambda: "Spark Connect server started" in sparks.read(area.log)
                 or process.poll() is not None, lambda: "", SMALL_TIMEOUT_S)
        client = subprocess.run(
            [str(run.spark.python), str(sparks.HERE / "python" / "connect_client.py"),
             f"sc://{area.address}:{port}", run.case_filter], capture_output=True, text=True,
            check=False, timeout=SMALL_TIMEOUT_S)
        watch.look()
    finally:
        run.report.check("server_ends", end(process))
    area.out.write_text(client.stdout + client.stderr, encoding="utf-8")
    run.report.cases(client.stdout)
    if run.jar:
        made = len(re.findall(r"broadcast \d+: .* to Bigcast", sparks.read(area.log)))
        run.report.check("through_bigcast",
                         "" if made >= joins else f"{made} broadcasts went to Bigcast")
    check_end(run, area, watch)
