"""The node's page and what it asks for, in a real browser where there is one."""

import json
import shutil
import subprocess
from urllib.parse import quote

import harness
from faults import FaultTest, payload
from harness import MIB, eventually

CHUNK = 64 * 1024
BROWSER_S = 60


class Page(FaultTest):
    def ask(self, node, path, status=200):
        code, body = node.get(path)
        self.assertEqual(status, code, body)
        return json.loads(body)

    def test_the_node_tells_what_it_has_in_bounded_answers(self):
        node = self.home()
        for i in range(7):
            self.put(node, f"team-{i % 2}/blob-{i}", payload(3 * CHUNK), CHUNK)
        keys, after, pages = [], "", 0
        while True:
            page = self.ask(node, f"/api/blobs?limit=3&after={quote(after, safe='')}")
            self.assertLessEqual(len(page["blobs"]), 3)
            keys += [blob["key"] for blob in page["blobs"]]
            pages += 1
            if not page["more"]:
                break
            after = keys[-1]
        self.assertEqual(sorted(f"team-{i % 2}/blob-{i}" for i in range(7)), keys)
        self.assertEqual(3, pages)
        about = self.ask(node, "/api/node")
        self.assertEqual(7, about["blobs"])
        self.assertEqual(7 * 3 * CHUNK, about["tiers"][0]["used"])
        self.assertEqual([("team-0", 12 * CHUNK), ("team-1", 9 * CHUNK)],
                         [(n["name"], n["used"]) for n in about["namespaces"]])
        self.assertEqual([], about["transfers"])
        for limit in ("0", "101", "x", "3x", ""):
            self.assertIn("limit", self.ask(node, f"/api/blobs?limit={limit}", 400)["error"])
        self.ask(node, "/api/blobs/xyz", 400)
        self.ask(node, "/api/blobs/" + "0" * 32, 404)
        self.assertEqual(404, node.get("/api/blobsandmore")[0])

    def test_a_large_blob_has_a_small_map(self):
        node = self.home()
        self.put(node, "t/x", payload(1000 * CHUNK), CHUNK)
        blob = self.ask(node, "/api/blobs")["blobs"][0]
        about = self.ask(node, "/api/blobs/" + blob["id"])
        self.assertEqual((1000, 3), (about["chunks"], about["chunks_a_cell"]))
        self.assertEqual("9" * 334, about["hosts"][0]["held"])

    def spreading(self, name="t/x"):
        """A home and a relay that has a part of its blob, and whose reader waits."""
        home, relay = self.home(), self.relay()
        content = payload(8 * MIB)
        self.put(home, name, content, CHUNK)
        call = self.get(home, name, through=relay)
        call.read(CHUNK)
        return home, relay, call, content

    def test_a_blob_s_map_fills_up_while_it_spreads(self):
        home, relay, call, content = self.spreading()
        blob = self.ask(home, "/api/blobs")["blobs"][0]["id"]

        def hosts():
            return self.ask(home, f"/api/blobs/{blob}")["hosts"]

        eventually(lambda: len(hosts()) == 2 and "9" in hosts()[1]["held"], "a relay's first chunk")
        self.assertEqual("9" * 128, hosts()[0]["held"])
        self.assertEqual(relay.listen, hosts()[1]["host"])
        self.assertIn("0", hosts()[1]["held"])
        self.assertEqual([relay.listen], self.ask(home, "/api/node")["nodes"])
        fetching = self.ask(relay, "/api/node")["transfers"]
        self.assertEqual([(blob, "fetch")], [(b["id"], b["kind"]) for b in fetching])
        self.assert_right(call, content)

    def browse(self, node, fragment=""):
        """The page's text as the browser has it after its scripts ran."""
        browser = shutil.which("chromium")
        if not browser:
            self.skipTest("the command 'chromium' is missing")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   f"--user-data-dir={self.scratch}/browser", "--virtual-time-budget=4000",
                   "--dump-dom", f"http://{node.http}/{fragment}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * BROWSER_S)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def test_a_browser_shows_all_of_it(self):
        hostile = "t/<script>document.title='taken'</script>"
        home, relay, call, content = self.spreading(hostile)
        blob = self.ask(home, "/api/blobs")["blobs"][0]["id"]
        eventually(lambda: len(self.ask(home, f"/api/blobs/{blob}")["hosts"]) == 2, "a relay")
        dom = self.browse(home, "#" + blob)
        for text in (home.listen, ">ready<", "8.0 MiB in 128 chunks", "this node", relay.listen,
                     "100 %", "t/&lt;script&gt;", "1 blob of t"):
            self.assertIn(text, dom)
        self.assertEqual(2, dom.count("<canvas"))
        self.assertNotIn("<title>taken", dom)
        self.assert_right(call, content)


if __name__ == "__main__":
    harness.main()
