"""What a real Prometheus makes of a node's metrics, and of the dashboard's questions to them."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import unittest
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

    def scrape(self, *nodes, **how):
        """A Prometheus of its own that scrapes the nodes: its address."""
        config = self.file("prometheus.yml", json.dumps({  # JSON is YAML
            "global": {"scrape_interval": f"{PERIOD_S}s"},
            "scrape_configs": [{"job_name": "bigcast", **how,
                                "static_configs": [{"targets": [node.http for node in nodes]}]}],
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

    def certificate(self, name):
        """Files of a certificate that signs itself, and of its key."""
        files = self.scratch / f"{name}.pem", self.scratch / f"{name}.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", f"/CN={name}",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout",
                        files[1]], check=True, capture_output=True)
        return files

    @unittest.skipUnless(shutil.which("openssl"), "the command 'openssl' is missing")
    def test_it_scrapes_with_tls_and_a_password(self):
        password = self.file("password", "metrics:a-password-of-thirty-two-bytes-or-more",
                             0o600)
        first, second = self.certificate("first"), self.certificate("second")
        for link, target in zip(("certificate", "key"), first):
            (self.scratch / link).symlink_to(target)
        flags = ["--http-password-file", password, "--http-certificate-file",
                 self.scratch / "certificate", "--http-key-file", self.scratch / "key"]
        node = self.node("--memory", "64m", *flags)
        prometheus = self.scrape(node, scheme="https", tls_config={"ca_file": str(first[0])},
                                 basic_auth={"username": "metrics",
                                             "password": password.read_text().split(":")[1]})
        eventually(lambda: self.ask(prometheus, "bigcast_build_info"), "a sample over TLS")

        host, port = node.http.split(":")
        shown = lambda: ssl.get_server_certificate((host, int(port)))
        self.assertEqual(first[0].read_text(), shown())
        with self.assertRaises((OSError, http.client.HTTPException), msg="it answers in clear"):
            node.get("/metrics")

        # The key of another certificate changes nothing, and does not let a node start.
        (self.scratch / "key").unlink()
        (self.scratch / "key").symlink_to(second[1])
        refused = self.bigcastd("--check-config", *flags)
        self.assertEqual(2, refused.returncode)
        self.assertIn(b"http_key_file: not the key of", refused.stderr)
        node.process.send_signal(signal.SIGHUP)
        self.assertEqual(first[0].read_text(), shown())
        (self.scratch / "certificate").unlink()
        (self.scratch / "certificate").symlink_to(second[0])
        node.process.send_signal(signal.SIGHUP)
        eventually(lambda: shown() == second[0].read_text(), "the new certificate")
        self.assertEqual(0, node.stop())
        self.assertIn("the certificate of http has changed", node.log)

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
        eventually(lambda: [float(sample["value"][1]) for sample in
                            self.ask(prometheus, f"sum(bigcast_{name})")] ==
                   [node.metrics()[name]], "what the node counted")

    def test_what_the_dashboard_calls_damaged_is_until_it_is_repaired(self):
        flags = ["--memory", "64m", "--disk", self.scratch / "disk", "--disk-size", "64m",
                 "--scrub-rate", "1g"]
        put = ["put", "-", "--key", "t/x", "--durability", "disk", "--chunk-size", "64k"]
        node = self.node(*flags)
        self.assert_ok(self.bigcast(node, *put, input=os.urandom(3 * MIB)))
        node.kill()
        [extent] = (self.scratch / "disk/bigcast").glob("extent-*")
        with extent.open("r+b") as file:
            file.seek(MIB)
            byte = file.read(1)[0]
            file.seek(MIB)
            file.write(bytes([byte ^ 1]))
        node = self.node(*flags)
        prometheus = self.scrape(node)
        asked = [expression for title, expression in questions() if title == "Lost and damaged"]

        def shown():
            return [float(sample["value"][1]) for each in asked
                    for sample in self.ask(prometheus, each)]
        eventually(lambda: shown() == [0, 1], "a damaged chunk")
        self.assert_ok(self.bigcast(node, *put, "--replace", input=os.urandom(3 * MIB)))
        eventually(lambda: shown() == [0, 0], "nothing is damaged any more")

    def test_what_the_dashboard_calls_saved_is_saved(self):
        home = self.node("--memory", "64m")
        relays = []
        for number in (1, 2):
            socket = f"unix:@bigcast-prometheus-{os.getpid()}-{number}"
            relays.append(self.node("--memory", "64m", "--socket", socket))
            relays[-1].local = socket
        prometheus = self.scrape(home, *relays)
        content = os.urandom(4 * MIB)
        self.assert_ok(self.bigcast(home, "put", "-", "--key", "t/x", "--chunk-size", "256k",
                                    input=content))
        for relay in relays:
            for _ in range(2):
                got = self.bigcast(home, "--local", relay.local, "get", "t/x", "-")
                self.assertEqual(content, self.assert_ok(got))
        # Since the start, not a second.
        copies, network = (re.sub(r"rate\(([^][]*)\[30s\]\)", r"\1", expression)
                           for title, expression in questions() if title.startswith("Saved:"))

        def saved(question):
            return {sample["metric"]["instance"]: float(sample["value"][1])
                    for sample in self.ask(prometheus, question)}

        # Of two readers on a host one would have fetched, and kept, a copy for nothing.
        expected = {home.http: 0.0, **{relay.http: 4.0 * MIB for relay in relays}}
        eventually(lambda: saved(copies) == expected, f"{expected} by {copies}")
        for relay in relays:  # nothing came to its readers by another way
            self.assertEqual(2 * 16, relay.metrics()['chunks_served_total{path="located"}'])
            self.assertEqual(2 * 16, relay.metrics()["chunks_served_total"])
        # What the home did not send to the two hosts, they had from each other.
        sent = home.metrics()["served_peer_bytes_total"]
        eventually(lambda: sum(saved(network).values()) == 2 * 4 * MIB - sent,
                   f"{2 * 4 * MIB - sent} by {network}")
        print(f"  {sent / MIB:.2f} MiB sent by the home to two hosts")


if __name__ == "__main__":
    harness.main()
