"""Killed nodes and bad networks, by a proxy that misbehaves: docs/FAULTS.md has the table."""

import contextlib
import os
import time

import harness
from faults import CHUNK, KIB, Call, FaultTest, digest, payload
from harness import MIB, eventually

NOT_FOUND, UNAVAILABLE = 3, 5
SIZE = 16 * MIB
HALF = SIZE // 2
WINDOW = 4 * CHUNK  # of a client: what may be under way when a source is lost
FULL = bool(os.environ.get("BIGCAST_FULL"))
HEADER_FLIPS = 2000 if FULL else 40
CLOGS = 60 if FULL else 6


class Killed(FaultTest):
    def test_a_get_goes_on_at_the_home_when_its_relay_is_killed(self):
        home, relay = self.home(), self.relay()
        content = payload(SIZE)
        with self.back_to_baseline(home, keys=["t/x"]):
            self.put(home, "t/x", content)
            get = self.get(home, "t/x", through=relay)
            before = self.served_directly(home)
            get.read(HALF)
            self.assertEqual(before, self.served_directly(home))
            relay.kill()
            self.assert_right(get, content)
            self.assertLessEqual(self.served_directly(home) - before, SIZE - HALF)

    def test_a_get_goes_on_at_another_relay_when_home_and_relay_are_killed(self):
        home, first, second = self.home(), self.relay(), self.relay(grace="60s")
        content = payload(SIZE)
        self.put(home, "t/x", content)
        self.assert_right(self.get(home, "t/x", through=second), content)
        get = self.get(home, "t/x", "--server", second.listen, through=first)
        get.read(HALF)
        first.kill()
        home.kill()
        before = self.served_directly(second)
        self.assert_right(get, content)
        self.assertLessEqual(self.served_directly(second) - before, SIZE - HALF)
        eventually(lambda: second.metrics()["receive_reserve_used_bytes"] == 0, "idle reserves")
        self.assertEqual(0, second.stop())

    def test_a_get_ends_when_the_only_node_is_killed(self):
        home = self.home()
        self.put(home, "t/x", payload(SIZE))
        get = self.get(home, "t/x")
        get.read(HALF)
        home.kill()
        self.assert_typed(get, get.end(), UNAVAILABLE)

    def test_a_restarted_home_says_that_the_blob_is_gone(self):
        home, relay = self.home(), self.relay()
        with self.back_to_baseline(relay):
            self.put(home, "t/x", payload(SIZE))
            get = self.get(home, "t/x", through=relay)
            get.read(CHUNK)
            home.kill()
            again = self.node("--memory", "64m", listen=home.listen)
            self.assert_typed(get, get.end(), NOT_FOUND)
            self.assertEqual(0, again.stop())

    def test_a_put_ends_when_its_node_is_killed(self):
        home = self.home()
        put = Call(self, home, "put", "-", "--key", "t/x", stdin=harness.subprocess.PIPE)
        put.process.stdin.write(payload(CHUNK))
        home.kill()
        put.process.stdin.close()
        self.assert_typed(put, put.end(), UNAVAILABLE)


class StoppedReader(FaultTest):
    """By SIGSTOP in mid-read."""

    def test_what_a_reader_copies_makes_way_for_others_and_is_read_again(self):
        home, relay = self.home(), self.relay("--memory", "16m")
        content, other = payload(SIZE), payload(SIZE, 2)
        with self.back_to_baseline(home, relay, keys=["t/x", "t/y"]):
            self.put(home, "t/x", content)
            self.put(home, "t/y", other)
            get = self.get(home, "t/x", through=relay)
            get.read(HALF)
            eventually(lambda: relay.metrics()["store_used_bytes"] >= HALF, "half of it there")
            get.process.send_signal(harness.signal.SIGSTOP)
            self.assert_right(self.get(home, "t/y", through=relay), other)
            self.assertGreater(relay.metrics()["chunks_dropped_total"], 0)
            get.process.send_signal(harness.signal.SIGCONT)
            self.assert_right(get, content)


class SilentPartition(FaultTest):
    """Nothing is closed; nothing arrives any more. It is noticed by deadlines of 2 s (a client that is
    told so), 4 s (a relay, of a peer) and 10 s (of a home)."""

    def test_a_client_leaves_a_silent_source_for_another(self):
        proxy, home = self.proxy(), self.home()
        proxy.forward_to(home.listen)
        content = payload(SIZE)
        with self.back_to_baseline(home, keys=["t/x"]):
            self.put(home, "t/x", content)
            get = Call(self, None, "--server", proxy.address, "--timeout", "2s", "get", "t/x", "-")
            get.read(HALF)
            with self.in_time("the other source had given all"):
                proxy.faults.silence()
                self.assert_right(get, content)
            self.assertLessEqual(self.served_directly(home), SIZE + 2 * WINDOW)

    def test_a_get_without_another_source_ends(self):
        proxy = self.proxy()
        home = self.home(proxy=proxy)
        with self.back_to_baseline(home, keys=["t/x"]):
            self.put(home, "t/x", payload(SIZE))
            get = Call(self, None, "--server", proxy.address, "--timeout", "2s", "get", "t/x", "-")
            get.read(HALF)
            with self.in_time("the get ended"):
                proxy.faults.silence()
                self.assert_typed(get, get.end(), UNAVAILABLE)

    def test_a_put_ends_and_leaves_nothing(self):
        proxy, home = self.proxy(), self.home()
        proxy.forward_to(home.listen)
        with self.back_to_baseline(home):
            put = Call(self, None, "--server", proxy.address, "--timeout", "2s", "put", "-", "--key",
                       "t/x", stdin=harness.subprocess.PIPE)
            put.process.stdin.write(payload(12 * MIB))
            eventually(lambda: home.metrics()["chunks_received_total"] > 1, "a stored chunk")
            with self.in_time("the put ended"):
                proxy.faults.silence()
                put.process.stdin.close()
                self.assert_typed(put, put.end(), UNAVAILABLE)

    def test_a_relay_goes_on_when_it_reaches_the_home_again(self):
        proxy = self.proxy()
        home, relay = self.home(proxy=proxy), self.relay()
        content = payload(SIZE)
        with self.back_to_baseline(home, relay, keys=["t/x"]):
            self.put(home, "t/x", content)
            get = Call(self, home, *relay.local, "get", "t/x", "-")
            get.read(CHUNK)
            known = proxy.connections
            with self.in_time("a new connection to the home"):
                proxy.faults.silence()
                get.drain()
                # Without another word from the home: what is on its way is given up, and tried again.
                eventually(lambda: proxy.connections > known, "a new connection to the home")
            proxy.faults.silence(False)
            self.assert_right(get, content)
            self.assertLessEqual(home.metrics()["served_peer_bytes_total"], SIZE + 2 * WINDOW)

    def test_a_home_that_answers_after_the_grace_leaves_nothing_at_a_relay(self):
        proxy = self.proxy()
        home, relay = self.home(proxy=proxy), self.relay()
        content = payload(CHUNK)
        with self.back_to_baseline(home, relay, keys=["t/x"]):
            self.put(home, "t/x", content)
            proxy.faults.delay_s = 1
            self.assert_right_or_typed(self.get(home, "t/x", through=relay), content)
            proxy.faults.delay_s = 0

    def test_a_silent_peer_is_left_for_the_home(self):
        proxy = self.proxy()
        home, peer, relay = self.home(), self.relay(proxy=proxy), self.relay()
        content = payload(SIZE)
        with self.back_to_baseline(home, peer, relay, keys=["t/x"]):
            self.put(home, "t/x", content)
            keeper = self.get(home, "t/x", through=peer)  # stays, so that the relay goes on giving
            keeper.read(HALF)
            get = self.get(home, "t/x", through=relay)
            eventually(lambda: relay.metrics()['chunks_fetched_total{from="peer"}'] > 0,
                       "a chunk from the peer")
            with self.in_time("all came past the peer"):
                proxy.faults.silence()
                self.assert_right(get, content)
            self.assert_right(keeper, content)
            self.assertGreater(relay.metrics()["peer_fetch_failures_total"], 0)


class Slow(FaultTest):
    """Bytes come, but few."""

    @contextlib.contextmanager
    def slow_holder(self):
        """A home of t/x, a relay that has it and that others reach by a proxy, for the block to make
        slow, and a relay that has nothing yet: the proxy, the home, that relay and the content."""
        proxy = self.proxy()
        home, slow, fast = self.home(), self.relay(proxy=proxy), self.relay()
        content = payload(SIZE)
        with self.back_to_baseline(home, slow, fast, keys=["t/x"]):
            self.put(home, "t/x", content)
            # A reader that stays keeps the relay as one that others are sent to.
            staying = self.get(home, "t/x", through=slow)
            staying.read(HALF)
            eventually(lambda: slow.metrics()["fetched_bytes_total"] >= SIZE, "a holder of all")
            yield proxy, home, fast, content
            proxy.faults.rate = 0
            self.assert_right(staying, content)

    def test_chunks_come_from_elsewhere_than_a_slow_holder(self):
        with self.slow_holder() as (proxy, home, fast, content):
            proxy.faults.rate = 8 * KIB  # half a minute a chunk, from the first one on
            self.assert_right(self.get(home, "t/x", through=fast), content)
            self.assertGreater(proxy.bytes_down, 0)  # it was asked, ...
            fetched = fast.metrics()
            self.assertEqual(0, fetched['fetched_bytes_total{from="peer"}'])  # ... and left
            self.assertEqual(SIZE, fetched['fetched_bytes_total{from="home"}'])

    def test_a_holder_is_left_when_it_becomes_slow(self):
        """Faster than what counts as silent, and much slower than before."""
        with self.slow_holder() as (proxy, home, fast, content):
            get = self.get(home, "t/x", through=fast)
            get.read(CHUNK)  # its relay then has as many as it reads ahead
            eventually(lambda: fast.metrics()['fetched_bytes_total{from="peer"}'] > 0, "its chunk")
            proxy.faults.rate = 24 * KIB  # ten seconds a chunk
            before = fast.metrics()['fetched_bytes_total{from="peer"}']
            self.assert_right(get, content)
            fetched = fast.metrics()
            late = fetched['fetched_bytes_total{from="peer"}'] - before
            self.assertLessEqual(late, 2 * WINDOW)  # what was on its way already
            self.assertGreaterEqual(fetched["fetched_bytes_total"], SIZE)  # all came by the relay

    def test_a_put_lasts_as_long_as_its_bytes_come(self):
        """One chunk, behind which no renewal can be heard before the session's time is up."""
        proxy, home = self.proxy(), self.home()
        proxy.forward_to(home.listen)
        content = payload(2 * MIB)
        with self.back_to_baseline(home, keys=["t/x"]):
            proxy.faults.rate = 256 * KIB
            self.assert_ok(self.bigcast(None, "--server", proxy.address, "put", "-", "--key", "t/x",
                                        input=content))
            proxy.faults.rate = 0
            self.assert_right(self.get(home, "t/x"), content)


class OneWayPartition(FaultTest):
    """What a relay sends arrives and what its home sends does not, or the other way."""

    def run_case(self, direction):
        proxy = self.proxy()
        home, relay = self.home(proxy=proxy), self.relay()
        old, new = payload(SIZE, 1), payload(SIZE, 2)
        with self.back_to_baseline(home, relay, keys=["t/old", "t/x"]):
            self.put(home, "t/old", old)
            self.put(home, "t/x", old)
            get = self.get(home, "t/old", through=relay)
            replaced = self.get(home, "t/x", through=relay)
            get.read(CHUNK)
            replaced.read(CHUNK)
            known = proxy.connections
            setattr(proxy.faults, direction, True)
            get.drain()
            replaced.drain()
            self.put(home, "t/x", new, CHUNK, "--replace")
            eventually(lambda: proxy.connections > known, "a new connection to the home")
            setattr(proxy.faults, direction, False)
            self.assert_right(get, old)
            # The key names another blob now; the old one is whole or gone, never a mixture.
            self.assert_right_or_typed(replaced, old)
            self.assert_right(self.get(home, "t/x", through=relay), new)

    def test_the_home_is_heard_no_more(self):
        self.run_case("silent_down")

    def test_the_home_hears_no_more(self):
        self.run_case("silent_up")

    def test_homes_of_which_one_hears_the_other_no_more_stay_the_same(self):
        proxy = self.proxy()
        first, second = self.home(proxy=proxy), self.home()
        old, new = payload(SIZE, 1), payload(SIZE, 2)
        put = ("--server", second.listen, "put", "-", "--key", "t/x", "--replicas", "2",
               "--chunk-size", CHUNK)
        self.assert_ok(self.bigcast(first, *put, input=old))
        if FULL:
            proxy.faults.silent_down = True
        else:
            proxy.forward_to("127.0.0.1:1")  # refuses
            proxy.reset_all()
        lacks = lambda node: node.metrics()["blobs_under_replicated"]
        eventually(lambda: lacks(second) == 1, "a home that is missed")
        self.assertEqual(0, lacks(first))
        if FULL:  # the other way is open: the second is asked to copy, and can't, for 30 s
            replaced = self.bigcast(first, *put, "--replace", input=new)
            self.assert_fails(replaced, UNAVAILABLE, "UNAVAILABLE")
        for node in (first, second):
            self.assertEqual(old, self.assert_ok(self.bigcast(node, "get", "t/x", "-")))
        proxy.faults.silent_down = False
        proxy.forward_to(first.listen)
        eventually(lambda: lacks(second) == 0, "enough homes")
        self.assert_ok(self.bigcast(first, *put, "--replace", input=new))
        for node in (first, second):
            self.assertEqual(new, self.assert_ok(self.bigcast(node, "get", "t/x", "-")))
            self.assertEqual(0, lacks(node))
        self.assert_ok(self.bigcast(second, "rm", "t/x"))
        for node in (first, second):
            self.assert_nothing_left(node)


class Resets(FaultTest):
    """Every connection is reset after 1 MiB: what came before stays."""

    def run_case(self, through_relay):
        proxy = self.proxy()
        home, relay = self.home(proxy=proxy), self.relay()
        content = payload(SIZE)
        with self.back_to_baseline(home, relay, keys=["t/x"]):
            self.put(home, "t/x", content)
            proxy.faults.reset_every = MIB
            proxy.faults.rate = 8 * MIB  # a reset also takes back what was not read yet
            entry = ("--local", relay.local[1]) if through_relay else ()
            get = Call(self, None, "--server", proxy.address, *entry, "get", "t/x", "-")
            self.assert_right(get, content)
            self.assertGreaterEqual(proxy.resets, SIZE // MIB)
            # Whole chunks of each MiB count: the part of one that a reset cut off is lost.
            self.assertLessEqual(proxy.bytes_down, SIZE * 2)
            proxy.faults.reset_every = 0

    def test_a_client_resumes_at_the_chunk(self):
        self.run_case(through_relay=False)

    def test_a_relay_resumes_at_the_chunk(self):
        self.run_case(through_relay=True)

    def test_chunks_larger_than_what_passes_end_typed(self):
        proxy = self.proxy()
        home = self.home(proxy=proxy)
        with self.back_to_baseline(home, keys=["t/x"]):
            self.put(home, "t/x", payload(SIZE), chunk=4 * MIB)
            proxy.faults.reset_every = MIB
            get = Call(self, None, "--server", proxy.address, "get", "t/x", "-")
            self.assert_typed(get, get.end(), UNAVAILABLE)
            self.assertEqual(b"", get.output)
            proxy.faults.reset_every = 0

    def test_a_put_ends_and_leaves_nothing(self):
        proxy, home = self.proxy(), self.home()
        proxy.forward_to(home.listen)
        proxy.faults.rate = 8 * MIB  # so that it is still under way then
        with self.back_to_baseline(home):
            source = self.file("in", payload(SIZE))
            put = Call(self, None, "--server", proxy.address, "put", source, "--key", "t/x")
            eventually(lambda: proxy.bytes_up > MIB, "a part of the upload")
            proxy.reset_all()
            self.assert_typed(put, put.end(), UNAVAILABLE)


class LostAnswer(FaultTest):
    def until_quiet(self, proxy):
        known = -1
        while proxy.bytes_down != known:
            known = proxy.bytes_down
            time.sleep(0.3)

    def test_a_put_whose_seal_was_done_and_not_heard_of_is_done(self):
        proxy, home = self.proxy(), self.home()
        proxy.forward_to(home.listen)
        content = payload(SIZE)
        with self.back_to_baseline(home, keys=["t/x"]):
            put = Call(self, None, "--server", proxy.address, "put", "-", "--key", "t/x",
                       "--chunk-size", CHUNK, stdin=harness.subprocess.PIPE)
            put.process.stdin.write(content)
            chunks = SIZE // CHUNK + 1  # of the warm-up
            eventually(lambda: home.metrics()["chunks_received_total"] == chunks, "all chunks")
            self.until_quiet(proxy)  # and their answers
            proxy.faults.silent_down = True
            put.process.stdin.close()
            eventually(lambda: home.metrics()['uploads_total{event="sealed"}'] == 2, "the seal")
            proxy.reset_all()
            proxy.faults.silent_down = False
            self.assertEqual(0, put.end(), put.errors)
            self.assert_right(self.get(home, "t/x"), content)


class BitFlips(FaultTest):
    def test_a_damaged_chunk_is_fetched_again_by_a_client(self):
        proxy = self.proxy()
        home = self.home(proxy=proxy)
        content, target = payload(SIZE), self.scratch / "out"
        with self.back_to_baseline(home, keys=["t/x"]):
            self.put(home, "t/x", content)
            proxy.faults.flip_every = 5 * MIB
            report = self.json(self.bigcast(None, "--server", proxy.address, "--json", "get", "t/x",
                                            target))[0]
            self.assertEqual(digest(content), digest(target.read_bytes()))
            self.assertGreaterEqual(proxy.flips, 3)
            self.assertGreaterEqual(report["chunks_reread"], 3)

    def test_a_damaged_chunk_is_fetched_again_by_a_relay(self):
        proxy = self.proxy()
        home, relay = self.home(proxy=proxy), self.relay()
        content = payload(SIZE)
        with self.back_to_baseline(home, relay, keys=["t/x"]):
            self.put(home, "t/x", content)
            proxy.faults.flip_every = 5 * MIB
            self.assert_right(self.get(home, "t/x", through=relay), content)
            self.assertGreaterEqual(proxy.flips, 3)
            failures = relay.metrics()['checksum_failures_total{at="network"}']
            self.assertGreaterEqual(failures, 3)

    def test_a_damaged_put_is_refused_and_leaves_nothing(self):
        proxy, home = self.proxy(), self.home()
        proxy.forward_to(home.listen)
        with self.back_to_baseline(home):
            proxy.faults.flip_up_at = frozenset({5 * MIB})
            done = self.bigcast(None, "--server", proxy.address, "put", "-", "--key", "t/x",
                                input=payload(SIZE))
            self.assertEqual(1, proxy.flips)
            self.assert_fails(done, 1, "CORRUPT")
            self.assertEqual(1, home.metrics()['checksum_failures_total{at="network"}'])

    def run_headers(self, way, key):
        """Small chunks, so that most of what is sent is frame headers, segment tables, metas."""
        proxy = self.proxy()
        home, relay = self.home(proxy=proxy), self.relay()
        content = b"what compresses well is mostly headers on the wire. " * 10_000
        with self.back_to_baseline(home, relay, keys=[key]):
            self.put(home, key, content, chunk=64 * KIB)
            server = ("--server", proxy.address, "--timeout", "1s")
            self.assert_right(Call(self, None, *server, "get", key, "-"), content)
            size = proxy.bytes_down if way == "flip_at" else proxy.bytes_up
            right = 0
            for _ in range(HEADER_FLIPS):
                setattr(proxy.faults, way, frozenset({self.random.randrange(size)}))
                get = Call(self, None, *server, "get", key, "-")
                right += self.assert_right_or_typed(get, content)
            print(f"  {right} of {HEADER_FLIPS} gets were right, {proxy.flips} bits flipped")
            setattr(proxy.faults, way, frozenset())
            self.assertGreater(proxy.flips, HEADER_FLIPS // 2)
            self.assert_right(Call(self, None, *server, "get", key, "-"), content)

    def test_damaged_headers_of_answers(self):
        self.run_headers("flip_at", "t/down")

    def test_damaged_headers_of_requests(self):
        self.run_headers("flip_up_at", "t/up")


class SwizzleClog(FaultTest):
    """Random sets of links stop and go on in random order while blobs are written and read."""

    def test_every_transfer_is_right_or_ends_typed(self):
        proxies = [self.proxy() for _ in range(4)]
        home = self.home(proxy=proxies[0])
        relays = [self.relay(proxy=proxy) for proxy in proxies[1:]]
        contents = {f"t/{i}": payload(4 * MIB, i) for i in range(4)}
        keys = [*contents, *(f"t/new{i}" for i in range(3))]
        with self.back_to_baseline(home, *relays, keys=keys):
            for key, content in contents.items():
                self.put(home, key, content)
            gets = [
                (self.get(home, key, through=relay).drain(), content)
                for relay in relays
                for key, content in contents.items()
            ]
            puts = []
            for i in range(3):
                source = self.file(f"new{i}", payload(4 * MIB, 100 + i))
                puts.append(Call(self, None, "--server", proxies[0].address, "put", source, "--key",
                                 f"t/new{i}", "--chunk-size", CHUNK).drain())
            self.swizzle(proxies)
            right = sum(self.assert_right_or_typed(get, content) for get, content in gets)
            print(f"  {right} of {len(gets)} gets were right")
            for i, put in enumerate(puts):
                self.check_put(home, put, f"t/new{i}", payload(4 * MIB, 100 + i))
            # Once the network is well again so is everything.
            for relay in relays:
                for key, content in contents.items():
                    self.assert_right(self.get(home, key, through=relay), content)

    def swizzle(self, proxies):
        for _ in range(CLOGS):
            chosen = self.random.sample(proxies, self.random.randrange(1, len(proxies) + 1))
            for proxy in chosen:
                proxy.clog_some()
                time.sleep(self.random.uniform(0, 0.2))
            self.random.shuffle(chosen)
            for proxy in chosen:
                time.sleep(self.random.uniform(0, 0.4))
                proxy.unclog()

    def check_put(self, home, put, key, content):
        """I2: what was acknowledged is there, and what was not is not."""
        code = put.end()
        get = self.get(home, key)
        if code == 0:
            self.assert_right(get, content)
        else:
            self.assert_typed(put, code)
            self.assert_typed(get, get.end(), NOT_FOUND)


if __name__ == "__main__":
    harness.main()
