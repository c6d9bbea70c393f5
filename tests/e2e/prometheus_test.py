"""What a real Prometheus makes of a node's metrics, and of the dashboard's questions to them."""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request

import harness
from harness import MIB, EndToEnd, eventually

DASHBOARD = pathlib.Path(__file__).resolve().parents[2] / "docs/grafana.json"
PERIOD_S = 1


def questions():
    """The dashboard's expressions, its variables filled in: (title, expression)."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "30s").replace("$node", ".*")
            yield panel["title"], expression


class Prometheus(EndToEnd):
    def setUp(self):
        super().setUp()
        self.programs = [shutil.which(name) for name in ("prometheus", "promtool")]
        if not all(self.programs):
            self.skipTest("the commands 'prometheus' and 'promtool' are missing")

    def test_its_linter_has_nothing_to_say(self):
        _, metrics = self.node("--memory", "64m").get("/metrics")
        done = subprocess.run([self.programs[1], "check", "metrics"], input=metrics, text=True,
                              capture_output=True)
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))

    def scrape(self, node):
        """A Prometheus of its own that scrapes the node: its address."""
        config = self.file("prometheus.yml", json.dumps({  # JSON is YAML
            "global": {"scrape_interval": f"{PERIOD_S}s"},
            "scrape_configs": [{"job_name": "bigcast",
                                "static_configs": [{"targets": [node.http]}]}],
        }))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % probe.getsockname()[1]
        process = subprocess.Popen(
            [self.programs[0], f"--config.file={config}", f"--web.listen-address={address}",
             f"--storage.tsdb.path={self.scratch}/tsdb"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        return address

    @staticmethod
    def ask(prometheus, expression):
        """The samples that answer it; nothing while Prometheus is not ready."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            url = f"http://{prometheus}/api/v1/query?{query}"
            with urllib.request.urlopen(url, timeout=harness.CALL_S) as reply:
                return json.load(reply)["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it has just started
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
        except OSError:
            return []

    def test_the_dashboard_finds_every_metric_that_it_names(self):
        node = self.node("--memory", "64m", "--disk", self.scratch / "disk", "--disk-size", "64m",
                         "--quota", "t=32m")
        prometheus = self.scrape(node)
        self.assert_ok(self.bigcast(node, "put", "-", "--key", "t/x", input=b"x" * MIB))
        asked = list(questions())
        for name in sorted({name for _, e in asked for name in re.findall(r"bigcast_\w+", e)}):
            eventually(lambda: self.ask(prometheus, name), f"a sample of {name}")
        # Rates need two samples; and what is asked for must be a question that has an answer.
        for title, expression in asked:
            eventually(lambda: self.ask(prometheus, expression), f"{title}: {expression}")
        name = "received_bytes_total"
        eventually(lambda: float(self.ask(prometheus, f"sum(bigcast_{name})")[0]["value"][1]) ==
                   node.metrics()[name], "what the node counted")


if __name__ == "__main__":
    harness.main()
