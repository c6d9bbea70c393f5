"""The native library, by ctypes: what python/native/bigcast_c.h declares."""

import ctypes
import os
import pathlib
import pkgutil
import tempfile
import threading
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from typing import Any, Optional

REF_SIZE_MAX = 32 * 1024


class BigcastError(Exception):
    """What went wrong, as the node or the native library told it.

    ``code`` is one of the names in docs/PYTHON.md, for example ``"NOT_FOUND"``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Options(ctypes.Structure):
    _fields_ = [(name, c_char_p) for name in ("servers", "local_node", "secret", "secret_file",
                                              "name_space", "lease", "client_name")]


class PutOptions(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("size", c_uint64), ("announce_from", c_uint64),
                ("chunk_size", c_uint32), ("mappable", c_uint8), ("compress", c_uint8),
                ("until_removed", c_uint8), ("replace", c_uint8)]


_SIGNATURES = {
    "bigcast_error": (c_char_p, []),
    "bigcast_error_name": (c_char_p, [c_int]),
    "bigcast_version": (c_char_p, []),
    "bigcast_connect": (c_int, [POINTER(Options), POINTER(c_void_p)]),
    "bigcast_close": (None, [c_void_p]),
    "bigcast_upload_start": (c_int, [c_void_p, POINTER(PutOptions), POINTER(c_void_p)]),
    "bigcast_upload_write": (c_int, [c_void_p, c_void_p, c_size_t]),
    "bigcast_upload_seal": (c_int, [c_void_p, c_void_p, POINTER(c_size_t)]),
    "bigcast_upload_end": (None, [c_void_p]),
    "bigcast_find": (c_int, [c_void_p, c_char_p, c_void_p, POINTER(c_size_t)]),
    "bigcast_remove": (c_int, [c_void_p, c_char_p, c_size_t]),
    "bigcast_drop_copies": (c_int, [c_void_p, c_char_p, c_size_t]),
    "bigcast_download_start": (c_int, [c_void_p, c_char_p, c_size_t, POINTER(c_void_p)]),
    "bigcast_download_size": (c_uint64, [c_void_p]),
    "bigcast_download_next": (c_int, [c_void_p, POINTER(c_void_p), POINTER(c_size_t)]),
    "bigcast_download_end": (None, [c_void_p]),
    "bigcast_map": (c_int, [c_void_p, c_char_p, c_size_t, POINTER(c_void_p), POINTER(c_void_p),
                            POINTER(c_uint64)]),
    "bigcast_unmap": (None, [c_void_p]),
    "bigcast_verify": (c_int, [c_char_p, c_size_t, c_void_p, c_uint64]),
}
_lock = threading.Lock()
_loaded: Optional[ctypes.CDLL] = None


def library() -> ctypes.CDLL:
    """The library, loaded at the first call. UNSUPPORTED if this host can't load it."""
    global _loaded
    with _lock:
        if _loaded is None:
            try:
                loaded = _load()
            except OSError as error:  # musl, say, or nothing in the temporary directory may be run
                raise BigcastError("UNSUPPORTED", f"libbigcast.so can't be loaded: {error}") from error
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, arguments
            _loaded = loaded
        return _loaded


def _load() -> ctypes.CDLL:
    path = pathlib.Path(__file__).with_name("libbigcast.so")
    if path.is_file():
        return ctypes.CDLL(str(path))
    # Imported from a zip, as Spark's --py-files does.
    data = pkgutil.get_data(__package__, "libbigcast.so")
    if data is None:
        raise OSError(f"{path} is missing")
    with tempfile.NamedTemporaryFile(prefix="libbigcast-", suffix=".so") as file:
        file.write(data)
        file.flush()
        os.chmod(file.name, 0o700)
        return ctypes.CDLL(file.name)


def version() -> str:
    text: bytes = library().bigcast_version()
    return text.decode()


def check(code: int) -> None:
    """Raises what a function of the library returned, if it is an error."""
    if code:
        native = library()
        raise BigcastError(native.bigcast_error_name(code).decode(),
                           native.bigcast_error().decode(errors="replace"))


def new_handle(function: Any, *arguments: Any) -> int:
    """Calls what gives a handle by its last argument; returns the handle."""
    handle = c_void_p()
    check(function(*arguments, byref(handle)))
    assert handle.value is not None
    return handle.value


def filled_ref(function: Any, *arguments: Any) -> bytes:
    """Calls what writes a ref; returns the ref."""
    buffer = ctypes.create_string_buffer(REF_SIZE_MAX)
    size = c_size_t(len(buffer))
    check(function(*arguments, buffer, byref(size)))
    return buffer.raw[:size.value]


def encoded(text: Optional[str]) -> Optional[bytes]:
    return None if text is None else text.encode()
