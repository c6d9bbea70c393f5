"""The Python package without Spark, from its wheel: package_test.py BUILD BINARIES."""

import gc
import hashlib
import mmap
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from harness import MIB, SECRET, EndToEnd, eventually  # noqa: E402

MAPPED = "store_mapped_bytes"


def pattern(size, seed=0):
    return hashlib.shake_128(str(seed).encode()).digest(size)


class Package(EndToEnd):
    def nodes(self, count=1, memory="64m", flags=()):
        found = []
        for i in range(count):
            socket = f"unix:@bigcast-test-{os.getpid()}-{self._testMethodName}-{i}"[:90]
            node = self.node("--memory", memory, "--socket", socket, *flags)
            node.local = socket
            found.append(node)
        return found

    def test_what_is_put_comes_back_by_name_and_by_ref(self):
        [node] = self.nodes()
        with bigcast.connect(node.listen, local_node=node.local) as client:
            for size in (0, 1, 4096, 3 * MIB + 1):
                data = pattern(size)
                for mappable in (False, True):
                    name = f"team/{size}-{mappable}"
                    ref = client.put(name, data, mappable=mappable, chunk_size=1 << 16)
                    self.assertEqual(data, client.get(name))
                    blob = client.open(ref)
                    self.assertEqual(mappable and size > 0, blob.mapped)
                    self.assertEqual(data, blob.view)
                    self.assertTrue(blob.view.readonly)
                    self.assertEqual(size, len(blob))
            parts = [b"one", memoryview(b"two"), bytearray(b"three")]
            self.assertEqual(b"onetwothree", client.get(client.put("parts", parts)))
            client.remove("parts")
            with self.assertRaises(bigcast.BigcastError) as raised:
                client.open("parts")
            self.assertEqual("NOT_FOUND", raised.exception.code)
            with self.assertRaises(bigcast.BigcastError) as raised:
                client.put("team/1-True", b"x")
            self.assertEqual("ALREADY_EXISTS", raised.exception.code)
            client.put("team/1-True", b"x", replace=True)
            self.assertEqual(b"x", client.get("team/1-True"))
        with self.assertRaises(bigcast.BigcastError):
            client.get("team/1-True")  # closed

    def test_errors_say_what_is_wrong(self):
        node = self.node("--secret-file", str(self.file("secret", SECRET, 0o600)))
        bigcast.connect(node.listen, secret=SECRET).close()
        bigcast.connect(node.listen, secret_file=str(self.scratch / "secret")).close()
        for arguments, code in (({}, "UNAUTHENTICATED"), ({"secret": "short"}, "INVALID_ARGUMENT"),
                                ({"secret": SECRET, "lease": "x"}, "INVALID_ARGUMENT")):
            with self.assertRaises(bigcast.BigcastError) as raised:
                bigcast.connect(node.listen, **arguments)
            self.assertEqual(code, raised.exception.code, raised.exception)
            self.assertNotIn(SECRET, str(raised.exception))

    def test_a_mapping_lives_as_long_as_a_view_and_is_then_given_back(self):
        home, relay = self.nodes(2)
        data = pattern(5 * MIB)
        with bigcast.connect(home.listen) as writer:
            ref = writer.put("matrix", data, mappable=True)
        for node in (home, relay):
            client = bigcast.connect(local_node=node.local)
            part = client.open(ref, mapped=True).view[MIB:2 * MIB]
            client.close()
            gc.collect()
            self.assertEqual(data[MIB:2 * MIB], part)
            self.assertEqual(5 * MIB, node.metrics()[MAPPED])
            with self.assertRaises(TypeError):
                part[0] = 1
            del part
            eventually(lambda: node.metrics()[MAPPED] == 0, "the mapping is given back")

    def test_readers_share_it_and_their_death_gives_it_back(self):
        [node] = self.nodes()
        data = pattern(9 * MIB)
        client = bigcast.connect(node.listen, local_node=node.local)
        ref = client.put("matrix", data, mappable=True)
        readers = [self.reader(node, ref, "time.sleep(1000)") for _ in range(3)]
        try:
            for reader in readers:
                self.assertEqual(sum(data[::4096]), int(reader.stdout.readline()))
            self.assertEqual(9 * MIB, node.metrics()[MAPPED])
            self.assertEqual(9 * MIB, node.metrics()["store_used_bytes"])
            client.remove(ref)
            self.assertEqual(9 * MIB, node.metrics()["store_used_bytes"])
        finally:
            for reader in readers:
                reader.send_signal(signal.SIGKILL)
                reader.communicate()
        eventually(lambda: node.metrics()["store_used_bytes"] == 0, "the memory is free")
        client.close()

    def reader(self, node, ref, then):
        """A process that has mapped a blob once its first line is there, a sum of some bytes."""
        program = (f"import bigcast, sys, time; c = bigcast.connect(local_node={node.local!r})\n"
                   f"b = c.open({ref!r}, mapped=True); print(sum(b.view[::4096]), flush=True)\n"
                   f"{then}")
        return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE,
                                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})

    def test_a_stopped_reader_keeps_what_it_has_mapped_and_is_told_of(self):
        [node] = self.nodes(flags=["--mapped-warning", "500ms"])
        data = pattern(9 * MIB)
        client = bigcast.connect(node.listen, local_node=node.local)
        ref = client.put("matrix", data, mappable=True)
        reader = self.reader(node, ref, "sys.stdin.readline(); print(sum(b.view[::4096]))")
        try:
            self.assertEqual(sum(data[::4096]), int(reader.stdout.readline()))
            reader.send_signal(signal.SIGSTOP)
            self.assertEqual(0, node.metrics()["store_mapped_left_bytes"])
            client.remove(ref)
            eventually(lambda: node.metrics()["mappings_overdue_total"], "the reader is told of")
            for name in ("store_mapped_left_bytes", MAPPED, "store_used_bytes"):
                self.assertEqual(9 * MIB, node.metrics()[name], name)
            other = client.put("other", data)  # others go on in the rest of the memory
            self.assertEqual(data, client.get(other))
            client.remove(other)
            reader.send_signal(signal.SIGCONT)
            # It has what it had mapped, and gives it back.
            self.assertEqual(sum(data[::4096]), int(reader.communicate(b"\n")[0]))
        finally:
            reader.kill()
            reader.communicate()
        eventually(lambda: node.metrics()["store_used_bytes"] == 0, "the memory is free")
        self.assertEqual(0, node.metrics()["store_mapped_left_bytes"])
        self.assertEqual(1, node.metrics()["mappings_overdue_total"])
        client.close()
        self.assertEqual(0, node.stop())
        told = [line for line in node.log.splitlines() if "of a blob that has gone" in line]
        self.assertEqual(1, len(told), node.log)
        self.assertIn(f"process {reader.pid} ", told[0])

    def test_beyond_half_of_the_memory_readers_copy(self):
        [node] = self.nodes(memory="16m")
        data = pattern(9 * MIB)
        with bigcast.connect(node.listen, local_node=node.local) as client:
            ref = client.put("large", data, mappable=True)
            with self.assertRaises(bigcast.BigcastError) as raised:
                client.open(ref, mapped=True)
            self.assertEqual("NOT_MAPPABLE", raised.exception.code)
            blob = client.open(ref)
            self.assertFalse(blob.mapped)
            self.assertEqual(data, blob.view)

    def test_a_child_of_fork_keeps_what_is_mapped_and_harms_nothing(self):
        [node] = self.nodes()
        data = pattern(2 * MIB)
        client = bigcast.connect(node.listen, local_node=node.local)
        blob = client.open(client.put("matrix", data, mappable=True), mapped=True)
        child = os.fork()
        if child == 0:
            try:
                same = blob.view == data
                del blob, client
                gc.collect()
                with bigcast.connect(node.listen) as own:
                    same = same and own.get("matrix") == data
                os._exit(0 if same else 1)
            finally:
                os._exit(2)
        self.assertEqual(0, os.waitpid(child, 0)[1])
        self.assertEqual(data, blob.view)
        self.assertEqual(2 * MIB, node.metrics()[MAPPED])
        client.close()

    def test_pickles_keep_large_buffers_out_and_aligned(self):
        from bigcast import _spark

        large = pickle.PickleBuffer(pattern(MIB + 5))
        small = pickle.PickleBuffer(pattern(100))
        joined = b"".join(_spark._pickled({"large": large, "small": small, "n": [1, 2]}))
        memory = mmap.mmap(-1, len(joined))
        memory[:] = joined
        value = _spark._unpickled(memoryview(memory).toreadonly())
        self.assertEqual(pattern(MIB + 5), value["large"])
        self.assertEqual(pattern(100), bytes(value["small"]))
        self.assertEqual([1, 2], value["n"])
        self.assertLess(len(joined), MIB + 3 * 4096)
        self.assertEqual(4096, joined.find(pattern(MIB + 5)))
        grid = memoryview(pattern(70_000)).cast("B", (700, 100))
        for data in (b"", pattern(70_000), bytearray(pattern(9)), bytearray(), grid,
                     memoryview(pattern(70_000))[::-3], memoryview(b"")):
            joined = memoryview(b"".join(_spark._pickled(data)))
            self.assertEqual(bytes(data), _spark._unpickled(joined))

    def test_what_owns_its_memory_keeps_its_type(self):
        from bigcast import _spark

        value = [pattern(MIB), bytearray(pattern(MIB, 1)), b"", bytearray(),
                 pickle.PickleBuffer(b""), {"deep": (pattern(70_000, 2),)}]
        found = _spark._unpickled(memoryview(b"".join(_spark._pickled(value))).toreadonly())
        self.assertEqual([*value[:4], b"", value[5]], found)
        self.assertEqual([bytes, bytearray, bytes, bytearray, bytes, dict], list(map(type, found)))
        found[1][0] ^= 1  # its reader's own
        with self.assertRaises(bigcast.BigcastError):
            _spark._unpickled(memoryview(bytes(4096)))

    def place(self, ref, server="", local_node=""):
        """As a task's closure has it; what the process keeps of it goes with the test."""
        from bigcast import _spark

        self.addCleanup(_spark._start_anew)
        return _spark._Place(ref, "python-1", server, local_node, "default", os.urandom(16).hex())

    def without_library(self):
        """As on a host whose loader refuses it."""
        from bigcast import _native

        self.file("libbigcast.so", "of another architecture")
        return mock.patch.multiple(_native, _loaded=None, __file__=str(self.scratch / "_native.py"))

    def test_a_child_of_fork_reads_broadcasts_with_clients_and_locks_of_its_own(self):
        from bigcast import _spark

        [node] = self.nodes()
        value = {"numbers": bytearray(pattern(MIB))}
        with bigcast.connect(node.listen) as client:
            ref = client.put("matrix", _spark._pickled(value), mappable=True)
        place = self.place(ref, node.listen, node.local)
        used = bigcast.Broadcast(place)
        self.assertEqual(value, used.value)
        with _spark._clients._lock, _spark._values._lock:  # as another thread may have them
            child = os.fork()
            if child == 0:
                try:
                    signal.alarm(60)
                    same = bigcast.Broadcast(place).value == value and used.value == value
                    os._exit(0 if same else 1)
                finally:
                    os._exit(2)
        self.assertEqual(0, os.waitpid(child, 0)[1])

    def test_a_driver_that_cant_load_the_library_broadcasts_by_spark(self):
        class JavaClass(mock.Mock):  # what py4j has for the plugin's class
            pass

        support = JavaClass()
        support.connection.return_value = {
            "secret": "", "namespace": "default", "lease": os.urandom(16).hex(), "localNode": "",
            "servers": "127.0.0.1:1", "home": "", "chunkSize": MIB, "minSize": 1, "announceFrom": 0,
            "keepValue": "auto"}
        context = mock.Mock()
        context._jvm.io.bigcast.spark.PythonSupport = support
        made = context.broadcast.return_value
        made._jbroadcast.getClass().getSimpleName.return_value = "BigcastBroadcast"
        with self.without_library():
            self.assertIs(made, bigcast.broadcast(context, [1, pattern(9)]))
        given = context.broadcast.call_args[0][0]
        self.assertEqual([1, pattern(9)], pickle.loads(pickle.dumps(given)))
        self.assertIn("libbigcast.so can't be loaded", support.warn.call_args[0][0])

    def test_a_worker_that_cant_load_the_library_asks_its_executor(self):
        from bigcast import _spark

        value = [1, bytearray(pattern(MIB))]
        file = self.file("value", b"".join(_spark._pickled(value)))
        asked = []

        def answer(listener):
            worker, _ = listener.accept()
            with worker, worker.makefile("rw") as stream:
                asked.append(stream.readline())
                stream.write(f"ok {file}\n")

        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.file("bigcast-python", f"{listener.getsockname()[1]} token", 0o600)
            executor = threading.Thread(target=answer, args=(listener,), daemon=True)
            executor.start()
            place = self.place(b"ref")
            with self.without_library(), mock.patch.dict(os.environ, SPARK_LOCAL_DIRS=str(self.scratch)):
                self.assertEqual(value, bigcast.Broadcast(place).value)
            executor.join()
        self.assertEqual([f"token {place.name}\n"], asked)

    def test_a_worker_has_the_secret_from_its_executor(self):
        from bigcast import _spark

        node = self.node("--secret-file", str(self.file("secret", SECRET, 0o600)))
        with bigcast.connect(node.listen, secret=SECRET) as client:
            ref = client.put("matrix", _spark._pickled([1, 2]), mappable=True)
        broadcast = bigcast.Broadcast(self.place(ref, node.listen))
        with mock.patch.dict(os.environ, SPARK_LOCAL_DIRS=str(self.scratch)):
            with self.assertRaises(bigcast.BigcastError) as raised:
                broadcast.value
            self.assertEqual("UNAUTHENTICATED", raised.exception.code, raised.exception)
            self.file("bigcast-python-secret", SECRET, 0o600)
            self.assertEqual([1, 2], broadcast.value)

    def test_it_can_be_imported_from_a_zip(self):
        done = subprocess.run([sys.executable, "-c", "import bigcast; print(bigcast.__version__)"],
                              env={**os.environ, "PYTHONPATH": str(WHEEL)}, capture_output=True)
        self.assertEqual(0, done.returncode, done.stderr)


if __name__ == "__main__":
    EndToEnd.binaries = pathlib.Path(sys.argv.pop())
    [WHEEL] = pathlib.Path(sys.argv.pop()).glob("bigcast-*.whl")
    with tempfile.TemporaryDirectory(prefix="bigcast-wheel-") as folder:
        with zipfile.ZipFile(WHEEL) as wheel:
            wheel.extractall(folder)
        sys.path.insert(0, folder)
        import bigcast  # noqa: E402

        unittest.main(verbosity=2)
