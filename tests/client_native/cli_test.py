"""The bigcast command against a real node: what it prints, its exit codes, what it leaves behind."""

import contextlib
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BIN = None
VERSION = None
SECRET = "a secret for tests, 32 bytes and more"
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("BIGCAST_")}


class Node:
    """A bigcastd with a port that the system chose."""

    def __init__(self, secret=None):
        env = dict(CLEAN, **({"BIGCAST_SECRET": secret} if secret else {}))
        command = [BIN / "bigcastd", "--listen", "127.0.0.1:0", "--http", "none",
                   "--memory", "64m", "--exit-when-idle", "60s"]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        ready = self.process.stdout.readline()
        self.address = re.search(r"listen=(\S+)", ready).group(1)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Interrupter:
    """Forwards connections to a node and calls `action` once, when a connection has carried so many
    bytes to the node: surely in the middle of a put that is longer by more than its window."""

    def __init__(self, node, after, action):
        self.node, self.after, self.action = node, after, action
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        host, port = self.node.split(":")
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            node = socket.create_connection((host, int(port)))
            threading.Thread(target=self.pump, args=(client, node, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(node, client, False), daemon=True).start()

    def pump(self, source, target, counts):
        passed = 0
        try:
            while data := source.recv(65536):
                passed += len(data)
                if counts and self.action and passed > self.after:
                    action, self.action = self.action, None
                    action()
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Cli(unittest.TestCase):
    def setUp(self):
        self.node = Node()
        self.addCleanup(self.node.end)
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.dir = pathlib.Path(scratch.name)

    def command(self, *arguments):
        return [BIN / "bigcast", "--server", self.node.address, *map(str, arguments)]

    def run_cli(self, *arguments, code=0, stdin=b"", env=None):
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True,
                              env=env or CLEAN, timeout=120, check=False)
        self.assertEqual(code, done.returncode, (arguments, done.stderr))
        return done

    def json_line(self, *arguments):
        lines = self.run_cli("--json", *arguments).stdout.decode().splitlines()
        self.assertEqual(1, len(lines))
        return json.loads(lines[0])

    def file(self, name, content):
        path = self.dir / name
        path.write_bytes(content)
        return path

    def memory_used(self):
        return self.json_line("ping")["memory_used"]

    def eventually(self, condition):
        for _ in range(600):
            if condition():
                return
            time.sleep(0.05)
        self.fail("did not come about")

    def has_written(self, process):
        """Whether there are bytes in a file of the test's directory that the process has open, with or
        without a name."""
        for descriptor in pathlib.Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(descriptor).startswith(f"{self.dir}/"):
                    return descriptor.stat().st_size > 0
        return False

    def test_put_get_stat_ls_rm(self):
        content = os.urandom(300_000)
        path = self.file("table.bin", content)
        put = self.run_cli("put", path, "--chunk-size", "64k").stdout.decode()
        self.assertRegex(put, r"^default/table\.bin: 293\.0 KiB in 5 chunks, 293\.0 KiB stored, ")
        self.run_cli("get", "default/table.bin", self.dir / "copy")
        self.assertEqual(content, (self.dir / "copy").read_bytes())
        self.assertEqual(content, self.run_cli("get", "default/table.bin", "-").stdout)
        self.assertRegex(self.run_cli("ls").stdout.decode(),
                         r"^ +293\.0 KiB +293\.0 KiB +\d+ s  sealed  default/table\.bin\n$")
        fields = [line.split()[0] for line in
                  self.run_cli("stat", "default/table.bin").stdout.decode().splitlines()]
        self.assertEqual(["key", "id", "state", "size", "stored", "chunks", "in", "on", "age",
                          "durability", "digest"], fields)
        self.assertEqual(b"removed default/table.bin\n",
                         self.run_cli("rm", "default/table.bin").stdout)
        self.assertEqual(b"", self.run_cli("ls").stdout)
        self.assertRegex(self.run_cli("ping").stdout.decode(), r": bigcastd \S+ answers in ")

    def golden(self, expected, *arguments, code=0):
        """The whole text output, in which figures and ids that differ from run to run are #."""
        text = self.run_cli(*arguments, code=code).stdout.decode()
        text = text.replace(self.node.address, "NODE").replace(VERSION, "VERSION")
        text = re.sub(r"\b[0-9a-f]{32}\b", "ID", text)
        text = re.sub(r"\d+(\.\d+)?( [hms] \d+)? (ms|s|m|h)\b", "TIME", text)
        text = re.sub(r"[\d.]+ [KMG]?i?B/s", "RATE", text)
        text = re.sub(r"(?m)^(pid|descriptors|sessions|running|machine) .*$", r"\1 #", text)
        text = re.sub(r" +", " ", text)
        text = re.sub(r"(?m)^(NODE VERSION TIME .*) \d+$", r"\1 #", text)  # sessions
        self.assertEqual(expected, text)

    def test_golden_text(self):
        a, b = self.file("a", b"x" * 1000), self.file("b", b"y" * 2000)
        self.golden("ns/d/a: 1000 B in 1 chunks, 14 B stored, TIME, RATE\n"
                    "ns/d/b: 2.0 KiB in 1 chunks, 18 B stored, TIME, RATE\n",
                    "put", a, b, "--key", "ns/d/")
        self.golden("ns/top: 1000 B in 1 chunks, 14 B stored, TIME, RATE\n",
                    "put", a, "--key", "ns/top")
        self.golden(" 1000 B 14 B TIME sealed ns/d/a\n 2.0 KiB 18 B TIME sealed ns/d/b\n"
                    " 1000 B 14 B TIME sealed ns/top\n", "ls", "ns")
        self.golden(" 1000 B 14 B TIME sealed ns/d/a\n 1000 B 14 B TIME sealed ns/top\n",
                    "ls", "ns/*[ap]")
        self.golden(" 2.9 KiB 32 B 8.0 KiB 0 B 2 ns/d/\n 3.9 KiB 46 B 12.0 KiB 0 B 3 ns/\n", "du", "ns")
        self.golden("ns/d/a: 1000 B in 1 chunks, 14 B stored, TIME, RATE\n",
                    "get", "ns/d/a", self.dir / "copy")
        self.golden("key ns/d/a\nid ID\nstate sealed\nsize 1000 (1000 B)\nstored 14 (14 B)\n"
                    "chunks 1 of 4.0 MiB\nin memory 4.0 KiB\non disk 0 B\nage TIME\n"
                    "durability memory\ndigest ID\n", "stat", "ns/d/a")
        self.golden("1 nodes examined: nothing found\n", "doctor")
        self.golden("NODE: bigcastd VERSION answers in TIME, up TIME, memory 12.0 KiB of 64.0 MiB, "
                    "disk 0 B of 0 B\n", "ping")
        self.golden("node NODE, advertised NODE\nname bigcastd\nversion VERSION\nepoch ID\npid #\n"
                    "up TIME\nstate ready\n"
                    "memory 12.0 KiB of 64.0 MiB: reserved 0 B, pinned 0 B, mapped 0 B\n"
                    "disk 0 B of 0 B, free there 0 B\nblobs 3 at home here, 0 relayed\nsessions #\n"
                    "running #\nreceived 46 B\nfetched 0 B from homes, 0 B from other relays\n"
                    "served 14 B\nchunks 0 demoted, 0 dropped, 0 quarantined\n"
                    "failures 0 checksums, 0 logins, 0 fetches from relays\ndescriptors #\n"
                    "machine #\n", "info")
        self.golden("NODE VERSION UP STATE MEMORY DISK BLOBS SESSIONS\n"
                    "NODE VERSION TIME ready 12.0 KiB of 64.0 MiB 0 B of 0 B 3 #\n", "nodes")
        self.golden("NODE STATE MEMORY DISK BLOBS UPLOADS RECEIVED/s FETCHED/s SERVED/s\n"
                    "NODE ready 0 % of 64.0 MiB none 3 0 0 B 0 B 0 B\n", "top", "--interval", "100ms")
        self.golden("unpinned ns/d/a\n", "unpin", "ns/d/a")
        self.golden("64.0 KiB of random bytes: put TIME, RATE; get TIME, RATE\n",
                    "bench", "--size", "64k")
        self.golden("removed ns/d/a\nremoved ns/d/b\n", "rm", "ns/d/*")
        self.golden(" 1000 B 14 B TIME sealed ns/top\n", "ls", "ns/")
        self.assertIn(b"NOT_FOUND: ns/d/*", self.run_cli("rm", "ns/d/*", code=3).stderr)
        self.golden("bigcast VERSION\n", "version")

    # What differs from run to run or from machine to machine: its type is what is compared.
    VARIES = {"seconds": "float", "put_seconds": "float", "get_seconds": "float",
              "measured_seconds": "float", "round_trip_ms": "float", "age_ms": "int",
              "uptime_ms": "int", "pid": "int", "clock_ms": "int", "descriptor_limit": "int",
              "descriptors_open": "int", "memory_of_machine": "int", "memory_limit": "int or null",
              "sessions": "int", "connections": "int", "running_calls": "int"}

    def normalised(self, field, value):
        kind = {int: "int", float: "float", type(None): "null"}.get(type(value))
        varies = self.VARIES.get(field)
        if varies and kind in varies.split(" or "):
            return varies
        text = json.dumps(value).replace(self.node.address, "NODE").replace(VERSION, "VERSION")
        return re.sub(r'"[0-9a-f]{32}"', "ID", text)

    def golden_json(self, expected, *arguments):
        """All lines that a command prints, as pairs of a field and what it has, in their order."""
        lines = self.run_cli("--json", *arguments).stdout.decode().splitlines()
        self.compare_json(expected, lines, arguments)

    def compare_json(self, expected, lines, arguments):
        found = [[f"{field}: {self.normalised(field, value)}"
                  for field, value in json.loads(line).items()] for line in lines]
        self.assertEqual([each.splitlines() for each in expected], found, arguments)

    def test_golden_json(self):
        transfer = ("key: \"ns/d/a\"\nsize: 1000\nstored_size: 14\nchunks: 1\nchunks_reread: 0\n"
                    "seconds: float")
        blob = ("key: \"ns/d/a\"\nid: ID\nsealed: true\nrelay: false\nsize: 1000\nstored_size: 14\n"
                "chunk_size: 4194304\nchunks: 1\nmemory_bytes: 4096\ndisk_bytes: 0\nage_ms: int\n"
                "durability: \"memory\"\nttl_ms: null\nexpires_in_ms: null\npins: 0\n"
                "root_digest: ID\nhomes: [\"NODE\"]\nreplicas: 1")
        node = ("address: \"NODE\"\nversion: \"VERSION\"\nepoch: ID\nadvertised: \"NODE\"\npid: int\n"
                "uptime_ms: int\ndraining: false\nmemory_budget: 67108864\nmemory_used: 4096\n"
                "disk_budget: 0\ndisk_used: 0\nround_trip_ms: float")
        report = (node + "\nname: \"bigcastd\"\nnot_ready: null\nclock_ms: int\n"
                  "descriptor_limit: int\ndescriptors_open: int\nmemory_limit: int or null\n"
                  "memory_of_machine: int\ndisk_free: 0\nblobs: 1\nrelayed_blobs: 0\n"
                  "reserved_bytes: 0\npinned_bytes: 0\nmapped_bytes: 0\nsessions: int\n"
                  "connections: int\nleases: 0\nuploads: 0\nrunning_calls: int\n"
                  "received_bytes: 14\nserved_bytes: 28\nfetched_home_bytes: 0\n"
                  "fetched_peer_bytes: 0\nchunks_demoted: 0\nchunks_dropped: 0\n"
                  "chunks_quarantined: 0\nchecksum_failures: 0\nlogin_failures: 0\n"
                  "peer_fetch_failures: 0\nunreachable: []")
        top = (report + "\nmeasured_seconds: float\nreceived_bytes_per_second: 0.0\n"
               "fetched_bytes_per_second: 0.0\nserved_bytes_per_second: 0.0")
        usage = "blobs: 1\nsize: 1000\nstored_size: 14\nmemory_bytes: 4096\ndisk_bytes: 0"
        a = self.file("a", b"x" * 1000)
        self.golden_json([transfer], "put", a, "--key", "ns/d/a")
        self.golden_json([transfer], "get", "ns/d/a", self.dir / "copy")
        got = self.run_cli("--json", "get", "ns/d/a", "-")
        self.assertEqual(b"x" * 1000, got.stdout)
        self.compare_json([transfer], got.stderr.splitlines(), "get -")
        self.assertEqual(self.run_cli("get", "--help").stdout,
                         self.run_cli("--json", "get", "--help").stdout)
        self.golden_json([blob], "stat", "ns/d/a")
        self.golden_json([blob], "ls", "ns")
        self.golden_json([f"key: \"ns/d/\"\n{usage}", f"key: \"ns/\"\n{usage}"], "du", "ns")
        self.golden_json([node], "ping")
        self.golden_json([report], "info")
        self.golden_json([report], "nodes")
        self.golden_json([top, top], "top", "--interval", "100ms", "--count", "2")
        self.golden_json([], "doctor")
        with subprocess.Popen(self.command("--json", "pin", "ns/d/a"), env=CLEAN,
                              stdout=subprocess.PIPE) as pin:
            self.compare_json([blob.replace("pins: 0", "pins: 1")], [pin.stdout.readline()], "pin")
            pin.terminate()
        self.golden_json(["unpinned: \"ns/d/a\""], "unpin", "ns/d/a")
        self.golden_json(["removed: \"ns/d/a\""], "rm", "ns/d/a")
        self.golden_json(["size: 65536\nput_seconds: float\nget_seconds: float"],
                         "bench", "--size", "64k")
        self.golden_json(["version: \"VERSION\""], "version")

    def test_completion_and_man_page(self):
        """Scripts and a page for other programs, which --json does not change; those programs, where
        they are installed, find nothing wrong with them."""
        made = {"bash": "# bash completion of bigcast; made by: bigcast completion bash",
                "zsh": "#compdef bigcast",
                "fish": "# fish completion of bigcast; made by: bigcast completion fish"}
        for shell, first in made.items():
            script = self.run_cli("completion", shell).stdout
            self.assertEqual(first, script.decode().splitlines()[0])
            self.assertEqual(script, self.run_cli("--json", "completion", shell).stdout)
            if shutil.which(shell):
                done = subprocess.run([shell, "-n", self.file(shell, script)], capture_output=True,
                                      env=CLEAN, check=False)
                self.assertEqual((0, b"", b""), (done.returncode, done.stdout, done.stderr), shell)
        self.golden("", "completion", "tcsh", code=2)
        page = self.run_cli("man").stdout
        self.assertEqual(page, self.run_cli("--json", "man").stdout)
        daemon = subprocess.run([BIN / "bigcastd", "--man"], capture_output=True, check=True).stdout
        sections = {page: ["NAME", "SYNOPSIS", "OPTIONS", "COMMANDS", "NOTES"],
                    daemon: ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SIGNALS", "EXIT STATUS",
                             "SEE ALSO"]}
        for text, expected in sections.items():
            self.assertEqual(expected, re.findall(r"^\.SH (.*)$", text.decode(), re.M))
            if shutil.which("groff"):
                done = subprocess.run(["groff", "-man", "-Kutf8", "-Tutf8", "-ww"], input=text,
                                      capture_output=True, check=False)
                self.assertEqual((0, b""), (done.returncode, done.stderr))
                self.assertIn("bigcast", done.stdout.decode())

    def on_a_terminal(self, *arguments):
        """What a command writes to a terminal that is its standard error."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(arguments, stderr=theirs, stdout=subprocess.DEVNULL,
                              env=CLEAN) as process:
            os.close(theirs)
            written = b""
            with contextlib.suppress(OSError):  # how a terminal that nobody has open ends
                while piece := os.read(ours, 1 << 16):
                    written += piece
            self.assertEqual(0, process.wait(timeout=60))
        os.close(ours)
        return written.decode()

    def test_progress_is_for_terminals(self):
        path = self.file("a", os.urandom(3_000_000))
        proxy = Interrupter(self.node.address, 300_000, None)
        self.addCleanup(proxy.end)

        def put(*flags):
            proxy.action = lambda: time.sleep(0.5)  # longer than a line stays as it is
            return [BIN / "bigcast", "--server", proxy.address, *flags, "put", path, "--key", "ns/a",
                    "--chunk-size", "64k", "--replace"]
        written = self.on_a_terminal(*put())
        clear = "\r\x1b[K"
        self.assertTrue(written.startswith(clear), written)
        self.assertTrue(written.endswith(clear), written)
        lines = [line for line in written.split(clear) if line]
        self.assertRegex(lines[0], r"^a  0 %  0 B of 2\.9 MiB  ")
        self.assertGreater(len(lines), 1, written)
        for line in lines[1:]:
            self.assertRegex(line, r"^a  [1-9]\d* %  [\d.]+ [KM]iB of 2\.9 MiB  [\d.]+ [KM]iB/s"
                                   r"(  \S.* left)?$")
        self.assertEqual("", self.on_a_terminal(*put("--quiet")))
        self.assertEqual("", self.on_a_terminal(*put("--json")))
        done = subprocess.run(put(), capture_output=True, env=CLEAN, check=True, timeout=60)
        self.assertEqual(b"", done.stderr)

    def test_more_than_a_page(self):
        names = [f"n{i:04}" for i in range(2100)]
        files = [self.file(name, name.encode()) for name in names]
        self.run_cli("--quiet", "put", *files, "--key", "many/d/")
        listed = [json.loads(line) for line in self.run_cli("--json", "ls", "many").stdout.splitlines()]
        self.assertEqual([f"many/d/{name}" for name in names], [blob["key"] for blob in listed])
        self.assertEqual(2100, json.loads(self.run_cli("--json", "du", "many/").stdout.splitlines()[-1])["blobs"])
        removed = self.run_cli("rm", "many/*[02468]").stdout.splitlines()
        self.assertEqual(1050, len(removed))
        self.assertEqual(1050, len(self.run_cli("ls", "many").stdout.splitlines()))

    def test_ttl_and_pins(self):
        self.run_cli("put", self.file("a", b"x"), "--key", "ns/a", "--ttl", "1h")
        with subprocess.Popen(self.command("pin", "ns/a"), env=CLEAN,
                              stdout=subprocess.PIPE) as pin:
            self.assertEqual(b"pinned ns/a\n", pin.stdout.readline())
            blob = self.json_line("stat", "ns/a")
            self.assertEqual((3_600_000, 1), (blob["ttl_ms"], blob["pins"]))
            self.assertLessEqual(blob["expires_in_ms"], 3_600_000)
            pin.send_signal(signal.SIGTERM)
            self.assertEqual(143, pin.wait(timeout=60))
        self.eventually(lambda: self.json_line("stat", "ns/a")["pins"] == 0)
        self.run_cli("pin", "ns/none", code=3)
        with subprocess.Popen(self.command("pin", "ns/a"), env=CLEAN, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as pin:
            pin.stdout.readline()
            self.run_cli("unpin", "ns/a")
            self.assertEqual(0, self.json_line("stat", "ns/a")["pins"])
            self.assertEqual(1, pin.wait(timeout=60))
            self.assertEqual(b"bigcast: ABORTED: ns/a: another session unpinned it\n",
                             pin.stderr.read())
        self.run_cli("unpin", "ns/none", code=3)

    def test_ranges(self):
        content = os.urandom(300_000)
        self.run_cli("put", self.file("a", content), "--key", "ns/a", "--chunk-size", "64k")
        for text, wanted in (("0-9", content[:10]), ("65530-65540", content[65530:65541]),
                             ("1000-250000", content[1000:250001]), ("299990-", content[299990:]),
                             ("0-999999", content), ("-70000", content[-70000:])):
            option = f"--range={text}"
            self.assertEqual(wanted, self.run_cli("get", "ns/a", "-", option).stdout, text)
            self.run_cli("get", "ns/a", self.dir / "part", option)  # in any order
            self.assertEqual(wanted, (self.dir / "part").read_bytes(), text)
        done = self.run_cli("get", "ns/a", self.dir / "none", "--range=300000-", code=2)
        self.assertIn(b"the blob has no byte 300000", done.stderr)
        self.assertFalse((self.dir / "none").exists())

    def test_ranges_of_what_is_still_written(self):
        with subprocess.Popen(self.command("put", "-", "--key", "ns/slow", "--chunk-size", "64k"),
                              env=CLEAN, stdin=subprocess.PIPE) as writer:
            writer.stdin.write(b"x" * 200_000)
            writer.stdin.flush()
            self.eventually(lambda: self.memory_used() > 0)
            self.assertEqual(b"x" * 10, self.run_cli("get", "ns/slow", "-", "--range=70000-70009").stdout)
            self.run_cli("get", "ns/slow", "-", "--range=-5", code=2)
            with subprocess.Popen(self.command("get", "ns/slow", "-", "--range=250000-"), env=CLEAN,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
                writer.stdin.close()
                self.assertEqual(0, writer.wait(timeout=60))
                self.assertEqual(2, reader.wait(timeout=60))
                self.assertIn(b"the blob has no byte 250000", reader.stderr.read())

    def test_completion_in_bash(self):
        script = self.run_cli("completion", "bash").stdout.decode()

        def complete(*words):
            ask = (f"{script}\nCOMP_WORDS=(bigcast {' '.join(words)} ''); "
                   f"COMP_CWORD={len(words) + 1}; _bigcast; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
            return subprocess.run(["bash", "-c", ask], capture_output=True, check=True,
                                  text=True, cwd=self.dir).stdout.split()
        self.assertLessEqual({"put", "ls", "doctor", "--json"}, set(complete()))
        self.file("some-file", b"")
        self.assertLessEqual({"--replace", "--json", "some-file"}, set(complete("--json", "put")))
        self.assertNotIn("--replace", complete("get"))

    def findings(self, *arguments, code=1):
        server = () if "--server" in arguments else ("--server", self.node.address)
        done = subprocess.run([BIN / "bigcast", "--json", *server, *map(str, arguments), "doctor"],
                              capture_output=True, env=CLEAN, timeout=120, check=False)
        self.assertEqual(code, done.returncode, done.stderr)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        for each in found:
            self.assertEqual(["check", "server", "serious", "problem", "advice"], list(each))
        return [(each["check"], each["serious"]) for each in found]

    def test_doctor(self):
        self.assertIn(b"1 nodes examined: nothing found", self.run_cli("doctor").stdout)
        self.assertEqual([], self.findings(code=0))
        self.assertEqual([("unreachable", True)], self.findings("--server", "127.0.0.1:1"))
        secret = self.file("secret", SECRET.encode())
        secret.chmod(0o644)
        self.assertEqual([("secret", True)], self.findings("--secret-file", secret))
        told = self.run_cli("--secret-file", secret, "doctor", code=1).stdout.decode()
        self.assertRegex(told, r"^PROBLEM secret: .*mode 0644.*\n  .*chmod 0600")

        node = Node(SECRET)
        self.addCleanup(node.end)
        self.assertEqual([("denied", True)], self.findings("--server", node.address))

    def test_a_node_of_another_version(self):
        secret = self.file("secret", SECRET.encode())
        secret.chmod(0o600)
        # The target is never asked.
        node = subprocess.Popen([BIN / "lying_node", "127.0.0.1:0", self.node.address, secret,
                                 "--next-version"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(node.stdout.close)
        self.addCleanup(node.wait)
        self.addCleanup(node.kill)
        address = node.stdout.readline().split()[0]
        access = ("--server", address, "--secret-file", secret)

        def run(*arguments):
            done = subprocess.run([BIN / "bigcast", *access, *arguments], capture_output=True,
                                  env=CLEAN, timeout=120, check=False, text=True)
            self.assertEqual(1, done.returncode, done.stderr)
            return done
        path = self.file("a", b"x")
        refusal = r"UNSUPPORTED: .*protocol version: the client speaks \d+, the node \d+\n"
        for arguments in (["ping"], ["put", path], ["get", "default/a", "-"], ["ls"], ["info"]):
            done = run(*arguments)
            self.assertEqual("", done.stdout)
            self.assertRegex(done.stderr, f"^bigcast: {refusal}$")
        error = json.loads(run("--json", "ping").stderr)["error"]
        self.assertEqual("UNSUPPORTED", error["code"])
        told = run("doctor").stdout
        self.assertRegex(told, r"^PROBLEM version at \S+: another protocol version: .*\n"
                               r"  install the same version of bigcast and bigcastd\n")
        self.assertEqual([("version", True)], self.findings(*access))

    def test_errors_have_their_exit_codes_and_names(self):
        path = self.file("a", b"x")
        cases = [
            (2, "INVALID_ARGUMENT", "--bogus", ["ping", "--bogus"]),
            (2, "INVALID_ARGUMENT", "../up", ["stat", "default/../up"]),
            (3, "NOT_FOUND", "default/no", ["get", "default/no", self.dir / "no"]),
            (3, "NOT_FOUND", "default/no", ["rm", "default/no"]),
            (1, "IO", "/nonexistent/file", ["put", "/nonexistent/file"]),
            (1, "IO", str(self.dir), ["put", self.dir, "--key", "a/b"]),
            (5, "UNAVAILABLE", "127.0.0.1:1", ["--server", "127.0.0.1:1", "--quiet", "ping"]),
        ]
        for code, name, text, arguments in cases:
            with self.subTest(arguments=arguments):
                if "--server" in arguments:
                    command = [BIN / "bigcast", "--json", *arguments]
                    done = subprocess.run(command, capture_output=True, env=CLEAN, check=False)
                    self.assertEqual(code, done.returncode)
                else:
                    done = self.run_cli("--json", *arguments, code=code)
                self.assertEqual(b"", done.stdout)
                error = json.loads(done.stderr)["error"]
                self.assertEqual(name, error["code"])
                self.assertIn(text, error["message"])
        self.run_cli("put", path)
        again = self.run_cli("put", path, code=1)
        self.assertIn(b"ALREADY_EXISTS: default/a", again.stderr)
        self.run_cli("put", path, "--replace")

    def test_secrets(self):
        node = Node(SECRET)
        self.addCleanup(node.end)
        command = [BIN / "bigcast", "--server", node.address, "ping"]

        def code(env, *more):
            return subprocess.run([*command, *map(str, more)], env=dict(CLEAN, **env),
                                  capture_output=True, check=False).returncode
        self.assertEqual(4, code({}))
        self.assertEqual(4, code({"BIGCAST_SECRET": SECRET + "?"}))
        self.assertEqual(0, code({"BIGCAST_SECRET": SECRET}))
        path = self.file("secret", SECRET.encode())
        path.chmod(0o600)
        self.assertEqual(0, code({}, "--secret-file", path))
        self.assertEqual(0, code({"BIGCAST_SECRET_FILE": str(path)}))
        path.chmod(0o644)
        self.assertEqual(2, code({}, "--secret-file", path))
        self.assertEqual(2, code({"BIGCAST_SECRET": "short"}))

    def test_standard_input_of_unknown_size(self):
        content = os.urandom(5_000_000)
        self.run_cli("put", "-", "--key", "ns/piped", "--chunk-size", "1m", stdin=content)
        self.assertEqual(content, self.run_cli("get", "ns/piped", "-").stdout)
        self.run_cli("put", "-", "--key", "ns/empty")
        self.assertEqual(0, self.json_line("stat", "ns/empty")["size"])

    def test_an_interrupted_put_leaves_nothing(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with subprocess.Popen(self.command("put", "-", "--key", "ns/half", "--chunk-size", "64k"),
                                  env=CLEAN, stdin=subprocess.PIPE) as process:
                process.stdin.write(os.urandom(1_000_000))
                process.stdin.flush()
                self.eventually(lambda: self.memory_used() > 500_000)
                process.send_signal(number)
                self.assertEqual(code, process.wait(timeout=60))
            self.eventually(lambda: self.memory_used() == 0)
            self.run_cli("stat", "ns/half", code=3)

    def test_an_interrupted_get_leaves_nothing(self):
        target = self.file("old", b"as it was")
        with subprocess.Popen(self.command("put", "-", "--key", "ns/slow", "--chunk-size", "64k"),
                              env=CLEAN, stdin=subprocess.PIPE) as writer:
            writer.stdin.write(os.urandom(200_000))
            writer.stdin.flush()
            self.eventually(lambda: self.memory_used() > 0)
            with subprocess.Popen(self.command("get", "ns/slow", target), env=CLEAN) as reader:
                self.eventually(lambda: self.has_written(reader))
                reader.send_signal(signal.SIGTERM)
                self.assertEqual(143, reader.wait(timeout=60))
            writer.kill()
        self.assertEqual(["old"], [p.name for p in self.dir.iterdir()])
        self.assertEqual(b"as it was", target.read_bytes())

    def test_a_get_of_an_abandoned_blob_fails_and_leaves_nothing(self):
        with subprocess.Popen(self.command("put", "-", "--key", "ns/gone", "--chunk-size", "64k"),
                              env=CLEAN, stdin=subprocess.PIPE) as writer:
            writer.stdin.write(os.urandom(200_000))
            writer.stdin.flush()
            self.eventually(lambda: self.memory_used() > 0)
            with subprocess.Popen(self.command("get", "ns/gone", self.dir / "x"), env=CLEAN,
                                  stderr=subprocess.PIPE) as reader:
                self.eventually(lambda: self.has_written(reader))
                writer.kill()
                self.assertIn(b"ABORTED", reader.stderr.read())
                self.assertEqual(1, reader.wait(timeout=60))
        self.assertEqual([], list(self.dir.iterdir()))

    def test_a_get_replaces_through_links_and_writes_to_devices(self):
        self.run_cli("put", self.file("a", b"new"), "--key", "ns/a")
        real = self.file("real", b"old")
        real.chmod(0o640)
        link = self.dir / "link"
        link.symlink_to(real)
        self.run_cli("get", "ns/a", link)
        self.assertTrue(link.is_symlink())
        self.assertEqual((b"new", 0o640), (real.read_bytes(), real.stat().st_mode & 0o777))
        self.run_cli("get", "ns/a", "/dev/null")
        self.assertTrue(pathlib.Path("/dev/null").is_char_device())
        self.run_cli("get", "ns/a", self.dir / "no" / "such", code=1)

    def test_a_file_that_grows_is_refused(self):
        path = self.file("log", os.urandom(1_000_000))

        def grow():
            with path.open("ab") as file:
                file.write(b"more")
        proxy = Interrupter(self.node.address, 300_000, grow)
        self.addCleanup(proxy.end)
        done = subprocess.run([BIN / "bigcast", "--server", proxy.address, "put", path, "--key",
                               "ns/grew", "--chunk-size", "64k"],
                              env=CLEAN, capture_output=True, timeout=120, check=False)
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stderr, rb"IO: .*log: changed while it was read")
        self.eventually(lambda: self.memory_used() == 0)
        self.run_cli("stat", "ns/grew", code=3)

    def test_a_file_that_does_not_tell_its_size(self):
        self.run_cli("put", "/proc/self/status", "--key", "ns/made-up")
        self.assertIn(b"Name:", self.run_cli("get", "ns/made-up", "-").stdout)

    def test_nobody_reads_the_output(self):
        self.run_cli("put", self.file("a", os.urandom(3_000_000)), "--key", "ns/a")
        read, write = os.pipe()
        os.close(read)
        for arguments in (["get", "ns/a", "-"], ["ls", "ns"]):
            done = subprocess.run(self.command(*arguments), stdout=write, stderr=subprocess.PIPE,
                                  env=CLEAN, check=False)
            self.assertEqual((1, b""), (done.returncode, done.stderr))
        os.close(write)


if __name__ == "__main__":
    BIN = pathlib.Path(sys.argv.pop())
    VERSION = subprocess.run([BIN / "bigcast", "version"], capture_output=True, check=True,
                             text=True).stdout.split()[1]
    unittest.main()
