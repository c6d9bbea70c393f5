"""A connection to Bigcast, and blobs read through it."""

import ctypes
import mmap
import os
import pickle
from ctypes import byref, c_size_t, c_uint64, c_void_p
from typing import Any, Iterable, List, Optional, Union

from ._native import BigcastError, Options, PutOptions, check, encoded, filled_ref, library, new_handle

_SIZE_UNKNOWN = (1 << 64) - 1


def connect(servers: Union[str, Iterable[str]] = (), *, local_node: Optional[str] = None,
            secret: Optional[str] = None, secret_file: Optional[str] = None,
            namespace: str = "default", lease: Optional[str] = None,
            name: str = "python") -> "Client":
    """Connects to a node.

    ``servers``: ``"host:port"`` of the nodes to put to and to find names at, tried in order.
    ``local_node``: ``"unix:@name"`` or ``"unix:/path"`` of this host's node, which fetches for all
    processes here; only through it blobs can be mapped. ``secret`` or ``secret_file``: of nodes that
    have one. ``lease``: 32 hexadecimal digits; blobs put without ``until_removed`` live as long as
    somebody is connected with it.

    Raises BigcastError: UNAVAILABLE if nobody answers, UNAUTHENTICATED, INVALID_ARGUMENT, UNSUPPORTED
    if the native library can't be loaded.
    """
    return Client([servers] if isinstance(servers, str) else list(servers), local_node, secret,
                  secret_file, namespace, lease, name)


class Client:
    """A connection, made by :func:`connect`. Thread-safe; usable by the process that made it only:
    after a fork, connect again. Use it as a context manager, or ``close`` it."""

    def __init__(self, servers: List[str], local_node: Optional[str], secret: Optional[str],
                 secret_file: Optional[str], namespace: str, lease: Optional[str],
                 name: str) -> None:
        self._handle: Optional[int] = None
        self._process = os.getpid()
        self._library = library()
        options = Options(encoded(",".join(servers)), encoded(local_node), encoded(secret),
                          encoded(secret_file), encoded(namespace), encoded(lease), encoded(name))
        self._handle = new_handle(self._library.bigcast_connect, byref(options))
        self._has_lease = bool(lease)

    def put(self, name: str, data: Any, *, mappable: bool = False, compress: bool = True,
            until_removed: Optional[bool] = None, replace: bool = False,
            chunk_size: int = 0, announce_from: int = 0) -> bytes:
        """Uploads ``data``, an object with the buffer protocol or an iterable of them (which are
        joined), as the blob ``name``; returns its ref, by which any client can read it.

        ``mappable``: readers on a node's host may map it; it is then not compressed.
        ``until_removed``: it lives until it is removed (the default without a lease), not as long as
        the lease. ``replace``: takes the name from the blob that has it. ``chunk_size``: bytes, 64
        KiB to 16 MiB; 0: 4 MiB. ``announce_from``: if it has so many bytes, hosts that follow this
        home fetch it at once; 0: never.
        """
        parts = _raw_parts(data)
        if until_removed is None:
            until_removed = not self._has_lease
        options = PutOptions(encoded(name), sum(part.nbytes for part in parts), announce_from,
                             chunk_size, mappable, compress, until_removed, replace)
        upload = new_handle(self._library.bigcast_upload_start, self._use(), byref(options))
        try:
            for part in parts:
                with _Address(part) as address:
                    check(self._library.bigcast_upload_write(upload, address, part.nbytes))
            return filled_ref(self._library.bigcast_upload_seal, upload)
        finally:
            self._library.bigcast_upload_end(upload)

    def find(self, name: str) -> bytes:
        """The ref of the blob that has this name now. NOT_FOUND if there is none."""
        return filled_ref(self._library.bigcast_find, self._use(), encoded(name))

    def get(self, blob: Union[str, bytes]) -> bytes:
        """All bytes of a blob, verified, by its name or ref."""
        return bytes(self.open(blob, mapped=False).view)

    def open(self, blob: Union[str, bytes], *, mapped: Optional[bool] = None) -> "Blob":
        """Opens a blob by its name or ref.

        ``mapped``: True: in place, in the local node's memory, or NOT_MAPPABLE. False: a private
        copy. None: in place if that is possible.
        """
        ref = self.find(blob) if isinstance(blob, str) else bytes(blob)
        if mapped is not False:
            try:
                return self._map(ref)
            except BigcastError as error:
                if mapped or error.code != "NOT_MAPPABLE":
                    raise
        return self._copy(ref)

    def remove(self, blob: Union[str, bytes]) -> None:
        """Removes a blob by its name or ref. What readers have of it they keep."""
        ref = self.find(blob) if isinstance(blob, str) else bytes(blob)
        check(self._library.bigcast_remove(self._use(), ref, len(ref)))

    def drop_copies(self, ref: bytes) -> None:
        """Has all hosts but the blob's home give up their copies."""
        check(self._library.bigcast_drop_copies(self._use(), ref, len(ref)))

    def close(self) -> None:
        """Disconnects. Mapped blobs stay as long as there are views of them."""
        handle, self._handle = self._handle, None
        if handle is not None and os.getpid() == self._process:
            self._library.bigcast_close(handle)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self, _getpid: Any = os.getpid) -> None:
        if getattr(self, "_handle", None) is not None and _getpid() == self._process:
            self.close()

    def _use(self) -> int:
        if os.getpid() != self._process:
            raise BigcastError("INVALID_ARGUMENT", "this client is another process's: connect again")
        if self._handle is None:
            raise BigcastError("INVALID_ARGUMENT", "this client is closed")
        return self._handle

    def _map(self, ref: bytes) -> "Blob":
        mapping, address, size = c_void_p(), c_void_p(), c_uint64()
        check(self._library.bigcast_map(self._use(), ref, len(ref), byref(mapping), byref(address),
                                        byref(size)))
        assert mapping.value is not None and address.value is not None
        owner = _Mapping(self._library, mapping.value)
        memory = (ctypes.c_ubyte * size.value).from_address(address.value)
        memory._owner = owner  # type: ignore[attr-defined]  # views keep it, and it keeps the mapping
        return Blob(ref, memory, True)

    def _copy(self, ref: bytes) -> "Blob":
        download = new_handle(self._library.bigcast_download_start, self._use(), ref, len(ref))
        try:
            return Blob(ref, self._read(download), False)
        finally:
            self._library.bigcast_download_end(download)

    def _read(self, download: int) -> Any:
        parts: List[bytes] = []
        whole: Any = None
        done = 0
        chunk, size = c_void_p(), c_size_t()
        while True:
            check(self._library.bigcast_download_next(download, byref(chunk), byref(size)))
            if size.value == 0:
                return b"".join(parts) if whole is None else whole
            if whole is None and not parts:
                total = self._library.bigcast_download_size(download)
                if total != _SIZE_UNKNOWN:
                    whole = mmap.mmap(-1, total)  # page-aligned, as what is mapped
            if whole is None:  # it is still being written
                parts.append(ctypes.string_at(chunk.value or 0, size.value))
                continue
            target = (ctypes.c_char * size.value).from_buffer(whole, done)
            ctypes.memmove(target, chunk, size.value)
            del target
            done += size.value


class Blob:
    """A blob's bytes, all of them. ``view`` is read-only and stays valid however long it, or whatever
    was made from it (a slice, a NumPy array), lives; the memory is given back after the last."""

    def __init__(self, ref: bytes, memory: Any, mapped: bool) -> None:
        self.ref = ref
        self.mapped = mapped  #: in the node's memory, not in a copy of this process's
        self.view: memoryview = pickle.PickleBuffer(memory).raw().toreadonly()

    def __len__(self) -> int:
        return self.view.nbytes


def is_content_of(ref: bytes, content: Any) -> bool:
    """Whether these are the bytes of the mappable blob with this ref."""
    view = memoryview(content)
    try:
        with _Address(view) as address:
            check(library().bigcast_verify(ref, len(ref), address, view.nbytes))
    except BigcastError as error:
        if error.code != "CORRUPT":
            raise
        return False
    return True


class _Mapping:
    """Unmaps when it goes: when no view of the memory is left."""

    def __init__(self, native: ctypes.CDLL, handle: int) -> None:
        self._unmap = native.bigcast_unmap
        self._handle = handle

    def __del__(self) -> None:
        self._unmap(self._handle)  # does nothing in a child of fork


class _Address:
    """The address of a buffer's bytes, while the context lasts."""

    def __init__(self, view: memoryview) -> None:
        self._buffer = _PyBuffer()
        self._object = ctypes.py_object(view)

    def __enter__(self) -> c_void_p:
        ctypes.pythonapi.PyObject_GetBuffer(self._object, byref(self._buffer), 0)
        return c_void_p(self._buffer.buf)

    def __exit__(self, *_: Any) -> None:
        ctypes.pythonapi.PyBuffer_Release(byref(self._buffer))


class _PyBuffer(ctypes.Structure):
    """Py_buffer of the stable ABI (PEP 688 gives its layout)."""

    _fields_ = [("buf", c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
                ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
                ("format", ctypes.c_char_p), ("shape", c_void_p), ("strides", c_void_p),
                ("suboffsets", c_void_p), ("internal", c_void_p)]


def _raw_parts(data: Any) -> List[memoryview]:
    """Flat views of what is to be joined."""
    try:
        return [pickle.PickleBuffer(data).raw()]
    except TypeError:
        return [pickle.PickleBuffer(part).raw() for part in data]
