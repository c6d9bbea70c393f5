"""Broadcasts for PySpark that k workers of a host share.

The value is pickled with protocol 5; large buffers (NumPy, Arrow) are kept out of the pickle, each
beginning on a page, in a mappable blob. A worker maps the blob and unpickles around the buffers.
"""

import contextlib
import functools
import gc
import io
import mmap
import os
import pickle
import socket
import struct
import threading
import time
import weakref
from typing import Any, Callable, Dict, Generic, List, NamedTuple, Optional, Tuple, TypeVar

from ._client import Blob, Client, is_content_of
from ._native import BigcastError

T = TypeVar("T")

PAGE = 4096
OUT_OF_BAND_MIN = 64 * 1024  #: smaller buffers stay in the pickle
NODE_START_S = 5.0  #: a host's node may be about to start when its first task runs

_MAGIC = b"bigcast1"
_HEADER = struct.Struct("<8sQQ")  # magic, bytes of the pickle, buffers; then each one's
_BUFFER = struct.Struct("<QQ")  # offset, size; then the pickle; then the buffers
_RAW = b"raw1"  # pickled for a value that is all one buffer
# The reader can do without the node of its host, or with a copy from elsewhere.
_COPY_INSTEAD = {"NOT_MAPPABLE", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNSUPPORTED"}


def broadcast(sc: Any, value: T) -> "Broadcast[T]":
    """Broadcasts ``value``; use the result as you would that of ``sc.broadcast``.

    In tasks, ``.value`` has read-only arrays over the memory of the host's node, which all workers
    of the host share. ``bytes``, ``bytearray`` and ``memoryview`` come as a read-only memoryview.
    The value lives until ``destroy()`` or the end of the application.

    Without the Bigcast plugin, below ``spark.bigcast.minSize``, and where Bigcast can't take it, this
    is ``sc.broadcast(value)``, where ``bytes`` and ``bytearray`` stay what they are and a memoryview
    comes as ``bytes``. What can't be pickled raises what pickle raises.
    """
    try:
        application = _application(sc)
        if application is not None:
            parts = _pickled(value)
            if sum(part.nbytes for part in parts) >= application.min_size:
                return _put(sc, application, parts, value)
        return _by_spark(sc, value)
    except BigcastError as error:
        return _by_spark(sc, value, error)


def _by_spark(sc: Any, value: T, why: Optional[BigcastError] = None) -> "Broadcast[T]":
    """Of another type, which is used in the same way."""
    made: Any = sc.broadcast(_ForSpark(value))
    # Bigcast may take it in that form. If it does not, the plugin has just said why.
    if why is not None and made._jbroadcast.getClass().getSimpleName() == "BigcastBroadcast":
        _support(sc).warn("a broadcast goes by sc.broadcast, so that each Python worker makes a value of"
                          f" its own: {why}")
    return made  # type: ignore[no-any-return]


class _ForSpark:
    """Is unpickled as the value. sc.broadcast pickles by Python's pickler, which can't send all that
    Spark's can."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __reduce__(self) -> Any:
        buffers: List[pickle.PickleBuffer] = []  # not in the inner pickle: they are not copied
        stream = _dumped(self._value, buffers.append).getvalue()
        return functools.partial(pickle.loads, buffers=buffers), (stream,)


class _Place(NamedTuple):
    """Where a broadcast is, as tasks carry it: with no secret, since closures go over the network in
    clear unless Spark encrypts."""

    ref: bytes
    name: str  #: of the blob
    servers: str
    local_node: str
    namespace: str
    lease: str

    def client_key(self) -> Tuple[str, ...]:
        return self[2:]


class Broadcast(Generic[T]):
    """A value that Bigcast carries; made by :func:`broadcast`."""

    def __init__(self, place: _Place, value: Optional[T] = None, is_driver: bool = False) -> None:
        self._place: Optional[_Place] = place
        self._is_driver = is_driver
        self._local = value

    @property
    def value(self) -> T:
        """The value. In tasks it is made at the first use and kept for the tasks that follow.

        Raises BigcastError if no node has it any more, and the driver neither.
        """
        place = self._use()
        if self._local is None and not self._is_driver:
            self._local = _values.get(place, self)
        return self._local  # type: ignore[return-value]

    def unpersist(self, blocking: bool = False) -> None:
        """Has the executors' hosts give up their copies; they fetch it again if it is used again."""
        place = self._use()
        _clients.get(place).drop_copies(place.ref)

    def destroy(self, blocking: bool = False) -> None:
        """Frees it everywhere. It can't be used after this."""
        place = self._use()
        self._place, self._local = None, None
        _keeper.forget(place.name)
        try:
            _clients.get(place).remove(place.ref)
        except BigcastError as error:
            if error.code not in ("NOT_FOUND", "UNAVAILABLE"):  # or its home has died, and it with it
                raise

    def __reduce__(self) -> Any:
        return Broadcast, (self._use(),)

    def _use(self) -> _Place:
        if self._place is None:
            raise ValueError("attempted to use a broadcast after it was destroyed")
        return self._place


# ---- The driver.


class _Application(NamedTuple):
    driver: _Place  # without a ref: how the driver connects
    tasks: _Place
    chunk_size: int
    min_size: int
    announce_from: int
    keeps_value: bool


def _application(sc: Any) -> Optional[_Application]:
    """How this application reaches Bigcast; None if its broadcasts stay with Spark. BigcastError if it
    does not reach it."""
    support = getattr(getattr(sc, "_jvm", None), "io", None)
    support = support and support.bigcast.spark.PythonSupport
    if support is None or type(support).__name__ != "JavaClass":
        return None  # the jar is not there
    try:
        options = support.connection()
    except Exception as error:  # what py4j makes of a BigcastException
        cause = getattr(error, "java_exception", None)
        if cause is None:
            raise
        raise BigcastError("UNAVAILABLE", str(cause.getMessage())) from None
    if options is None:
        return None
    _secrets[options["lease"]] = options["secret"]
    driver = _Place(b"", "", options["servers"], options["localNode"], options["namespace"],
                    options["lease"])
    tasks = driver._replace(servers=options["servers"] or options["home"])
    return _Application(driver, tasks, int(options["chunkSize"]), int(options["minSize"]),
                        int(options["announceFrom"]), options["keepValue"] != "never")


def _put(sc: Any, application: _Application, parts: List[memoryview], value: T) -> Broadcast[T]:
    name = f"{application.driver.lease}/python-{os.urandom(8).hex()}"
    start = time.monotonic()
    ref = _clients.get(application.driver).put(
        name, parts, mappable=True, compress=False, until_removed=False,
        chunk_size=application.chunk_size, announce_from=application.announce_from)
    sent = sum(part.nbytes for part in parts) / (1 << 20)
    log = sc._jvm.org.slf4j.LoggerFactory.getLogger("io.bigcast.spark.Bigcast")  # the plugin's
    log.info(f"a broadcast of Python's: {sent:.1f} MiB to Bigcast in {time.monotonic() - start:.2f} s")
    if application.keeps_value:
        _keeper.keep(sc, name, ref, value)
    return Broadcast(application.tasks._replace(ref=ref, name=name), value, is_driver=True)


class _Kept(NamedTuple):
    sc: Any
    ref: bytes
    value: Any


class _Keeper:
    """The values of the driver's broadcasts, for workers that can't read one any more: a thread waits
    until the JVM tells of one, pickles it again and gives it to ``sc.broadcast``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Dict[str, _Kept] = {}
        self._thread: Optional[threading.Thread] = None

    def keep(self, sc: Any, name: str, ref: bytes, value: Any) -> None:
        _support(sc).made(name)
        with self._lock:
            self._kept[name] = _Kept(sc, ref, value)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(sc,), daemon=True,
                                                name="bigcast-keeper")
                self._thread.start()

    def forget(self, name: str) -> None:
        with self._lock:
            kept = self._kept.pop(name, None)
        if kept is not None:
            _support(kept.sc).destroyed(name)
            with contextlib.suppress(FileNotFoundError):  # most are never needed
                os.unlink(_file_of(kept.sc, name))

    def _run(self, sc: Any) -> None:
        support = _support(sc)
        name = None
        while name != "":
            if name is not None:
                self._replace(support, name)
            try:
                name = support.nextLost()
            except Exception:  # the JVM has gone
                name = ""
        with self._lock:
            self._thread = None
            self._kept = {name: kept for name, kept in self._kept.items() if kept.sc is not sc}

    def _replace(self, support: Any, name: str) -> None:
        with self._lock:
            kept = self._kept.get(name)
        try:
            if kept is not None:  # else it was destroyed meanwhile
                support.replaced(name, self._given_to_spark(name, kept))
        except Exception as failure:
            support.notReplaced(name, f"the driver can't give its value again: {failure}")

    def _given_to_spark(self, name: str, kept: _Kept) -> Any:
        sc = kept.sc
        path = _file_of(sc, name)
        with open(path, "xb") as file:
            for part in _pickled(kept.value):
                file.write(part)
        if not is_content_of(kept.ref, _mapped(path)):
            raise ValueError("it has been changed since it was broadcast")
        return sc._jsc.broadcast(sc._jvm.PythonRDD.setupBroadcast(path))


def _file_of(sc: Any, name: str) -> str:
    """Of the driver, for what was a blob of this name."""
    return os.path.join(sc._temp_dir, name.rpartition("/")[2])


def _mapped(path: str) -> memoryview:
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))


def _support(sc: Any) -> Any:
    return sc._jvm.io.bigcast.spark.PythonSupport


# ---- The form of a blob.


def _pickled(value: Any) -> List[memoryview]:
    """The parts of a blob, to be joined."""
    buffers: List[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_MIN:
            return True  # into the pickle
        buffers.append(raw)
        return False

    if type(value) in (bytes, bytearray, memoryview):
        stream = _RAW
        view = memoryview(value)
        buffers.append(pickle.PickleBuffer(view if view.c_contiguous else view.tobytes()).raw())
    else:
        stream = _dumped(value, keep).getbuffer()
    table = _HEADER.size + _BUFFER.size * len(buffers)
    offset = _pages(table + len(stream))
    header = bytearray(_HEADER.pack(_MAGIC, len(stream), len(buffers)))
    parts = []
    for buffer in buffers:
        header += _BUFFER.pack(offset, buffer.nbytes)
        padding = _pages(buffer.nbytes) - buffer.nbytes
        parts += [buffer, memoryview(bytes(padding))] if padding else [buffer]
        offset += buffer.nbytes + padding
    head = bytes(header) + bytes(stream)
    head += bytes(_pages(len(head)) - len(head))
    return [memoryview(head), *parts]


def _unpickled(view: memoryview) -> Any:
    magic, size, count = _HEADER.unpack_from(view)
    if magic != _MAGIC:
        raise BigcastError("CORRUPT", "the blob is no broadcast of this package's version")
    places = [_BUFFER.unpack_from(view, _HEADER.size + i * _BUFFER.size) for i in range(count)]
    begin = _HEADER.size + count * _BUFFER.size
    stream = view[begin:begin + size]
    buffers = [view[offset:offset + length] for offset, length in places]
    if stream == _RAW:
        return buffers[0]
    return pickle.loads(stream, buffers=buffers)


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _dumped(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any]) -> io.BytesIO:
    """By Spark's pickler, which can pickle functions and classes of the main program."""
    try:
        from pyspark.cloudpickle import CloudPickler as Pickler
    except ImportError:
        from pickle import Pickler
    file = io.BytesIO()
    Pickler(file, protocol=5, buffer_callback=buffer_callback).dump(value)
    return file


# ---- What a process has; a child of fork starts with nothing.


class _Clients:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: Dict[Tuple[str, ...], Client] = {}

    def get(self, place: _Place) -> Client:
        with self._lock:
            key = place.client_key()
            client = self._clients.get(key)
            if client is None:
                servers = [server for server in place.servers.split(",") if server]
                client = Client(servers, place.local_node or None, _secret_of(place.lease),
                                None, place.namespace, place.lease,
                                "spark-python")
                self._clients[key] = client
            return client


def _from_executor(name: str) -> str:
    """What the executor's JVM has written for its workers (WorkerFile.java)."""
    directory = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0]
    if not directory:
        raise FileNotFoundError(name)
    with open(os.path.join(directory, name), encoding="ascii") as file:
        return file.read()


def _secret_of(lease: str) -> Optional[str]:
    """Of the nodes of the application that has the lease; in a worker from the file that the executor's
    JVM has written for it (PythonSecret.java)."""
    if lease in _secrets:
        return _secrets[lease] or None
    try:
        return _from_executor("bigcast-python-secret")
    except FileNotFoundError:
        return None  # a node that wants one says so
    except OSError as error:
        raise BigcastError("PERMISSION_DENIED", f"the executor's secret: {error}") from None


class _Values:
    """The values that tasks use, or that the last one used: each task has a Broadcast of its own, and
    may want what the one before it had. What has none any more goes when another value comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Dict[bytes, Tuple[Any, "weakref.WeakSet[Broadcast[Any]]"]] = {}

    def get(self, place: _Place, user: Broadcast[Any]) -> Any:
        with self._lock:
            if place.ref not in self._values:
                if self._values:
                    gc.collect()  # a task's closure is often part of a cycle
                self._values = {ref: kept for ref, kept in self._values.items() if len(kept[1])}
                self._values[place.ref] = (_unpickled(_view(place)), weakref.WeakSet())
            value, users = self._values[place.ref]
            users.add(user)
            return value


def _view(place: _Place) -> memoryview:
    try:
        return _open(place).view
    except BigcastError as lost:
        try:
            path = _help(place.name)
        except (OSError, ValueError) as error:
            raise BigcastError(lost.code, f"{lost.message}; and nothing replaces it: {error}") from None
    return _mapped(path)  # workers share its pages


def _help(name: str) -> str:
    """A file with the broadcast's bytes, from the executor's JVM (PythonHelp.java)."""
    port, token = _from_executor("bigcast-python").split()
    with socket.create_connection(("127.0.0.1", int(port))) as executor:
        executor.sendall(f"{token} {name}\n".encode("ascii"))
        kind, _, what = executor.makefile(encoding="utf-8").readline().strip().partition(" ")
    if kind != "ok":
        raise ValueError(what or "the executor did not answer")
    return what


def _open(place: _Place) -> Blob:
    client = _clients.get(place)
    deadline = time.monotonic() + NODE_START_S
    while True:
        try:
            return client.open(place.ref, mapped=True)
        except BigcastError as error:
            if error.code not in _COPY_INSTEAD:
                raise
            starting = error.code == "UNAVAILABLE" and not _answers(place.local_node)
            if not starting or time.monotonic() > deadline:
                return client.open(place.ref, mapped=False)
        time.sleep(0.05)


def _answers(node: str) -> bool:
    """Whether there is a node at "unix:@name" or "unix:/path", or none is expected."""
    if not node:
        return True
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            path = node[len("unix:"):]
            caller.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            return False
    return True


def _start_anew() -> None:
    global _clients, _values, _keeper
    _clients, _values, _keeper = _Clients(), _Values(), _Keeper()


_secrets: Dict[str, str] = {}  #: of the driver's applications, by lease
_clients, _values, _keeper = _Clients(), _Values(), _Keeper()
os.register_at_fork(after_in_child=_start_anew)
