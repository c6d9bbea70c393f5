"""The node's page and what it asks for, in a real browser where there is one."""

import json
from urllib.parse import quote

import browser
import harness
from faults import PATIENT, FaultTest, payload
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
        for first, expected in (("", "team-0/blob-0"), ("team-0/blob-2", "team-0/blob-2"),
                                ("team-0/blob-3", "team-0/blob-4"), ("team-0/c", "team-1/blob-1"),
                                ("team-1/blob-5 ", None), ("u", None)):
            begun = self.ask(node, f"/api/blobs?limit=1&from={quote(first, safe='')}")["blobs"]
            self.assertEqual([expected] if expected else [], [blob["key"] for blob in begun], first)
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
        home, relay = self.home(*PATIENT), self.relay(*PATIENT)
        content = payload(8 * MIB)
        self.put(home, name, content, CHUNK)
        call = self.get(home, name, through=relay, limit_s=10 * BROWSER_S)
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
        [sending] = self.ask(home, "/api/node")["transfers"]
        self.assertEqual((blob, "send", relay.listen),
                         (sending["id"], sending["kind"], sending["to"]))
        self.assertTrue(0 < sending["chunks_here"] < 128, sending)
        self.assert_right(call, content)
        eventually(lambda: not self.ask(home, "/api/node")["transfers"], "nothing is on its way")

    def browser(self):
        if not browser.available():
            self.skipTest("the command 'chromium' is missing")
        started = browser.Browser(self.scratch / "browser")
        self.addCleanup(started.end)
        return started

    def shows(self, page, node, fragment, *texts):
        """The page's text once its scripts have shown all of this."""
        page.open(f"http://{node.http}/{fragment}")
        seen = [""]

        def there():
            seen[0] = page.value("document.documentElement?.outerHTML ?? ''")
            return all(text in seen[0] for text in texts)
        try:
            eventually(there, "a page that shows all", BROWSER_S)
        except AssertionError:
            self.assertEqual([], [text for text in texts if text not in seen[0]], seen[0])
        return seen[0]

    def test_a_browser_shows_all_of_it(self):
        hostile = "t/<script>document.title='taken'</script>" + 60 * "long"
        home, relay, call, content = self.spreading(hostile)
        blob = self.ask(home, "/api/blobs")["blobs"][0]["id"]
        eventually(lambda: self.ask(home, "/api/node")["transfers"], "a relay")
        page = self.browser()
        page.look(1200)
        dom = self.shows(page, home, "#" + blob, home.listen, ">ready<", "8.0 MiB in 128 chunks",
                         "this node", relay.listen, "100 %", "t/&lt;script&gt;", "1 blob of t",
                         f"send to {relay.listen}")
        self.assertEqual(2, dom.count("<canvas"))
        self.assertNotIn("<title>taken", dom)
        self.assert_shows_progress(page, f"send to {relay.listen}")
        self.assert_fits_and_has_two_schemes(page)
        self.shows(page, relay, "#" + blob, relay.listen, ">fetch<", "8.0 MiB in 128 chunks")
        self.assert_shows_progress(page, "fetch")
        self.assert_fits_and_has_two_schemes(page)
        self.assert_right(call, content)

    def assert_shows_progress(self, page, kind):
        """One row of Transfers, of that kind: some of the chunks, as a number and as a bar."""
        rows = page.value("[...document.querySelectorAll('#transfers tr')].slice(1).map(row => ["
                          "...[...row.cells].slice(1, 4).map(cell => cell.textContent),"
                          "row.querySelector('.bar i').style.width])")
        [[shown, chunks, size, width]] = rows
        self.assertEqual((kind, "8.0 MiB"), (shown, size))
        some, whole = map(int, chunks.split(" of "))
        self.assertEqual(128, whole)
        self.assertTrue(0 < some < whole, chunks)
        self.assertAlmostEqual(100 * some / whole, float(width.removesuffix("%")), places=2)

    def assert_fits_and_has_two_schemes(self, page):
        """At the width of a phone nothing is cut off or has to be pushed sideways, but for tables,
        which scroll by themselves; dark and light are two looks, each legible."""
        colours = {}
        for scheme in ("light", "dark"):
            page.look(375, 800, scheme)
            self.assertEqual(375, page.value("window.innerWidth"))
            self.assertLessEqual(page.value("document.documentElement.scrollWidth"), 375)
            self.assertEqual([], page.value(
                "[...document.body.querySelectorAll('*')].filter(e => !e.closest('.scroll > *')"
                " && e.getBoundingClientRect().right > 375).map(e => e.outerHTML.slice(0, 200))"))
            colours[scheme] = [page.value(f"getComputedStyle(document.body).{name}")
                               for name in ("backgroundColor", "color")]
        (light, on_light), (dark, on_dark) = colours["light"], colours["dark"]
        self.assertEqual(4, len({light, on_light, dark, on_dark}), colours)
        page.look(1200)


if __name__ == "__main__":
    harness.main()
